"""What a run's results become in MLflow: one flat entry per method, one for the suite, and one
per repeat below its method."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..api.errors import last_line
from ..results import metrics
from .figures import COLOURS, losses

if TYPE_CHECKING:
    from ..api.fingerprinter import Point

Key = tuple[str, str, str]
"""An entry's kind, method and repeat."""

SCALARS = {
    "aruc": "summary/aruc",
    "aruc_calibrated": "summary/aruc_calibrated",
    "auc": "summary/auc",
    "robustness_at_full_uniqueness": "summary/robustness_at_full_uniqueness",
    "tpr_at_1_percent_fpr": "summary/tpr_at_1_percent_fpr",
    "tpr_at_5_percent_fpr": "summary/tpr_at_5_percent_fpr",
    "construct_seconds": "time/construct_seconds",
    "verify_seconds": "time/verify_seconds",
    "queries": "cost/queries",
}


@dataclass(frozen=True)
class Entry:
    """One MLflow run.

    kind:     suite | method | repeat; with `method` and `repeat` it names the entry within a
              suite run.
    metrics:  (key, value, step).
    losses:   the metric `loss`; its points have their own times, which MLflow can draw it over.
    tables:   by file name, rows.
    texts:    by file name, contents.
    files:    (file or folder, folder it goes to).
    datasets: (name, digest, what it is, context).
    start, end: milliseconds. They come from the results, so that a second upload is the first.
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
        """What sets this entry apart from the others of its suite run."""
        return self.kind, self.method, self.repeat


def entries(data: Mapping[str, Any], folder: Path) -> list[Entry]:
    """Everything to log, parents first."""
    start = round(datetime.fromisoformat(data["run"]["started"]).timestamp() * 1000)
    out = [_suite(data, folder, start)]
    tried = [m for m in data["methods"] if not m["refusal"]]
    for rank, method in enumerate(tried):
        # MLflow lists the newest first; a millisecond each keeps the suite's order of methods.
        out += _method(method, data, start + len(tried) - rank)
    return out


def _suite(data: Mapping[str, Any], folder: Path, start: int) -> Entry:
    run, suite = data["run"], data["suite"]
    failed = data["failures"] or any(m["errors"] for m in data["methods"])
    files = [(folder / name, None) for name in ("results.json", "suite.yaml", "suspects.csv")]
    declined = [f"{m['method']}: {m['refusal']}" for m in data["methods"] if m["refusal"]]
    return Entry(
        kind="suite", name=f"suite {run['id']}", start=start,
        end=start + round(1000 * run["seconds"]), status="FAILED" if failed else "FINISHED",
        tags=_tags(data) | ({"fpbench.declined": "; ".join(declined)} if declined else {}),
        params={key: str(suite[key]) for key in ("api", "seed", "repeats", "split", "stratify")}
        | {"device": str(run["device"])} | _short(suite["overrides"]),
        tables={"methods.json": [_row(m) for m in data["methods"]]},
        texts={f"failures/{digest[:12]}.txt": text for digest, text in data["failures"].items()},
        files=[(f, to) for f, to in [*files, (folder / "figures", "figures")] if f.exists()],
        datasets=_datasets(data),
    )  # fmt: skip


def _method(method: Mapping[str, Any], data: Mapping[str, Any], start: int) -> list[Entry]:
    label, summary = method["method"], method["summary"]
    trials = [t for t in data["trials"] if t["method"] == label]
    errors = method["errors"] or ([] if summary else ["its target could not be made"])
    tags = _tags(data) | ({"fpbench.error": last_line(errors[0])[:300]} if errors else {})
    seconds = sum(t["construct_seconds"] + t["verify_seconds"] for t in trials)
    entry = Entry(
        kind="method", name=label, method=label, start=start,
        end=start + round(1000 * seconds), status="FAILED" if errors else "FINISHED",
        tags=tags | {"fpbench.source": method["source"], "fpbench.access": str(method["access"]),
                     "mlflow.runColor": _colour(label, data)},
        params={key: str(value)[:250] for key, value in method["fields"].items()},
        metrics=[*_scalars(summary), *_curves(summary)] if summary else [],
        losses=losses(data).get(label, ()),
        tables={"suspects.json": _suspects(trials, data["models"])},
        texts={f"errors/{i}.txt": text for i, text in enumerate(errors)},
        datasets=_datasets(data),
    )  # fmt: skip
    return [entry, *(_repeat(t, data, start) for t in trials)]


def _repeat(trial: Mapping[str, Any], data: Mapping[str, Any], start: int) -> Entry:
    error, seconds = trial["error"], trial["construct_seconds"] + trial["verify_seconds"]
    tags = _tags(data) | {"fpbench.seed": str(trial["seed"]), "fpbench.device": trial["device"]}
    return Entry(
        kind="repeat", name=f"{trial['method']} #{trial['repeat']}", method=trial["method"],
        repeat=str(trial["repeat"]), start=start, end=start + round(1000 * seconds),
        status="FAILED" if error else "FINISHED",
        tags=tags | ({"fpbench.error": last_line(error)[:300]} if error else {}),
        metrics=[] if error else list(_scalars(_of_one(trial, data["models"]))),
        texts={"error.txt": error} if error else {},
    )  # fmt: skip


def _colour(label: str, data: Mapping[str, Any]) -> str:
    """A method's colour in MLflow's charts: that of our own figures, not one drawn by lot."""
    labels = [method["method"] for method in data["methods"]]
    return COLOURS[labels.index(label) % len(COLOURS)]


def _tags(data: Mapping[str, Any]) -> dict[str, str]:
    """What every entry of a suite run shares."""
    run, suite, scenario = data["run"], data["suite"], data["scenario"]
    tags = {
        "fpbench.suite_run": run["id"],
        "fpbench.suite": suite["name"],
        "fpbench.scenario": scenario["name"],
        "fpbench.schema": data["schema"],
        "fpbench.version": str(run["versions"]["fpbench"]),
        "mlflow.source.name": suite["file"],
        "mlflow.source.type": "LOCAL",
    }
    return tags | ({"mlflow.source.git.commit": run["git"]["commit"]} if run["git"] else {})


def _scalars(summary: Mapping[str, Any]) -> Iterable[tuple[str, float, int]]:
    values = {key: summary.get(name) for name, key in SCALARS.items()}
    half = summary.get("aruc_ci")
    if half is not None:
        values["summary/aruc_lo"] = summary["aruc"] - half
        values["summary/aruc_hi"] = summary["aruc"] + half
    return ((key, value, 0) for key, value in values.items() if value is not None)


def _curves(summary: Mapping[str, Any]) -> Iterable[tuple[str, float, int]]:
    """Curves over 100 rho: MLflow's steps are whole numbers. `curve/rho` gives charts a true
    axis."""
    for step, (r, u) in enumerate(zip(summary["robustness"], summary["uniqueness"], strict=True)):
        yield "curve/robustness", r, step
        yield "curve/uniqueness", u, step
        yield "curve/rho", step / 100, step


def _of_one(trial: Mapping[str, Any], models: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """One repeat's own metrics."""
    positive = {m["digest"]: m["positive"] for m in models}

    def sides(rates: Mapping[str, float]) -> list[list[float]]:
        return [[r for d, r in rates.items() if positive[d] is side] for side in (True, False)]

    halves = sides(trial["matching_rates"])
    return {
        "aruc": metrics.aruc(*halves),
        "aruc_calibrated": metrics.aruc(*sides(trial["calibrated_rates"])),
        "auc": metrics.roc_auc(*halves),
        "robustness_at_full_uniqueness": metrics.robustness_at_full_uniqueness(*halves),
        **{key: trial[key] for key in ("construct_seconds", "verify_seconds", "queries")},
    }


