"""The schema of results.json, and the report of a run: for Python, notebooks and reporters.

Everything that writes or reads a run's results uses `RunRecord`. A field may be added with a
default value. Every other change of the schema takes a new version, and a step in `_upgraded`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_serializer,
    model_validator,
)

from .errors import InputError, change_texts, did_you_mean, last_line, printable, printable_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from .work import Result

SCHEMA: Final = "fpbench.results/3"
EARLIER: Final = ("fpbench.results/1", "fpbench.results/2")

Metric = Literal["aruc", "aruc_calibrated", "auc"]
"""The metrics by which methods are compared."""

DEFAULT_FPR: Final = 0.05
"""The false positive rate at which suspects are called stolen, if a suite sets none."""


def _finite(value: Any) -> Any:
    """Return JSON values with None for every number that JSON cannot write: nan and infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value


Text = Annotated[str, BeforeValidator(lambda v: printable(v) if isinstance(v, str) else v)]
"""A text that cannot control a terminal: see `printable`."""

Json = Annotated[Any, BeforeValidator(lambda v: printable_json(_finite(v)))]
"""Whatever JSON can hold, with printable texts."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Rate = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Interval = tuple[float, float]
"""The lower and the upper end of a 95 % interval. It lies within the bounds of its number."""

RatesByDigest = Mapping[Sha256, Rate]
RHO: Final = tuple(step / 100 for step in range(101))
"""The thresholds of a summary's curves: 0, 0.01, ..., 1."""

Curve = Annotated[tuple[Rate, ...], Field(min_length=len(RHO), max_length=len(RHO))]
"""A share of suspects at each threshold of RHO."""

LossPoint = tuple[Count, NonNegative, Annotated[float | None, BeforeValidator(_finite)]]
"""A step, seconds since construction began, the loss; None for a loss that is no finite number."""


