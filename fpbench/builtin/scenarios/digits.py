"""Handwritten digits from scikit-learn. They need no download, and train in seconds on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fpbench import Classification, Pool


class Residual(nn.Module):
    """A residual block: two normalised convolutions and a skip connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = (x + self.body(x)).relu()
        return out


def mlp() -> nn.Module:
    """Return a fully connected network, 64-128-64-10."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(),
        nn.Linear(64, 10),
    )  # fmt: skip


def cnn() -> nn.Module:
    """Return a network of two convolutions and two linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def resnet() -> nn.Module:
    """Return a stem, a residual block with batch normalisation, and global average pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        Residual(16),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


@dataclass(frozen=True)
class Digits(Classification):
    """Ten classes of images of 8 x 8 pixels, 1,797 in total (UCI, Alpaydin and Kaynak 1998)."""

    name = "digits"
    summary = "scikit-learn digits: 1,797 images of 8 x 8, 10 classes (UCI optdigits, test part)"
    input_shape = (1, 8, 8)
    output_shape = (10,)
    input_range = (0.0, 1.0)
    architectures = {"mlp": mlp, "cnn": cnn, "resnet": resnet}  # noqa: RUF012

    def load(self) -> Mapping[str, Pool]:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        x = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16
        y = torch.tensor(labels)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        sizes = {"train": 700, "public": 700, "test": 397}
        parts = order.split(list(sizes.values()))
        pools = {name: Pool(x[i], y[i]) for name, i in zip(sizes, parts, strict=True)}
        return {**pools, "irrelevant": photographs()}


def photographs() -> Pool:
    """Return the pool of another domain: grey 8 x 8 patches of scikit-learn's two sample photos.

    A patch's class says which of the two photos and which fifth of its height it comes from.
    """
    from sklearn.datasets import load_sample_images

    patches, labels = [], []
    for photo, image in enumerate(load_sample_images().images):
        grey = torch.tensor(image, dtype=torch.float32).mean(2) / 255
        small = nn.functional.avg_pool2d(grey[None, None], 4)[0, 0]
        tiles = small.unfold(0, 8, 8).unfold(1, 8, 8)  # (rows, columns, 8, 8)
        rows, columns = tiles.shape[:2]
        patches.append(tiles.reshape(-1, 1, 8, 8))
        fifth = torch.arange(rows) * 5 // rows
        labels.append((5 * photo + fifth).repeat_interleave(columns))
    return Pool(torch.cat(patches), torch.cat(labels))
