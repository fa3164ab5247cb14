"""The MLflow runs of a suite's run: one for the suite, one per method, one per repeat."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..api.errors import last_line
from ..api.results import RHO, MethodRecord, ModelRecord, RunRecord, Summary, TrialRecord
from ..results import metrics
from .figures import COLOURS, mean_losses

if TYPE_CHECKING:
    from ..api.fingerprinter import Point

Key = tuple[str, str, str]
"""An entry's kind, method and repeat."""

SCALARS: Mapping[str, Callable[[Summary], float | None]] = {
    "summary/aruc": lambda s: s.aruc,
    "summary/aruc_calibrated": lambda s: s.aruc_calibrated,
    "summary/auc": lambda s: s.auc,
    "summary/robustness_at_full_uniqueness": lambda s: s.robustness_at_full_uniqueness,
    "summary/tpr_at_1_percent_fpr": lambda s: s.tpr_at_1_percent_fpr,
    "summary/tpr_at_5_percent_fpr": lambda s: s.tpr_at_5_percent_fpr,
    "summary/aruc_learned": lambda s: s.aruc_learned,
    "summary/found": lambda s: s.found,
    "summary/false_positives": lambda s: s.false_positives,
    "time/construct_seconds": lambda s: s.construct_seconds,
    "time/verify_seconds": lambda s: s.verify_seconds,
    "cost/queries": lambda s: s.queries,
}
"""A method's metrics, by their names in MLflow; None where a method has no such number."""


@dataclass(frozen=True)
class Entry:
    """One MLflow run.

    kind:     suite | method | repeat; with `method` and `repeat` it names the entry within a
              suite run.
    repeat:   the number of the repeat; "zoo/number" if there are several zoos.
    metrics:  (key, value, step).
    losses:   points of the metric `loss`; each has its own time, for MLflow's time axes.
    tables:   rows by file name.
    texts:    contents by file name.
    files:    (file or folder, its folder in MLflow).
    datasets: (name, digest, description, context).
    start, end: milliseconds since 1970. They come from the results, so a second upload has the
              same.
    """

    kind: str
    name: str
    start: int
    end: int
    method: str = ""
    repeat: str = ""
    status: str = "FINISHED"
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Sequence[tuple[str, float, int]] = ()
    losses: Sequence[Point] = ()
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[tuple[Path, str | None]] = ()
    datasets: Sequence[tuple[str, str, Mapping[str, Any], str]] = ()

    @property
    def key(self) -> Key:
        """The parts that no other entry of the suite run shares."""
        return self.kind, self.method, self.repeat


def make_entries(record: RunRecord, folder: Path) -> list[Entry]:
    """Return the entries of a run, parents before children."""
    start = round(record.run.started.timestamp() * 1000)
    entries = [_suite_entry(record, folder, start)]
    tried = [m for m in record.methods if not m.refusal]
    for rank, method in enumerate(tried):
        # MLflow lists the newest first; start times a millisecond apart keep the suite's order.
        entries += _method_entries(method, record, start + len(tried) - rank)
    return entries


def _suite_entry(record: RunRecord, folder: Path, start: int) -> Entry:
    run, suite = record.run, record.suite
    files = [(folder / name, None) for name in ("results.json", "suite.yaml", "suspects.csv")]
    declined = [f"{m.method}: {m.refusal}" for m in record.methods if m.refusal]
    zoos = ", ".join(map(str, record.zoos))[:250]
    params = {"api": suite.api, "zoos": zoos, "seed": suite.seed, "repeats": suite.repeats,
              "split": suite.split, "stratify": suite.stratify, "device": run.device}  # fmt: skip
    return Entry(
        kind="suite", name=f"suite {run.id}", start=start, end=start + round(1000 * run.seconds),
        status="FAILED" if record.failed else "FINISHED",
        tags=_tags(record) | ({"fpbench.declined": "; ".join(declined)} if declined else {}),
        params={key: str(value) for key, value in params.items()} | _params_of(suite.overrides),
        tables={"methods.json": [_row(m) for m in record.methods]},
        texts={f"failures/{digest[:12]}.txt": text for digest, text in record.failures.items()},
        files=[(f, to) for f, to in [*files, (folder / "figures", "figures")] if f.exists()],
        datasets=_datasets(record),
    )  # fmt: skip


