"""A plan in plain values: what there is to do, said without loading what will do it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import NamedTuple, TypeVar

import torch

from ..api.recipe import Recipe
from ..api.scenario import Scenario
from ..api.work import Cohort, PlanSummary
from ..store.store import Store

LONG = 2e13
"""Floating-point operations of a cohort: minutes on a CPU."""

FEWEST = 4
"""Models of a cohort, if there are as many: a stack of fewer is slower."""

M = TypeVar("M")


def together(group: list[M], operations: float | None) -> list[list[M]]:
    """A group of models that could be made together, in parts of which none takes too long.

    operations: to train one of them.
    """
    most = max(FEWEST, int(LONG / (operations or 1)))
    return [group[i : i + most] for i in range(0, len(group), most)]


class Model(NamedTuple):
    """One model of a zoo.

    name:   as `str(recipe)` prints it.
    inputs: how many inputs its training sees, over all epochs; None if a pool's size is unknown.
    cohort: the number of those it may be made together with.
    """

    digest: str
    name: str
    recipe: str
    kind: str
    arch: str
    inputs: int | None
    cohort: int


@dataclass(frozen=True)
class Costs:
    """What making models takes.

    bytes:      by architecture, of one model's weights.
    operations: by architecture, floating-point operations of one training step, per input.
    speed:      of those, how many a device does in a second.
    """

    device: str
    bytes: Mapping[str, int]
    operations: Mapping[str, float]
    speed: float

    def work(self, model: Model) -> float | None:
        """Operations to train a model; None if a pool's size is unknown."""
        return model.inputs * self.operations[model.arch] if model.inputs else model.inputs

    def seconds(self, models: list[Model]) -> float | None:
        """To train some models; None where a pool's size is unknown, or nothing is trained."""
        work = 0.0
        for model in models:
            if (own := self.work(model)) is None:
                return None
            work += own
        return work / self.speed if work else None


@dataclass(frozen=True)
class Outline:
    """What a suite plans, whatever of it is done already; its fields are those of PlanSummary.

    place:  name@version of the scenario, where the store keeps its models.
    models: parents before children.
    """

    suite: str
    scenario: str
    place: str
    task: str
    api: str
    repeats: int
    positives: Mapping[str, int]
    negatives: Mapping[str, int]
    judged: tuple[int, int]
    ensemble: tuple[int, int]
    trials: Mapping[str, int]
    tasks: Mapping[str, str]
    refusals: Mapping[str, str]
    smaller: tuple[str, ...]
    models: list[Model]

    def missing(self, store: Store) -> list[Model]:
        """The models that a store lacks."""
        return [m for m in self.models if store.made_at(store.at(self.place, m.digest)) is None]

    def summary(self, missing: list[Model], costs: Costs) -> PlanSummary:
        """What there is left to do, for people."""
        groups: dict[int, list[Model]] = {}
        for model in missing:
            groups.setdefault(model.cohort, []).append(model)
        return PlanSummary(
            suite=self.suite, scenario=self.scenario, task=self.task, api=self.api,
            repeats=self.repeats, positives=self.positives, negatives=self.negatives,
            judged=self.judged, ensemble=self.ensemble,
            missing=Counter(model.recipe for model in missing),
            cohorts=tuple(
                Cohort(part[0].kind, tuple(model.name for model in part))
                for group in groups.values()
                for part in together(group, costs.work(group[0]))
            ),
            trials=self.trials, tasks=self.tasks,
            bytes=sum(costs.bytes[model.arch] for model in missing),
            refusals=self.refusals, device=costs.device, seconds=costs.seconds(missing),
            smaller=self.smaller,
        )  # fmt: skip


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