class Part(BaseModel):
    """A part of a record. It cannot be changed, and all its numbers are finite."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class GitRevision(Part):
    """The commit that was checked out where the run began."""

    commit: Text
    dirty: bool


class RunFacts(Part):
    """When, where and with which software a suite ran."""

    id: Text
    started: AwareDatetime
    seconds: NonNegative
    device: Text
    threads: Count
    processor: Text
    cpus: Count | None
    platform: Text
    versions: Mapping[Text, Text | None]
    git: GitRevision | None

    @field_serializer("started")
    def _as_iso(self, started: AwareDatetime) -> str:
        return started.isoformat(timespec="seconds")


class SuiteFacts(Part):
    """The suite as it was run.

    fpr:   the false positive rate at which suspects are called stolen; None if the suite sets none.
    weigh: the weight of each kind of suspect in ARUC; empty if every suspect counts the same.
    """

    name: Text
    file: Text
    sha256: Sha256
    text: Text
    overrides: tuple[Text, ...]
    api: Text
    seed: int
    repeats: Count
    split: Rate
    stratify: bool
    fpr: Rate | None = None
    weigh: Mapping[Text, NonNegative] = {}


class ScenarioFacts(Part):
    """The scenario, and the data that it is made of."""

    name: Text
    version: int
    fields: Mapping[Text, Json]
    data: Text


class ModelRecord(Part):
    """A model of a zoo. If it was not made, its utility, seconds, device and weights are None.

    zoo: the seed of the zoo that it belongs to.
    """

    digest: Sha256
    name: Text
    kind: Text
    positive: bool
    arch: Text
    utility: Mapping[Text, float] | None
    seconds: NonNegative | None
    device: Text | None
    weights_sha256: Text | None
    zoo: int = 0


class KindSummary(Part):
    """How a method judged the suspects of one kind, over all repeats.

    judged: how often a suspect of this kind was judged.
    called: the share that was called stolen, at the threshold of `Summary.fpr`. None in results
            of earlier schemas.
    """

    judged: Count
    called: Rate | None
    matching_rate: Rate

    @property
    def called_of_judged(self) -> str:
        """How many were called stolen, of how many, such as "5/6"."""
        return "" if self.called is None else f"{self.called * self.judged:.0f}/{self.judged}"


class Summary(Part):
    """A method's metrics: means over zoos and repeats, and their 95 % intervals.

    zoos:    the number of zoos. With several, intervals are over zoos; with one, they are over
             its repeats. A single repeat of a single zoo has no interval.
    repeats: the number of repeats with results, in all zoos together.
    tpr_at_...: None if the judged suspects have too few negatives to measure that rate.
    aruc_learned: ARUC on the models that the method learned from; None if it learns from none.
    aruc_gap_ci:  the interval of the difference of `aruc_learned` and `aruc`.
    fpr:     the false positive rate at which suspects are called stolen.
    found, false_positives: the shares of positives and of negatives that are called stolen.
    """

    zoos: Count = 1
    repeats: Count
    queries: Count
    aruc: Rate
    aruc_ci: Interval | None
    aruc_calibrated: Rate
    aruc_calibrated_ci: Interval | None
    aruc_learned: Rate | None
    aruc_learned_ci: Interval | None
    aruc_gap_ci: Interval | None
    auc: Rate
    auc_ci: Interval | None
    robustness_at_full_uniqueness: Rate
    robustness_at_full_uniqueness_ci: Interval | None
    tpr_at_1_percent_fpr: Rate | None
    tpr_at_1_percent_fpr_ci: Interval | None
    tpr_at_5_percent_fpr: Rate | None
    tpr_at_5_percent_fpr_ci: Interval | None
    fpr: Rate | None
    found: Rate | None
    found_ci: Interval | None
    false_positives: Rate | None
    false_positives_ci: Interval | None
    construct_seconds: NonNegative
    construct_seconds_ci: Interval | None
    verify_seconds: NonNegative
    verify_seconds_ci: Interval | None
    aruc_ceiling: Rate
    smallest_fpr: Rate
    calibrated_on: Text
    smallest_p_value: Rate
    kinds: Mapping[Text, KindSummary]
    robustness: Curve
    uniqueness: Curve

    @property
    def interval_over(self) -> str:
        """A phrase that says whether the intervals are over zoos or over the splits of one zoo."""
        if self.zoos > 1:
            return f"95 % interval over {self.zoos} zoos"
        return (
            f"95 % interval over {self.repeats} splits of this one zoo; it leaves out that "
            "another zoo would give other numbers"
        )

    def calls(self, trial: TrialRecord, digest: str) -> bool | None:
        """Return whether a suspect was called stolen in a trial of the method; None in results of
        earlier schemas."""
        p = trial.p_values.get(digest)
        return None if p is None or self.fpr is None else is_called(p, self.fpr)

    @property
    def overfitted(self) -> bool:
        """Whether the method is much better on the models that it learned from than on others."""
        return (
            self.aruc_learned is not None
            and self.aruc_learned - self.aruc > OVERFITTED
            and self.aruc_gap_ci is not None
            and self.aruc_gap_ci[0] > 0
        )


OVERFITTED: Final = 0.1
"""A method is called overfitted if its ARUC on the models that it learned from is higher than on
the judged ones by more than this, and the interval of the difference is above 0."""


def is_called(p_value: float, fpr: float) -> bool:
    """Return whether a suspect is called stolen at a false positive rate."""
    return p_value <= fpr + 1e-12


class MethodRecord(Part):
    """A method of the suite, with its summary or why it has none."""

    method: Text
    name: Text
    source: Text
    fields: Mapping[Text, Json]
    ensemble: Count | None
    access: Text | None
    refusal: Text | None
    errors: tuple[Text, ...]
    summary: Summary | None

    @property
    def why_not(self) -> str | None:
        """Why the method declined or failed, in a line; None if all its repeats have results."""
        if self.refusal or self.errors:
            return self.refusal or last_line(self.errors[0])
        return None if self.summary else "its target could not be made"


class Difference(Part):
    """How far the first of two methods is ahead of the second.

    value:     the difference of the means over the zoos and repeats that both finished.
    low, high: its 95 % interval: over zoos, or over the suspects of a single zoo.
    p_value:   two-sided; of this pair alone, not corrected for the number of pairs.
    p_holm:    the p-value corrected for the number of pairs; None in results of earlier schemas.
    zoos:      the number of zoos that both finished.
    """

    first: Text
    second: Text
    value: float
    low: float
    high: float
    p_value: Rate
    p_holm: Rate | None = None
    zoos: Count = 1


class Comparisons(Part):
    """All pairs of methods, compared by three metrics."""

    aruc: tuple[Difference, ...]
    aruc_calibrated: tuple[Difference, ...]
    auc: tuple[Difference, ...]


class TrialRecord(Part):
    """One method in one repeat on one zoo. Rates and p-values are by the suspect's digest.

    zoo: the seed of the zoo that its models belong to.
    """

    method: Text
    repeat: Count
    seed: int
    ensemble: tuple[Sha256, ...]
    matching_rates: RatesByDigest
    calibration_rates: RatesByDigest
    calibrated_rates: RatesByDigest
    p_values: RatesByDigest
    binomial_p_values: RatesByDigest
    queries: Count
    construct_seconds: NonNegative
    construct_cpu_seconds: NonNegative | None
    verify_seconds: NonNegative
    verify_cpu_seconds: NonNegative | None
    device: Text
    losses: tuple[LossPoint, ...]
    threads: Count
    cached: bool
    error: Text | None
    zoo: int = 0


class Versioned(Part):
    """A part that names its schema; earlier schemas are read too."""

    version: Literal["fpbench.results/3"] = Field(default=SCHEMA, alias="schema")

    @model_validator(mode="before")
    @classmethod
    def _of_any_version(cls, data: Any) -> Any:
        return _upgraded(data) if isinstance(data, Mapping) else data

    @classmethod
    def of(cls, data: object, place: object) -> Self:
        """Check JSON values of this or an earlier schema.

        Raises InputError, naming `place`, for values of another schema or damaged ones.
        """
        schema = data.get("schema") if isinstance(data, Mapping) else None
        if schema not in (SCHEMA, *EARLIER):
            later = re.fullmatch(r"fpbench\.results/([4-9]|[1-9]\d+)", str(schema))
            what = ", which a later fpbench wrote; update fpbench to read it" if later else ""
            raise InputError(f"expected schema {SCHEMA} in {place}, got {schema!r}{what}")
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            where = ".".join(map(str, fault["loc"])) or "trials"
            reason = f"at {where}: {fault['msg'].removeprefix('Value error, ')}"
        except RecursionError:
            reason = "by values that are nested without end"
        raise InputError(
            f"expected {schema} in {place}, found it damaged {printable(reason, also='')}"
        )

    def as_json(self) -> dict[str, Any]:
        """Return the JSON values of results.json, in their order."""
        return self.model_dump(mode="json", by_alias=True)


def _upgraded(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return values of any schema as values of this one.

    fpbench.results/1: a trial had no seconds of the processor, and in the first runs neither
    losses nor a number of threads.
    fpbench.results/2: a run had one zoo, so `target` was one digest; an interval was a half-width;
    nothing was called stolen at a threshold; a true positive rate at a false positive rate that
    could not be measured was another number.
    """
    if data.get("schema") not in EARLIER:
        return data
    data = {**data}
    trials, methods = data.get("trials", ()), data.get("methods", ())
    if data["schema"] == EARLIER[0] and isinstance(trials, list):
        added = {"construct_cpu_seconds": None, "verify_cpu_seconds": None}
        first = {"losses": [], "threads": 1}
        data["trials"] = [first | t | added if isinstance(t, dict) else t for t in trials]
    if "target" in data:
        data["targets"] = [data.pop("target")]
    if isinstance(methods, list):
        data["methods"] = [
            {**m, "summary": _upgraded_summary(m["summary"])}
            if isinstance(m, dict) and isinstance(m.get("summary"), dict)
            else m
            for m in methods
        ]
    return {**data, "schema": SCHEMA}


