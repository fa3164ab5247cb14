"""Metrics in which suspects have weights, computed for many draws of weights at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import logit

from ..api.results import Metric
from .metrics import THRESHOLDS, Floats, fit_calibration


@dataclass(frozen=True)
class JudgedRates:
    """The matching rates of one method in one repeat, by model.

    positives, negatives: of the judged suspects.
    known_positives, known_negatives: of the models that are not judged. The calibration is fitted
               to them.
    weights:   how much a judged suspect counts in ARUC; 1 for every model that is not named.
    """

    positives: Mapping[str, float]
    negatives: Mapping[str, float]
    known_positives: Mapping[str, float] = field(default_factory=dict)
    known_negatives: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls, judged: Mapping[str, float], known: Mapping[str, float], positive: Mapping[str, bool],
        kinds: Mapping[str, str], weigh: Mapping[str, float],
    ) -> JudgedRates:  # fmt: skip
        """Return rates by side.

        judged, known: the rates of judged suspects, and of the models that are not judged.
        positive, kinds: by model, whether it is a positive, and its kind.
        weigh:         as in `weights_of`.
        """

        def side(rates: Mapping[str, float], of: bool) -> dict[str, float]:
            return {name: rate for name, rate in rates.items() if positive[name] is of}

        return cls(
            positives=side(judged, True),
            negatives=side(judged, False),
            known_positives=side(known, True),
            known_negatives=side(known, False),
            weights=weights_of(kinds, [*judged], weigh),
        )

    def value(self, metric: Metric) -> float:
        """Return the metric of the rates as they are."""
        once = np.ones(1)
        sides = (self.positives, self.negatives, self.known_positives, self.known_negatives)
        return float(self.values(metric, {name: once for side in sides for name in side})[0])

    def values(self, metric: Metric, drawn: Mapping[str, Floats]) -> Floats:
        """Return the metric for each draw (draws,); nan where a draw lacks the models of a side.

        drawn: by model, how often each draw has it (draws,).
        """
        p, n = _rates(self.positives), _rates(self.negatives)
        p_counts, n_counts = _stack(drawn, self.positives), _stack(drawn, self.negatives)
        if metric == "auc":
            return weighted_auc(p, n, p_counts, n_counts)
        p_weights = p_counts * [self.weights.get(name, 1.0) for name in self.positives]
        n_weights = n_counts * [self.weights.get(name, 1.0) for name in self.negatives]
        if metric == "aruc":
            return weighted_aruc(p, n, p_weights, n_weights)
        slopes, offsets = fit_calibration(
            _rates(self.known_positives), _rates(self.known_negatives),
            _stack(drawn, self.known_positives), _stack(drawn, self.known_negatives),
        )  # fmt: skip
        return weighted_calibrated_aruc(p, n, p_weights, n_weights, slopes, offsets)

    def curves(self) -> tuple[Floats, Floats]:
        """Return R and U at every threshold."""
        above = [
            share_above(
                _rates(rates),
                np.array([[self.weights.get(name, 1.0) for name in rates]]),
                THRESHOLDS[None],
            )[0]
            for rates in (self.positives, self.negatives)
        ]
        return above[0], 1 - above[1]


def _rates(side: Mapping[str, float]) -> Floats:
    return np.array([*side.values()], float)


def _stack(drawn: Mapping[str, Floats], names: Mapping[str, float]) -> Floats:
    return np.stack([drawn[name] for name in names], axis=1)


def weights_of(
    kinds: Mapping[str, str], judged: Sequence[str], weigh: Mapping[str, float]
) -> dict[str, float]:
    """Return the weight of each judged suspect: its kind's weight by the number judged of it.

    kinds: by model. weigh: by kind; a kind without a weight does not count. If `weigh` is empty,
    the result is empty, and every suspect counts the same.
    """
    if not weigh:
        return {}
    number = [kinds[name] for name in judged]
    return {name: weigh.get(kinds[name], 0.0) / number.count(kinds[name]) for name in judged}


def weighted_aruc(
    positives: Floats, negatives: Floats, positive_weights: Floats, negative_weights: Floats
) -> Floats:
    """Return `metrics.aruc` with a weight for each suspect.

    positives, negatives: rates (n,). weights: (draws, n). Returns (draws,).
    """
    return _mean_of_minimum(
        share_above(positives, positive_weights, THRESHOLDS[None]),
        share_above(negatives, negative_weights, THRESHOLDS[None]),
    )


def weighted_calibrated_aruc(
    positives: Floats, negatives: Floats, positive_weights: Floats, negative_weights: Floats,
    slopes: Floats, offsets: Floats,
) -> Floats:  # fmt: skip
    """Return `weighted_aruc` of calibrated rates, where each draw has its own calibration curve.

    slopes, offsets: of the curves (draws,). The other arguments are as in `weighted_aruc`.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        # A calibrated rate is above rho if the raw rate is above the point where the curve is rho.
        thresholds = (logit(THRESHOLDS) - offsets[:, None]) / slopes[:, None]
    # A curve that does not rise gives every rate 1/2.
    flat = np.where(THRESHOLDS < 0.5, -np.inf, np.inf)
    thresholds = np.where((slopes > 0)[:, None], thresholds, flat)
    return np.where(
        np.isfinite(slopes),
        _mean_of_minimum(
            share_above(positives, positive_weights, thresholds),
            share_above(negatives, negative_weights, thresholds),
        ),
        np.nan,
    )


def weighted_auc(
    positives: Floats, negatives: Floats, positive_weights: Floats, negative_weights: Floats
) -> Floats:
    """Return `metrics.roc_auc` with a weight for each suspect; shapes as in `weighted_aruc`."""
    wins = (positives[:, None] > negatives) + 0.5 * (positives[:, None] == negatives)
    with np.errstate(invalid="ignore"):
        result: Floats = ((positive_weights @ wins) * negative_weights).sum(1) / (
            positive_weights.sum(1) * negative_weights.sum(1)
        )
    return result


def share_above(rates: Floats, weights: Floats, thresholds: Floats) -> Floats:
    """Return the weighted share of rates strictly above thresholds.

    rates: (n,). weights: (draws, n). thresholds: (draws, t), or (1, t) for all draws.
    Returns (draws, t); nan where all weights are 0.
    """
    order = np.argsort(rates)
    summed = np.hstack([np.zeros((len(weights), 1)), np.cumsum(weights[:, order], axis=1)])
    below = np.searchsorted(rates[order], thresholds, side="right")
    below = np.broadcast_to(below, (len(weights), below.shape[1]))
    with np.errstate(invalid="ignore"):
        share: Floats = 1 - np.take_along_axis(summed, below, axis=1) / summed[:, -1:]
    return share


def _mean_of_minimum(robustness: Floats, false_positives: Floats) -> Floats:
    result: Floats = np.minimum(robustness, 1 - false_positives).mean(1)
    return result
