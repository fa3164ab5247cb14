"""A plan in plain values: what there is to do, said without loading what will do it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from ..api.result import Cohort, PlanSummary
from .store import Store

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
