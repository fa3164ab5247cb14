"""Networks for skin lesions: torchvision's five of the MetaV paper, and three small ones.

Every network takes images in [0, 1] and begins by centring them to [-1, 1], so that what a
fingerprint asks is what an API would be sent. Weights are random: nothing is downloaded.

At 224 the five are torchvision's as they are. At 32 they stay so but for AlexNet, whose first
convolution steps 4 pixels: its feature map would be empty after the third pooling; there it steps
one. Stems are otherwise left alone: ResNet-18, say, ends on a feature map of 1 x 1.

torchvision takes seconds to import, so it is when a network is made, not when it is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

N_CLASSES = 7


class Centre(nn.Module):
    """[0, 1] to [-1, 1], as MedMNIST's own examples normalise."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x - 1


def torchvisions(name: str) -> nn.Sequential:
    """One of torchvision's networks with 7 outputs, initialised as torchvision does."""
    from torchvision.models import get_model

    network: nn.Module = get_model(name, weights=None, num_classes=N_CLASSES)
    return nn.Sequential(Centre(), network)


def alexnet32() -> nn.Module:
    """torchvision's AlexNet for 32 x 32: stride 1 instead of 4 in the first convolution."""
    network = torchvisions("alexnet")
    features: Any = network[1].features
    features[0].stride = (1, 1)
    return network


def small_resnet() -> nn.Module:
    """ResNet-18's stem and basic blocks, one per stage, in three stages of width 16, 32, 64."""
    from torchvision.models.resnet import BasicBlock

    return nn.Sequential(
        Centre(),
        nn.Conv2d(3, 16, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
        BasicBlock(16, 16), _halving(16, 32), _halving(32, 64),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, N_CLASSES),
    )  # fmt: skip


def _halving(n_in: int, n_out: int) -> nn.Module:
    """A residual block that halves the image."""
    from torchvision.models.resnet import BasicBlock, conv1x1

    way_around = nn.Sequential(conv1x1(n_in, n_out, stride=2), nn.BatchNorm2d(n_out))
    block: nn.Module = BasicBlock(n_in, n_out, stride=2, downsample=way_around)
    return block


def small_squeezenet() -> nn.Module:
    """SqueezeNet with three Fire modules of width 64, 64 and 128, and no ReLU on its logits."""
    from torchvision.models.squeezenet import Fire

    return _kaiming(
        nn.Sequential(
            Centre(),
            nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            Fire(32, 16, 32, 32), Fire(64, 16, 32, 32), nn.MaxPool2d(2),
            Fire(64, 16, 64, 64), nn.Dropout(0.5),
            nn.Conv2d(128, N_CLASSES, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )
    )  # fmt: skip


def small_vgg() -> nn.Module:
    """VGG with three convolutions of width 16, 32 and 64, and one hidden layer of 64."""
    return _kaiming(
        nn.Sequential(
            Centre(),
            nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(64 * 4 * 4, 64), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(64, N_CLASSES),
        )
    )  # fmt: skip


def _kaiming(network: nn.Module) -> nn.Module:
    """Initialise convolutions as torchvision's SqueezeNet and VGG do: without normalisation,
    PyTorch's own initialisation leaves them predicting the largest class for many epochs."""
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
        "small_vgg": small_vgg,
    },
}
