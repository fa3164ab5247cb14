"""Folders of finished runs, written by the engine's own `record` from rates made up here."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fpbench import Recipe, Result
from fpbench.engine.plan import Plan
from fpbench.engine.record import record
from fpbench.engine.registry import Registry
from fpbench.engine.suite import Suite

SUITE = """
name: toy
scenario: digits
api: label
seed: 0
repeats: {repeats}
target: {{recipe: train, model: resnet}}
zoo:
  split: 0.5
  positives: [{{recipe: finetune, layers: all, copies: 8}}]
  negatives: [{{recipe: train, model: mlp, copies: 8}}]
methods:
  - {{method: akh}}
  - {{method: random, label: "random (again)"}}
  - {{method: metav}}
"""
"""MetaV declines it: it needs more than labels."""


class _Store:
    """Says what became of models that were never made."""

    def made(self, recipe: Recipe, scenario: object) -> dict[str, Any]:
        return {"utility": {"accuracy": 0.9}, "seconds": 1.0, "device": "cpu",
                "weights_sha256": recipe.digest}  # fmt: skip


def finished_run(
    runs: Path, name: str = "20260101-000000-abcd", *, repeats: int = 2,
    errors: Mapping[str, str] | None = None, failures: Mapping[str, str] | None = None,
    losses: Mapping[str, Sequence[tuple[int, float, float]]] | None = None,
) -> Path:  # fmt: skip
    """Write runs/toy/<name>. `errors` are tracebacks by label, of the method's first repeat;
    `losses` are points by label, of every repeat."""
    folder = runs / "toy" / name
    folder.mkdir(parents=True)
    file = folder / "suite.yaml"
    file.write_text(SUITE.format(repeats=repeats))
    suite = Suite.load(file, Registry.load())
    plan = Plan.of(suite)
    dice = random.Random(0)  # noqa: S311
    left = dict(errors or {})
    results = []
    for trial in plan.trials:
        error = left.pop(trial.label, None)
        rates = {
            suspect.digest: dice.uniform(0.4 * suspect.descends_from(trial.target), 1)
            for suspect in (*trial.suspects, *trial.calibration)
        }
        judged = {r.digest: rates[r.digest] for r in trial.suspects}
        known = {r.digest: rates[r.digest] for r in trial.calibration}
        took = {"construct_seconds": 2.5, "verify_seconds": 0.5}
        told = (losses or {}).get(trial.label, ())
        results.append(
            Result(trial, error=error)
            if error
            else Result(trial, judged, known, 100, **took, losses=told)
        )
    record(
        plan, results, failures or {}, {}, store=_Store(),  # type: ignore[arg-type]
        folder=folder, started=datetime(2026, 1, 1, tzinfo=UTC), seconds=12.5, device="cpu",
    )  # fmt: skip
    return folder
