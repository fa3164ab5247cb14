"""Small networks for inputs of any size: the architectures of scenarios from a user's own files."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

from torch import nn

from .digits import Residual
from .warfarin import mlp

WIDEST_MAP = 16
"""The first layer's stride leaves a feature map of at most this width."""


def for_images(shape: tuple[int, ...], n_outputs: int) -> Mapping[str, Callable[[], nn.Module]]:
    """Return functions that make networks for images (channels, height, width)."""
    return {
        name: partial(make, shape, n_outputs)
        for name, make in (("cnn", cnn), ("resnet", resnet), ("vgg", vgg), ("mlp", flat))
    }


def for_rows(shape: tuple[int, ...], n_outputs: int) -> Mapping[str, Callable[[], nn.Module]]:
    """Return functions that make networks for rows (features,): one to three hidden layers of 100,
    as in the MetaV paper's Warfarin."""
    (n,) = shape
    return {size: partial(mlp, n, *[100] * k, n_outputs) for k, size in enumerate("sml", 1)}


def flat(shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Return a fully connected network with hidden layers of 128 and 64."""
    return nn.Sequential(nn.Flatten(), mlp(math.prod(shape), 128, 64, n_outputs))


def _stem(shape: tuple[int, ...], width: int, *, bias: bool = True) -> tuple[nn.Module, int, int]:
    """Return a convolution that makes a feature map of at most 16 x 16, and the map's size."""
    channels, *size = shape
    stride = math.ceil(max(size) / WIDEST_MAP)
    kernel = 3 if stride == 1 else 2 * stride - 1
    height, width_ = (math.ceil(pixels / stride) for pixels in size)
    stem = nn.Conv2d(channels, width, kernel, stride=stride, padding=kernel // 2, bias=bias)
    return stem, height, width_


def cnn(shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Return a network of two convolutions and two linear layers."""
    stem, height, width = _stem(shape, 16)
    return nn.Sequential(
        stem, nn.ReLU(), _halved(height, width),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), _halved(height // 2, width // 2),
        nn.Flatten(), nn.Linear(32 * _left(height) * _left(width), 64), nn.ReLU(),
        nn.Linear(64, n_outputs),
    )  # fmt: skip


def vgg(shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Return a network of three convolutions, 16, 32 and 64 wide, and two linear layers."""
    stem, height, width = _stem(shape, 16)
    return nn.Sequential(
        stem, nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), _halved(height, width),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), _halved(height // 2, width // 2),
        nn.Flatten(), nn.Linear(64 * _left(height) * _left(width), 64), nn.ReLU(),
        nn.Linear(64, n_outputs),
    )  # fmt: skip


def resnet(shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Return a stem, two residual blocks with batch normalisation, and global average pooling."""
    stem, height, width = _stem(shape, 16, bias=False)
    return nn.Sequential(
        stem, nn.BatchNorm2d(16), nn.ReLU(), _halved(height, width),
        Residual(16), nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32),
        nn.ReLU(), Residual(32),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, n_outputs),
    )  # fmt: skip


def _halved(height: int, width: int) -> nn.Module:
    """Return a pooling that halves a map, or leaves one that is too small to be halved."""
    return nn.MaxPool2d((min(2, max(1, height)), min(2, max(1, width))))


def _left(pixels: int) -> int:
    """Return the width of a map after two poolings."""
    for _ in range(2):
        pixels = max(1, pixels // 2)
    return pixels