def _method_entries(method: MethodRecord, record: RunRecord, start: int) -> list[Entry]:
    """Return a method's entry and those of its repeats."""
    label, summary = method.method, method.summary
    trials = [trial for trial in record.trials if trial.method == label]
    why = method.why_not
    errors = method.errors or ((why,) if why else ())
    seconds = sum(trial.construct_seconds + trial.verify_seconds for trial in trials)
    entry = Entry(
        kind="method", name=label, method=label, start=start,
        end=start + round(1000 * seconds), status="FAILED" if errors else "FINISHED",
        tags=_tags(record) | _error_tag(why)
        | {"fpbench.source": method.source, "fpbench.access": str(method.access),
           "mlflow.runColor": _colour(label, record)},
        params={key: str(value)[:250] for key, value in method.fields.items()},
        metrics=[*_metrics(summary), *_curves(summary)] if summary else [],
        losses=mean_losses(record.trials).get(label, ()),
        tables={"suspects.json": _suspects(trials, record.models, summary)},
        texts={f"errors/{i}.txt": text for i, text in enumerate(errors)},
        datasets=_datasets(record),
    )  # fmt: skip
    return [entry, *(_repeat_entry(trial, record, start) for trial in trials)]


def _repeat_entry(trial: TrialRecord, record: RunRecord, start: int) -> Entry:
    error, seconds = trial.error, trial.construct_seconds + trial.verify_seconds
    tags = _tags(record) | {"fpbench.zoo": str(trial.zoo), "fpbench.seed": str(trial.seed),
                            "fpbench.device": trial.device}  # fmt: skip
    repeat, zoo = str(trial.repeat), ""
    if len(record.zoos) > 1:
        repeat, zoo = f"{trial.zoo}/{trial.repeat}", f" zoo {trial.zoo}"
    return Entry(
        kind="repeat", name=f"{trial.method}{zoo} #{trial.repeat}", method=trial.method,
        repeat=repeat, start=start, end=start + round(1000 * seconds),
        status="FAILED" if error else "FINISHED",
        tags=tags | _error_tag(last_line(error) if error else None),
        metrics=[] if error else _repeat_metrics(trial, record.models),
        texts={"error.txt": error} if error else {},
    )  # fmt: skip


def _error_tag(why: str | None) -> dict[str, str]:
    return {"fpbench.error": why[:300]} if why else {}


def _colour(label: str, record: RunRecord) -> str:
    """Return a method's colour in our figures, for MLflow's charts."""
    labels = [method.method for method in record.methods]
    return COLOURS[labels.index(label) % len(COLOURS)]


def _tags(record: RunRecord) -> dict[str, str]:
    """Return the tags that all entries of a suite run share."""
    git = record.run.git
    tags = {
        "fpbench.suite_run": record.run.id,
        "fpbench.suite": record.suite.name,
        "fpbench.scenario": record.scenario.name,
        "fpbench.schema": record.version,
        "fpbench.version": str(record.run.versions.get("fpbench")),
        "mlflow.source.name": record.suite.file,
        "mlflow.source.type": "LOCAL",
    }
    return tags | ({"mlflow.source.git.commit": git.commit} if git else {})


def _metrics(s: Summary) -> Iterator[tuple[str, float, int]]:
    values = {key: of(s) for key, of in SCALARS.items()}
    if s.aruc_ci is not None:
        values |= {"summary/aruc_lo": s.aruc_ci[0], "summary/aruc_hi": s.aruc_ci[1]}
    return ((key, value, 0) for key, value in values.items() if value is not None)


