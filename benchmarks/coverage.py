"""Measures how many of the 95 % intervals hold the true value, on simulated benchmarks.

python benchmarks/coverage.py [--judged 35] [--benchmarks 1000]

A simulated benchmark has the matching rates of two methods. A rate is the logistic function of a
sum of normal effects, rounded to hundredths: of the side (positive or negative), of the method on
this zoo, of the suspect (shared by all methods and repeats), of the method on this suspect, of the
method's seed in this repeat, and of each single answer. A fifth of the positives is harder to find.
Each repeat draws the split again.

Intervals over zoos: a large number of zoos is simulated. It is the population, so its mean is the
true value, and each benchmark draws some of its zoos. Intervals of one zoo: the population is many
repeats on the same suspects, and a benchmark draws some of them. For a difference on one zoo, the
zoo's effects are fixed and its suspects are drawn in every benchmark; the true difference is that
of a separate simulation. The intervals are computed by the functions that runs use.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fpbench.api.results import Metric
from fpbench.results import metrics
from fpbench.results.comparison import BOUNDS, Repeat, compare
from fpbench.results.weighted import JudgedRates

METRICS: tuple[Metric, ...] = ("aruc", "aruc_calibrated", "auc")
REPEATS = 3
RESAMPLES = 250
"""Fewer than in a run, to save time."""

SPLITS = 100
"""Repeats in the population of one zoo."""

PER_ZOO = 20
"""Benchmarks that draw from the same population of repeats."""

FIRST, SECOND = "clear", "middling"
"""The methods whose difference is looked at."""


@dataclass(frozen=True)
class Method:
    """The effects on a method's rates, as standard deviations of normal distributions.

    level: the mean of the negatives. lead: how far positives are above them.
    zoo, suspect, own, seed, answer: of the zoo, of the suspect (shared by all methods), of the
           method on this suspect, of the method's seed, of a single answer.
    """

    level: float
    lead: float
    zoo: float
    suspect: float
    own: float
    seed: float
    answer: float


METHODS = {
    FIRST: Method(-0.6, 2.4, 0.5, 0.8, 0.5, 0.25, 0.3),
    SECOND: Method(0.2, 1.2, 0.3, 0.7, 0.4, 0.15, 0.2),
}

Benchmark = dict[str, dict[Repeat, JudgedRates]]


def simulate(
    rng: np.random.Generator, judged: int, zoos: int, *, repeats: int = REPEATS,
    zoo_effects: bool = True,
) -> Benchmark:  # fmt: skip
    """Return the rates of one benchmark.

    judged:      the positives, and the negatives, that a repeat judges; as many are known.
    zoo_effects: False for zoos that are all like one zoo, but for their suspects.
    """
    benchmark: Benchmark = {name: {} for name in METHODS}
    for zoo in range(zoos):
        n = 2 * judged
        suspects = rng.normal(size=(2, n))
        suspects[0] -= 1.6 * (rng.random(n) < 0.2)
        own = {name: rng.normal(size=(2, n)) for name in METHODS}
        luck = {name: rng.normal(size=2) * zoo_effects for name in METHODS}
        for repeat in range(repeats):
            order = [rng.permutation(n) for _ in range(2)]
            for name, m in METHODS.items():
                x = m.level + m.lead * np.array([[1], [0]]) + m.zoo * luck[name][:, None]
                x = x + m.suspect * suspects + m.own * own[name] + m.seed * rng.normal()
                x = x + m.answer * rng.normal(size=(2, n))
                rates = np.round(100 / (1 + np.exp(-x))) / 100
                sides = [
                    {f"{zoo}{'pn'[side]}{i}": float(rates[side, i]) for i in order[side][half]}
                    for half in (slice(judged), slice(judged, n))
                    for side in (0, 1)
                ]
                benchmark[name][zoo, repeat] = JudgedRates(*sides)
    return benchmark


Values = dict[tuple[str, Metric], metrics.Floats]
"""Values of many zoos (zoos, repeats) by method and metric."""

Found = dict[str, list[bool]]
"""By interval, whether it holds the true value in each benchmark."""


def values(judged: int, zoos: int, repeats: int, *, seed: int, zoo_effects: bool) -> Values:
    """Return the values of many zoos (zoos, repeats) by method and metric."""
    found = {(name, metric): np.empty((zoos, repeats)) for name in METHODS for metric in METRICS}
    for zoo in range(zoos):
        rng = np.random.default_rng((judged, seed, zoo))
        one = simulate(rng, judged, 1, repeats=repeats, zoo_effects=zoo_effects)
        for (name, metric), of_zoos in found.items():
            of_zoos[zoo] = [one[name][0, k].value(metric) for k in range(repeats)]
    return found


def cover_zoos(judged: int, numbers: Sequence[int], benchmarks: int, zoos: int) -> list[Found]:
    """Return, for each number of zoos, which intervals over zoos hold the true value.

    zoos: the size of the population.
    """
    population = values(judged, zoos, REPEATS, seed=2, zoo_effects=True)
    found: list[Found] = [{} for _ in numbers]
    for number, of_number in zip(numbers, found, strict=True):
        rng = np.random.default_rng((judged, number))
        for drawn in rng.integers(zoos, size=(benchmarks, number)):
            for metric in METRICS:
                first, second = (population[name, metric] for name in (FIRST, SECOND))
                bound, ahead = BOUNDS[metric], first - second
                _, mean = metrics.mean_interval([*first[drawn]], 0, bound)
                # Without bounds, as `compare` computes a difference.
                _, difference = metrics.mean_interval([*ahead[drawn]], -np.inf)
                _add(of_number, f"mean {metric}", mean, float(first.mean()))
                _add(of_number, f"difference in {metric}", difference, float(ahead.mean()))
    return found


def cover_one_zoo(judged: int, benchmarks: int, zoos: int) -> Found:
    """Return which intervals of a single zoo hold the true value.

    zoos: how many are simulated for the true differences.
    """
    found: Found = {}
    population = values(judged, benchmarks // PER_ZOO, SPLITS, seed=1, zoo_effects=True)
    rng = np.random.default_rng(judged)
    for metric in METRICS:
        for repeats in population[FIRST, metric]:
            for drawn in rng.choice(repeats, size=(PER_ZOO, REPEATS)):
                _, mean = metrics.mean_interval([drawn], 0, BOUNDS[metric])
                _add(found, f"mean {metric}", mean, float(repeats.mean()))
    true = values(judged, zoos, 1, seed=3, zoo_effects=False)
    for seed in range(benchmarks):
        rng = np.random.default_rng((judged, 4, seed))
        benchmark = simulate(rng, judged, 1, zoo_effects=False)
        for metric in METRICS:
            (ahead,) = compare(metric, benchmark, resamples=RESAMPLES)
            difference = float((true[FIRST, metric] - true[SECOND, metric]).mean())
            _add(found, f"difference in {metric}", (ahead.low, ahead.high), difference)
    return found


def _add(found: Found, name: str, interval: metrics.Interval | None, true: float) -> None:
    assert interval is not None
    found.setdefault(name, []).append(interval[0] <= true <= interval[1])


def main() -> None:
    """Print a table in Markdown, a row per interval."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--judged", type=int, default=35, help="positives, and negatives")
    parser.add_argument("--benchmarks", type=int, default=1000)
    parser.add_argument("--zoos", type=int, default=2000, help="the size of the population")
    given = parser.parse_args()
    numbers = (2, 3, 5)
    columns = cover_zoos(given.judged, numbers, given.benchmarks, given.zoos)
    columns.insert(0, cover_one_zoo(given.judged, given.benchmarks, given.zoos))
    heads = ["1 zoo", *(f"{number} zoos" for number in numbers)]
    print(f"| {given.judged} + {given.judged} judged | {' | '.join(heads)} |")
    print(f"| --- | {' | '.join('---:' for _ in heads)} |")
    for name in columns[1]:
        shares = (f"{100 * np.mean(found[name]):.1f} %" for found in columns)
        print(f"| {name.replace('_', ' ')} | {' | '.join(shares)} |")


if __name__ == "__main__":
    main()
