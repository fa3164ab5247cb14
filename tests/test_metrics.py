"""Metrics against loops that anybody can read, and what must hold for all rates."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fpbench import metrics

# Thresholds are hundredths, so rates that are hundredths too meet them exactly.
HUNDREDTHS = st.integers(0, 100).map(lambda i: i / 100)
# No st.floats: whoever trained before in this process has switched denormal numbers off.
ANY = st.integers(0, 10**9).map(lambda i: i / 10**9)
RATES = st.lists(st.one_of(HUNDREDTHS, ANY), min_size=1, max_size=30)
GRID = st.lists(HUNDREDTHS, min_size=1, max_size=30)


def above(rates, rho):
    return sum(r > rho for r in rates) / len(rates)


def not_above(rates, rho):
    return sum(r <= rho for r in rates) / len(rates)


@given(RATES, HUNDREDTHS)
def test_robustness_counts_positives_strictly_above(rates, rho):
    assert metrics.robustness(rates, rho) == pytest.approx(above(rates, rho))


@given(RATES, HUNDREDTHS)
def test_uniqueness_counts_negatives_not_above(rates, rho):
    assert metrics.uniqueness(rates, rho) == pytest.approx(not_above(rates, rho))


def test_a_rate_equal_to_the_threshold_is_not_above_it():
    assert metrics.robustness([0.5], 0.5) == 0
    assert metrics.uniqueness([0.5], 0.5) == 1


@given(RATES, RATES)
def test_aruc_is_the_mean_of_the_lower_curve(positives, negatives):
    lower = [min(above(positives, i / 100), not_above(negatives, i / 100)) for i in range(101)]
    assert metrics.aruc(positives, negatives) == pytest.approx(sum(lower) / 101)


@given(RATES, RATES)
def test_aruc_stays_below_its_ceiling(positives, negatives):
    assert 0 <= metrics.aruc(positives, negatives) <= metrics.ARUC_CEILING + 1e-12


@given(st.integers(1, 50), st.integers(1, 50))
def test_a_perfect_method_reaches_the_ceiling_of_aruc(n_positives, n_negatives):
    reached = metrics.aruc([1.0] * n_positives, [0.0] * n_negatives)
    assert reached == pytest.approx(100 / 101)
    assert pytest.approx(100 / 101) == metrics.ARUC_CEILING


@given(RATES)
def test_a_method_that_cannot_tell_gets_at_most_half_the_aruc(rates):
    assert metrics.aruc(rates, rates) <= 0.5 + 1e-12


@given(RATES, RATES, st.integers(0, 29))
def test_a_higher_positive_never_lowers_aruc(positives, negatives, i):
    higher = [1.0 if j == i % len(positives) else r for j, r in enumerate(positives)]
    assert metrics.aruc(higher, negatives) >= metrics.aruc(positives, negatives) - 1e-12


@given(RATES, RATES)
def test_robustness_at_full_uniqueness_counts_positives_above_every_negative(positives, negatives):
    beyond = sum(all(p > n for n in negatives) for p in positives) / len(positives)
    assert metrics.robustness_at_full_uniqueness(positives, negatives) == pytest.approx(beyond)


@given(RATES, RATES)
def test_auc_is_the_share_of_pairs_in_order_with_ties_counted_half(positives, negatives):
    pairs = [(p > n) + (p == n) / 2 for p in positives for n in negatives]
    assert metrics.roc_auc(positives, negatives) == pytest.approx(sum(pairs) / len(pairs))


@given(RATES, RATES)
def test_swapping_the_sides_turns_auc_around(positives, negatives):
    turned = 1 - metrics.roc_auc(negatives, positives)
    assert metrics.roc_auc(positives, negatives) == pytest.approx(turned)


@given(GRID, GRID)
def test_only_the_order_of_rates_matters_to_auc(positives, negatives):
    def bent(rates):
        return [(1 + r) ** 2 / 4 for r in rates]

    expected = metrics.roc_auc(positives, negatives)
    assert metrics.roc_auc(bent(positives), bent(negatives)) == pytest.approx(expected)


@given(RATES, RATES, ANY)
def test_tpr_at_fpr_is_the_best_over_all_thresholds(positives, negatives, fpr):
    thresholds = [-1.0, *positives, *negatives]
    best = max(above(positives, t) for t in thresholds if above(negatives, t) <= fpr)
    assert metrics.tpr_at_fpr(positives, negatives, fpr) == pytest.approx(best)


@given(RATES, RATES, st.integers(0, 99))
def test_no_rate_between_none_and_one_negative_can_be_measured(positives, negatives, percent):
    below = percent / 100 / len(negatives)
    strict = metrics.robustness_at_full_uniqueness(positives, negatives)
    assert metrics.tpr_at_fpr(positives, negatives, below) == pytest.approx(strict)


def test_one_negative_may_be_wrong_at_the_smallest_rate_above_zero():
    positives, negatives = [0.9, 0.5], [0.7, 0.1, 0.1]
    assert metrics.tpr_at_fpr(positives, negatives, 0.33) == 0.5
    assert metrics.tpr_at_fpr(positives, negatives, 1 / 3) == 1


@given(st.lists(ANY, min_size=2, max_size=20), st.sampled_from([0.8, 0.95, 0.99]))
def test_the_interval_is_students_t(values, level):
    mean, half = metrics.mean_ci(values, level)
    sem = stats.sem(values)
    assert mean == pytest.approx(sum(values) / len(values))
    expected = stats.t.interval(level, len(values) - 1, scale=sem)[1] if sem else 0
    assert half == pytest.approx(expected, abs=1e-9)


def test_one_value_has_no_interval():
    mean, half = metrics.mean_ci([0.3])
    assert mean == 0.3
    assert math.isnan(half)


@pytest.mark.parametrize("metric", [metrics.robustness, metrics.uniqueness])
def test_no_rates_are_no_share(metric):
    with pytest.raises(ValueError, match="at least one matching rate"):
        metric([], 0.5)
