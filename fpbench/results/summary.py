"""Results from matching rates: summaries of methods, verdicts on suspects, comparisons."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..api.results import Comparisons, KindSummary, Summary
from ..api.work import Result
from . import comparison, metrics


class Verdicts(NamedTuple):
    """Calibrated rates and p-values of a trial, by the suspect's digest."""

    calibrated_rates: Mapping[str, float]
    p_values: Mapping[str, float]
    binomial_p_values: Mapping[str, float]


def summarise(results: Sequence[Result]) -> Summary:
    """Return a method's metrics: mean and half-width of the 95 % interval over its repeats."""
    halves = [(r.rates(positive=True), r.rates(positive=False)) for r in results]
    per_repeat: dict[str, list[float]] = {
        "aruc": [metrics.aruc(p, n) for p, n in halves],
        "auc": [metrics.roc_auc(p, n) for p, n in halves],
        "robustness_at_full_uniqueness": [
            metrics.robustness_at_full_uniqueness(p, n) for p, n in halves
        ],
        "tpr_at_1_percent_fpr": [metrics.tpr_at_fpr(p, n, 0.01) for p, n in halves],
        "tpr_at_5_percent_fpr": [metrics.tpr_at_fpr(p, n, 0.05) for p, n in halves],
        "aruc_calibrated": [calibrated_aruc(r) for r in results],
        "construct_seconds": [r.construct_seconds for r in results],
        "verify_seconds": [r.verify_seconds for r in results],
    }
    intervals: dict[str, Any] = {}
    for name, values in per_repeat.items():
        intervals[name], intervals[f"{name}_ci"] = metrics.mean_ci(values)
    return Summary(
        repeats=len(results),
        queries=max(r.queries for r in results),
        **intervals,
        aruc_ceiling=metrics.ARUC_CEILING,
        # With n negatives the smallest false positive rate above 0 that can be measured is 1/n.
        smallest_fpr=1 / min(len(n) for _, n in halves),
        # Rates of models that a method has learned from are better than those of new models.
        calibrated_on="models learned from" if results[0].trial.ensemble else "models never seen",
        smallest_p_value=1 / (1 + min(len(r.known_rates(positive=False)) for r in results)),
        kinds=_kinds(results),
        robustness=_curve([metrics.robustness(p, metrics.THRESHOLDS) for p, _ in halves]),
        uniqueness=_curve([metrics.uniqueness(n, metrics.THRESHOLDS) for _, n in halves]),
    )


def calibrated_aruc(result: Result) -> float:
    """Return the ARUC of the calibrated rates; the map is fitted on the other half of the zoo."""
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
    """Return the fitted map. Summary, verdicts and comparisons share it."""
    return metrics.calibration(positives, negatives)


def compute_verdicts(result: Result) -> Verdicts:
    """Return the calibrated rate and the p-values of each judged suspect.

    Only methods that count agreeing replies have binomial p-values.
    """
    rates = result.matching_rates
    if not rates:
        return Verdicts({}, {}, {})
    innocent = result.known_rates(positive=False)
    values = [*rates.values()]
    binomial: dict[str, float] = {}
    if result.trial.method.counts_agreement:
        p_values = metrics.binomial_p_values(values, result.queries, innocent)
        binomial = dict(zip(rates, p_values, strict=True))
    return Verdicts(
        dict(zip(rates, _calibration(result)(values), strict=True)),
        {digest: metrics.p_value(rate, innocent) for digest, rate in rates.items()},
        binomial,
    )


def compare_methods(results: Sequence[Result]) -> Comparisons:
    """Compare every pair of methods by each metric."""
    raw: comparison.RatesByMethod = {}
    calibrated: comparison.RatesByMethod = {}
    for result in results:
        trial = result.trial
        rates = result.matching_rates
        mapped = dict(zip(rates, _calibration(result)([*rates.values()]), strict=True))
        for by_method, by_digest in ((raw, rates), (calibrated, mapped)):
            positives: dict[str, float] = {}
            negatives: dict[str, float] = {}
            for suspect in trial.suspects:
                side = positives if suspect.descends_from(trial.target) else negatives
                side[suspect.digest] = by_digest[suspect.digest]
            by_repeat = by_method.setdefault(trial.label, {})
            by_repeat[trial.repeat] = comparison.JudgedRates(positives, negatives)
    return Comparisons(
        aruc=tuple(comparison.compare(comparison.weighted_aruc, raw)),
        aruc_calibrated=tuple(comparison.compare(comparison.weighted_aruc, calibrated)),
        auc=tuple(comparison.compare(comparison.weighted_auc, raw)),
    )


def _curve(curves: Sequence[Any]) -> tuple[float, ...]:
    """Return the mean of the repeats' curves."""
    return tuple(round(float(v), 6) for v in np.mean(curves, axis=0))


def _kinds(results: Sequence[Result]) -> dict[str, KindSummary]:
    """Return, per kind of suspect, the mean matching rate and the share called positive.

    The threshold is the lowest that calls no negative positive.
    """
    rates: dict[str, list[float]] = {}
    called: dict[str, list[bool]] = {}
    for result in results:
        threshold = max(result.rates(positive=False))
        for suspect in result.trial.suspects:
            rate = result.matching_rates[suspect.digest]
            rates.setdefault(suspect.kind, []).append(rate)
            called.setdefault(suspect.kind, []).append(rate > threshold)
    return {
        kind: KindSummary(
            judged=len(values),
            matching_rate=statistics.fmean(values),
            called_positive=statistics.fmean(called[kind]),
        )
        for kind, values in rates.items()
    }
