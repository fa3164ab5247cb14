"""Intervals hold the true value about as often as they promise: benchmarks/coverage.py in small."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from documents import ROOT
from scipy import stats

sys.path.insert(0, str(ROOT / "benchmarks"))
import coverage

BENCHMARKS = 40
MOST = int(stats.binom.ppf(0.9995, BENCHMARKS, 0.07))
"""The most misses. If an interval holds the true value 93 % of the time, which is the bar of the
full simulation, the chance of more misses is 1 in 2000."""


@pytest.mark.parametrize("zoos", [1, 3])
def test_intervals_hold_the_true_value(zoos: int) -> None:
    if zoos == 1:
        found = coverage.cover_one_zoo(16, BENCHMARKS, 200)
    else:
        (found,) = coverage.cover_zoos(16, [zoos], BENCHMARKS, 100)
    assert len(found) == 6
    for name, held in found.items():
        assert held.count(False) <= MOST, name


def test_a_method_with_more_lead_has_higher_rates_of_positives() -> None:
    made = coverage.simulate(np.random.default_rng(0), 30, 2)
    assert made.keys() == coverage.METHODS.keys()
    for rates in made.values():
        assert rates.keys() == {(zoo, k) for zoo in (0, 1) for k in range(coverage.REPEATS)}
        for judged in rates.values():
            assert len(judged.positives) == len(judged.known_negatives) == 30
            assert not judged.positives.keys() & judged.known_positives.keys()
            assert judged.value("auc") > 0.5