def _upgraded_summary(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return a summary of fpbench.results/2 as one of fpbench.results/3."""
    new = dict(summary)
    for name, half in summary.items():
        mean = summary.get(name.removesuffix("_ci"))
        if name.endswith("_ci") and isinstance(half, int | float) and isinstance(mean, int | float):
            high = math.inf if name.endswith("seconds_ci") else 1.0
            high = summary.get("aruc_ceiling", 1.0) if name.startswith("aruc") else high
            new[name] = (max(0.0, mean - half), min(high, mean + half))
    for percent in (1, 5):
        if summary.get("smallest_fpr", 0) > percent / 100:
            name = f"tpr_at_{percent}_percent_fpr"
            new[name] = new[f"{name}_ci"] = None
    later = ("aruc_learned", "aruc_learned_ci", "aruc_gap_ci", "fpr", "found", "found_ci",
             "false_positives", "false_positives_ci")  # fmt: skip
    kinds = summary.get("kinds", {})
    if isinstance(kinds, dict):
        new["kinds"] = {
            kind: {**entry, "called": None} if isinstance(entry, dict) else entry
            for kind, entry in kinds.items()
        }
    return dict.fromkeys(later) | new


class RunRecord(Versioned):
    """Everything that results.json holds.

    targets:  the digest of each zoo's target.
    failures: by the digest of a model that could not be made, the reason.
    twins:    by the digest of a suspect that was left out, the digest of the suspect with the same
              weights that stayed.
    """

    run: RunFacts
    suite: SuiteFacts
    scenario: ScenarioFacts
    targets: Annotated[tuple[Sha256, ...], Field(min_length=1)]
    models: Annotated[tuple[ModelRecord, ...], Field(min_length=1)]
    methods: tuple[MethodRecord, ...]
    comparisons: Comparisons
    trials: tuple[TrialRecord, ...]
    failures: Mapping[Sha256, Text]
    twins: Mapping[Sha256, Sha256] = {}

    @model_validator(mode="after")
    def _has_what_it_names(self) -> Self:
        """Check that every trial judged models of this record, on both sides if it succeeded."""
        positive = {model.digest: model.positive for model in self.models}
        if not {*self.twins, *self.twins.values()} <= positive.keys():
            raise ValueError("twins that are not among the models of the record")
        for trial in self.trials:
            name = f"trial {trial.method!r} #{trial.repeat}"
            if not trial.matching_rates.keys() <= positive.keys():
                raise ValueError(f"{name} judged models that are not in the record")
            if trial.error is None:
                sides = {positive[digest] for digest in trial.matching_rates}
                if len(sides) < 2 or trial.calibrated_rates.keys() != trial.matching_rates.keys():
                    raise ValueError(f"{name} has no error, but not the rates of both sides")
        return self

    @property
    def failed(self) -> bool:
        """True when a model or a trial failed."""
        return bool(self.failures) or any(method.errors for method in self.methods)

    @property
    def zoos(self) -> list[int]:
        """The seeds of the zoos."""
        return list(dict.fromkeys(model.zoo for model in self.models))

    @property
    def notes_on_weights(self) -> list[str]:
        """A sentence for each suspect that has the weights of another one or of the target."""
        names = {model.digest: model.name for model in self.models}
        notes = [
            f"{names[twin]} is left out, because it has the same weights as {names[kept]}"
            for twin, kept in self.twins.items()
        ]
        weights = {(m.zoo, m.weights_sha256) for m in self.models if m.kind == "target"}
        return notes + [
            f"{model.name} is a verbatim copy of the target"
            for model in self.models
            if model.kind != "target"
            and model.digest not in self.twins
            and model.weights_sha256
            and (model.zoo, model.weights_sha256) in weights
        ]

    @property
    def finished(self) -> list[tuple[MethodRecord, Summary]]:
        """The methods that have results, each with its summary."""
        return [(method, method.summary) for method in self.methods if method.summary]

    def with_texts(self, change: Callable[[str], str]) -> RunRecord:
        """Return the same record with every text in it changed."""
        return RunRecord.model_validate(change_texts(self.as_json(), change))


@dataclass(frozen=True, repr=False)
class Report:
    """Everything a run found; a notebook shows it as a table.

    record:  what results.json holds, with a type for each part.
    results: the trials; none where the run was read from its folder.
    """

    folder: Path
    record: RunRecord
    results: tuple[Result, ...] = ()

    @property
    def suite(self) -> str:
        """The suite's name."""
        return self.record.suite.name

    @cached_property
    def data(self) -> Mapping[str, Any]:
        """What results.json holds, as plain dictionaries and lists."""
        return self.record.as_json()

    @property
    def failed(self) -> bool:
        """True when a model or a trial failed."""
        return self.record.failed

    @property
    def methods(self) -> list[str]:
        """The labels of all methods, those that declined or failed included."""
        return [method.method for method in self.record.methods]

    def summary(self, method: str) -> dict[str, Any]:
        """A method's metrics: means over zoos and repeats, and `..._ci` the lower and upper ends of
        their 95 % intervals (None for one repeat of one zoo). Empty if it has no result:
        `self.why_not(method)`.

        Raises KeyError for a method that this run does not have, as do the others.
        """
        summary = self._entry(method).summary
        return summary.model_dump(mode="json") if summary else {}

    def why_not(self, method: str) -> str | None:
        """Why a method declined or failed, or None."""
        return self._entry(method).why_not

    def curves(self, method: str) -> dict[str, list[float]]:
        """By "rho", "robustness" and "uniqueness", 101 numbers each; empty without a result."""
        summary = self._entry(method).summary
        if not summary:
            return {}
        return {
            "rho": list(RHO),
            "robustness": list(summary.robustness),
            "uniqueness": list(summary.uniqueness),
        }

    def rates(self, method: str) -> list[dict[str, Any]]:
        """A row per zoo, repeat and judged suspect: zoo, repeat, suspect, kind, positive, called,
        matching_rate, calibrated_rate, p_value."""
        summary = self._entry(method).summary
        models = {model.digest: model for model in self.record.models}
        return [
            {
                "zoo": trial.zoo,
                "repeat": trial.repeat,
                "suspect": models[digest].name,
                "kind": models[digest].kind,
                "positive": models[digest].positive,
                "called": summary.calls(trial, digest) if summary else None,
                "matching_rate": rate,
                "calibrated_rate": trial.calibrated_rates.get(digest),
                "p_value": trial.p_values.get(digest),
            }
            for trial in self.record.trials
            if trial.method == method
            for digest, rate in trial.matching_rates.items()
        ]

    def _entry(self, method: str) -> MethodRecord:
        for entry in self.record.methods:
            if entry.method == method:
                return entry
        raise KeyError(f"no method {method!r} in this run; {did_you_mean(method, self.methods)}")

    def __repr__(self) -> str:
        return f"<Report of {self.suite}: {', '.join(self.methods)}; {self.folder}>"

    def _repr_html_(self) -> str:
        """The table of methods, as a notebook shows it."""
        head = ("method", "ARUC", "calibrated", "AUC", "R at U = 1", "found", "false positives",
                "construct", "queries")  # fmt: skip
        rows = [[method.method, *_cells(method)] for method in self.record.methods]
        lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
        return (
            f"<table><thead><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr></thead><tbody>"
            + "".join(f"<tr>{line}</tr>" for line in lines)
            + f"</tbody></table><p>{escape(str(self.folder))}</p>"
        )


def _cells(method: MethodRecord) -> list[str]:
    s = method.summary
    if not s:
        return [method.why_not or ""]
    return [
        with_interval(s.aruc, s.aruc_ci),
        with_interval(s.aruc_calibrated, s.aruc_calibrated_ci),
        with_interval(s.auc, s.auc_ci),
        percent(s.robustness_at_full_uniqueness, s.robustness_at_full_uniqueness_ci),
        percent(s.found, s.found_ci),
        percent(s.false_positives, s.false_positives_ci),
        f"{s.construct_seconds:.2f} s",
        str(s.queries),
    ]


def with_interval(value: float, interval: Interval | None) -> str:
    """Return a mean in three digits, with its interval in two: "0.386 (0.06 to 0.71)".

    A narrow interval has three digits too, because rounded ends would leave the mean outside.
    """
    if interval is None:
        return f"{value:.3f}"
    low, high = interval
    digits = 2 if high - low >= 0.02 else 3
    return f"{value:.3f} ({low:.{digits}f} to {high:.{digits}f})"


def percent(share: float | None, interval: Interval | None = None) -> str:
    """Return a share in percent, with its interval: "64 % (0 to 100)"; "n/a" for None."""
    if share is None:
        return "n/a"
    shown = f"{100 * share:.0f} %"
    return f"{shown} ({100 * interval[0]:.0f} to {100 * interval[1]:.0f})" if interval else shown
