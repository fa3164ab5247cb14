"""How long a zoo will take to build: operations counted, the device's speed measured."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import cache
from math import prod

import torch

from ..api.recipe import Recipe
from ..api.scenario import Generation, Scenario


def building_seconds(
    recipes: Iterable[Recipe], scenario: Scenario, timed: str, device: str
) -> float | None:
    """Seconds to train some models on a device; None where a scenario's pool sizes are unknown.

    Every model's floating-point operations (its passes over the data, each with a forward and a
    backward pass through its architecture) by the rate at which the device does those of one
    training step of the architecture `timed`. Right within a factor of about three: small layers
    reach less of a device's speed than large ones, and a GPU trains a cohort faster than its
    members one by one.
    """
    work = 0.0
    for recipe in recipes:
        if (own := operations(recipe, scenario)) is None:
            return None
        work += own
    return work / _speed(scenario, timed, torch.device(device)) if work else None


def operations(recipe: Recipe, scenario: Scenario) -> float | None:
    """Floating-point operations to train one model; None where pool sizes are unknown."""
    sizes, inputs = scenario.pool_sizes, 0
    for pool, epochs in recipe.passes().items():
        if pool not in sizes:
            return None
        inputs += epochs * sizes[pool]
    return inputs * _operations(scenario, recipe.arch) if inputs else 0.0


@cache
def _operations(scenario: Scenario, arch: str, rivals: bool = True) -> float:
    """Floating-point operations of one training step, per input; with `rivals`, a generator that
    has a discriminator learns from it, which judges samples three times a step."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        out = scenario.architectures[arch]()(torch.empty(2, *scenario.input_shape))
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
        model = scenario.architectures[arch]()
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
