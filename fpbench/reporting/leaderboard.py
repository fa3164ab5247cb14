"""Many runs on one page: methods by suites, to be sorted by the reader; opens offline."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from ..api.results import MethodRecord, RunRecord, with_interval
from .page import provenance, rendered

METRICS = {"aruc": "ARUC", "aruc_calibrated": "calibrated ARUC", "auc": "AUC"}


def leaderboard(runs: Sequence[RunRecord]) -> str:
    """Return the page, as HTML.

    Runs that judged the same models in the same way share a column; of a method that several of
    them have, the newest result counts.
    """
    columns: dict[str, list[RunRecord]] = {}
    for run in sorted(runs, key=lambda run: run.run.started):
        columns.setdefault(_benchmark(run), []).append(run)
    names = _names([same[-1] for same in columns.values()])
    board: dict[str, dict[str, dict[str, Any]]] = {}
    for name, same in zip(names, columns.values(), strict=True):
        for run in same:
            for method in run.methods:
                board.setdefault(method.method, {})[name] = _cell(method, run)
    return rendered(
        "leaderboard.html.jinja",
        columns=names,
        board=dict(sorted(board.items())),
        metrics=METRICS,
        runs=[
            (name, run.run.id, provenance(run))
            for name, same in zip(names, columns.values(), strict=True)
            for run in same
        ],
    )


def _benchmark(run: RunRecord) -> str:
    """Return what must be equal for two runs' numbers to stand in one column."""
    models = sorted(str(model.weights_sha256) for model in run.models)
    suite = run.suite
    asked = [suite.name, suite.api, suite.seed, suite.repeats, suite.split, suite.stratify]
    return hashlib.sha256(repr([models, asked]).encode()).hexdigest()


def _names(newest: Sequence[RunRecord]) -> list[str]:
    """Return a heading per column: the suite's name, numbered where several zoos share it."""
    names: list[str] = []
    for run in newest:
        name = run.suite.name
        count = 1 + sum(other.partition(" #")[0] == name for other in names)
        names.append(name if count == 1 else f"{name} #{count}")
    return names


def _cell(method: MethodRecord, run: RunRecord) -> dict[str, Any]:
    s = method.summary
    if not s:
        word = "n/a" if method.refusal else "failed"
        why = method.why_not if method.refusal else f"failed: {method.why_not}"
        return {"why": why, "word": word}
    shown = {
        "aruc": (s.aruc, with_interval(s.aruc, s.aruc_ci)),
        "aruc_calibrated": (
            s.aruc_calibrated,
            with_interval(s.aruc_calibrated, s.aruc_calibrated_ci),
        ),
        "auc": (s.auc, with_interval(s.auc, s.auc_ci)),
    }
    return {"shown": shown, "run": run.run.id}
