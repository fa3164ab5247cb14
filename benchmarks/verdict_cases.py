"""Three tasks for benchmarks/verdicts.py, with data that neither the owner nor fpbench has.

The pools "train" and "public" are what a case's reference population is trained on; `strangers` is
the data of everybody else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fpbench import Classification, Pool, hookimpl
from fpbench.builtin.scenarios import fmnist
from fpbench.builtin.scenarios.digits import Digits, Residual
from fpbench.builtin.scenarios.warfarin import Warfarin


def split(x: Tensor, y: Tensor, sizes: Sequence[int]) -> list[Pool]:
    """Return pools of the sizes, drawn at random, and a last one with the rest."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(7))
    parts = order.split([*sizes, len(x) - sum(sizes)])
    return [Pool(x[i], y[i]) for i in parts]


NAMES = ("train", "public", "strangers", "test")


class _Resplit:
    """Splits the pools of another scenario anew, with one for strangers."""

    sizes: Sequence[int]

    def load(self) -> Mapping[str, Pool]:
        pools = super().load()  # type: ignore[misc]
        x, y = (torch.cat([pools[name][i] for name in ("train", "public", "test")]) for i in (0, 1))
        made = dict(zip(NAMES, split(x, y, self.sizes), strict=True))
        return {**made, "irrelevant": pools["irrelevant"]}


@dataclass(frozen=True)
class CourtDigits(_Resplit, Digits):
    """Handwritten digits: 450 images each of the owner, the public and strangers."""

    name = "court_digits"
    sizes = (450, 450, 450)


@dataclass(frozen=True)
class CourtWarfarin(_Resplit, Warfarin):
    """Doses of warfarin: 1,500 patients each of the owner, the public and strangers."""

    name = "court_warfarin"
    sizes = (1500, 1500, 1500)


def cnn(width: int = 8) -> nn.Module:
    """Return a network of two convolutions and one linear layer for images of 28 x 28."""
    return nn.Sequential(
        nn.Conv2d(1, width, 5, stride=2, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(2 * width * 9, 10),
    )  # fmt: skip


def mlp() -> nn.Module:
    """Return a fully connected network, 784-100-10."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))


def resnet() -> nn.Module:
    """Return a stem of stride 4 and a residual block for images of 28 x 28."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=4, padding=2, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        Residual(16), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


@dataclass(frozen=True)
class CourtClothes(Classification):
    """FashionMNIST: 3,000 images each of the owner, the public and strangers."""

    name = "court_clothes"
    summary = "FashionMNIST: 9,000 images of 28 x 28 to train on, 2,000 to test, 10 classes"
    input_shape = (1, 28, 28)
    output_shape = (10,)
    input_range = (0.0, 1.0)
    architectures = {"cnn": cnn, "mlp": mlp, "resnet": resnet}  # noqa: RUF012

    @property
    def files(self) -> Mapping[str, Sequence[Path]]:
        return {name: fmnist.file(name).places() for name in fmnist.SHA256}

    def load(self) -> Mapping[str, Pool]:
        x = torch.tensor(fmnist.read("train-images-idx3-ubyte.gz"))[:12000, None] / 255
        y = torch.tensor(fmnist.read("train-labels-idx1-ubyte.gz"))[:12000].long()
        *pools, rest = split(x, y, (3000, 3000, 3000, 2000))
        made = dict(zip(NAMES, pools, strict=True))
        # Another domain: the same pictures, with their four quarters exchanged.
        return {**made, "irrelevant": Pool(rest.inputs.roll((14, 14), (2, 3)), rest.truth)}


@hookimpl
def fpbench_scenarios() -> list[type]:
    return [CourtDigits, CourtClothes, CourtWarfarin]
