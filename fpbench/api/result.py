"""What is announced while a suite runs, and what it found in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Protocol, TypeVar

from .errors import did_you_mean
from .fingerprinter import Fingerprinter
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


@dataclass(frozen=True)
class Result:
    """What one trial found.

    matching_rates: by the suspect's digest, each in [0, 1].
    calibration_rates: likewise, of the models in `trial.calibration`.
    queries:        inputs put to each suspect.
    construct_seconds, verify_seconds: wall clock; verification is of all suspects together.
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


@dataclass(frozen=True)
class PlanSummary:
    """What a run is going to do.

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
    scenario: Scenario
    api: Access
    repeats: int
    positives: Mapping[str, int]
    negatives: Mapping[str, int]
    judged: tuple[int, int]
    ensemble: tuple[int, int]
    missing: Mapping[str, int]
    cohorts: tuple[tuple[Recipe, ...], ...]
    trials: Mapping[str, int]
    tasks: Mapping[str, str]
    bytes: int
    refusals: Mapping[str, str]
    device: str
    seconds: float | None
    smaller: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Report:
    """Everything a run found; a notebook shows it as a table.

    data:    what results.json holds, under its schema.
    results: the trials; none where the run was read from its folder.
    """

    suite: str
    folder: Path
    data: Mapping[str, Any]
    results: tuple[Result, ...] = ()

    @property
    def failed(self) -> bool:
        """True when a model or a trial failed."""
        return bool(self.data["failures"]) or any(m["errors"] for m in self.data["methods"])

    @property
    def methods(self) -> list[str]:
        """The labels of all methods, those that declined or failed included."""
        return [m["method"] for m in self.data["methods"]]

    def summary(self, method: str) -> dict[str, Any]:
        """A method's metrics: means over the repeats, and `..._ci` the half-widths of their 95 %
        intervals (None for one repeat). Empty if it has no result: `self.why_not(method)`.

        Raises KeyError for a method that this run does not have, as do the others.
        """
        return dict(self._entry(method)["summary"] or {})

    def why_not(self, method: str) -> str | None:
        """Why a method declined or failed, or None."""
        entry = self._entry(method)
        reasons = [entry["refusal"], *(e.strip().splitlines()[-1] for e in entry["errors"])]
        return next((str(reason) for reason in reasons if reason), None)

    def curves(self, method: str) -> dict[str, list[float]]:
        """By "rho", "robustness" and "uniqueness", 101 numbers each; empty without a result."""
        s = self.summary(method)
        if not s:
            return {}
        steps = len(s["robustness"]) - 1
        rho = [step / steps for step in range(steps + 1)]
        return {"rho": rho, **{name: list(s[name]) for name in ("robustness", "uniqueness")}}

    def rates(self, method: str) -> list[dict[str, Any]]:
        """A row per repeat and judged suspect: repeat, suspect, kind, positive, matching_rate,
        calibrated_rate, p_value."""
        self._entry(method)
        models = {model["digest"]: model for model in self.data["models"]}
        return [
            {
                "repeat": trial["repeat"],
                "suspect": models[digest]["name"],
                "kind": models[digest]["kind"],
                "positive": models[digest]["positive"],
                "matching_rate": rate,
                "calibrated_rate": trial["calibrated_rates"].get(digest),
                "p_value": trial["p_values"].get(digest),
            }
            for trial in self.data["trials"]
            if trial["method"] == method
            for digest, rate in trial["matching_rates"].items()
        ]

    def _entry(self, method: str) -> Mapping[str, Any]:
        for entry in self.data["methods"]:
            if entry["method"] == method:
                found: Mapping[str, Any] = entry
                return found
        raise KeyError(f"no method {method!r} in this run; {did_you_mean(method, self.methods)}")

    def __repr__(self) -> str:
        return f"<Report of {self.suite}: {', '.join(self.methods)}; {self.folder}>"

    def _repr_html_(self) -> str:
        """The table of methods, as a notebook shows it."""
        head = ("method", "ARUC", "calibrated", "AUC", "R at U = 1", "construct", "queries")
        rows = [[method, *_cells(self.summary(method), self.why_not(method))]
                for method in self.methods]  # fmt: skip
        lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
        return (
            f"<table><thead><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr></thead><tbody>"
            + "".join(f"<tr>{line}</tr>" for line in lines)
            + f"</tbody></table><p>{escape(str(self.folder))}</p>"
        )


def _cells(s: Mapping[str, Any], why_not: str | None) -> list[str]:
    if not s:
        return [why_not or "no result"]
    intervals = [
        f"{s[key]:.3f}" + (f" ± {s[f'{key}_ci']:.3f}" if s[f"{key}_ci"] is not None else "")
        for key in ("aruc", "aruc_calibrated", "auc")
    ]
    return [*intervals, f"{100 * s['robustness_at_full_uniqueness']:.0f} %",
            f"{s['construct_seconds']:.2f} s", str(s["queries"])]  # fmt: skip


class Executor(Protocol):
    """Who does the work."""

    def map(self, job: Callable[[Item], Outcome], items: Iterable[Item]) -> Iterator[Outcome]:
        """Do `job` on each item and yield outcomes as they finish, in any order.

        Never two jobs on one device at a time: a trial's seconds are a result.
        """
