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
HalfWidth = Annotated[NonNegative | None, BeforeValidator(_finite)]
"""Half of a 95 % interval; None for a single repeat."""

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
    """The suite as it was run."""

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
    """How a method rated the suspects of one kind, over all repeats."""

    judged: Count
    matching_rate: Rate
    called_positive: Rate


class Summary(Part):
    """A method's metrics: means over its repeats, and half-widths of their 95 % intervals."""

    repeats: Count
    queries: Count
    aruc: Rate
    aruc_ci: HalfWidth
    auc: Rate
    auc_ci: HalfWidth
    robustness_at_full_uniqueness: Rate
    robustness_at_full_uniqueness_ci: HalfWidth
    tpr_at_1_percent_fpr: Rate
    tpr_at_1_percent_fpr_ci: HalfWidth
    tpr_at_5_percent_fpr: Rate
    tpr_at_5_percent_fpr_ci: HalfWidth
    aruc_calibrated: Rate
    aruc_calibrated_ci: HalfWidth
    construct_seconds: NonNegative
    construct_seconds_ci: HalfWidth
    verify_seconds: NonNegative
    verify_seconds_ci: HalfWidth
    aruc_ceiling: Rate
    smallest_fpr: Rate
    calibrated_on: Text
    smallest_p_value: Rate
    kinds: Mapping[Text, KindSummary]
    robustness: Curve
    uniqueness: Curve


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

    value:     the difference of the means over the repeats that both finished.
    low, high: its 95 % percentile interval.
    p_value:   two-sided; of this pair alone, not corrected for the number of pairs.
    """

    first: Text
    second: Text
    value: float
    low: float
    high: float
    p_value: Rate


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
    fpbench.results/2: a run had one zoo, so `target` was one digest.
    """
    if data.get("schema") not in EARLIER:
        return data
    data = {**data}
    trials = data.get("trials", ())
    if data["schema"] == EARLIER[0] and isinstance(trials, list):
        added = {"construct_cpu_seconds": None, "verify_cpu_seconds": None}
        first = {"losses": [], "threads": 1}
        data["trials"] = [first | t | added if isinstance(t, dict) else t for t in trials]
    if "target" in data:
        data["targets"] = [data.pop("target")]
    return {**data, "schema": SCHEMA}


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
        """A method's metrics: means over the repeats, and `..._ci` the half-widths of their 95 %
        intervals (None for one repeat). Empty if it has no result: `self.why_not(method)`.

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
        """A row per zoo, repeat and judged suspect: zoo, repeat, suspect, kind, positive,
        matching_rate, calibrated_rate, p_value."""
        self._entry(method)
        models = {model.digest: model for model in self.record.models}
        return [
            {
                "zoo": trial.zoo,
                "repeat": trial.repeat,
                "suspect": models[digest].name,
                "kind": models[digest].kind,
                "positive": models[digest].positive,
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
        head = ("method", "ARUC", "calibrated", "AUC", "R at U = 1", "construct", "queries")
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
        f"{100 * s.robustness_at_full_uniqueness:.0f} %",
        f"{s.construct_seconds:.2f} s",
        str(s.queries),
    ]


def with_interval(value: float, half: float | None) -> str:
    """Return a mean in three digits, with the half-width of its interval if it has one."""
    return f"{value:.3f}" if half is None else f"{value:.3f} ± {half:.3f}"
