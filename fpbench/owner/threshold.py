"""The threshold of a fingerprint and its false positive rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

from ..api.errors import InputError


@dataclass(frozen=True)
class Threshold:
    """A threshold: a suspect with a matching rate strictly above `rate` is consistent with a copy.

    false_positive_rate: the chance that an independent model is above the threshold, if it is
                         drawn like the known negatives: k / (n + 1), never below 1 / (n + 1).
    interval:            the 95 % Clopper-Pearson interval of the share of negatives above the
                         threshold. The threshold is the k-th largest of n rates. The false
                         positive rate of this order statistic is beta distributed, so the upper
                         end is exact.
    """

    rate: float
    false_positive_rate: float
    interval: tuple[float, float]


def find_threshold(negatives: Sequence[float], false_positive_rate: float) -> Threshold:
    """Return the lowest threshold that keeps a false positive rate. It is the rate of a negative.

    A matching rate is above it exactly if its empirical p-value, (1 + #{negatives as high}) /
    (1 + n), is at most `false_positive_rate`. Raises InputError for a false positive rate that n
    negatives cannot show.
    """
    n = len(negatives)
    require_negatives(n, false_positive_rate)
    k = floor(false_positive_rate * (n + 1) + 1e-9)
    threshold = sorted(negatives, reverse=True)[min(k, n) - 1]
    above = sum(rate > threshold for rate in negatives)
    return Threshold(threshold, min(k, n) / (n + 1), clopper_pearson(above, n))


def require_negatives(n: int, false_positive_rate: float) -> None:
    """Raise InputError unless n negatives can show a false positive rate."""
    least = 1 / (n + 1)
    if not 0 < false_positive_rate < 1:
        raise InputError(
            f"expected a rate between 0 and 1, got {false_positive_rate}", "--false-positive-rate"
        )
    if false_positive_rate < least - 1e-9:
        needed = floor(1 / false_positive_rate - 1e-9)
        raise InputError(
            f"expected at least {least:.3f}, the smallest that {n} independent models can show, "
            f"got {false_positive_rate}; give the case {needed} negatives that the method does not "
            f"learn from, or use --false-positive-rate {ceil(1000 * least) / 1000}",
            "--false-positive-rate",
        )


def clopper_pearson(found: int, n: int) -> tuple[float, float]:
    """Return the exact 95 % interval of the share found / n; (0, 1) if n is 0."""
    from scipy import stats

    if not n:
        return 0.0, 1.0
    ends = stats.binomtest(found, n).proportion_ci(0.95, method="exact")
    return float(ends.low), float(ends.high)
