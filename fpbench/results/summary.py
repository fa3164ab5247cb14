"""Results from matching rates: summaries of methods, verdicts on suspects, comparisons."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..api.results import DEFAULT_FPR, Comparisons, Interval, KindSummary, Summary, is_called
from ..api.work import Result
from . import comparison, metrics
from .weighted import JudgedRates


class Verdicts(NamedTuple):
    """Calibrated rates and p-values of a trial, by the suspect's digest."""

    calibrated_rates: Mapping[str, float]
    p_values: Mapping[str, float]
    binomial_p_values: Mapping[str, float]


def summarise(
    results: Sequence[Result], *, fpr: float = DEFAULT_FPR, weigh: Mapping[str, float] | None = None
) -> Summary:
    """Return a method's metrics: means over zoos and repeats, and 95 % intervals.

    fpr:   the false positive rate at which suspects are called stolen. If there are too few
           negatives for it, the smallest rate that they support is used.
    weigh: the weight of each kind of suspect in ARUC. A kind without a weight does not count. If
           it is empty, every suspect counts the same.
    """
    sides = [(r.rates(positive=True), r.rates(positive=False)) for r in results]
    smallest_p = max(_smallest_p_value(result) for result in results)
    fpr = max(fpr, smallest_p)
    called = [
        {digest: is_called(p, fpr) for digest, p in p_values(result).items()} for result in results
    ]
    ceiling = metrics.ARUC_CEILING
    judged = [_judged(result, weigh) for result in results]
    arucs = [j.value("aruc") for j in judged]
    learned = [_aruc_learned(result) for result in results]
    values: dict[str, tuple[Sequence[float | None], float]] = {
        "aruc": (arucs, ceiling),
        # The map is fitted on the other half of the zoo.
        "aruc_calibrated": ([j.value("aruc_calibrated") for j in judged], ceiling),
        "aruc_learned": (learned, ceiling),
        "auc": ([metrics.roc_auc(p, n) for p, n in sides], 1.0),
        "robustness_at_full_uniqueness": (
            [metrics.robustness_at_full_uniqueness(p, n) for p, n in sides], 1.0
        ),
        "tpr_at_1_percent_fpr": ([metrics.tpr_at_fpr(p, n, 0.01) for p, n in sides], 1.0),
        "tpr_at_5_percent_fpr": ([metrics.tpr_at_fpr(p, n, 0.05) for p, n in sides], 1.0),
        "found": ([_share(r, c, True) for r, c in zip(results, called, strict=True)], 1.0),
        "false_positives": (
            [_share(r, c, False) for r, c in zip(results, called, strict=True)], 1.0
        ),
        "construct_seconds": ([r.construct_seconds for r in results], math.inf),
        "verify_seconds": ([r.verify_seconds for r in results], math.inf),
    }  # fmt: skip
    numbers: dict[str, Any] = {}
    for name, (per_repeat, high) in values.items():
        numbers[name], numbers[f"{name}_ci"] = _interval(results, per_repeat, 0.0, high)
    gaps = [None if one is None else one - two for one, two in zip(learned, arucs, strict=True)]
    curves = np.mean([j.curves() for j in judged], axis=0)
    return Summary(
        zoos=len({r.trial.zoo for r in results}),
        repeats=len(results),
        queries=max(r.queries for r in results),
        **numbers,
        aruc_gap_ci=_interval(results, gaps, -ceiling, ceiling)[1],
        aruc_ceiling=ceiling,
        # With n negatives the smallest false positive rate above 0 that can be measured is 1/n.
        smallest_fpr=1 / min(len(n) for _, n in sides),
        fpr=fpr,
        # Rates of models that a method has learned from are better than those of new models.
        calibrated_on="models learned from" if results[0].trial.ensemble else "models never seen",
        smallest_p_value=smallest_p,
        kinds=_kinds(results, called),
        robustness=tuple(curves[0].round(6)),
        uniqueness=tuple(curves[1].round(6)),
    )


def _interval(
    results: Sequence[Result], values: Sequence[float | None], low: float, high: float
) -> tuple[float | None, Interval | None]:
    """Return the mean and the interval of a number that each result has; None if one lacks it."""
    by_zoo: dict[int, list[float]] = {}
    for result, value in zip(results, values, strict=True):
        if value is None:
            return None, None
        by_zoo.setdefault(result.trial.zoo, []).append(value)
    return metrics.mean_interval([*by_zoo.values()], low, high)


