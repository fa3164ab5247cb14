"""What is announced while a suite runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:  # so that a plan can be shown without torch
    from .fingerprinter import Fingerprinter, Point
    from .oracle import Access
    from .recipe import Recipe
    from .scenario import Scenario

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Trial:
    """One method, one repeat: what it may learn from and what it is judged on.

    label:    what the suite calls this variant of the method.
    seed:     of the method and the split; equal for all methods of one repeat.
    ensemble: recipes the method may learn from, positives and negatives; empty if it needs none.
    suspects: recipes it is judged on; disjoint from `ensemble` and `calibration`.
    calibration: the other half of the zoo, whose rates show what a rate of this method is worth;
              `ensemble` is part of it.
    quantised: suspects are asked what an 8-bit image file can carry, not the exact queries.
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


@dataclass(frozen=True)
class Result:
    """What one trial found.

    matching_rates: by the suspect's digest, each in [0, 1].
    calibration_rates: likewise, of the models in `trial.calibration`.
    queries:        inputs put to each suspect.
    construct_seconds, verify_seconds: wall clock; verification is of all suspects together.
    construct_cpu_seconds, verify_cpu_seconds: of the processor, which hold on a busy machine too;
                    None where they are unknown.
    losses:         (step, seconds since construction began, loss), at most 100 of them, spread
                    evenly over the steps; empty if the method tells none.
    device, threads: where the seconds were measured, and how many threads of the CPU they are of.
    cached:         the store had this very trial; its seconds are those of the first time.
    error:          a traceback if the method failed; the other trials went on.
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
        """The rates of the positive or of the negative suspects; labels come from lineage."""
        return self._side(self.trial.suspects, self.matching_rates, positive)

    def known_rates(self, positive: bool) -> list[float]:
        """Likewise, of the models to calibrate on."""
        return self._side(self.trial.calibration, self.calibration_rates, positive)

    def _side(
        self, recipes: Iterable[Recipe], rates: Mapping[str, float], positive: bool
    ) -> list[float]:
        target = self.trial.target
        return [rates[r.digest] for r in recipes if r.descends_from(target) is positive]


@dataclass(frozen=True)
class Built:
    """A cohort of the zoo was made, or found made by another run meanwhile.

    failures: by the digest of a member that could not be made, the reason.
    """

    recipes: tuple[Recipe, ...]
    seconds: float
    device: str
    reused: int = 0
    failures: Mapping[str, str] = field(default_factory=dict)


class Cohort(NamedTuple):
    """Models that are made together: what kind the first of them is, and all their names."""

    kind: str
    models: tuple[str, ...]


@dataclass(frozen=True)
class PlanSummary:
    """What a run is going to do, in plain values.

    scenario:  as `str(scenario)` prints it.
    task:      "classification", say.
    missing:   models the store lacks, per recipe name.
    cohorts:   the missing models, in the groups they will be made in.
    trials:    trials per method label.
    tasks:     by method label, what it will do, in words.
    bytes:     disk that the missing models will take.
    seconds:   to make the missing models on `device`, estimated; None where nothing is known.
    smaller:   suites like this one that take less.
    refusals:  by method label, why it does not apply.
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


@dataclass(frozen=True)
class Lost(Generic[Item]):
    """An item without an outcome: the process that worked on it ended, or had to be stopped.

    reason:  how, in words.
    seconds: for how long it was worked on.
    """

    item: Item
    reason: str
    seconds: float


class Executor(Protocol):
    """Who does the work."""

    def map(
        self, job: Callable[..., Outcome], items: Iterable[Item], limit: float | None = None
    ) -> Iterator[Outcome | Lost[Item]]:
        """Do `job(item, device=...)` for each item and yield outcomes as they finish, in any order.

        Never two jobs on one device at a time: a trial's seconds are a result. What a job raises
        is raised here. A job that takes its process with it, or takes longer than `limit` seconds,
        becomes a `Lost`; the others go on.
        """

    def close(self) -> None:
        """Give back what is held, and stop what still works. Called once, at the end of a run."""
