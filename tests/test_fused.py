"""Networks that run as one answer as each of them alone, and what cannot be kept apart stays so."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from fpbench.builtin.scenarios import digits, fashion, skin_networks
from fpbench.compute.fused import fused
from fpbench.compute.stack import Stack, choose_way

MEMBERS, N = 3, 5


class Written(nn.Module):
    """A network of one forward function and some layers."""

    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.written = forward

    def forward(self, x):
        return self.written(self, x)


def conv(n_in=3, n_out=6, **given) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, padding=1, **given)


def gated(net, x):
    """One number of each image and member scales all its channels."""
    x = net.conv(x)
    return net.head((x * net.gate(x)).flatten(1))


def mixed_layouts(net, x):
    """Added are what convolutions made and what they were given."""
    return net.head((x + net.conv(x)).relu().flatten(1))


def in_place(net, x):
    """As ResNets add; nobody else reads what is changed."""
    y = net.norm(net.conv(x))
    y += x
    return net.head(net.relu(y).flatten(1))


def functional(net, x):
    """As networks are written that come from papers: functions, joined branches, a view."""
    x = F.max_pool2d(F.relu(net.norm(net.conv(x))), 2)
    x = F.dropout(torch.cat([x, net.more(x)], dim=1), 0.0, net.training)
    x = F.avg_pool2d(x, 2).view(x.shape[0], -1)
    return net.head(x.view(x.size(0), -1))


NETWORKS = {
    "mlp": (digits.mlp, (1, 8, 8)),
    "cnn": (digits.cnn, (1, 8, 8)),
    "resnet": (digits.resnet, (1, 8, 8)),
    "small_resnet": (skin_networks.small_resnet, (3, 16, 16)),
    "small_squeezenet": (skin_networks.small_squeezenet, (3, 32, 32)),
    "small_densenet": (skin_networks.small_densenet, (3, 16, 16)),
    "dcgan_generator": (fashion.dcgan_generator, (100,)),
    "dcgan_discriminator": (fashion.dcgan_discriminator, (1, 28, 28)),
    "linear_generator": (lambda: fashion.linear_generator(1), (100,)),
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=7), (3, 32, 32)),
    "mobilenet_v3": (lambda: torchvision.models.mobilenet_v3_small(num_classes=7), (3, 32, 32)),
    "depthwise": (lambda: nn.Sequential(conv(6, 6, groups=6), nn.Flatten()), (6, 4, 4)),
    "normalised rows": (
        lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)), (4,),
    ),
    "linear on images": (lambda: nn.Sequential(conv(), nn.Linear(4, 2)), (3, 4, 4)),
    "gated": (
        lambda: Written(gated, conv=conv(), gate=nn.Conv2d(6, 1, 1), head=nn.Linear(96, 2)),
        (3, 4, 4),
    ),
    "in place": (
        lambda: Written(
            in_place, conv=conv(3, 3), norm=nn.BatchNorm2d(3), relu=nn.ReLU(inplace=True),
            head=nn.Linear(48, 2),
        ),
        (3, 4, 4),
    ),
    "functional": (
        lambda: Written(
            functional, conv=conv(), norm=nn.BatchNorm2d(6), more=conv(6, 2), head=nn.Linear(32, 2)
        ),
        (3, 8, 8),
    ),
    "mixed layouts": (
        lambda: Written(mixed_layouts, conv=conv(3, 3), head=nn.Linear(48, 2)), (3, 4, 4),
    ),
}  # fmt: skip


def made(new, members=MEMBERS) -> list[nn.Module]:
    torch.manual_seed(5)
    models = [new().double() for _ in range(members)]
    for model in models:
        for layer in model.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):  # otherwise all members' are one
                nn.init.uniform_(layer.running_mean)
                nn.init.uniform_(layer.running_var, 0.5, 2.0)
    return models


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_members_answer_as_they_do_alone(name, training, shared):
    new, shape = NETWORKS[name]
    models = [model.train(training) for model in made(new)]
    x = torch.randn(N, *shape) if shared else torch.randn(MEMBERS, N, *shape)
    x = x.double().requires_grad_()
    together = Stack(models, "fused")
    params = [p.requires_grad_() for p in together.params.values()]

    out = together(x, shared=shared)
    alone = torch.stack([m(x if shared else x[i]) for i, m in enumerate(models)])
    torch.testing.assert_close(out, alone)

    weights = torch.rand_like(out)
    slope, *slopes = torch.autograd.grad((out * weights).sum(), [x, *params])
    each = [p for model in models for p in model.parameters()]
    expected, *theirs = torch.autograd.grad((alone * weights).sum(), [x, *each])
    torch.testing.assert_close(slope, expected)
    for i, name in enumerate(together.params):
        of_each = theirs[i :: len(params)]
        torch.testing.assert_close(
            slopes[i], torch.stack(of_each), msg=lambda s, n=name: f"{n}: {s}"
        )
    for name, buffer in together.buffers.items():
        torch.testing.assert_close(buffer, torch.stack([m.get_buffer(name) for m in models]))


class Sharper(nn.Conv2d):
    """A layer that is not what it is called."""

    def forward(self, x):
        return 2 * super().forward(x)


def hooked() -> nn.Module:
    model = nn.Sequential(conv(), nn.Flatten())
    model[0].register_forward_hook(lambda _layer, _x, out: 2 * out)
    return model


def patched() -> nn.Module:
    layer = nn.Linear(4, 2)
    layer.forward = lambda x: F.linear(x, layer.weight)
    return nn.Sequential(layer)


class Scaled(nn.Module):
    """Uses a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return self.scale * x


