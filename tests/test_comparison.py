"""Methods compared on the same suspects: weights against plain metrics, intervals against truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fpbench.results import metrics
from fpbench.results.comparison import compare
from fpbench.results.weighted import (
    JudgedRates,
    weighted_aruc,
    weighted_auc,
    weighted_calibrated_aruc,
    weights_of,
)

HUNDREDTHS = st.integers(0, 100).map(lambda i: i / 100)
COUNTED = st.lists(st.tuples(HUNDREDTHS, st.integers(1, 3)), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("weighted", "plain"), [(weighted_aruc, metrics.aruc), (weighted_auc, metrics.roc_auc)]
)
@given(positives=COUNTED, negatives=COUNTED)
def test_a_weight_counts_a_suspect_as_often(weighted, plain, positives, negatives):
    rates = [np.array([r for r, _ in side]) for side in (positives, negatives)]
    weights = [np.array([[float(w) for _, w in side]]) for side in (positives, negatives)]
    repeated = [[r for r, w in side for _ in range(w)] for side in (positives, negatives)]
    assert weighted(*rates, *weights)[0] == pytest.approx(plain(*repeated))


@given(COUNTED, COUNTED, COUNTED, COUNTED)
def test_the_calibrated_aruc_of_a_draw_is_the_aruc_of_the_mapped_rates(p, n, known_p, known_n):
    rates = [np.array([rate for rate, _ in side]) for side in (p, n, known_p, known_n)]
    curve = metrics.fit_calibration(*rates[2:], *(np.ones((1, len(side))) for side in rates[2:]))
    ones = [np.ones((1, len(side))) for side in rates[:2]]
    mapped = metrics.calibration(*(side.tolist() for side in rates[2:]))
    # A mapped rate that meets a threshold exactly may fall on either side of it.
    near = min(abs(100 * v - round(100 * v)) for side in rates[:2] for v in mapped(side.tolist()))
    if near > 1e-6 or curve[0][0] <= 0:
        expected = metrics.aruc(*(mapped(side.tolist()) for side in rates[:2]))
        found = weighted_calibrated_aruc(*rates[:2], *ones, *curve)[0]
        assert found == pytest.approx(expected)


def test_a_kinds_weight_is_shared_by_its_suspects_and_other_kinds_do_not_count():
    kinds = {"a": "WP", "b": "WP", "c": "FP", "d": "FTAL"}
    weights = weights_of(kinds, [*kinds], {"WP": 3, "FP": 1})
    assert weights == {"a": 1.5, "b": 1.5, "c": 1, "d": 0}
    judged = JudgedRates({"a": 0.9, "b": 0.0, "c": 0.9, "d": 0.0}, {"n": 0.0}, weights=weights)
    assert judged.value("aruc") == pytest.approx((1.5 + 1) / 4 * 90 / 101)


def said(rng, lift, n=30):
    """A method that rates n positives and n negatives twice, the positives higher by `lift`."""

    def side(name, mean):
        return {
            f"{name}{i}": float(np.clip(mean + 0.1 * rng.standard_normal(), 0, 1)) for i in range(n)
        }

    return JudgedRates(
        side("p", 0.4 + lift), side("n", 0.4), side("known p", 0.4 + lift), side("known n", 0.4)
    )


ONE = (0, 0)
"""The first repeat of the first zoo."""


@pytest.mark.parametrize("metric", ["aruc", "aruc_calibrated", "auc"])
def test_a_clearly_better_method_is_ahead_by_the_difference_of_the_plain_metric(metric):
    rng = np.random.default_rng(0)
    good, bad = said(rng, 0.4), said(rng, 0.05)
    (found,) = compare(metric, {"good": {ONE: good}, "bad": {ONE: bad}})

    def plain(judged):
        sides = [[*judged.positives.values()], [*judged.negatives.values()]]
        if metric == "auc":
            return metrics.roc_auc(*sides)
        known = [[*judged.known_positives.values()], [*judged.known_negatives.values()]]
        mapped = metrics.calibration(*known) if metric == "aruc_calibrated" else list
        return metrics.aruc(*map(mapped, sides))

    assert found.value == pytest.approx(plain(good) - plain(bad), abs=1e-6)
    assert 0 < found.low < found.value < found.high <= 1
    assert found.p_value < 0.01
    assert found.zoos == 1


def test_a_method_is_not_ahead_of_itself():
    judged = said(np.random.default_rng(0), 0.2)
    (found,) = compare("auc", {"a": {ONE: judged}, "b": {ONE: judged}})
    assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_equal_methods_are_called_different_about_as_seldom_as_promised():
    wrong = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        pair = {"a": {ONE: said(rng, 0.15)}, "b": {ONE: said(rng, 0.15)}}
        (found,) = compare("auc", pair, resamples=300)
        wrong += not found.low <= 0 <= found.high
        assert (found.p_value < 0.05) is not (found.low <= 0 <= found.high)
    assert wrong <= 9  # 3 expected; P(more than 9) is below 0.001


def test_suspects_that_both_methods_share_make_the_interval_narrower():
    rng = np.random.default_rng(1)
    base = said(rng, 0.15)

    def shifted(by):
        rates = {k: min(1.0, v + by) for k, v in base.positives.items()}
        return JudgedRates(rates, base.negatives)

    def width(other):
        (found,) = compare("auc", {"a": {ONE: base}, "b": {ONE: other}}, resamples=500)
        return found.high - found.low

    assert width(shifted(0.02)) < width(said(rng, 0.17))


def test_repeats_that_differ_more_than_suspects_explain_make_the_interval_wider():
    judged = said(np.random.default_rng(3), 0.15)

    def shifted(by):
        return JudgedRates({k: v + by for k, v in judged.positives.items()}, judged.negatives)

    def width(*shifts):
        first = {(0, k): shifted(by) for k, by in enumerate(shifts)}
        second = {(0, k): judged for k in range(len(shifts))}
        (found,) = compare("auc", {"a": first, "b": second}, resamples=500)
        return found.high - found.low

    assert width(-0.15, 0.0, 0.15) > 2 * width(0.0, 0.0, 0.0) + 0.1


def test_several_zoos_are_paired_by_students_t_over_their_means():
    rng = np.random.default_rng(0)
    pair = {
        name: {(zoo, k): said(rng, lift) for zoo in (3, 5, 8) for k in (0, 1)}
        for name, lift in (("a", 0.2), ("b", 0.1))
    }
    (found,) = compare("auc", pair)
    ahead = [
        np.mean([pair["a"][zoo, k].value("auc") - pair["b"][zoo, k].value("auc") for k in (0, 1)])
        for zoo in (3, 5, 8)
    ]
    expected = stats.ttest_1samp(ahead, 0)
    interval = expected.confidence_interval()
    assert found.zoos == 3
    assert found.value == pytest.approx(np.mean(ahead))
    assert (found.low, found.high) == pytest.approx((max(-1, interval.low), min(1, interval.high)))
    assert found.p_value == pytest.approx(expected.pvalue)


def test_p_values_are_corrected_for_the_number_of_pairs():
    rng = np.random.default_rng(0)
    three = {name: {ONE: said(rng, lift)} for name, lift in (("a", 0.4), ("b", 0.1), ("c", 0.12))}
    found = compare("auc", three, resamples=300)
    assert [d.p_holm for d in found] == pytest.approx(metrics.holm([d.p_value for d in found]))


def test_only_repeats_that_both_finished_are_compared():
    rng = np.random.default_rng(0)
    good, bad = said(rng, 0.4), said(rng, 0.05)
    (found,) = compare("auc", {"a": {(0, 0): good, (0, 1): bad}, "b": {(0, 1): bad}})
    assert found.value == 0
    assert compare("auc", {"a": {(0, 0): good}, "b": {(0, 1): bad}}) == []


def test_nobody_and_one_alone_are_not_compared():
    assert compare("auc", {}) == []
    assert compare("auc", {"a": {ONE: said(np.random.default_rng(0), 0.1)}}) == []
