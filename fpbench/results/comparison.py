"""Differences between methods on the same suspects, with intervals of a paired bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ..api.errors import InputError
from ..api.results import Difference, RunRecord
from .metrics import THRESHOLDS

Floats = NDArray[np.float64]

RESAMPLES = 2000


@dataclass(frozen=True)
class JudgedRates:
    """The matching rates of one method in one repeat, by suspect."""

    positives: Mapping[str, float]
    negatives: Mapping[str, float]


def compare(
    metric: Callable[[Floats, Floats, Floats, Floats], Floats],
    methods: Mapping[str, Mapping[int, JudgedRates]],
    *, resamples: int = RESAMPLES, seed: int = 0,
) -> list[Difference]:  # fmt: skip
    """Compare every pair of methods that finished a repeat in common.

    metric:  `weighted_aruc` or `weighted_auc`.
    methods: by method and repeat, the rates. In one repeat all methods judged the same suspects.

    A resample draws the zoo's positives with replacement, and separately its negatives. A model
    that is drawn k times counts k times in every repeat that judged it and for every method. So
    the methods stay paired, and repeats that share models are not treated as independent (Efron
    and Tibshirani, *An Introduction to the Bootstrap*, 1993, chapters 8 and 13). The splits and
    the methods' seeds are not resampled.
    """
    if len(methods) < 2:
        return []
    rng = np.random.default_rng(seed)
    sides = []
    for side in ("positives", "negatives"):
        names = sorted(
            {
                name
                for by_repeat in methods.values()
                for judged in by_repeat.values()
                for name in getattr(judged, side)
            }
        )
        drawn = rng.multinomial(len(names), [1 / len(names)] * len(names), size=resamples)
        # In the first row every model counts once: the zoo itself.
        weights = np.vstack([np.ones(len(names)), drawn])
        sides.append(dict(zip(names, weights.T, strict=True)))

    values: dict[str, dict[int, Floats]] = {
        method: {repeat: _values(metric, judged, *sides) for repeat, judged in by_repeat.items()}
        for method, by_repeat in methods.items()
    }
    differences = []
    for first, second in combinations(values, 2):
        common = sorted(values[first].keys() & values[second].keys())
        if common:
            by_repeat = np.stack([values[first][k] - values[second][k] for k in common])
            differences.append(_difference(first, second, by_repeat))
    return differences


def _values(
    metric: Callable[[Floats, Floats, Floats, Floats], Floats], judged: JudgedRates,
    positives: Mapping[str, Floats], negatives: Mapping[str, Floats],
) -> Floats:  # fmt: skip
    """Return a metric's values in one repeat, of shape (1 + resamples,)."""
    columns = []
    for rates, weights in ((judged.positives, positives), (judged.negatives, negatives)):
        columns += [
            np.fromiter(rates.values(), float),
            np.stack([weights[name] for name in rates], axis=1),
        ]
    return metric(*columns)


def _difference(first: str, second: str, by_repeat: Floats) -> Difference:
    """Return the mean difference over the repeats, with its interval and p-value.

    by_repeat: (repeats, 1 + resamples); nan where a resample drew no suspect of a repeat.
    """
    counts = np.isfinite(by_repeat)
    with np.errstate(invalid="ignore"):
        mean = np.where(counts, by_repeat, 0).sum(0) / counts.sum(0)
    value, drawn = float(mean[0]), mean[1:][np.isfinite(mean[1:])]
    low, high = np.quantile(drawn, [0.025, 0.975])
    tail = min(np.sum(drawn <= 0), np.sum(drawn >= 0))
    p = min(1.0, 2 * (1 + int(tail)) / (1 + len(drawn)))
    return Difference(
        first=first, second=second, value=value, low=float(low), high=float(high), p_value=p
    )


def weighted_aruc(
    positives: Floats, positive_weights: Floats, negatives: Floats, negative_weights: Floats
) -> Floats:
    """Return `metrics.aruc` with a weight for each suspect.

    positives, negatives: rates (n,). weights: (draws, n). Returns (draws,).
    """
    r = _weighted_share(positives, positive_weights)
    u = 1 - _weighted_share(negatives, negative_weights)
    result: Floats = np.minimum(r, u).mean(1)
    return result


def weighted_auc(
    positives: Floats, positive_weights: Floats, negatives: Floats, negative_weights: Floats
) -> Floats:
    """Return `metrics.roc_auc` with a weight for each suspect; shapes as in `weighted_aruc`."""
    wins = (positives[:, None] > negatives) + 0.5 * (positives[:, None] == negatives)
    with np.errstate(invalid="ignore"):
        result: Floats = ((positive_weights @ wins) * negative_weights).sum(1) / (
            positive_weights.sum(1) * negative_weights.sum(1)
        )
    return result


def _weighted_share(rates: Floats, weights: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        share: Floats = weights @ (rates[:, None] > THRESHOLDS) / weights.sum(1, keepdims=True)
    return share


RatesByMethod = dict[str, dict[int, JudgedRates]]
"""By method and repeat."""


def compare_runs(runs: Mapping[str, RunRecord], metric: str) -> list[Difference]:
    """Compare the methods of different runs; return them under the names "method (run)".

    runs:   their records, by name.
    metric: "aruc", "aruc_calibrated" or "auc".

    A method of two runs is compared with itself. Two runs without a common method are compared
    by every pair of their methods. Raises InputError for fewer than two runs, and for runs that
    judged the same suspects in no repeat.
    """
    if len(runs) < 2:
        raise InputError("expected the folders of two different runs or more")
    calibrated = metric == "aruc_calibrated"
    rates = {name: _rates(record, calibrated=calibrated) for name, record in runs.items()}
    weighted = weighted_auc if metric == "auc" else weighted_aruc
    differences: list[Difference] = []
    names = [*runs]
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            shared = [m for m in rates[first] if m in rates[second]]
            every_pair = [(a, b) for a in rates[first] for b in rates[second]]
            for a, b in [(m, m) for m in shared] or every_pair:
                one, two = _common_repeats(rates[first][a], rates[second][b])
                if one:
                    both = {f"{a} ({first})": one, f"{b} ({second})": two}
                    differences += compare(weighted, both)
    if not differences:
        raise InputError(
            "expected runs that judged the same suspects in the same repeats, found none in "
            "common; compare runs of one suite, or of suites with one zoo, seed and split"
        )
    return differences


def _rates(record: RunRecord, *, calibrated: bool) -> RatesByMethod:
    positive = {model.digest: model.positive for model in record.models}
    by_method: RatesByMethod = {}
    for trial in record.trials:
        rates = trial.calibrated_rates if calibrated else trial.matching_rates
        if trial.error is None:
            sides = [{d: r for d, r in rates.items() if positive[d] is p} for p in (True, False)]
            by_method.setdefault(trial.method, {})[trial.repeat] = JudgedRates(*sides)
    return by_method


def _common_repeats(
    one: Mapping[int, JudgedRates], two: Mapping[int, JudgedRates]
) -> tuple[dict[int, JudgedRates], dict[int, JudgedRates]]:
    """Return both methods' rates in the repeats in which they judged the same suspects."""
    same = [
        k
        for k in one.keys() & two.keys()
        if one[k].positives.keys() == two[k].positives.keys()
        and one[k].negatives.keys() == two[k].negatives.keys()
    ]
    return {k: one[k] for k in same}, {k: two[k] for k in same}
