"""What a benchmark measures: pure functions of matching rates.

Source: the MetaV paper (KDD 2022), section 5.4, unless a function says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Rates = Sequence[float]

THRESHOLDS: NDArray[np.float64] = np.arange(101) / 100
"""rho in {0, 1/100, ..., 1}, on which ARUC is computed."""

ARUC_CEILING = 100 / 101
"""The largest ARUC there is: at rho = 1 no rate is strictly above the threshold."""


def robustness(positives: Rates, rho: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """R(rho): the share of positives whose matching rate is above rho (strictly)."""
    return _share_above(positives, rho)


def uniqueness(negatives: Rates, rho: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """U(rho): the share of negatives whose matching rate is not above rho."""
    return 1 - _share_above(negatives, rho)


def _share_above(rates: Rates, rho: float | NDArray[np.float64]) -> NDArray[np.float64]:
    if not len(rates):
        raise ValueError("expected at least one matching rate, got none")
    above = np.asarray(rates, float)[:, None] > np.atleast_1d(rho)[None]
    share: NDArray[np.float64] = above.mean(0)
    return share if np.ndim(rho) else share[0]


def aruc(positives: Rates, negatives: Rates) -> float:
    """Area under the robustness-uniqueness curves: mean over THRESHOLDS of min{R, U}.

    In [0, 100/101].
    """
    return float(
        np.minimum(robustness(positives, THRESHOLDS), uniqueness(negatives, THRESHOLDS)).mean()
    )


def robustness_at_full_uniqueness(positives: Rates, negatives: Rates) -> float:
    """R at the lowest threshold where U = 1, the largest negative's rate (Figure 3)."""
    return float(robustness(positives, max(negatives)))


def roc_auc(positives: Rates, negatives: Rates) -> float:
    """The chance that a positive's rate is above a negative's, ties counted half."""
    from sklearn.metrics import roc_auc_score

    truth = [1] * len(positives) + [0] * len(negatives)
    return float(roc_auc_score(truth, [*positives, *negatives]))


def tpr_at_fpr(positives: Rates, negatives: Rates, fpr: float) -> float:
    """The largest share of positives above a threshold that at most `fpr` of negatives exceed.

    With n negatives no false positive rate between 0 and 1/n can be measured, so below 1/n
    this is the rate at no false positive at all.
    """
    from sklearn.metrics import roc_curve

    truth = [1] * len(positives) + [0] * len(negatives)
    rates, tprs, _ = roc_curve(truth, [*positives, *negatives], drop_intermediate=False)
    return float(tprs[rates <= fpr + 1e-12].max())


def mean_ci(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Mean and half-width of its Student t interval; a single value has half-width nan."""
    from scipy import stats

    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan")
    half = float(stats.sem(values) * stats.t.ppf((1 + level) / 2, len(values) - 1))
    return mean, half
