"""Estimate the cost of a zoo: floating-point operations, seconds, bytes on disk."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from math import prod

import torch

from ..api.networks import explained, for_shapes
from ..api.recipe import Recipe
from ..api.scenario import Scenario

COHORT_OPERATIONS = 2e13
"""Floating-point operations that a cohort may take: minutes on a CPU."""

SMALLEST_COHORT = 4
"""Models that a cohort may always have. A smaller stack would be slower per model."""


def split_group(group: list[Recipe], scenario: Scenario) -> list[list[Recipe]]:
    """Split a group of models that can be made together into cohorts that do not take too long."""
    most = max(SMALLEST_COHORT, int(COHORT_OPERATIONS / (operations(group[0], scenario) or 1)))
    return [group[i : i + most] for i in range(0, len(group), most)]


def operations(recipe: Recipe, scenario: Scenario) -> float | None:
    """Return the floating-point operations to train a model; None if a pool's size is unknown."""
    sizes = scenario.pool_sizes
    passes = recipe.passes()
    if not passes.keys() <= sizes.keys():
        return None
    inputs = sum(epochs * sizes[pool] for pool, epochs in passes.items())
    return inputs * _operations(scenario, recipe.arch) if inputs else 0


def seconds(
    recipes: Sequence[Recipe], scenario: Scenario, timed_arch: str, device: str
) -> float | None:
    """Return the seconds to train models; None if none is trained or a pool's size is unknown.

    The floating-point operations of all models are divided by the measured speed of the device. A
    model's operations are those of its passes over the data, forward and backward. The speed is
    measured on one training step of the architecture `timed_arch`.

    The estimate is right within a factor of about three: small layers reach less of a device's
    speed than large ones, and a GPU trains a cohort faster than its members one by one.
    """
    total = 0.0
    trained = set()
    for recipe in recipes:
        if (own := operations(recipe, scenario)) is None:
            return None
        total += own
        if own:
            trained.add(recipe.arch)
    if not trained:
        return None
    if timed_arch not in scenario.architectures:  # a model from a file may have no network to train
        timed_arch = min(trained)
    return total / _speed(scenario, timed_arch, torch.device(device))


def size(recipes: Iterable[Recipe], scenario: Scenario) -> int:
    """Return the bytes that the weights of models take on disk."""
    counts = Counter(recipe.arch for recipe in recipes)
    return sum(count * _bytes(scenario, arch) for arch, count in counts.items())


def _bytes(scenario: Scenario, arch: str) -> int:
    model = for_shapes(scenario.architecture(arch))
    return sum(t.numel() * t.element_size() for t in model.state_dict().values())


@cache
def _operations(scenario: Scenario, arch: str) -> float:
    """Return the floating-point operations of a training step per input.

    The step is not computed, unless the network's code needs numbers.
    """
    from torch.utils.flop_counter import FlopCounterMode

    for_shapes(scenario.architecture(arch))  # the first one is run once, which must not count

    def count(device: str) -> float:
        rng, counter = torch.random.fork_rng(devices=[]), FlopCounterMode(display=False)
        with rng, torch.device(device), counter:
            scenario.training_step(arch, scenario.blank(2))
        return float(counter.get_total_flops()) / 2

    try:
        return count("meta")
    except MemoryError:
        raise
    except Exception:  # the network's code needs numbers
        with explained(arch):
            return count("cpu")


def _speed(scenario: Scenario, arch: str, device: torch.device) -> float:
    """Measure the floating-point operations per second while an architecture trains."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.random.fork_rng(devices=[]), torch.device(device):
        model = scenario.architecture(arch)()
        # A batch as large as in training if inputs are small, a small batch if they are large.
        x = scenario.blank(64 if prod(scenario.input_shape) < 10_000 else 8)
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
        step()  # the first step is slower: it chooses kernels and allocates memory
    return float(counter.get_total_flops()) / min(step() for _ in range(5))
