"""From rates to results: one method's summary, each suspect's verdict, methods compared."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

import numpy as np

from ..api.work import Result
from . import comparison, metrics

VERDICTS = ("calibrated_rates", "p_values", "binomial_p_values")
"""What is said of each judged suspect beside its matching rate, by its digest."""


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """One method's metrics, mean and half-width of the 95 % interval over its repeats."""
    halves = [(r.rates(positive=True), r.rates(positive=False)) for r in results]
    scalars = {
        "aruc": metrics.aruc,
        "auc": metrics.roc_auc,
        "robustness_at_full_uniqueness": metrics.robustness_at_full_uniqueness,
        "tpr_at_1_percent_fpr": lambda p, n: metrics.tpr_at_fpr(p, n, 0.01),
        "tpr_at_5_percent_fpr": lambda p, n: metrics.tpr_at_fpr(p, n, 0.05),
    }
    out: dict[str, Any] = {"repeats": len(results), "queries": max(r.queries for r in results)}
    for name, metric in scalars.items():
        out[name], out[f"{name}_ci"] = metrics.mean_ci([metric(p, n) for p, n in halves])
    out["aruc_calibrated"], out["aruc_calibrated_ci"] = metrics.mean_ci(
        [calibrated_aruc(r) for r in results]
    )
    for name in ("construct_seconds", "verify_seconds"):
        out[name], out[f"{name}_ci"] = metrics.mean_ci([getattr(r, name) for r in results])
    out["aruc_ceiling"] = metrics.ARUC_CEILING
    # With n negatives no false positive rate below 1/n, save 0, can be measured.
    out["smallest_fpr"] = 1 / min(len(n) for _, n in halves)
    # Rates of models that a method has learned from flatter it.
    out["calibrated_on"] = (
        "models learned from" if results[0].trial.ensemble else "models never seen"
    )
    out["smallest_p_value"] = 1 / (1 + min(len(r.known_rates(positive=False)) for r in results))
    out["kinds"] = _kinds(results)
    out["robustness"] = _curve([metrics.robustness(p, metrics.THRESHOLDS) for p, _ in halves])
    out["uniqueness"] = _curve([metrics.uniqueness(n, metrics.THRESHOLDS) for _, n in halves])
    return out


def calibrated_aruc(result: Result) -> float:
    """ARUC of rates that went through the map fitted on the other half of the zoo."""
    calibrated = _calibration(result)
    return metrics.aruc(
        calibrated(result.rates(positive=True)), calibrated(result.rates(positive=False))
    )


def _calibration(result: Result) -> metrics.Map:
    return _fitted(
        tuple(result.known_rates(positive=True)), tuple(result.known_rates(positive=False))
    )


@cache
def _fitted(positives: tuple[float, ...], negatives: tuple[float, ...]) -> metrics.Map:
    """Fitted once: the summary, the verdicts and the comparisons all ask for it."""
    return metrics.calibration(positives, negatives)


def verdicts(result: Result) -> dict[str, dict[str, float]]:
    """By name of VERDICTS and digest of the suspect: what its rate is worth.

    The binomial p-value is there for methods that count agreeing replies.
    """
    rates = result.matching_rates
    if not rates:
        return {name: {} for name in VERDICTS}
    innocent = result.known_rates(positive=False)
    values = [*rates.values()]
    binomial: list[float] = []
    if result.trial.method.counts_agreement:
        binomial = metrics.binomial_p_values(values, result.queries, innocent)
    empirical = [metrics.p_value(rate, innocent) for rate in values]
    found = (_calibration(result)(values), empirical, binomial)
    # Without binomial values zip ends at once: none for anybody.
    return {
        name: dict(zip(rates, by, strict=False)) for name, by in zip(VERDICTS, found, strict=True)
    }


def comparisons(results: Sequence[Result]) -> dict[str, list[dict[str, Any]]]:
    """By metric, every pair of methods: how far the first is ahead of the second."""
    raw: dict[str, dict[int, comparison.Judged]] = {}
    calibrated: dict[str, dict[int, comparison.Judged]] = {}
    for result in results:
        trial = result.trial
        rates = result.matching_rates
        mapped = dict(zip(rates, _calibration(result)([*rates.values()]), strict=True))
        for into, by in ((raw, rates), (calibrated, mapped)):
            sides: tuple[dict[str, float], dict[str, float]] = ({}, {})
            for suspect in trial.suspects:
                sides[not suspect.descends_from(trial.target)][suspect.digest] = by[suspect.digest]
            into.setdefault(trial.label, {})[trial.repeat] = comparison.Judged(*sides)
    return {
        name: [asdict(difference) for difference in comparison.compare(metric, judged)]
        for name, metric, judged in (
            ("aruc", comparison.weighted_aruc, raw),
            ("aruc_calibrated", comparison.weighted_aruc, calibrated),
            ("auc", comparison.weighted_auc, raw),
        )
    }


def _curve(curves: Sequence[Any]) -> list[float]:
    return [round(float(v), 6) for v in np.mean(curves, axis=0)]


def _kinds(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Per kind of suspect: mean matching rate, and the share called positive at the lowest
    threshold that calls no negative positive."""
    rates: dict[str, list[float]] = {}
    called: dict[str, list[bool]] = {}
    for result in results:
        threshold = max(result.rates(positive=False))
        for suspect in result.trial.suspects:
            rate = result.matching_rates[suspect.digest]
            rates.setdefault(suspect.kind, []).append(rate)
            called.setdefault(suspect.kind, []).append(rate > threshold)
    return {
        kind: {
            "judged": len(values),
            "matching_rate": statistics.fmean(values),
            "called_positive": statistics.fmean(called[kind]),
        }
        for kind, values in rates.items()
    }
