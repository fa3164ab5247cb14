"""Estimates of what a zoo costs: floating-point operations, seconds, bytes on disk."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from math import prod

import torch

from ..api.recipe import Recipe
from ..api.scenario import Scenario

LONG = 2e13
"""Floating-point operations of a cohort: minutes on a CPU."""

FEWEST = 4
"""Models of a cohort, if there are as many: a stack of fewer is slower."""


def parts(group: list[Recipe], scenario: Scenario) -> list[list[Recipe]]:
    """Split a group of models that could be made together, so that no part takes too long."""
    most = max(FEWEST, int(LONG / (operations(group[0], scenario) or 1)))
    return [group[i : i + most] for i in range(0, len(group), most)]


def operations(recipe: Recipe, scenario: Scenario) -> float | None:
    """Return the floating-point operations to train a model; None if a pool's size is unknown."""
    sizes = scenario.pool_sizes
    passes = recipe.passes()
    if not passes.keys() <= sizes.keys():
        return None
    inputs = sum(epochs * sizes[pool] for pool, epochs in passes.items())
    return inputs * _operations(scenario, recipe.arch) if inputs else 0


def seconds(recipes: Sequence[Recipe], scenario: Scenario, timed: str, device: str) -> float | None:
    """Return the seconds to train some models; None if a pool's size is unknown, or for none.

    Every model's floating-point operations (its passes over the data, each with a forward and a
    backward pass through its architecture) are divided by the rate at which the device does those
    of one training step of the architecture `timed`. Right within a factor of about three: small
    layers reach less of a device's speed than large ones, and a GPU trains a cohort faster than
    its members one by one.
    """
    work = 0.0
    trained = set()
    for recipe in recipes:
        if (own := operations(recipe, scenario)) is None:
            return None
        work += own
        if own:
            trained.add(recipe.arch)
    if not trained:
        return None
    if timed not in scenario.architectures:  # a model from a file may have no network to train
        timed = min(trained)
    return work / _speed(scenario, timed, torch.device(device))


def size(recipes: Iterable[Recipe], scenario: Scenario) -> int:
    """Return the bytes on disk of some models' weights."""
    counts = Counter(recipe.arch for recipe in recipes)
    return sum(count * _bytes(scenario, arch) for arch, count in counts.items())


def _bytes(scenario: Scenario, arch: str) -> int:
    with torch.device("meta"):
        model = scenario.architecture(arch)()
    return sum(t.numel() * t.element_size() for t in model.state_dict().values())


@cache
def _operations(scenario: Scenario, arch: str) -> float:
    """Return the floating-point operations of one training step, per input; computes nothing."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        scenario.training_step(arch, torch.empty(2, *scenario.input_shape))
    return float(counter.get_total_flops()) / 2


def _speed(scenario: Scenario, arch: str, device: torch.device) -> float:
    """Return the floating-point operations per second while an architecture trains."""
    from torch.utils.flop_counter import FlopCounterMode

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

    with FlopCounterMode(display=False) as counter:
        step()  # the first chooses kernels and allocates
    return float(counter.get_total_flops()) / min(step() for _ in range(5))
