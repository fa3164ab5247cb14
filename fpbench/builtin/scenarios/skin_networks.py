"""Networks for skin lesions: five of torchvision, which the MetaV paper uses, and five small ones.

Every network takes images in [0, 1], and its first layer maps them to [-1, 1]. So a fingerprint's
queries are images as an API receives them. Weights are random; nothing is downloaded.

At size 224 the five networks are torchvision's without changes. At size 32 only AlexNet differs:
with a stride of 4 in its first convolution, its feature map would be empty after the third pooling,
so the stride is 1. No other network is adapted; ResNet-18, for example, ends with a feature map of
1 x 1.

The small networks stand for the paper's five where there is no GPU. They have no dropout, because a
network of a few thousand weights underfits with it.

Importing torchvision takes seconds, so it is imported when a network is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

N_CLASSES = 7


class Centre(nn.Module):
    """Maps [0, 1] to [-1, 1], as the examples of MedMNIST do."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x - 1


def torchvisions(name: str) -> nn.Sequential:
    """Return one of torchvision's networks with 7 outputs and torchvision's initialisation."""
    from torchvision.models import get_model

    network: nn.Module = get_model(name, weights=None, num_classes=N_CLASSES)
    return nn.Sequential(Centre(), network)


def alexnet32() -> nn.Module:
    """Return torchvision's AlexNet for 32 x 32: the first convolution has stride 1, not 4."""
    network = torchvisions("alexnet")
    features: Any = network[1].features
    features[0].stride = (1, 1)
    return network


def small_resnet() -> nn.Module:
    """Return a small ResNet: a stem and three stages of one basic block, of width 16, 32, 64."""
    from torchvision.models.resnet import BasicBlock

    return nn.Sequential(
        Centre(),
        nn.Conv2d(3, 16, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
        BasicBlock(16, 16), _halving(16, 32), _halving(32, 64),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, N_CLASSES),
    )  # fmt: skip


def _halving(n_in: int, n_out: int) -> nn.Module:
    """Return a residual block that halves width and height."""
    from torchvision.models.resnet import BasicBlock, conv1x1

    way_around = nn.Sequential(conv1x1(n_in, n_out, stride=2), nn.BatchNorm2d(n_out))
    block: nn.Module = BasicBlock(n_in, n_out, stride=2, downsample=way_around)
    return block


def small_squeezenet() -> nn.Module:
    """Return a SqueezeNet with Fire modules of width 64, 64 and 128, and no ReLU on its logits."""
    from torchvision.models.squeezenet import Fire

    return _kaiming(
        nn.Sequential(
            Centre(),
            nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            Fire(32, 16, 32, 32), Fire(64, 16, 32, 32), nn.MaxPool2d(2),
            Fire(64, 16, 64, 64),
            nn.Conv2d(128, N_CLASSES, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )
    )  # fmt: skip


def small_vgg() -> nn.Module:
    """Return a VGG with three convolutions of width 16, 32 and 64, and one hidden layer of 64."""
    return _kaiming(
        nn.Sequential(
            Centre(),
            nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(64 * 4 * 4, 64), nn.ReLU(), nn.Linear(64, N_CLASSES),
        )
    )  # fmt: skip


def small_alexnet() -> nn.Module:
    """Return an AlexNet with three convolutions of width 16, 32 and 32, and two hidden layers."""
    return _kaiming(
        nn.Sequential(
            Centre(),
            nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(32 * 4 * 4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(),
            nn.Linear(64, N_CLASSES),
        )
    )  # fmt: skip


def small_densenet() -> nn.Module:
    """Return a DenseNet with two blocks of three layers that each add 12 channels."""
    stem: list[nn.Module] = [
        Centre(),
        nn.Conv2d(3, 16, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
    ]  # fmt: skip
    return nn.Sequential(
        *stem,
        *(Dense(width, 12) for width in (16, 28, 40)),
        nn.BatchNorm2d(52), nn.ReLU(), nn.Conv2d(52, 26, 1, bias=False), nn.AvgPool2d(2),
        *(Dense(width, 12) for width in (26, 38, 50)),
        nn.BatchNorm2d(62), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(62, N_CLASSES),
    )  # fmt: skip


class Dense(nn.Module):
    """A layer of a DenseNet: adds `growth` channels to the ones that it reads."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.added = nn.Sequential(
            nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, growth, 3, padding=1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.added(x)], 1)


def _kaiming(network: nn.Module) -> nn.Module:
    """Initialise convolutions as torchvision's SqueezeNet and VGG do, and return the network.

    With PyTorch's default, these networks without normalisation predict only the largest class for
    many epochs.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


PAPERS: Mapping[str, Callable[[], nn.Module]] = {
    name: partial(torchvisions, made)
    for name, made in (
        ("squeezenet", "squeezenet1_0"), ("resnet18", "resnet18"), ("densenet161", "densenet161"),
        ("alexnet", "alexnet"), ("vgg16", "vgg16"),
    )
}  # fmt: skip

BY_SIZE: Mapping[int, Mapping[str, Callable[[], nn.Module]]] = {
    224: PAPERS,
    32: {
        **PAPERS,
        "alexnet": alexnet32,
        "small_squeezenet": small_squeezenet,
        "small_resnet": small_resnet,
        "small_densenet": small_densenet,
        "small_alexnet": small_alexnet,
        "small_vgg": small_vgg,
    },
}
