"""How long a zoo will take to build: operations counted, the device's speed measured."""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch

from ..api.recipe import Recipe
from ..api.scenario import Scenario


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
    sizes = scenario.pool_sizes
    inputs: dict[str, int] = {}
    for recipe in recipes:
        for pool, epochs in recipe.passes().items():
            if pool not in sizes:
                return None
            inputs[recipe.arch] = inputs.get(recipe.arch, 0) + epochs * sizes[pool]
    if not any(inputs.values()):
        return None
    if timed not in scenario.architectures:  # a model from a file may be none to train
        timed = max(inputs, key=lambda arch: inputs[arch])
    work = sum(n * _operations(scenario, arch) for arch, n in inputs.items())
    return work / _speed(scenario, timed, torch.device(device))


def _operations(scenario: Scenario, arch: str) -> float:
    """Floating-point operations of one training step, per input."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = scenario.architecture(arch)()
        model(torch.empty(2, *scenario.input_shape)).sum().backward()
    return float(counter.get_total_flops()) / 2


def _speed(scenario: Scenario, arch: str, device: torch.device) -> float:
    """Floating-point operations per second while an architecture trains."""
    with torch.random.fork_rng(devices=[]), torch.device(device):
        model = scenario.architecture(arch)()
        # A batch as in training where inputs are small, as few as will do where they are large.
        x = torch.zeros(64 if scenario.input_shape[-1] < 100 else 8, *scenario.input_shape)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)

    def step() -> float:
        began = time.perf_counter()
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    step()  # the first chooses kernels and allocates
    return len(x) * _operations(scenario, arch) / min(step(), step())
