"""Which method is ahead: differences between methods on the same suspects, by paired bootstrap."""

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
class Judged:
    """What one method said in one repeat: rates of positives and of negatives, by suspect."""

    positives: Mapping[str, float]
    negatives: Mapping[str, float]


def compare(
    metric: Callable[[Floats, Floats, Floats, Floats], Floats],
    methods: Mapping[str, Mapping[int, Judged]],
    *, resamples: int = RESAMPLES, seed: int = 0,
) -> list[Difference]:  # fmt: skip
    """Compare every pair of methods that finished a repeat in common.

    metric:  `weighted_aruc` or `weighted_auc`.
    methods: by name, what each said, by repeat; in a repeat all judged the same suspects.

    A resample draws the zoo's positives, and its negatives, with replacement; each drawn model
    counts as often in every repeat that judged it, for every method: pairs stay pairs, and repeats
    that share models are not taken for independent (Efron and Tibshirani, *An Introduction to
    the Bootstrap*, 1993, chapters 8 and 13). The splits and the methods' seeds stay as they were.
    """
    if len(methods) < 2:
        return []
    rng = np.random.default_rng(seed)
    sides = []
    for side in ("positives", "negatives"):
        names = sorted(
            {n for said in methods.values() for j in said.values() for n in getattr(j, side)}
        )
        drawn = rng.multinomial(len(names), [1 / len(names)] * len(names), size=resamples)
        # The first row is the zoo as it is.
        weights = np.vstack([np.ones(len(names)), drawn])
        sides.append(dict(zip(names, weights.T, strict=True)))

    values: dict[str, dict[int, Floats]] = {
        method: {repeat: _values(metric, judged, *sides) for repeat, judged in said.items()}
        for method, said in methods.items()
    }
    found = []
    for first, second in combinations(values, 2):
        common = sorted(values[first].keys() & values[second].keys())
        if common:
            ahead = np.stack([values[first][k] - values[second][k] for k in common])
            found.append(_difference(first, second, ahead))
    return found


def _values(
    metric: Callable[[Floats, Floats, Floats, Floats], Floats], judged: Judged,
    positives: Mapping[str, Floats], negatives: Mapping[str, Floats],
) -> Floats:  # fmt: skip
    columns = []
    for rates, weights in ((judged.positives, positives), (judged.negatives, negatives)):
        columns += [
            np.fromiter(rates.values(), float),
            np.stack([weights[name] for name in rates], axis=1),
        ]
    return metric(*columns)


def _difference(first: str, second: str, ahead: Floats) -> Difference:
    """ahead: (repeats, 1 + resamples); nan where a resample left a repeat nobody to judge."""
    counts = np.isfinite(ahead)
    with np.errstate(invalid="ignore"):
        mean = np.where(counts, ahead, 0).sum(0) / counts.sum(0)
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
    """`metrics.aruc` with a weight for each suspect.

    positives, negatives: rates (n,). weights: (draws, n). Returns (draws,).
    """
    r = _weighted_share(positives, positive_weights)
    u = 1 - _weighted_share(negatives, negative_weights)
    result: Floats = np.minimum(r, u).mean(1)
    return result


def weighted_auc(
    positives: Floats, positive_weights: Floats, negatives: Floats, negative_weights: Floats
) -> Floats:
    """`metrics.roc_auc` with a weight for each suspect; shapes as in `weighted_aruc`."""
    won = (positives[:, None] > negatives) + 0.5 * (positives[:, None] == negatives)
    with np.errstate(invalid="ignore"):
        result: Floats = ((positive_weights @ won) * negative_weights).sum(1) / (
            positive_weights.sum(1) * negative_weights.sum(1)
        )
    return result


def _weighted_share(rates: Floats, weights: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        share: Floats = weights @ (rates[:, None] > THRESHOLDS) / weights.sum(1, keepdims=True)
    return share


Said = dict[str, dict[int, Judged]]


def across(runs: Mapping[str, RunRecord], metric: str) -> list[Difference]:
    """Compare methods of different runs, named "method (run)".

    runs:   their records, by name.
    metric: "aruc", "aruc_calibrated" or "auc".

    Raises InputError for fewer than two runs, or runs that judged no split of suspects in common.
    """
    if len(runs) < 2:
        raise InputError("expected the folders of two different runs or more")
    calibrated = metric == "aruc_calibrated"
    said = {name: _said(record, calibrated=calibrated) for name, record in runs.items()}
    weighted = weighted_auc if metric == "auc" else weighted_aruc
    found: list[Difference] = []
    names = [*runs]
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            shared = [m for m in said[first] if m in said[second]]
            pairs = [(m, m) for m in shared] or [(a, b) for a in said[first] for b in said[second]]
            for a, b in pairs:
                one, two = _common(said[first][a], said[second][b])
                if one:
                    both = {f"{a} ({first})": one, f"{b} ({second})": two}
                    found += compare(weighted, both)
    if not found:
        raise InputError(
            "expected runs that judged the same suspects in the same repeats, found none in "
            "common; compare runs of one suite, or of suites with one zoo, seed and split"
        )
    return found


def _said(record: RunRecord, *, calibrated: bool) -> Said:
    positive = {model.digest: model.positive for model in record.models}
    said: Said = {}
    for trial in record.trials:
        rates = trial.calibrated_rates if calibrated else trial.matching_rates
        if trial.error is None:
            sides = [{d: r for d, r in rates.items() if positive[d] is p} for p in (True, False)]
            said.setdefault(trial.method, {})[trial.repeat] = Judged(*sides)
    return said


def _common(
    one: Mapping[int, Judged], two: Mapping[int, Judged]
) -> tuple[dict[int, Judged], dict[int, Judged]]:
    """The repeats in which both judged the same suspects."""
    same = [
        k
        for k in one.keys() & two.keys()
        if one[k].positives.keys() == two[k].positives.keys()
        and one[k].negatives.keys() == two[k].negatives.keys()
    ]
    return {k: one[k] for k in same}, {k: two[k] for k in same}