def _judged(result: Result, weigh: Mapping[str, float] | None) -> JudgedRates:
    trial = result.trial
    models = (*trial.suspects, *trial.calibration)
    return JudgedRates.of(
        {recipe.digest: result.matching_rates[recipe.digest] for recipe in trial.suspects},
        {recipe.digest: result.calibration_rates[recipe.digest] for recipe in trial.calibration},
        {recipe.digest: recipe.descends_from(trial.target) for recipe in models},
        {recipe.digest: recipe.kind for recipe in models},
        weigh or {},
    )


def _aruc_learned(result: Result) -> float | None:
    """Return the ARUC on the models that a method learned from; None if it learned from none."""
    trial = result.trial
    learned: tuple[list[float], list[float]] = ([], [])
    for recipe in trial.ensemble:
        if recipe.digest in result.calibration_rates:
            side = learned[0 if recipe.descends_from(trial.target) else 1]
            side.append(result.calibration_rates[recipe.digest])
    return metrics.aruc(*learned) if all(learned) else None


def p_values(result: Result) -> dict[str, float]:
    """Return the conformal p-value of each judged suspect, by digest.

    A suspect is compared with negatives that the method has not learned from and that are not the
    suspect itself: those that are not judged or, if the method learned from these, the other judged
    ones.
    """
    trial = result.trial
    if not trial.ensemble:
        known = result.known_rates(positive=False)
        return {d: metrics.p_value(rate, known) for d, rate in result.matching_rates.items()}
    judged = {
        recipe.digest: result.matching_rates[recipe.digest]
        for recipe in trial.suspects
        if not recipe.descends_from(trial.target)
    }
    return {
        digest: metrics.p_value(rate, [r for other, r in judged.items() if other != digest])
        for digest, rate in result.matching_rates.items()
    }


def _smallest_p_value(result: Result) -> float:
    """Return the smallest p-value that every judged suspect can have."""
    if result.trial.ensemble:
        return 1 / len(result.rates(positive=False))  # a negative is compared with the others
    return 1 / (1 + len(result.known_rates(positive=False)))


def _share(result: Result, called: Mapping[str, bool], positive: bool) -> float:
    """Return the share of the positives, or of the negatives, that are called stolen."""
    trial = result.trial
    side = [r for r in trial.suspects if r.descends_from(trial.target) is positive]
    return statistics.fmean(called[recipe.digest] for recipe in side)


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
        agreed = metrics.binomial_p_values(values, result.queries, innocent)
        binomial = dict(zip(rates, agreed, strict=True))
    return Verdicts(
        dict(zip(rates, _calibration(result)(values), strict=True)),
        p_values(result),
        binomial,
    )


def compare_methods(
    results: Sequence[Result], *, weigh: Mapping[str, float] | None = None
) -> Comparisons:
    """Compare every pair of methods by each metric. `weigh` is as in `summarise`."""
    methods: dict[str, dict[comparison.Repeat, JudgedRates]] = {}
    for result in results:
        trial = result.trial
        by_repeat = methods.setdefault(trial.label, {})
        by_repeat[trial.zoo, trial.repeat] = _judged(result, weigh)
    return Comparisons(
        aruc=tuple(comparison.compare("aruc", methods)),
        aruc_calibrated=tuple(comparison.compare("aruc_calibrated", methods)),
        auc=tuple(comparison.compare("auc", methods)),
    )


def _kinds(
    results: Sequence[Result], called: Sequence[Mapping[str, bool]]
) -> dict[str, KindSummary]:
    """Return, per kind of suspect, the share called stolen and the mean matching rate."""
    rates: dict[str, list[float]] = {}
    calls: dict[str, list[bool]] = {}
    for result, of_result in zip(results, called, strict=True):
        for suspect in result.trial.suspects:
            rates.setdefault(suspect.kind, []).append(result.matching_rates[suspect.digest])
            calls.setdefault(suspect.kind, []).append(of_result[suspect.digest])
    return {
        kind: KindSummary(
            judged=len(values),
            called=statistics.fmean(calls[kind]),
            matching_rate=statistics.fmean(values),
        )
        for kind, values in rates.items()
    }
