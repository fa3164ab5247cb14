"""What reporters receive while a suite runs, and the interface of executors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:  # showing a plan does not need torch
    from .fingerprinter import Fingerprinter, Point
    from .oracle import Access
    from .recipe import Recipe
    from .scenario import Scenario

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Trial:
    """One method in one repeat: the models that it learns from and those that it is judged on.

    label:    the suite's name for this variant of the method.
    repeat:   the number of the repeat, from 0; each zoo has its own repeats.
    seed:     the seed of the method and of the split; equal for all methods of a repeat.
    ensemble: recipes of the positives and negatives that the method may learn from; empty if it
              needs none.
    suspects: recipes of the models that the method is judged on; disjoint from `ensemble` and
              `calibration`.
    calibration: the other half of the zoo. Its rates map this method's rates to calibrated ones.
              It contains `ensemble`.
    quantised: whether queries are rounded to the 256 levels of an 8-bit image before a suspect
              answers them.
    zoo:      the seed of the zoo that all these models belong to.
    """

    scenario: Scenario
    method: Fingerprinter
    label: str
    repeat: int
    seed: int
    target: Recipe
    ensemble: tuple[Recipe, ...]
    suspects: tuple[Recipe, ...]
    access: Access
    calibration: tuple[Recipe, ...] = ()
    quantised: bool = False
    zoo: int = 0


@dataclass(frozen=True)
class Result:
    """The outcome of one trial.

    matching_rates: the rate of each suspect, in [0, 1], by the suspect's digest.
    calibration_rates: the same for the models in `trial.calibration`.
    queries:        inputs that each suspect answered.
    construct_seconds, verify_seconds: wall-clock time; verification of all suspects together.
    construct_cpu_seconds, verify_cpu_seconds: processor time, which other processes influence less;
                    None where it is unknown.
    losses:         (step, seconds since construction began, loss), at most 100 of them, evenly
                    spread over the steps; empty if the method reports none.
    device, threads: where the seconds were measured, and with how many threads of the CPU.
    cached:         whether the trial came from the store; its seconds were measured when it ran.
    error:          a traceback if the method failed, else None.
    """

    trial: Trial
    matching_rates: Mapping[str, float] = field(default_factory=dict)
    calibration_rates: Mapping[str, float] = field(default_factory=dict)
    queries: int = 0
    construct_seconds: float = 0.0
    verify_seconds: float = 0.0
    device: str = "cpu"
    losses: Sequence[Point] = ()
    threads: int = 1
    construct_cpu_seconds: float | None = None
    verify_cpu_seconds: float | None = None
    cached: bool = False
    error: str | None = None

    def rates(self, positive: bool) -> list[float]:
        """Return the rates of the positive or of the negative suspects. Labels follow lineage."""
        return self._rates_of(self.trial.suspects, self.matching_rates, positive)

    def known_rates(self, positive: bool) -> list[float]:
        """Return the rates of the positives or of the negatives in `trial.calibration`."""
        return self._rates_of(self.trial.calibration, self.calibration_rates, positive)

    def _rates_of(
        self, recipes: Iterable[Recipe], rates: Mapping[str, float], positive: bool
    ) -> list[float]:
        target = self.trial.target
        return [rates[r.digest] for r in recipes if r.descends_from(target) is positive]


@dataclass(frozen=True)
class Built:
    """A cohort of the zoo that a run has finished.

    seconds:  wall-clock time.
    reused:   how many of its models another run put into the store in the meantime.
    failures: the reason for each model that could not be made, by its digest.
    """

    recipes: tuple[Recipe, ...]
    seconds: float
    device: str
    reused: int = 0
    failures: Mapping[str, str] = field(default_factory=dict)


class Cohort(NamedTuple):
    """Models that are made together: the kind of the first one, and the names of all."""

    kind: str
    models: tuple[str, ...]


@dataclass(frozen=True)
class PlanSummary:
    """The plan of a run, in names and numbers, without recipes and methods.

    scenario:  the scenario in the form of `str(scenario)`.
    task:      the kind of learning, for example "classification".
    positives, negatives: the number of suspects of one zoo, by recipe name.
    judged, ensemble: the number of positives and negatives of one zoo that are judged, and that
               methods may learn from.
    missing:   the number of models that the store lacks, by recipe name.
    cohorts:   the missing models, in the groups in which they will be made.
    trials:    the number of trials, by method label.
    tasks:     what a method will do, in words, by its label.
    bytes:     the disk space that the missing models will take.
    seconds:   the estimated time to make the missing models on `device`; None if unknown.
    smaller:   similar suites that take less time.
    refusals:  why a method does not apply, by its label.
    zoos:      the seeds of the zoos.
    """

    suite: str
    scenario: str
    task: str
    api: str
    repeats: int
    positives: Mapping[str, int]
    negatives: Mapping[str, int]
    judged: tuple[int, int]
    ensemble: tuple[int, int]
    missing: Mapping[str, int]
    cohorts: tuple[Cohort, ...]
    trials: Mapping[str, int]
    tasks: Mapping[str, str]
    bytes: int
    refusals: Mapping[str, str]
    device: str
    seconds: float | None
    smaller: tuple[str, ...]
    zoos: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Lost(Generic[Item]):
    """An item without an outcome, because its worker process ended or was stopped.

    reason:  how the process ended, in words.
    seconds: how long the process worked on the item.
    """

    item: Item
    reason: str
    seconds: float


class Executor(Protocol):
    """Runs the jobs of a run, in its process or in others."""

    def map(
        self, job: Callable[..., Outcome], items: Iterable[Item], limit: float | None = None
    ) -> Iterator[Outcome | Lost[Item]]:
        """Call `job(item, device=...)` for each item and yield outcomes as they finish.

        The order of outcomes is free. A device has one job at a time, because a trial's seconds
        are a result. An exception of a job is raised here. A job that ends its process, or takes
        longer than `limit` seconds, becomes a `Lost`; the other jobs continue.
        """

    def close(self) -> None:
        """Stop all jobs and free all resources. Called once, at the end of a run."""
