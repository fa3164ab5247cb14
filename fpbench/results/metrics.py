"""The metrics of a benchmark, as pure functions of matching rates.

Source: the MetaV paper (KDD 2022), section 5.4, unless a function says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Rates = Sequence[float]
Map = Callable[[Rates], list[float]]

THRESHOLDS: NDArray[np.float64] = np.arange(101) / 100
"""rho in {0, 1/100, ..., 1}, on which ARUC is computed."""

ARUC_CEILING = 100 / 101
"""The largest possible ARUC: at rho = 1 no rate is strictly above the threshold."""


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


def tpr_at_fpr(positives: Rates, negatives: Rates, fpr: float) -> float:
    """Return the largest true positive rate at a false positive rate of at most `fpr`.

    With n negatives no false positive rate between 0 and 1/n can be measured. For an `fpr` below
    1/n the result is the true positive rate without any false positive.
    """
    from sklearn.metrics import roc_curve

    truth = [1] * len(positives) + [0] * len(negatives)
    rates, tprs, _ = roc_curve(truth, [*positives, *negatives], drop_intermediate=False)
    return float(tprs[rates <= fpr + 1e-12].max())


def mean_ci(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Return the mean and the half-width of its Student t interval, nan for a single value."""
    from scipy import stats

    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan")
    half = float(stats.sem(values) * stats.t.ppf((1 + level) / 2, len(values) - 1))
    return mean, half


def calibration(positives: Rates, negatives: Rates) -> Map:
    """Return a map from raw matching rates to probabilities of theft, in (0, 1).

    The map is a logistic curve, fitted to the rates of models that the verifier knows to be
    positive or negative (Platt, *Probabilistic Outputs for Support Vector Machines*, 1999). Its
    targets are smoothed as in the paper: (n + 1) / (n + 2) for positives, 1 / (n + 2) for
    negatives. Both sides have the same total weight. The map never reverses the order of rates:
    if the fitted curve does not rise, every rate gets 1/2.
    """
    from sklearn.linear_model import LogisticRegression

    known = np.asarray([*positives, *negatives], float)
    mean, spread = known.mean(), known.std() or 1.0
    n_pos, n_neg = len(positives), len(negatives)
    stolen = [(n_pos + 1) / (n_pos + 2)] * n_pos + [1 / (n_neg + 2)] * n_neg
    weight = np.asarray([1 / n_pos] * n_pos + [1 / n_neg] * n_neg) * (n_pos + n_neg) / 2
    # Each rate is fitted twice: as positive with the weight of its target, as negative with the
    # rest. C is large, so large coefficients are not penalised.
    curve = LogisticRegression(C=1e9, max_iter=10_000).fit(
        np.tile((known - mean) / spread, 2)[:, None],
        [1] * len(known) + [0] * len(known),
        np.concatenate([weight * stolen, weight * (1 - np.asarray(stolen))]),
    )
    slope, offset = float(curve.coef_[0, 0]), float(curve.intercept_[0])

    def calibrated(rates: Rates) -> list[float]:
        if slope <= 0:
            return [0.5] * len(rates)
        z = slope * (np.asarray(rates, float) - mean) / spread + offset
        return [float(p) for p in 1 / (1 + np.exp(-z))]

    return calibrated


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
