"""The threshold of a fingerprint, valid for independent models of a making that it has not seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from ..api.errors import InputError

Makings = Mapping[str, Sequence[float]]
"""The matching rates of the independent models, by their making."""

TOLERANCE = 1e-6
"""Numbers that differ by no more than this are equal: machines round differently."""

MARGIN = 0.005
"""Rates are kept this far from 0 and 1 before the logit is taken."""


def makings_of(models: Sequence[Mapping[str, Any]]) -> Makings:
    """Return the matching rates of the independent ones of known models, by their making."""
    makings: dict[str, list[float]] = {}
    for model in models:
        if not model["positive"]:
            makings.setdefault(model["making"], []).append(model["rate"])
    return makings


def recognised(models: Sequence[Mapping[str, Any]], threshold: float) -> tuple[int, int]:
    """Return how many known copies are above a threshold, and how many there are."""
    copies = [model["rate"] > threshold for model in models if model["positive"]]
    return sum(copies), len(copies)


@dataclass(frozen=True)
class Threshold:
    """A threshold: a suspect with a matching rate strictly above `rate` is consistent with a copy.

    rate:                the largest of two bounds, see `find_threshold`.
    false_positive_rate: the level that both bounds keep.
    left_out:            the share of the independent models that were above the threshold of the
                         other makings, when their own was left out. Every making counts the same.
    interval:            the 95 % interval of `left_out`, Clopper and Pearson's with one trial for
                         each making.
    worst_making:        the making with the largest share, and that share.
    """

    rate: float
    false_positive_rate: float
    left_out: float
    interval: tuple[float, float]
    worst_making: tuple[str, float]


def find_threshold(makings: Makings, level: float) -> Threshold:
    """Return the lowest threshold that two bounds allow, and its rate of false positives when a
    whole making is left out.

    1. Hierarchical conformal prediction (Lee, Barber and Willett, arXiv 2306.06342, section 3): if
       the suspect's making is exchangeable with the K known makings, the chance of a false positive
       is at most `level`. Every making has the same weight.
    2. The prediction bound of the worst making: within a making, the logit of the rate is taken as
       normal, with a standard deviation that is pooled over makings. So the chance is at most
       `level` for another model of each known making too.

    Raises InputError if there are too few makings for the level.
    """
    require_makings(len(makings), level)
    rate = _bound(makings, level)
    shares: dict[str, float] = {}
    for making, rates in makings.items():
        others = {name: values for name, values in makings.items() if name != making}
        bound = _bound(others, max(level, 1 / (1 + len(others))))
        shares[making] = fmean(r > bound for r in rates)
    worst = max(shares, key=lambda making: shares[making])
    return Threshold(
        rate, level, fmean(shares.values()), clopper_pearson(sum(shares.values()), len(shares)),
        (worst, shares[worst]),
    )  # fmt: skip


def p_value(rate: float, makings: Makings) -> float:
    """Return the chance that an independent model has at least this matching rate: the larger of
    the two p-values that belong to the bounds of `find_threshold`. At least 1 / (1 + K)."""
    from scipy import stats

    high = sum(fmean(r >= rate for r in rates) for rates in makings.values())
    conformal = (1 + high) / (1 + len(makings))
    found = _spread(makings)
    if found is None:
        return conformal
    spread, freedom = found
    if not spread:  # equal rates within every making
        return conformal
    tails = [
        stats.t.sf(
            (_logit(rate) - fmean(map(_logit, rates)))
            / (spread * math.sqrt(1 + 1 / len(rates))), freedom
        )
        for rates in makings.values()
    ]  # fmt: skip
    return float(max(conformal, *tails))


def _bound(makings: Makings, level: float) -> float:
    return max(_conformal_bound(makings, level), worst_making_bound(makings, level))


def _conformal_bound(makings: Makings, level: float) -> float:
    """Return the smallest known rate above which the conformal p-value is at most `level`."""
    weights = [(r, 1 / len(rates)) for rates in makings.values() for r in rates]
    rates, shares = np.array(sorted(weights, reverse=True)).T
    # The p-value of a rate just above rates[i] counts the models before i.
    above = np.concatenate([[0.0], np.cumsum(shares)[:-1]])
    allowed = (1 + above) / (1 + len(makings)) <= level + 1e-9
    # Of equal rates the first decides: none of them is above the other.
    return float(rates[allowed].min()) if allowed.any() else 1.0


def worst_making_bound(makings: Makings, level: float) -> float:
    """Return the largest of the makings' prediction bounds; 0 if no making has two models."""
    from scipy import stats

    found = _spread(makings)
    if found is None:
        return 0.0
    spread, freedom = found
    reach = float(stats.t.isf(level, freedom)) * spread
    logits = (
        fmean(map(_logit, rates)) + reach * math.sqrt(1 + 1 / len(rates))
        for rates in makings.values()
    )
    return 1 / (1 + math.exp(-max(logits)))


def _spread(makings: Makings) -> tuple[float, int] | None:
    """Return the pooled standard deviation of the logits within makings, and its degrees of
    freedom; None if no making has two models."""
    squares, freedom = 0.0, 0
    for rates in makings.values():
        logits = [_logit(r) for r in rates]
        mean = fmean(logits)
        squares += sum((x - mean) ** 2 for x in logits)
        freedom += len(logits) - 1
    return (math.sqrt(squares / freedom), freedom) if freedom else None


def _logit(rate: float) -> float:
    inside = min(max(rate, MARGIN), 1 - MARGIN)
    return math.log(inside / (1 - inside))


def makings_needed(level: float) -> int:
    """Return the number of makings that a false positive rate needs: 1 / (1 + K) is at most it."""
    return math.ceil(1 / level - 1e-9) - 1


def require_makings(n: int, level: float) -> None:
    """Raise InputError unless n makings of independent models support a false positive rate."""
    option = "--false-positive-rate"
    if not 0 < level < 1:
        raise InputError(f"expected a rate between 0 and 1, got {level}", option)
    if n < 2:
        raise InputError(
            f"expected independent models of two makings or more, got {n}: one does not show how "
            "models of another are rated"
        )
    if n < makings_needed(level):
        least = math.ceil(1000 / (n + 1)) / 1000
        raise InputError(
            f"expected at least {least:g}, the smallest that {n} makings of independent models "
            f"support, got {level}; give the case negatives of {makings_needed(level)} makings "
            "that the method does not learn from (without `zoo:` the case gets them), or use "
            f"{option} {least:g}",
            option,
        )


def clopper_pearson(found: float, n: int) -> tuple[float, float]:
    """Return the exact 95 % interval of the share found / n; (0, 1) if n is 0.

    A number that is not whole is read as in the beta distributions of the formula.
    """
    from scipy import stats

    if not n:
        return 0.0, 1.0
    low = stats.beta.ppf(0.025, found, n - found + 1) if found > 0 else 0.0
    high = stats.beta.ppf(0.975, found + 1, n - found) if found < n else 1.0
    return float(low), float(high)
