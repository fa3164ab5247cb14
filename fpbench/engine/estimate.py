"""How long a zoo will take to build: operations counted, the device's speed measured."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from math import prod

import torch

from ..api.recipe import Recipe
from ..api.scenario import Generation, Scenario
from .outline import Costs, Model


def inputs(recipe: Recipe, scenario: Scenario) -> int | None:
    """How many inputs a recipe's training sees; None if a pool's size is unknown."""
    sizes = scenario.pool_sizes
    passes = recipe.passes()
    if not passes.keys() <= sizes.keys():
        return None
    return sum(epochs * sizes[pool] for pool, epochs in passes.items())


def costs(models: Sequence[Model], scenario: Scenario, timed: str, device: str) -> Costs:
    """What making some models takes on a device.

    Every model's floating-point operations (its passes over the data, each with a forward and a
    backward pass through its architecture) by the rate at which the device does those of one
    training step of the architecture `timed`. Right within a factor of about three: small layers
    reach less of a device's speed than large ones, and a GPU trains a cohort faster than its
    members one by one.
    """
    trained = {model.arch for model in models if model.inputs}
    if timed not in scenario.architectures:  # a model from a file may be none to train
        timed = next(iter(sorted(trained)), timed)
    return Costs(
        device=device,
        bytes={arch: _bytes(scenario, arch) for arch in {model.arch for model in models}},
        operations={arch: _operations(scenario, arch) for arch in trained},
        speed=_speed(scenario, timed, torch.device(device)) if trained else 0.0,
    )


def _bytes(scenario: Scenario, arch: str) -> int:
    with torch.device("meta"):
        model = scenario.architecture(arch)()
    return sum(t.numel() * t.element_size() for t in model.state_dict().values())


def operations(recipe: Recipe, scenario: Scenario) -> float | None:
    """Floating-point operations to train one model; None if a pool's size is unknown."""
    seen = inputs(recipe, scenario)
    return seen * _operations(scenario, recipe.arch) if seen else seen


@cache
def _operations(scenario: Scenario, arch: str, rivals: bool = True) -> float:
    """Floating-point operations of one training step, per input; with `rivals`, a generator that
    has a discriminator learns from it, which judges samples three times a step."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        out = scenario.architecture(arch)()(torch.empty(2, *scenario.input_shape))
        if rivals and isinstance(scenario, Generation) and arch in scenario.discriminators:
            rival = scenario.discriminators[arch]()
            for judged in (out, torch.empty_like(out), torch.empty_like(out)):
                rival(judged).sum().backward()
        else:
            out.sum().backward()
    return float(counter.get_total_flops()) / 2


def _speed(scenario: Scenario, arch: str, device: torch.device) -> float:
    """Floating-point operations per second while an architecture trains."""
    with torch.random.fork_rng(devices=[]), torch.device(device):
        model = scenario.architecture(arch)()
        # A batch as in training where inputs are small, as few as will do where they are large.
        x = torch.zeros(64 if prod(scenario.input_shape) < 10_000 else 8, *scenario.input_shape)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    low = scenario.precision == "bfloat16"

    def step() -> float:
        began = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            out = model(x)
        out.float().sum().backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    step()  # the first chooses kernels and allocates
    return len(x) * _operations(scenario, arch, rivals=False) / min(step() for _ in range(5))
