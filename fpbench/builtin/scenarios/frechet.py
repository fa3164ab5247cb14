"""A Frechet distance between samples and real images, by the features of a small classifier."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEATURES, BATCH, EPOCHS = 64, 128, 3

Loader = Callable[[], tuple[Tensor, Tensor]]


def frechet(one: Tensor, other: Tensor) -> float:
    """Return |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2) of two sets of features (n, d); 0 or more.

    m is the mean and C the covariance of a set. Heusel et al., *GANs Trained by a Two Time-Scale
    Update Rule Converge to a Local Nash Equilibrium*, NeurIPS 2017. They call it FID for features
    of the Inception network; the features here are others.
    """
    (m1, c1), (m2, c2) = ((x.mean(0), x.T.cov()) for x in (one.double(), other.double()))
    values, vectors = torch.linalg.eigh(c1)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    # The trace of (C1 C2)^1/2 equals that of (C1^1/2 C2 C1^1/2)^1/2, which is symmetric.
    shared = torch.linalg.eigvalsh(root @ c2 @ root).clamp_min(0).sqrt().sum()
    distance = (m1 - m2).square().sum() + c1.trace() + c2.trace() - 2 * shared
    return max(0.0, float(distance))


@cache
def classifier(load: Loader) -> nn.Sequential:
    """Train a small convolutional classifier of images (n, 1, 28, 28).

    A process trains it once, for some seconds, on the images and labels that `load` returns. It
    uses the CPU and a fixed seed, so distances from two machines are equal up to rounding.
    """
    images, labels = load()
    rng = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(32 * 7 * 7, FEATURES), nn.ReLU(),
            nn.Linear(FEATURES, int(labels.max()) + 1),
        )  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    with torch.enable_grad():
        for _ in range(EPOCHS):
            for batch in torch.randperm(len(images), generator=rng).split(BATCH):
                optimizer.zero_grad()
                F.cross_entropy(network(images[batch]), labels[batch]).backward()
                optimizer.step()
    return network.eval().requires_grad_(False)


@torch.no_grad()
def features(network: nn.Sequential, images: Tensor) -> Tensor:
    """Return the input of the classifier's last layer for each image, (n, FEATURES)."""
    return torch.cat([network[:-1](part) for part in images.split(500)])
