"""Many runs on one page: methods by suites, to be sorted by the reader; opens offline."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from .page import provenance, rendered

METRICS = {"aruc": "ARUC", "aruc_calibrated": "calibrated ARUC", "auc": "AUC"}

Run = dict[str, Any]


def leaderboard(runs: Sequence[Run]) -> str:
    """The page, as HTML.

    runs: what their results.json hold. Runs that judged the same models in the same way share a
    column; of a method that several of them have, the newest result counts.
    """
    columns: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: str(run["run"]["started"])):
        columns.setdefault(_benchmark(run), []).append(run)
    names = _names([same[-1] for same in columns.values()])
    board: dict[str, dict[str, dict[str, Any]]] = {}
    for name, same in zip(names, columns.values(), strict=True):
        for run in same:
            for method in run["methods"]:
                board.setdefault(method["method"], {})[name] = _cell(method, run)
    return rendered(
        "leaderboard.html.jinja",
        columns=names,
        board=dict(sorted(board.items())),
        metrics=METRICS,
        runs=[
            (name, run["run"]["id"], provenance(run))
            for name, same in zip(names, columns.values(), strict=True)
            for run in same
        ],
    )


def _benchmark(run: Run) -> str:
    """What must be equal for two runs' numbers to stand in one column."""
    models = sorted(str(model["weights_sha256"]) for model in run["models"])
    asked = [run["suite"][key] for key in ("name", "api", "seed", "repeats", "split", "stratify")]
    return hashlib.sha256(repr([models, asked]).encode()).hexdigest()


def _names(newest: Sequence[Run]) -> list[str]:
    """A column's heading: the suite's name, numbered where several zoos share it."""
    names: list[str] = []
    for run in newest:
        name = str(run["suite"]["name"])
        count = 1 + sum(other.partition(" #")[0] == name for other in names)
        names.append(name if count == 1 else f"{name} #{count}")
    return names


def _cell(method: dict[str, Any], run: Run) -> dict[str, Any]:
    s = method["summary"]
    if not s:
        error = (method["errors"] or ["its target could not be made"])[0]
        why = method["refusal"] or f"failed: {error.strip().splitlines()[-1]}"
        return {"why": why, "word": "n/a" if method["refusal"] else "failed"}
    half = {key: s[f"{key}_ci"] for key in METRICS}
    shown = {
        key: (s[key], f"{s[key]:.3f}" + ("" if half[key] is None else f" ± {half[key]:.3f}"))
        for key in METRICS
    }
    return {"shown": shown, "run": run["run"]["id"]}
