"""A fingerprint of one's own model: the zoo built, constructed, calibrated, written."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ..api.errors import FpbenchError, SuiteError, TrialError
from ..api.fields import plain
from ..api.work import Result, Trial
from ..engine.attempt import tried
from ..engine.environment import device_name, versions
from ..engine.isolation import contained
from ..engine.plan import Plan, without
from ..engine.registry import Registry
from ..engine.run import Setting, build_zoo, framed
from ..engine.suite import Suite
from ..store.files import sha256
from ..store.store import Store
from .fingerprint_file import save
from .threshold import clopper_pearson, require, threshold


def make(
    suite: Suite, setting: Setting, registry: Registry, out: Path, false_positive_rate: float
) -> dict[str, Any]:
    """Construct a suite's one method on its target, write the fingerprint; return its metadata.

    The models that the method does not learn from tell what a matching rate is worth. Raises
    SuiteError when there is not one method that applies, or too few negatives for the rate wanted;
    TrialError when the method, or the target, fails.
    """
    plan = Plan.of(replace(suite, repeats=1))
    trial = _trial(plan)
    require(sum(not positive for positive in _known(trial).values()), false_positive_rate)
    with framed(plan, setting):
        failures = build_zoo(plan, setting)
        if (lost := failures.get(suite.target.digest)) is not None:
            raise TrialError(f"expected a target, it could not be made: {lost.splitlines()[-1]}")
        trial = without(trial, set(failures))
        result, fingerprint = _tried(trial, setting)
    meta = {
        "case": suite.name,
        "scenario": {
            "name": suite.scenario.name,
            "version": suite.scenario.version,
            "fields": plain(suite.scenario),
        },
        "method": {
            "name": trial.method.name,
            "fields": plain(trial.method),
            "from": registry.methods[trial.method.name].source,
        },
        "access": str(trial.access),
        "quantised": trial.quantised,
        "target": _target(trial, setting.store),
        "calibration": {
            **calibrated(trial, result, false_positive_rate),
            "models": _facts(trial, setting.store),
        },
        "suite": {
            "sha256": sha256(suite.source.text.encode()),
            "text": suite.source.text,
            "overrides": list(suite.overrides),
        },
        "construct_seconds": result.construct_seconds,
        "device": device_name(setting.device),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {**versions(), "platform": platform.platform()},
    }
    save(out, fingerprint, meta)
    return meta


def _trial(plan: Plan) -> Trial:
    """The trial of a suite's one method."""
    suite = plan.suite
    labels = [variant.label for variant in suite.methods]
    if len(labels) != 1:
        raise SuiteError(
            f"expected one method, got {', '.join(labels)}; choose one by --only METHOD",
            suite.source.where(("methods",)),
        )
    if plan.refusals:
        raise SuiteError(plan.refusals[labels[0]], suite.methods[0].place)
    return plan.trials[0]


def _tried(trial: Trial, setting: Setting) -> tuple[Result, Any]:
    try:
        with contained():
            return tried(trial, setting.store, torch.device(setting.device))
    except (FpbenchError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())
        raise TrialError(f"{trial.label} failed: {type(error).__name__}: {reason}") from error


def _known(trial: Trial) -> dict[str, bool]:
    """The models to calibrate on, all that the method does not learn from: by digest, whether
    positive."""
    learnt = {recipe.digest for recipe in trial.ensemble}
    return {
        recipe.digest: recipe.descends_from(trial.target)
        for recipe in (*trial.suspects, *trial.calibration)
        if recipe.digest not in learnt
    }


def calibrated(trial: Trial, result: Result, false_positive_rate: float) -> dict[str, Any]:
    """What the known models' rates say: the line, and how many copies are above it."""
    rates = {**result.calibration_rates, **result.matching_rates}
    known = _known(trial)
    negatives, positives = (
        sorted(rates[digest] for digest, side in known.items() if side is positive)
        for positive in (False, True)
    )
    line = threshold(negatives, false_positive_rate)
    caught = sum(rate > line.rate for rate in positives)
    return {
        "threshold": asdict(line),
        "wanted_false_positive_rate": false_positive_rate,
        "negatives": negatives,
        "positives": positives,
        "caught": {
            "count": caught, "of": len(positives),
            "interval": clopper_pearson(caught, len(positives)),
        },
    }  # fmt: skip


def _facts(trial: Trial, store: Store) -> list[dict[str, Any]]:
    """What tells whether a suspect is like the known models: their architecture and utility."""
    recipes = {recipe.digest: recipe for recipe in (*trial.suspects, *trial.calibration)}
    return [
        {
            "positive": positive,
            "arch": recipes[digest].arch,
            "utility": (store.made(recipes[digest], trial.scenario) or {}).get("utility"),
        }
        for digest, positive in _known(trial).items()
    ]


def _target(trial: Trial, store: Store) -> Mapping[str, Any]:
    made = store.made(trial.target, trial.scenario) or {}
    return {
        "name": str(trial.target),
        "digest": trial.target.digest,
        "weights_sha256": made.get("weights_sha256"),
        "utility": made.get("utility"),
    }
