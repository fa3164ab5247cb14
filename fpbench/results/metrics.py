"""The metrics of a benchmark, as pure functions of matching rates.

Source: the MetaV paper (KDD 2022), section 5.4, unless a function says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Rates = Sequence[float]
Floats = NDArray[np.float64]
Interval = tuple[float, float]
Map = Callable[[Rates], list[float]]

THRESHOLDS: NDArray[np.float64] = np.arange(101) / 100
"""rho in {0, 1/100, ..., 1}, on which ARUC is computed."""

ARUC_CEILING = 100 / 101
"""The largest possible ARUC: at rho = 1 no rate is strictly above the threshold."""

NEWTON_STEPS = 60
"""The most steps that a fit of calibration curves takes. It mostly ends after about 8."""


def robustness(positives: Rates, rho: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return R(rho): the share of positives with a matching rate strictly above rho."""
    return _share_above(positives, rho)


def uniqueness(negatives: Rates, rho: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return U(rho): the share of negatives with a matching rate not above rho."""
    return 1 - _share_above(negatives, rho)


def _share_above(rates: Rates, rho: float | NDArray[np.float64]) -> NDArray[np.float64]:
    if not len(rates):
        raise ValueError("expected at least one matching rate, got none")
    above = np.asarray(rates, float)[:, None] > np.atleast_1d(rho)[None]
    share: NDArray[np.float64] = above.mean(0)
    return share if np.ndim(rho) else share[0]


def aruc(positives: Rates, negatives: Rates) -> float:
    """Return the area under the robustness-uniqueness curves: mean over THRESHOLDS of min{R, U}.

    It lies in [0, 100/101].
    """
    return float(
        np.minimum(robustness(positives, THRESHOLDS), uniqueness(negatives, THRESHOLDS)).mean()
    )


def robustness_at_full_uniqueness(positives: Rates, negatives: Rates) -> float:
    """Return R at the lowest threshold where U = 1: the highest rate of a negative (Figure 3)."""
    return float(robustness(positives, max(negatives)))


def roc_auc(positives: Rates, negatives: Rates) -> float:
    """Return the chance that a positive's rate is above a negative's; a tie counts as half."""
    from sklearn.metrics import roc_auc_score

    truth = [1] * len(positives) + [0] * len(negatives)
    return float(roc_auc_score(truth, [*positives, *negatives]))


def tpr_at_fpr(positives: Rates, negatives: Rates, fpr: float) -> float | None:
    """Return the largest true positive rate at a false positive rate of at most `fpr`.

    With n negatives no false positive rate between 0 and 1/n can be measured. For an `fpr` below
    1/n the result is None.
    """
    from sklearn.metrics import roc_curve

    if fpr * len(negatives) < 1 - 1e-9:
        return None
    truth = [1] * len(positives) + [0] * len(negatives)
    rates, tprs, _ = roc_curve(truth, [*positives, *negatives], drop_intermediate=False)
    return float(tprs[rates <= fpr + 1e-12].max())


def mean_interval(
    values: Sequence[Sequence[float]], low: float = 0.0, high: float = math.inf,
    *, level: float = 0.95,
) -> tuple[float, Interval | None]:  # fmt: skip
    """Return the mean of a number over zoos, and the interval of that mean.

    values:    by zoo, the number in each repeat.
    low, high: the bounds of the number.

    With several zoos the model is a one-way random-effects model: zoos are drawn at random, and
    repeats are nested in them. The standard error is s / sqrt(Z) for Z zoos, with s the standard
    deviation of the zoos' means, and Student's distribution has Z - 1 degrees of freedom. This is
    exact for normal effects if all zoos have the same number of repeats (Searle, Casella and
    McCulloch, *Variance Components*, 1992, chapter 3).

    With one zoo the error is that of the mean of its repeats, and the interval holds for this zoo
    only. A single repeat of a single zoo has no interval.

    Near a bound a number is skewed, so the interval of a number with two bounds is computed on the
    logit scale, with the error there by the delta method. So it never passes a bound.
    """
    from scipy import stats
    from scipy.special import expit, logit

    means = [float(np.mean(of_zoo)) for of_zoo in values]
    sample = means if len(means) > 1 else [float(value) for value in values[0]]
    mean = float(np.mean(means))
    if len(sample) < 2:
        return mean, None
    half = float(stats.sem(sample) * stats.t.ppf((1 + level) / 2, len(sample) - 1))
    if math.isinf(high) or not low < mean < high or not half:
        return mean, (max(low, mean - half), min(high, mean + half))
    share = (mean - low) / (high - low)
    on_scale = half / (high - low) / (share * (1 - share))
    ends = low + (high - low) * expit(logit(share) + on_scale * np.array([-1, 1]))
    return mean, (min(mean, float(ends[0])), max(mean, float(ends[1])))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values corrected for their number (Holm, *A Simple Sequentially Rejective
    Multiple Test Procedure*, 1979)."""
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return [float(value) for value in corrected]


def calibration(positives: Rates, negatives: Rates) -> Map:
    """Return a map from raw matching rates to probabilities of theft, in (0, 1).

    The map is the logistic curve of `fit_calibration`. It never reverses the order of rates: if
    the fitted curve does not rise, every rate gets 1/2.
    """
    from scipy.special import expit

    sides = [np.asarray(rates, float) for rates in (positives, negatives)]
    slopes, offsets = fit_calibration(*sides, *(np.ones((1, len(rates))) for rates in sides))
    slope, offset = float(slopes[0]), float(offsets[0])
    if slope <= 0:
        return lambda rates: [0.5] * len(rates)
    return lambda rates: [float(p) for p in expit(slope * np.asarray(rates, float) + offset)]


def fit_calibration(
    positives: Floats, negatives: Floats, positive_weights: Floats, negative_weights: Floats
) -> tuple[Floats, Floats]:
    """Fit logistic curves to rates of models that the verifier knows to be positive or negative.

    positives, negatives: known rates (n,). weights: how often each of them counts (draws, n).
    Returns slopes and offsets (draws,); nan for a draw that lacks a side.

    Source: Platt, *Probabilistic Outputs for Support Vector Machines*, 1999. The targets are
    smoothed as in that paper: (n + 1) / (n + 2) for n positives, 1 / (n + 2) for n negatives.
    Both sides have the same total weight. Newton's method finds the minimum of the convex loss.
    """
    from scipy.special import expit

    n_pos = positive_weights.sum(1, keepdims=True)
    n_neg = negative_weights.sum(1, keepdims=True)
    with np.errstate(invalid="ignore"):
        weights = np.hstack([positive_weights / n_pos, negative_weights / n_neg])
    targets = np.hstack(
        [
            np.broadcast_to((n_pos + 1) / (n_pos + 2), positive_weights.shape),
            np.broadcast_to(1 / (n_neg + 2), negative_weights.shape),
        ]
    )
    rates = np.concatenate([positives, negatives])
    centre, spread = rates.mean(), rates.std()
    if spread < 1e-12:  # equal rates, whose mean is rounded
        spread = 1.0
    x = (rates - centre) / spread
    slope, offset = np.zeros(len(weights)), np.zeros(len(weights))
    for _ in range(NEWTON_STEPS):
        p = expit(slope[:, None] * x + offset[:, None])
        residual, curvature = weights * (targets - p), weights * p * (1 - p)
        gradient = residual @ x, residual.sum(1)
        # The small number keeps the system solvable where all known rates are equal.
        xx, x1, one = curvature @ x**2 + 1e-9, curvature @ x, curvature.sum(1) + 1e-9
        determinant = xx * one - x1**2
        steps = np.stack(
            [
                (one * gradient[0] - x1 * gradient[1]) / determinant,
                (xx * gradient[1] - x1 * gradient[0]) / determinant,
            ]
        )
        # A full step may overshoot far from the minimum.
        steps *= np.minimum(1, 1 / np.maximum(np.abs(steps).max(0), 1e-300))
        slope, offset = slope + steps[0], offset + steps[1]
        if np.nanmax(np.abs(steps), initial=0) < 1e-10:
            break
    return slope / spread, offset - slope * centre / spread


def p_value(rate: float, negatives: Rates) -> float:
    """Return the empirical p-value: how often an innocent model is rated this high by chance.

    It is (1 + #{negatives rated at least as high}) / (1 + n), so never below 1 / (1 + n). It is
    valid if an innocent suspect is exchangeable with the n known negatives (Phipson and Smyth,
    *Permutation P-values Should Never Be Zero*, 2010).
    """
    return (1 + sum(r >= rate for r in negatives)) / (1 + len(negatives))


def binomial_p_values(rates: Rates, n: int, negatives: Rates) -> list[float]:
    """Return, for each rate, the chance that an innocent model agrees on at least that share.

    It is P(Binomial(n, q) >= n rate) for n queries. q is the upper end of the 95 % Clopper-Pearson
    interval for the agreement of the known negatives, with all their replies pooled. The formula
    assumes independent queries and equal negatives. Neither holds, so read it beside `p_value`.
    """
    from scipy import stats

    agreed, replies = round(n * sum(negatives)), n * len(negatives)
    q = float(stats.binomtest(agreed, replies).proportion_ci(0.95, method="exact").high)
    return [float(p) for p in stats.binom.sf(np.rint(n * np.asarray(rates, float)) - 1, n, q)]
