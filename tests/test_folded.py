"""A target that attacks ask at each step computes what it did, with its normalisation folded in."""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass

import pytest
import torch
import torchvision
from fpbench_deepcore import DeepCore
from fpbench_deepfoolfp import DeepFoolFP
from fpbench_deepjudge import DeepJudge
from fpbench_ipguard import IPGuard
from fpbench_metav import MetaV
from fpbench_modeldiff import ModelDiff
from torch import Tensor, nn

from fpbench import Fingerprinter, folded
from fpbench.builtin.scenarios import digits, fashion, skin_networks
from fpbench.testing.toys import toy_zoo


def frozen(model: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """In eval mode, with running statistics that are not those of a new network."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    with torch.no_grad():
        model.train()(torch.randn(8, *shape))
    return model.eval().requires_grad_(False)


def slopes(model: nn.Module, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(x).square().sum(), x)
    return slope


def normalised(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (digits.cnn, (1, 8, 8)),
        (digits.resnet, (1, 8, 8)),
        (skin_networks.small_resnet, (3, 32, 32)),
        (fashion.dcgan_discriminator, (1, 28, 28)),
        (lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=7), (3, 64, 64)),
        (lambda: torchvision.models.mobilenet_v2(num_classes=7, width_mult=0.25), (3, 64, 64)),
    ],
)
def test_a_folded_network_has_the_same_outputs_and_slopes_without_normalisation(make, shape):
    torch.manual_seed(0)
    # In double precision: in single, rounding takes some numbers across the kink of a ReLU.
    model = frozen(make(), shape).double()
    before = copy.deepcopy(model.state_dict())
    x = torch.randn(6, *shape, dtype=torch.double)

    found = folded(model, x)

    torch.testing.assert_close(found(x), model(x))
    torch.testing.assert_close(slopes(found, x), slopes(model, x))
    assert normalised(found) == 0
    assert not any(p.requires_grad for p in found.parameters())
    after = model.state_dict()
    assert all(torch.equal(after[name], t) for name, t in before.items())


class Twice(nn.Module):
    """One convolution in two places, each with a normalisation of its own."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.one, self.other = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.other(self.conv(self.one(self.conv(x)))).flatten(1)


class Viewed(nn.Sequential):
    """Flattens in a way that only channels first in memory allow."""

    def forward(self, x):
        return super().forward(x).view(len(x), -1)


class Undecided(nn.Sequential):
    """What it computes depends on the numbers it is given."""

    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Flatten())
    model[0].register_forward_hook(lambda layer, args, out: out + 1)
    return model


@pytest.mark.parametrize(
    "make",
    [
        Twice,
        lambda: Viewed(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)),
        lambda: Undecided(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Flatten()),
        hooked,
    ],
    ids=["a layer in two places", "a view", "a choice by numbers", "a hook"],
)
def test_what_cannot_be_folded_keeps_its_normalisation(make, capfd):
    torch.manual_seed(0)
    model = frozen(make(), (3, 8, 8)).double()
    x = torch.randn(6, 3, 8, 8, dtype=torch.double)

    found = folded(model, x)

    torch.testing.assert_close(found(x), model(x))
    assert normalised(found) == normalised(model)
    assert not any(capfd.readouterr())


@pytest.mark.parametrize(
    "model", [digits.resnet().train(), digits.mlp().eval()], ids=["in training", "no convolution"]
)
def test_where_there_is_nothing_to_gain_it_is_the_network_itself(model):
    assert folded(model, torch.rand(2, 1, 8, 8)) is model


def small() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10)
    )


@dataclass(frozen=True)
class Normalised(digits.Digits):
    name = "normalised"
    architectures = {"mlp": small}  # noqa: RUF012


def rates(method: Fingerprinter) -> Tensor:
    """Of one fingerprint, for all suspects of a zoo."""
    zoo = toy_zoo(Normalised(), size=2)
    access = max(method.accepts & zoo.scenario.offers)
    torch.manual_seed(0)
    fingerprint = method.construct(zoo.case(method, access))
    suspects = [zoo.target, *zoo.positives, *zoo.negatives]
    return torch.tensor([method.verify(fingerprint, zoo.oracle(m, access)) for m in suspects])


@pytest.mark.parametrize(
    "method",
    [
        DeepCore(n_queries=20), DeepFoolFP(), DeepJudge(eps=0.3),
        IPGuard(steps=300), MetaV(steps=200), ModelDiff(),
    ],
    ids=lambda method: method.name,
)  # fmt: skip
def test_matching_rates_are_those_without_folding(method, monkeypatch):
    asked = rates(method)
    monkeypatch.setattr(sys.modules[type(method).__module__], "folded", lambda model, x: model)
    # Two of a hundred queries, say, on the other side of a boundary that they were walked to.
    torch.testing.assert_close(asked, rates(method), rtol=0.0, atol=0.02)
