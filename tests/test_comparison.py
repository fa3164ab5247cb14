"""Methods compared on the same suspects: weights against plain metrics, intervals against truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpbench.results import metrics
from fpbench.results.comparison import JudgedRates, compare, weighted_aruc, weighted_auc

HUNDREDTHS = st.integers(0, 100).map(lambda i: i / 100)
COUNTED = st.lists(st.tuples(HUNDREDTHS, st.integers(1, 3)), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("weighted", "plain"), [(weighted_aruc, metrics.aruc), (weighted_auc, metrics.roc_auc)]
)
@given(positives=COUNTED, negatives=COUNTED)
def test_a_weight_counts_a_suspect_as_often(weighted, plain, positives, negatives):
    columns, repeated = [], []
    for side in (positives, negatives):
        columns += [np.array([r for r, _ in side]), np.array([[float(w) for _, w in side]])]
        repeated.append([r for r, w in side for _ in range(w)])
    assert weighted(*columns)[0] == pytest.approx(plain(*repeated))


def said(rng, lift, n=30, noise=None):
    """A method that rates n positives and n negatives, the positives higher by `lift`."""
    own = rng if noise is None else noise
    return JudgedRates(
        {f"p{i}": float(np.clip(0.4 + lift + 0.1 * own.standard_normal(), 0, 1)) for i in range(n)},
        {f"n{i}": float(np.clip(0.4 + 0.1 * own.standard_normal(), 0, 1)) for i in range(n)},
    )


def test_a_clearly_better_method_is_ahead_and_the_difference_is_that_of_the_plain_metric():
    rng = np.random.default_rng(0)
    good, bad = said(rng, 0.4), said(rng, 0.05)
    (found,) = compare(weighted_aruc, {"good": {0: good}, "bad": {0: bad}})
    plain = [metrics.aruc([*j.positives.values()], [*j.negatives.values()]) for j in (good, bad)]
    assert found.value == pytest.approx(plain[0] - plain[1])
    assert 0 < found.low < found.value < found.high
    assert found.p_value < 0.01


def test_a_method_is_not_ahead_of_itself():
    rng = np.random.default_rng(0)
    judged = said(rng, 0.2)
    (found,) = compare(weighted_auc, {"a": {0: judged}, "b": {0: judged}})
    assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_equal_methods_are_called_different_about_as_seldom_as_promised():
    wrong = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        pair = {"a": {0: said(rng, 0.15)}, "b": {0: said(rng, 0.15)}}
        (found,) = compare(weighted_auc, pair, resamples=300)
        wrong += not found.low <= 0 <= found.high
    assert wrong <= 9  # 3 expected; P(more than 9) is below 0.001


def test_suspects_that_both_methods_share_make_the_interval_narrower():
    rng = np.random.default_rng(1)
    base = said(rng, 0.15)

    def shifted(by):
        rates = {k: min(1.0, v + by) for k, v in base.positives.items()}
        return JudgedRates(rates, base.negatives)

    def width(other):
        (found,) = compare(weighted_auc, {"a": {0: base}, "b": {0: other}}, resamples=500)
        return found.high - found.low

    assert width(shifted(0.02)) < width(said(rng, 0.17))


def test_only_repeats_that_both_finished_are_compared():
    rng = np.random.default_rng(0)
    good, bad = said(rng, 0.4), said(rng, 0.05)
    (found,) = compare(weighted_auc, {"a": {0: good, 1: bad}, "b": {1: bad}})
    assert found.value == 0
    assert compare(weighted_auc, {"a": {0: good}, "b": {1: bad}}) == []


def test_nobody_and_one_alone_are_not_compared():
    assert compare(weighted_auc, {}) == []
    assert compare(weighted_auc, {"a": {0: said(np.random.default_rng(0), 0.1)}}) == []
