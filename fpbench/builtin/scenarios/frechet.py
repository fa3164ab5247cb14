"""How far samples are from real images: a Frechet distance of a small classifier's features."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEATURES, BATCH, EPOCHS = 64, 128, 3

Loader = Callable[[], tuple[Tensor, Tensor]]


def frechet(one: Tensor, other: Tensor) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2) of two clouds of features (n, d); 0 or more.

    Heusel et al., *GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
    Equilibrium*, NeurIPS 2017, who call it FID when features are Inception's. These are not.
    """
    (m1, c1), (m2, c2) = ((x.mean(0), x.T.cov()) for x in (one.double(), other.double()))
    values, vectors = torch.linalg.eigh(c1)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    # (C1 C2)^1/2 has the trace of (C1^1/2 C2 C1^1/2)^1/2, which is symmetric.
    shared = torch.linalg.eigvalsh(root @ c2 @ root).clamp_min(0).sqrt().sum()
    distance = (m1 - m2).square().sum() + c1.trace() + c2.trace() - 2 * shared
    return max(0.0, float(distance))


@cache
def classifier(load: Loader) -> nn.Sequential:
    """A small convolutional classifier of 28 x 28 images; all but its last layer gives features.

    Trained for some seconds on the labelled images (n, 1, 28, 28) that `load` returns, once per
    process, on the CPU and from a fixed seed: distances from two machines can be compared, to
    rounding.
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
    """What the classifier's last layer reads of each image, (n, FEATURES)."""
    return torch.cat([network[:-1](part) for part in images.split(500)])
