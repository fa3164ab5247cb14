"""Measures how many of the 95 % intervals hold the true value, on simulated benchmarks.

python benchmarks/coverage.py [--benchmarks 1000] [--judged 35]

A simulated benchmark has the matching rates of two methods. A rate is the logistic function of a
sum of normal effects, rounded to hundredths: of the side (positive or negative), of the method on
this zoo, of the suspect (shared by all methods and repeats), of the method on this suspect, of the
method's seed in this repeat, and of each single answer. A fifth of the positives is harder to find.
Each repeat draws the split again.

The true values are means over a large simulation of benchmarks of the same size. For intervals over
zoos, everything is drawn again in it. For intervals of one zoo, the zoo's effects are fixed: the
true mean is over the splits and seeds of the same suspects, the true difference over suspects too.
The intervals are computed by the functions that runs use.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
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

OTHERS = 60
"""Repeats on the same zoo whose mean is the true mean of this zoo."""

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


Truth = Mapping[tuple[str, Metric], float]
"""The true value of a method's metric."""

Found = dict[str, list[bool]]
"""By interval, whether it holds the true value in each benchmark."""


def true_values(judged: int, simulations: int, *, zoo_effects: bool) -> Truth:
    """Return the means of every method and metric over many zoos."""
    rng = np.random.default_rng((judged, simulations))
    sums = {(name, metric): 0.0 for name in METHODS for metric in METRICS}
    for _ in range(simulations):
        one = simulate(rng, judged, 1, repeats=1, zoo_effects=zoo_effects)
        for name, metric in sums:
            sums[name, metric] += one[name][0, 0].value(metric) / simulations
    return sums


def cover_zoos(judged: int, zoos: Sequence[int], benchmarks: int, truth: Truth) -> list[Found]:
    """Return, for each number of zoos, which intervals over zoos hold the true value."""
    found: list[Found] = [{} for _ in zoos]
    for seed in range(benchmarks):
        benchmark = simulate(np.random.default_rng((judged, 2, seed)), judged, max(zoos))
        for metric in METRICS:
            first, second = (
                [[rates[zoo, k].value(metric) for k in range(REPEATS)] for zoo in range(max(zoos))]
                for rates in benchmark.values()
            )
            ahead = np.subtract(first, second)
            bound, true = BOUNDS[metric], truth[FIRST, metric]
            for number, of_number in zip(zoos, found, strict=True):
                _, mean = metrics.mean_interval(first[:number], 0, bound)
                # Unbounded, as `compare` computes differences; the bounds only cut its ends.
                _, difference = metrics.mean_interval([*ahead[:number]], -np.inf)
                _add(of_number, f"mean {metric}", mean, true)
                _add(of_number, f"difference in {metric}", difference, true - truth[SECOND, metric])
    return found


def cover_one_zoo(judged: int, benchmarks: int, truth: Truth) -> Found:
    """Return which intervals of a single zoo hold the true value."""
    found: Found = {}
    for seed in range(benchmarks):
        rng = np.random.default_rng((judged, 1, seed))
        many = simulate(rng, judged, 1, repeats=REPEATS + OTHERS, zoo_effects=False)
        benchmark = {
            name: {key: rates[key] for key in rates if key[1] < REPEATS}
            for name, rates in many.items()
        }
        for metric in METRICS:
            values = [rates.value(metric) for rates in many[FIRST].values()]
            _, mean = metrics.mean_interval([values[:REPEATS]], 0, BOUNDS[metric])
            _add(found, f"mean {metric}", mean, float(np.mean(values[REPEATS:])))
            (ahead,) = compare(metric, benchmark, resamples=RESAMPLES)
            true = truth[FIRST, metric] - truth[SECOND, metric]
            _add(found, f"difference in {metric}", (ahead.low, ahead.high), true)
    return found


def _add(found: Found, name: str, interval: metrics.Interval | None, true: float) -> None:
    assert interval is not None
    found.setdefault(name, []).append(interval[0] <= true <= interval[1])


def main() -> None:
    """Print a table in Markdown, a row per interval."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--benchmarks", type=int, default=1000)
    parser.add_argument("--judged", type=int, default=35, help="positives, and negatives")
    parser.add_argument("--simulations", type=int, default=5000, help="zoos for the true values")
    given = parser.parse_args()
    numbers = (2, 3, 5)
    truth = true_values(given.judged, given.simulations, zoo_effects=True)
    columns = cover_zoos(given.judged, numbers, given.benchmarks, truth)
    truth = true_values(given.judged, given.simulations, zoo_effects=False)
    columns.insert(0, cover_one_zoo(given.judged, given.benchmarks, truth))
    heads = ["1 zoo", *(f"{number} zoos" for number in numbers)]
    print(f"| {given.judged} + {given.judged} judged | {' | '.join(heads)} |")
    print(f"| --- | {' | '.join('---:' for _ in heads)} |")
    for name in columns[0]:
        shares = (f"{100 * np.mean(found[name]):.1f} %" for found in columns)
        print(f"| {name.replace('_', ' ')} | {' | '.join(shares)} |")


if __name__ == "__main__":
    main()