def _curves(summary: Summary) -> Iterator[tuple[str, float, int]]:
    """Yield the curves with 100 rho as the step, because MLflow's steps are whole numbers.

    `curve/rho` gives charts an axis of rho.
    """
    for step, (rho, r, u) in enumerate(
        zip(RHO, summary.robustness, summary.uniqueness, strict=True)
    ):
        yield "curve/robustness", r, step
        yield "curve/uniqueness", u, step
        yield "curve/rho", rho, step


def _repeat_metrics(
    trial: TrialRecord, models: Sequence[ModelRecord]
) -> list[tuple[str, float, int]]:
    """Return the metrics of one repeat."""
    positive = {model.digest: model.positive for model in models}

    def split(rates: Mapping[str, float]) -> list[list[float]]:
        return [[r for d, r in rates.items() if positive[d] is side] for side in (True, False)]

    halves = split(trial.matching_rates)
    values = {
        "summary/aruc": metrics.aruc(*halves),
        "summary/aruc_calibrated": metrics.aruc(*split(trial.calibrated_rates)),
        "summary/auc": metrics.roc_auc(*halves),
        "summary/robustness_at_full_uniqueness": metrics.robustness_at_full_uniqueness(*halves),
        "time/construct_seconds": trial.construct_seconds,
        "time/verify_seconds": trial.verify_seconds,
        "cost/queries": trial.queries,
    }
    return [(key, value, 0) for key, value in values.items()]


def _suspects(
    trials: Sequence[TrialRecord], models: Sequence[ModelRecord], summary: Summary | None
) -> list[dict[str, Any]]:
    """Return one row per suspect: how often it was judged and called stolen, and its mean rate.

    All methods have the same rows, because MLflow compares tables row by row.
    """
    rates: dict[str, list[float]] = {}
    called: dict[str, int] = {}
    for trial in trials:
        for digest, rate in trial.matching_rates.items():
            rates.setdefault(digest, []).append(rate)
            if summary and summary.fpr is not None:
                called[digest] = called.get(digest, 0) + bool(summary.calls(trial, digest))
    return [
        {
            "name": m.name, "kind": m.kind, "positive": m.positive, "arch": m.arch,
            **(m.utility or {}), "judged": len(rates.get(m.digest, [])),
            "called_stolen": called.get(m.digest),
            "matching_rate": statistics.fmean(r) if (r := rates.get(m.digest)) else None,
        }
        for m in models
        if m.kind != "target"
    ]  # fmt: skip


def _row(method: MethodRecord) -> dict[str, Any]:
    s = method.summary
    scalars = {key.partition("/")[2]: of(s) if s else None for key, of in SCALARS.items()}
    low, high = (s and s.aruc_ci) or (None, None)
    return {"method": method.method, "aruc_lo": low, "aruc_hi": high, **scalars,
            "note": method.why_not}  # fmt: skip


def _datasets(record: RunRecord) -> list[tuple[str, str, Mapping[str, Any], str]]:
    """Return the scenario's data and the zoo. Two runs with equal digests can be compared."""
    scenario, models = record.scenario, record.models
    digests = sorted(model.digest for model in models)
    positives = sum(model.positive for model in models if model.kind != "target")
    zoo = {"targets": record.targets, "positives": positives,
           "negatives": len(models) - positives - len(record.targets)}  # fmt: skip
    return [
        (scenario.name, _digest(scenario.model_dump()), {"data": scenario.data}, "evaluation"),
        (f"zoo of {record.suite.name}", _digest(digests), zoo, "suspects"),
    ]


def _digest(value: Any) -> str:
    """Return a digest of JSON values, of 36 characters, which is the most that MLflow accepts."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:36]


def _params_of(overrides: Sequence[str]) -> dict[str, str]:
    return {"overrides": " ".join(overrides)[:250]} if overrides else {}
