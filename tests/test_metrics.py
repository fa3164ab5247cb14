"""Metrics against loops that anybody can read, and what must hold for all rates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import LogisticRegression

from fpbench.results import metrics

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
    # As in the function, a rate that rounding puts just below the bound counts as equal to it.
    best = max(above(positives, t) for t in thresholds if above(negatives, t) <= fpr + 1e-12)
    expected = best if fpr * len(negatives) >= 1 - 1e-9 else None
    assert metrics.tpr_at_fpr(positives, negatives, fpr) == (
        expected if expected is None else pytest.approx(expected)
    )


@given(RATES, RATES, st.integers(0, 99))
def test_a_rate_between_none_and_one_negative_is_not_measured(positives, negatives, percent):
    assert metrics.tpr_at_fpr(positives, negatives, percent / 100 / len(negatives)) is None


def test_one_negative_may_be_wrong_at_the_smallest_rate_above_zero():
    positives, negatives = [0.9, 0.5], [0.7, 0.1, 0.1]
    assert metrics.tpr_at_fpr(positives, negatives, 0.33) is None
    assert metrics.tpr_at_fpr(positives, negatives, 1 / 3) == 1


LEVELS = st.sampled_from([0.8, 0.95, 0.99])


@given(st.lists(ANY, min_size=2, max_size=20), LEVELS)
def test_the_interval_of_one_zoo_is_students_t_over_its_repeats(values, level):
    mean, interval = metrics.mean_interval([values], -math.inf, level=level)
    assert mean == pytest.approx(sum(values) / len(values))
    if sem := stats.sem(values):
        expected = stats.t.interval(level, len(values) - 1, loc=mean, scale=sem)
        assert interval == pytest.approx(expected, abs=1e-9)
    else:
        assert interval == (mean, mean)


@given(st.lists(st.lists(ANY, min_size=3, max_size=3), min_size=2, max_size=6), LEVELS)
def test_the_interval_of_several_zoos_is_students_t_over_their_means(zoos, level):
    means = [sum(zoo) / 3 for zoo in zoos]
    mean, interval = metrics.mean_interval(zoos, -math.inf, level=level)
    expected, over_means = metrics.mean_interval([means], -math.inf, level=level)
    assert mean == pytest.approx(expected)
    assert interval == pytest.approx(over_means)


@given(st.lists(ANY, min_size=2, max_size=6))
def test_far_from_its_bounds_a_number_has_students_interval(values):
    _, plain = metrics.mean_interval([values], -math.inf)
    _, bounded = metrics.mean_interval([values], -1e4, 1e4)
    assert bounded == pytest.approx(plain, abs=0.02)


def test_near_a_bound_the_interval_is_longer_away_from_it():
    mean, (low, high) = metrics.mean_interval([[0.99], [0.95], [0.97]], 0, 1)
    assert high < 1
    assert mean - low > 2 * (high - mean)
    # By hand: logit(0.97) +- 4.303 * 0.02 / sqrt(3) / (0.97 * 0.03)
    on_scale = 4.30265 * 0.02 / 3**0.5 / (0.97 * 0.03)
    expected = [1 / (1 + math.exp(-(math.log(0.97 / 0.03) + sign * on_scale))) for sign in (-1, 1)]
    assert [low, high] == pytest.approx(expected, abs=1e-5)


@given(st.lists(st.lists(ANY, min_size=1, max_size=4), min_size=1, max_size=6))
def test_an_interval_holds_the_mean_and_stays_within_the_bounds(zoos):
    mean, interval = metrics.mean_interval(zoos, 0, 1)
    if interval is None:
        assert len(zoos) == len(zoos[0]) == 1
    else:
        assert 0 <= interval[0] <= mean <= interval[1] <= 1


@given(st.lists(ANY, min_size=1, max_size=12))
def test_holms_p_values_are_corrected_step_by_step(p_values):
    corrected = metrics.holm(p_values)
    ranked, highest = sorted(range(len(p_values)), key=lambda i: p_values[i]), 0.0
    for place, i in enumerate(ranked):
        highest = max(highest, min(1, (len(p_values) - place) * p_values[i]))
        assert corrected[i] == pytest.approx(highest)


@pytest.mark.parametrize("metric", [metrics.robustness, metrics.uniqueness])
def test_no_rates_are_no_share(metric):
    with pytest.raises(ValueError, match="at least one matching rate"):
        metric([], 0.5)


SIDE = st.lists(HUNDREDTHS, min_size=2, max_size=20)


@given(SIDE, SIDE, RATES)
def test_calibration_keeps_the_order_and_stays_between_0_and_1(positives, negatives, rates):
    mapped = metrics.calibration(positives, negatives)(sorted(rates))
    assert all(0 <= p <= 1 for p in mapped)
    assert mapped == sorted(mapped)


@given(SIDE, SIDE)
def test_the_calibration_is_the_logistic_regression_of_scikit_learn(positives, negatives):
    # With equal means the slope is 0, and rounding decides whether it counts as rising.
    assume(abs(np.mean(positives) - np.mean(negatives)) > 1e-3)
    known = [*positives, *negatives]
    n_pos, n_neg = len(positives), len(negatives)
    stolen = np.array([(n_pos + 1) / (n_pos + 2)] * n_pos + [1 / (n_neg + 2)] * n_neg)
    weight = np.array([1 / n_pos] * n_pos + [1 / n_neg] * n_neg)
    # Each rate counts twice: as positive with its target's weight, as negative with the rest.
    curve = LogisticRegression(C=1e9, max_iter=10_000, tol=1e-9).fit(
        np.tile(known, 2)[:, None], [1] * len(known) + [0] * len(known),
        np.concatenate([weight * stolen, weight * (1 - stolen)]),
    )  # fmt: skip
    expected = curve.predict_proba(np.reshape(known, (-1, 1)))[:, 1]
    if curve.coef_[0, 0] <= 0:
        expected = np.full(len(known), 0.5)
    assert metrics.calibration(positives, negatives)(known) == pytest.approx(expected, abs=5e-3)


@given(SIDE, SIDE, st.data())
def test_a_weight_in_the_calibration_counts_a_model_as_often(positives, negatives, data):
    def counts(side):
        return data.draw(st.lists(st.integers(1, 3), min_size=len(side), max_size=len(side)))

    sides = [(side, counts(side)) for side in (positives, negatives)]
    rates = [np.array(side) for side, _ in sides]
    weights = [np.array([times], float) for _, times in sides]
    repeated = [np.repeat(side, times) for side, times in sides]
    found = metrics.fit_calibration(*rates, *weights)
    plain = metrics.fit_calibration(*repeated, *(np.ones((1, len(side))) for side in repeated))
    curves = [1 / (1 + np.exp(-slope * rates[0] - offset)) for slope, offset in (found, plain)]
    assert curves[0] == pytest.approx(curves[1], abs=1e-6)


def test_equal_rates_are_calibrated_alike_however_many_there_are():
    ones = [np.ones((1, n)) for n in range(9)]
    for n in range(2, 9):
        slope, _ = metrics.fit_calibration([0.01] * n, [0.01] * 2, ones[n], ones[2])
        assert slope == pytest.approx([0.0], abs=1e-6)


def test_calibration_forgets_the_scale_of_a_method():
    positives, negatives = [0.61, 0.62, 0.66, 0.58], [0.55, 0.57, 0.59, 0.52]
    judged = [0.5, 0.56, 0.58, 0.6, 0.65]
    plain = metrics.calibration(positives, negatives)(judged)
    stretched = metrics.calibration([2 * r - 1 for r in positives], [2 * r - 1 for r in negatives])
    assert stretched([2 * r - 1 for r in judged]) == pytest.approx(plain, abs=1e-3)


def test_a_method_that_ranks_right_between_04_and_06_is_calibrated_to_a_high_aruc():
    positives, negatives = [0.52 + i / 500 for i in range(30)], [0.42 + i / 500 for i in range(30)]
    calibrated = metrics.calibration(positives[::2], negatives[::2])
    raw = metrics.aruc(positives[1::2], negatives[1::2])
    assert metrics.aruc(calibrated(positives[1::2]), calibrated(negatives[1::2])) > raw + 0.2


def test_a_method_that_rates_negatives_higher_is_not_turned_round():
    assert metrics.calibration([0.1, 0.2, 0.3], [0.7, 0.8, 0.9])([0.0, 1.0]) == [0.5, 0.5]


def test_platts_targets_on_one_known_pair_worked_by_hand():
    # One of each: targets 2/3 and 1/3, which a curve through two points meets exactly.
    assert metrics.calibration([0.8], [0.2])([0.8, 0.5, 0.2]) == pytest.approx(
        [2 / 3, 1 / 2, 1 / 3], abs=1e-3
    )


@given(st.lists(HUNDREDTHS, min_size=2, max_size=30, unique=True), st.data())
def test_innocent_models_seldom_get_small_p_values(rates, data):
    """Leave each of n exchangeable rates out in turn: at most a share alpha has p <= alpha."""
    alpha = data.draw(st.integers(1, 100)) / 100
    p = [metrics.p_value(r, rates[:i] + rates[i + 1 :]) for i, r in enumerate(rates)]
    assert sum(v <= alpha for v in p) / len(p) <= alpha + 1e-9


def test_a_p_value_is_never_zero():
    assert metrics.p_value(1.0, [0.1, 0.2, 0.3]) == 1 / 4
    assert metrics.p_value(0.2, [0.1, 0.2, 0.3]) == 3 / 4


def test_binomial_p_values_are_those_of_the_upper_bound_of_agreement():
    # 3 of 30 replies agreed; the interval's upper end, from the beta distribution.
    q = stats.beta.ppf(0.975, 4, 27)
    wanted = sum(math.comb(10, k) * q**k * (1 - q) ** (10 - k) for k in range(6, 11))
    assert metrics.binomial_p_values([0.6, 0.0], 10, [0.1, 0.2, 0.0]) == pytest.approx([wanted, 1])
