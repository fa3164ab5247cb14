"""Make a fingerprint of the owner's model: build the zoo, construct, calibrate, write the file."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ..api.errors import FpbenchError, SuiteError, TrialError
from ..api.fields import fields_as_json
from ..api.work import Result, Trial
from ..engine.attempt import run_trial
from ..engine.environment import device_name, versions
from ..engine.isolation import isolated
from ..engine.key import weights_of
from ..engine.plan import Plan, trials_without
from ..engine.registry import Registry
from ..engine.run import Setting, build_zoo, prepared, twins_of
from ..engine.suite import Suite
from ..store.files import sha256
from ..store.store import Store
from .fingerprint_file import save
from .threshold import clopper_pearson, find_threshold, require_negatives


def make_fingerprint(
    suite: Suite, setting: Setting, registry: Registry, out: Path, false_positive_rate: float
) -> dict[str, Any]:
    """Construct the fingerprint of a suite's target, write its file and return its metadata.

    The threshold follows from the rates of the models that the method does not learn from. Raises
    SuiteError unless the suite has one zoo and one method, which applies; InputError if there are
    too few negatives for the false positive rate; TrialError if the method or the target fails.
    """
    plan = Plan.of(replace(suite, repeats=1))
    trial = _trial(plan)
    require_negatives(
        sum(not positive for positive in _calibration_models(trial).values()), false_positive_rate
    )
    with prepared(plan, setting):
        failures = build_zoo(plan, setting)
        if (reason := failures.get(trial.target.digest)) is not None:
            raise TrialError(f"the target could not be made: {reason.splitlines()[-1]}")
        twins = twins_of(plan, weights_of(plan, setting.store), failures)
        (trial,) = trials_without(plan, {*failures, *twins})
        result, fingerprint = _attempt(trial, setting)
    meta = {
        "case": suite.name,
        "scenario": {
            "name": suite.scenario.name,
            "version": suite.scenario.version,
            "fields": fields_as_json(suite.scenario),
        },
        "method": {
            "name": trial.method.name,
            "fields": fields_as_json(trial.method),
            "from": registry.methods[trial.method.name].source,
        },
        "access": str(trial.access),
        "quantised": trial.quantised,
        "target": _describe_target(trial, setting.store),
        "calibration": {
            **calibrate(trial, result, false_positive_rate),
            "models": _describe_models(trial, setting.store),
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
    """Return the trial of a suite's only method and only zoo.

    Raises SuiteError if there are several methods or zoos, or the method declines.
    """
    suite = plan.suite
    labels = [variant.label for variant in suite.methods]
    if len(labels) != 1:
        raise SuiteError(
            f"expected one method, got {', '.join(labels)}; choose one by --only METHOD",
            suite.source.where(("methods",)),
        )
    if len(suite.zoos) > 1:
        raise SuiteError(
            f"expected one zoo, got {len(suite.zoos)}; choose one by -o zoo.seed=SEED",
            suite.source.where(("zoo", "seeds")),
        )
    if plan.refusals:
        raise SuiteError(plan.refusals[labels[0]], suite.methods[0].place)
    return plan.trials[0]


def _attempt(trial: Trial, setting: Setting) -> tuple[Result, Any]:
    try:
        with isolated():
            return run_trial(trial, setting.store, torch.device(setting.device))
    except (FpbenchError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())
        raise TrialError(f"{trial.label} failed: {type(error).__name__}: {reason}") from error


def _calibration_models(trial: Trial) -> dict[str, bool]:
    """Return the models that the method does not learn from: by digest, whether it is positive."""
    learnt = {recipe.digest for recipe in trial.ensemble}
    return {
        recipe.digest: recipe.descends_from(trial.target)
        for recipe in (*trial.suspects, *trial.calibration)
        if recipe.digest not in learnt
    }


def calibrate(trial: Trial, result: Result, false_positive_rate: float) -> dict[str, Any]:
    """Return the threshold that the known models' rates give, and the share of copies above it."""
    rates = {**result.calibration_rates, **result.matching_rates}
    models = _calibration_models(trial)
    negatives, positives = (
        sorted(rates[digest] for digest, side in models.items() if side is positive)
        for positive in (False, True)
    )
    threshold = find_threshold(negatives, false_positive_rate)
    caught = sum(rate > threshold.rate for rate in positives)
    return {
        "threshold": asdict(threshold),
        "wanted_false_positive_rate": false_positive_rate,
        "negatives": negatives,
        "positives": positives,
        "caught": {
            "count": caught, "of": len(positives),
            "interval": clopper_pearson(caught, len(positives)),
        },
    }  # fmt: skip


def _describe_models(trial: Trial, store: Store) -> list[dict[str, Any]]:
    """Return the architecture and utility of the known models. Suspects are compared with them."""
    recipes = {recipe.digest: recipe for recipe in (*trial.suspects, *trial.calibration)}
    return [
        {
            "positive": positive,
            "arch": recipes[digest].arch,
            "utility": (store.made(recipes[digest], trial.scenario) or {}).get("utility"),
        }
        for digest, positive in _calibration_models(trial).items()
    ]


def _describe_target(trial: Trial, store: Store) -> Mapping[str, Any]:
    made = store.made(trial.target, trial.scenario) or {}
    return {
        "name": str(trial.target),
        "digest": trial.target.digest,
        "weights_sha256": made.get("weights_sha256"),
        "utility": made.get("utility"),
    }
