"""Fashion generation: a DCGAN on FashionMNIST (MetaV, section 5.1, Tables 1 and 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from fpbench import Generation, Pool

from . import fmnist
from .frechet import classifier, features, frechet
from .table3 import composition

LATENT = 100
TEST = 2_500
LABELLED = 12_000


def dcgan_generator() -> nn.Module:
    """Return the generator of Table 1: four transposed convolutions, 100-128-64-32-1."""
    return drawn(
        nn.Unflatten(1, (LATENT, 1, 1)),
        nn.ConvTranspose2d(LATENT, 128, 4, 1, 0, bias=False), nn.BatchNorm2d(128), nn.ReLU(),
        nn.ConvTranspose2d(128, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.ConvTranspose2d(64, 32, 4, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.ConvTranspose2d(32, 1, 4, 2, 1, bias=False), nn.Tanh(),
    )  # fmt: skip


def dcgan_discriminator() -> nn.Module:
    """Return the discriminator of Table 1: four convolutions, 1-32-64-128-1.

    Its Sigmoid is part of the loss.
    """
    return drawn(
        nn.Conv2d(1, 32, 4, 2, 1, bias=False), nn.LeakyReLU(0.2),
        nn.Conv2d(32, 64, 4, 2, 1, bias=False), nn.BatchNorm2d(64), nn.LeakyReLU(0.2),
        nn.Conv2d(64, 128, 3, 2, 1, bias=False), nn.BatchNorm2d(128), nn.LeakyReLU(0.2),
        nn.Conv2d(128, 1, 4, 1, 0, bias=False), nn.Flatten(),
    )  # fmt: skip


def drawn(*layers: nn.Module) -> nn.Module:
    """Return layers with weights drawn from N(0, 0.02^2), as in DCGAN (ICLR 2016, section 4)."""
    for layer in layers:
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, 0.0, 0.02)
    return nn.Sequential(*layers)


def linear_generator(k: int) -> nn.Module:
    """Return the generator of Table 4, 100-64k-128k-256k-784, with samples in [-1, 1] by Tanh."""
    widths = (LATENT, 64 * k, 128 * k, 256 * k, 28 * 28)
    return nn.Sequential(*linear(widths), nn.Tanh(), nn.Unflatten(1, (1, 28, 28)))


def linear_discriminator(k: int) -> nn.Module:
    """Return the discriminator of Table 4, 784-256k-128k-64k-1."""
    return nn.Sequential(nn.Flatten(), *linear((28 * 28, 256 * k, 128 * k, 64 * k, 1)))


def linear(widths: tuple[int, ...]) -> list[nn.Module]:
    """Return fully connected layers with ReLU between them."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return layers[:-1]


SIZES = {"s": 2, "m": 4, "l": 8}
"""k = 2^s of Table 4, s = 1, 2, 3."""


@dataclass(frozen=True)
class Fashion(Generation):
    """Generation of clothes: grey images of 28 x 28 in [-1, 1] from latent codes of 100 numbers.

    Codes are drawn uniformly from [-1, 1]. The split of the training images is fixed: half belong
    to the owner ("train"), half to the attacker ("public"). "test" is the first 2,500 official test
    images. "irrelevant" is another domain: scikit-learn's handwritten digits, enlarged from 8 x 8
    and repeated until there are as many as in "train".

    images: the number of training images, of 60,000, that the owner and the attacker get.

    The architectures are the paper's: xl is the target's DCGAN (Table 1); s, m and l are fully
    connected (Table 4). Each has the discriminator of its table.
    """

    name = "fashion"
    summary = "FashionMNIST: 60,000 + 10,000 images of 28 x 28 (Zalando Research, 2017; MIT)"
    input_shape = (LATENT,)
    output_shape = (1, 28, 28)
    input_range = (-1.0, 1.0)
    table3 = composition(
        {"s": (6, 20), "m": (6, 10), "l": (2, 10), "xl": (0, 20)},
        pruned_weights=18, pruned_filters=30,
    )  # fmt: skip
    architectures = {  # noqa: RUF012
        **{size: partial(linear_generator, k) for size, k in SIZES.items()},
        "xl": dcgan_generator,
    }
    discriminators = {  # noqa: RUF012
        **{size: partial(linear_discriminator, k) for size, k in SIZES.items()},
        "xl": dcgan_discriminator,
    }

    images: Annotated[int, Field(ge=2, le=60_000)] = 60_000

    @property
    def pool_sizes(self) -> Mapping[str, int]:
        owner = (self.images + 1) // 2
        return {"train": owner, "public": self.images - owner, "irrelevant": owner, "test": TEST}

    @property
    def files(self) -> Mapping[str, Sequence[Path]]:
        return {name: fmnist.file(name).places() for name in fmnist.SHA256}

    def load(self) -> Mapping[str, Pool]:
        rng = torch.Generator().manual_seed(20170825)
        clothes = torch.tensor(fmnist.read("train-images-idx3-ubyte.gz"))
        dealt = torch.randperm(len(clothes), generator=rng)[: self.images]
        owner, attacker = dealt.chunk(2)
        real = {
            "train": scaled(clothes[owner]),
            "public": scaled(clothes[attacker]),
            "test": scaled(torch.tensor(fmnist.read("t10k-images-idx3-ubyte.gz")[:TEST])),
            "irrelevant": digits(len(owner)),
        }
        return {name: Pool(self.latents(len(x), rng), x) for name, x in real.items()}

    def pictures(self, output: Tensor) -> Tensor:
        return (output[:, 0] + 1) / 2

    def utility(self, output: Tensor, truth: Tensor) -> dict[str, float]:
        """Return frechet_distance, between features of the samples and of the test images.

        Lower is better. The features are those of a small FashionMNIST classifier, so it is not
        FID, which uses another network.
        """
        network = classifier(labelled)
        return {"frechet_distance": frechet(features(network, output), features(network, truth))}


def scaled(grey: Tensor) -> Tensor:
    """Return bytes (n, 28, 28) as images (n, 1, 28, 28) in [-1, 1]."""
    return grey[:, None].float() / 127.5 - 1


def labelled() -> tuple[Tensor, Tensor]:
    """Return the first training images and their labels, to train the classifier of `utility`."""
    clothes, labels = (
        torch.tensor(fmnist.read(f"train-{what}-ubyte.gz")[:LABELLED])
        for what in ("images-idx3", "labels-idx1")
    )
    return scaled(clothes), labels.long()


def digits(n: int) -> Tensor:
    """Return n images (n, 1, 28, 28) in [-1, 1]: scikit-learn's 1,797 digits, repeated."""
    from sklearn.datasets import load_digits

    small = torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 8 - 1
    large = nn.functional.interpolate(small, size=(28, 28), mode="bilinear")
    return large[torch.arange(n) % len(large)].clamp(-1, 1)