def _suspects(
    trials: Sequence[Mapping[str, Any]], models: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """One row per suspect, the rate averaged over the repeats that judged it. All methods have
    the same rows, so that MLflow's table comparison lines up."""
    rates: dict[str, list[float]] = {}
    for trial in trials:
        for digest, rate in trial["matching_rates"].items():
            rates.setdefault(digest, []).append(rate)
    return [
        {
            "name": m["name"], "kind": m["kind"], "positive": m["positive"], "arch": m["arch"],
            **(m["utility"] or {}), "judged": len(rates.get(m["digest"], [])),
            "matching_rate": statistics.fmean(r) if (r := rates.get(m["digest"])) else None,
        }
        for m in models
        if m["kind"] != "target"
    ]  # fmt: skip


def _row(method: Mapping[str, Any]) -> dict[str, Any]:
    summary = method["summary"] or {}
    note = method["refusal"] or (last_line(method["errors"][0]) if method["errors"] else None)
    return {
        "method": method["method"], "aruc_ci": summary.get("aruc_ci"),
        **{name: summary.get(name) for name in SCALARS}, "note": note,
    }  # fmt: skip


def _datasets(data: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any], str]]:
    """The scenario's data and the zoo: equal digests say that two runs can be compared."""
    scenario, models = data["scenario"], data["models"]
    digests = sorted(m["digest"] for m in models)
    positives = sum(m["positive"] for m in models if m["kind"] != "target")
    zoo = {"target": data["target"], "positives": positives,
           "negatives": len(models) - positives - 1}  # fmt: skip
    return [
        (scenario["name"], _digest(scenario), {"data": scenario["data"]}, "evaluation"),
        (f"zoo of {data['suite']['name']}", _digest(digests), zoo, "suspects"),
    ]


def _digest(value: Any) -> str:
    """MLflow takes 36 characters at most."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:36]


def _short(overrides: Sequence[str]) -> dict[str, str]:
    return {"overrides": " ".join(overrides)[:250]} if overrides else {}
