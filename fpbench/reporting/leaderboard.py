"""The leaderboard: one page of many runs, methods by suites, that sorts and opens offline."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from ..api.results import MethodRecord, RunRecord, with_interval
from .page import describe_origin, render

METRICS = {"aruc": "ARUC", "aruc_calibrated": "calibrated ARUC", "auc": "AUC"}


def render_leaderboard(runs: Sequence[RunRecord]) -> str:
    """Return the page as HTML.

    Runs that judged the same models in the same way share a column. If several of them have a
    result of a method, the newest is shown.
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
    return render(
        "leaderboard.html.jinja",
        columns=names,
        board=dict(sorted(board.items())),
        metrics=METRICS,
        runs=[
            (name, run.run.id, describe_origin(run))
            for name, same in zip(names, columns.values(), strict=True)
            for run in same
        ],
    )


def _benchmark(run: RunRecord) -> str:
    """Return a digest that is equal for runs whose numbers can be compared: models, protocol."""
    models = sorted(str(model.weights_sha256) for model in run.models)
    suite = run.suite
    protocol = [suite.name, suite.api, suite.seed, suite.repeats, suite.split, suite.stratify]
    return hashlib.sha256(repr([models, protocol]).encode()).hexdigest()


def _names(newest: Sequence[RunRecord]) -> list[str]:
    """Return a heading per column: the suite's name, with a number if several columns have it."""
    names: list[str] = []
    for run in newest:
        name = run.suite.name
        count = 1 + sum(other.partition(" #")[0] == name for other in names)
        names.append(name if count == 1 else f"{name} #{count}")
    return names


def _cell(method: MethodRecord, run: RunRecord) -> dict[str, Any]:
    """Return the content of a cell: a method's metrics in a run, or the reason for none."""
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
    return {"shown": shown, "run": run.run.id, "over": s.interval_over if s.aruc_ci else ""}
