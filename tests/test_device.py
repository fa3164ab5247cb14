"""What runs on a device finds there what it finds on the CPU.

The device is that of the variable FPBENCH_TEST_DEVICE, `cuda` for example; by default the CPU.
`benchmarks/gpu.py` runs these tests on a GPU.
"""

from __future__ import annotations

import copy
import os
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from conftest import TINY, Bench, Desk
from fpbench import Ensemble, Pool, deepfool, descend, fit, folded, pgd
from fpbench.api.oracle import oracle_of
from fpbench.builtin.recipes.train import Train
from fpbench.builtin.scenarios.digits import cnn, mlp, resnet
from fpbench.compute.stack import Stacks, using
from fpbench.engine.environment import device_name
from fpbench.engine.registry import Registry
from fpbench.testing import TOYS, toy_zoo

pytestmark = pytest.mark.device
DEVICE = torch.device(os.environ.get("FPBENCH_TEST_DEVICE", "cpu"))
CLOSE = {"atol": 1e-6, "rtol": 1e-6}  # in double precision
METHODS = Registry.load().methods


def networks(network, count: int = 3) -> list[nn.Module]:
    """New networks in double precision, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return [network().double().eval().requires_grad_(False) for _ in range(count)]


def on_device(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).to(DEVICE)


def images(n: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    return torch.rand(n, 1, 8, 8, generator=rng, dtype=torch.double)


@pytest.mark.parametrize("way", ["fused", "stacked", "looped"])
@pytest.mark.parametrize("network", [mlp, cnn, resnet])
def test_members_train_as_on_the_cpu(network, way):
    recipes = [Train(scenario="digits", model="mlp", seed=seed) for seed in range(3)]
    here = networks(network)
    there = [on_device(model) for model in here]
    pool = Pool(images(50), torch.arange(50) % 10)
    for models, device in ((here, torch.device("cpu")), (there, DEVICE)):
        with using(way):
            fit(Bench(device=device), recipes, models, pool, loss=F.cross_entropy, epochs=2,
                lr=0.01, batch_size=16)  # fmt: skip
    for one, other in zip(here, there, strict=True):
        assert {p.device.type for p in other.parameters()} == {DEVICE.type}
        for name, tensor in other.state_dict().items():
            torch.testing.assert_close(tensor.cpu(), one.state_dict()[name], **CLOSE)


@pytest.mark.parametrize("network", [mlp, cnn, resnet])
def test_an_ensemble_and_a_folded_target_answer_as_on_the_cpu(network):
    here, x = networks(network), images(5)
    there = [on_device(model) for model in here]
    expected = torch.stack([model(x) for model in here])
    answers = Stacks(there)(x.to(DEVICE))
    assert answers.device.type == DEVICE.type
    torch.testing.assert_close(answers.cpu(), expected, **CLOSE)
    alone = folded(there[0], x.to(DEVICE))(x.to(DEVICE))
    torch.testing.assert_close(alone.cpu(), expected[0], **CLOSE)


@pytest.mark.parametrize("attack", ["deepfool", "descend", "pgd"])
def test_attacks_find_the_points_that_they_find_on_the_cpu(attack):
    (model,) = networks(mlp, 1)
    # `descend` keeps losses in single precision, so that its inputs are in single precision too.
    dtype, close = torch.double, CLOSE
    if attack == "descend":
        dtype, close = torch.float, {"atol": 1e-4, "rtol": 1e-4}
    found = []
    for device in (torch.device("cpu"), DEVICE):
        target, x = (part.to(device, dtype) for part in (copy.deepcopy(model), images(20)))
        labels = target(x).argmax(1)

        def loss(x, which=slice(None), target=target, labels=labels):
            return F.cross_entropy(target(x), labels[which], reduction="none")

        if attack == "deepfool":
            points = deepfool(target, x, (0.0, 1.0), steps=20)
        elif attack == "descend":
            points = descend(loss, x, (0.0, 1.0), lr=0.01, steps=20, enough=0.0)
        else:
            rng = torch.Generator().manual_seed(2)
            points = pgd(loss, x, (0.0, 1.0), eps=0.1, step=0.01, steps=20, rng=rng)
        assert points.device.type == device.type
        assert not torch.equal(points, x)
        found.append(points.cpu())
    torch.testing.assert_close(found[1], found[0], **close)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_method_works_on_the_device(name):
    """Its fingerprint lies on the CPU, and the target has a higher rate than a constant model."""
    cls = METHODS[name].cls
    method = cls(**{"n_queries": 12, **cls.quick})
    scenario = next(s for s in TOYS if method.declines(s) is None and method.accepts & s.offers)
    access = max(method.accepts & scenario.offers)
    zoo = toy_zoo(scenario)
    case = zoo.case(method, access)
    ensemble = case.ensemble and Ensemble(
        [on_device(m) for m in case.ensemble.positives],
        [on_device(m) for m in case.ensemble.negatives],
        case.ensemble.positive_recipes, case.ensemble.negative_recipes,
    )  # fmt: skip
    target = on_device(zoo.target)
    constant = on_device(zoo.target)
    for parameter in constant.parameters():
        parameter.zero_()

    fingerprint = method.construct(
        replace(case, target=target, device=DEVICE, ensemble=ensemble or None)
    )

    for tensor in (fingerprint.queries, *fingerprint.evidence.values()):
        assert tensor.device.type == "cpu"
    rates = [
        method.verify(
            fingerprint,
            oracle_of(model, access, input_shape=scenario.input_shape,
                      input_range=scenario.input_range, device=DEVICE),
        )
        for model in (target, constant)
    ]  # fmt: skip
    assert 0 <= rates[1] < rates[0] <= 1


def test_a_run_makes_and_judges_its_models_on_the_device(tmp_path):
    data = Desk.of(tmp_path, TINY).run("--device", str(DEVICE))
    name = device_name(str(DEVICE))
    assert {model["device"] for model in data["models"]} == {name}
    assert {trial["device"] for trial in data["trials"]} == {name}