def summed_for_others(net, x):
    """What is summed in place has another name, and is read by it."""
    x = known = net.conv(x)
    x += 1
    return x * known


def rectified_for_others(net, x):
    x = net.conv(x)
    return net.relu(x) + x


def rectified_behind_a_view(net, x):
    x = net.conv(x)
    return net.relu(x.flatten(1)) + torch.flatten(x, 1)


IN_PLACE = {"conv": conv(), "relu": nn.ReLU(inplace=True)}
APART = {
    "summed in place": lambda: Written(summed_for_others, conv=conv()),
    "rectified in place": lambda: Written(rectified_for_others, **IN_PLACE),
    "rectified by a function": lambda: Written(lambda net, x: F.relu(x, inplace=True) + x),
    "rectified behind a view": lambda: Written(rectified_behind_a_view, **IN_PLACE),
    "over all channels": lambda: Written(lambda net, x: net.conv(x).softmax(1), conv=conv()),
    "joined batches": lambda: Written(lambda net, x: torch.cat([net.conv(x), x]), conv=conv()),
    "other rows": lambda: Written(lambda net, x: x.view(x.size(1), -1)),
    "its batch's size": lambda: Written(lambda net, x: x.size(0) * net.conv(x), conv=conv()),
    "whole batches": lambda: Written(lambda net, x: torch.flatten(net.conv(x)), conv=conv()),
    "decided by values": lambda: Written(
        lambda net, x: net.conv(x) if x.sum() > 0 else x, conv=conv()
    ),
    "two outputs": lambda: Written(lambda net, x: (x, net.conv(x)), conv=conv()),
    "another type of layer": lambda: nn.Sequential(Sharper(3, 6, 3)),
    "other padding": lambda: nn.Sequential(conv(padding_mode="reflect")),
    "a layer without a rule": lambda: nn.Sequential(nn.GroupNorm(1, 3)),
    "indices": lambda: nn.Sequential(nn.MaxPool2d(2, return_indices=True)),
    "cumulative statistics": lambda: nn.Sequential(nn.BatchNorm2d(3, momentum=None)),
    "its own parameter": Scaled,
    "a hook": hooked,
    "a patched layer": patched,
}


@pytest.mark.parametrize("name", APART)
def test_what_may_mix_members_is_not_fused(name):
    model = APART[name]()
    assert fused(model) is None
    assert choose_way(model, MEMBERS) != "fused"


def test_one_alone_is_not_fused():
    assert choose_way(digits.mlp(), 1) != "fused"
    assert choose_way(digits.mlp(), 2) == "fused"


@pytest.mark.parametrize("drop", [nn.Dropout(), Written(lambda net, x: F.dropout(x))])
def test_each_member_drops_numbers_of_its_own(drop):
    twin = nn.Sequential(drop, nn.Linear(64, 64)).train()
    twins = [twin, copy.deepcopy(twin)]
    one, other = Stack(twins, "fused")(torch.ones(1, 64), shared=True)
    assert not torch.equal(one, other)


def test_what_it_is_asked_with_is_left_as_it_was():
    models = made(lambda: nn.Sequential(conv(), nn.ReLU(inplace=True), nn.Flatten()))
    x = torch.randn(N, 3, 4, 4).double()
    before = copy.deepcopy(x)
    Stack(models, "fused")(x, shared=True)
    assert torch.equal(x, before)
