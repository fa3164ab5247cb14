"""Differences between methods on the same suspects, with intervals and p-values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from scipy import stats

from ..api.errors import InputError
from ..api.results import Difference, Metric, RunRecord
from .metrics import ARUC_CEILING, Floats, holm
from .weighted import JudgedRates

RESAMPLES = 2000

Repeat = tuple[int, int]
"""The zoo's seed, and the number of the repeat on this zoo."""

RatesByRepeat = Mapping[Repeat, JudgedRates]

BOUNDS: Mapping[Metric, float] = {
    "aruc": ARUC_CEILING, "aruc_calibrated": ARUC_CEILING, "auc": 1.0
}  # fmt: skip
"""The largest possible difference of two methods in a metric."""


def compare(
    metric: Metric, methods: Mapping[str, RatesByRepeat],
    *, resamples: int = RESAMPLES, seed: int = 0,
) -> list[Difference]:  # fmt: skip
    """Compare every pair of methods that finished a repeat in common.

    methods: by method and repeat, the rates. In one repeat all methods judged the same suspects.

    If two methods have several zoos in common, their difference is computed per zoo, as the mean
    over the zoo's repeats. The interval is Student's over the zoos, and so is the p-value.

    If they have one zoo in common, the standard error comes from a bootstrap over its models. A
    resample draws the zoo's positives with replacement, and separately its negatives. A model that
    is drawn k times counts k times in every repeat and for every method, and calibration curves
    are fitted again. So the methods stay paired, and repeats that share models are not treated as
    independent (Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993, chapters 8 and
    13). `_over_models` says how the standard error becomes an interval.
    """
    draws = _Draws(metric, methods, resamples, seed)
    differences = []
    for first, second in combinations(methods, 2):
        common = sorted(methods[first].keys() & methods[second].keys())
        zoos = sorted({zoo for zoo, _ in common})
        if not zoos:
            continue
        if len(zoos) > 1:
            means = [
                np.mean([draws.own(first, r) - draws.own(second, r) for r in common if r[0] == zoo])
                for zoo in zoos
            ]
            value, error, freedom = float(np.mean(means)), float(stats.sem(means)), len(zoos) - 1.0
            smallest = 0.0
        else:
            by_repeat = [draws.all(first, r) - draws.all(second, r) for r in common]
            value, error, freedom = _over_models(np.stack(by_repeat), draws.size(zoos[0]))
            smallest = 1 / (1 + resamples)
        half, bound = error * float(stats.t.ppf(0.975, freedom)), BOUNDS[metric]
        differences.append(
            Difference(
                first=first,
                second=second,
                value=value,
                low=max(-bound, value - half),
                high=min(bound, value + half),
                p_value=max(smallest, _p_value(value, error, freedom)),
                zoos=len(zoos),
            )
        )
    return with_holm(differences)


class _Draws:
    """The values of a metric: of each zoo as it is, and in resamples of its models."""

    def __init__(
        self, metric: Metric, methods: Mapping[str, RatesByRepeat], resamples: int, seed: int
    ) -> None:
        self._metric, self._methods = metric, methods
        self._resamples, self._seed = resamples, seed
        self._counts: dict[int, dict[str, Floats]] = {}
        self._values: dict[tuple[str, Repeat], Floats] = {}

    def own(self, method: str, repeat: Repeat) -> float:
        """Return a method's value in a repeat."""
        return self._methods[method][repeat].value(self._metric)

    def all(self, method: str, repeat: Repeat) -> Floats:
        """Return a method's values in a repeat (1 + resamples,); the first is the zoo's own."""
        key = method, repeat
        if key not in self._values:
            judged = self._methods[method][repeat]
            self._values[key] = judged.values(self._metric, self._counts_in(repeat[0]))
        return self._values[key]

    def size(self, zoo: int) -> int:
        """Return the number of models on the smaller side of a zoo."""
        return min(map(len, self._sides(zoo)))

    def _sides(self, zoo: int) -> tuple[list[str], list[str]]:
        """Return the zoo's positives and its negatives, by name."""
        positives: set[str] = set()
        negatives: set[str] = set()
        for by_repeat in self._methods.values():
            for (of_zoo, _), judged in by_repeat.items():
                if of_zoo == zoo:
                    positives |= judged.positives.keys() | judged.known_positives.keys()
                    negatives |= judged.negatives.keys() | judged.known_negatives.keys()
        return sorted(positives), sorted(negatives)

    def _counts_in(self, zoo: int) -> dict[str, Floats]:
        """Return how often each draw has each model of a zoo; the first draw has each once."""
        if zoo not in self._counts:
            rng = np.random.default_rng(self._seed)
            counts: dict[str, Floats] = {}
            for names in self._sides(zoo):
                n = len(names)
                drawn = rng.multinomial(n, [1 / n] * n, size=self._resamples)
                counts |= dict(zip(names, np.vstack([np.ones(n), drawn]).T, strict=True))
            self._counts[zoo] = counts
        return self._counts[zoo]


def _over_models(by_repeat: Floats, models: int) -> tuple[float, float, float]:
    """Return a difference's mean over the repeats of a zoo, its standard error, and the error's
    degrees of freedom.

    by_repeat: (repeats, 1 + resamples); nan where a resample drew no model of a side.
    models:    the number of models on the smaller side of the zoo.

    A bootstrap of n models understates the variance by the factor (n - 1) / n, and its quantiles
    are those of a normal distribution (Hesterberg, *What Teachers Should Know About the
    Bootstrap*, 2015, section 4.2). So the variance is corrected, and intervals use Student's
    distribution. The bootstrap keeps the splits and the methods' seeds. Repeats that differ by
    more than the choice of models explains show what these add, and this variance is added, with
    the degrees of freedom of Satterthwaite (*An Approximate Distribution of Estimates of Variance
    Components*, 1946). With one repeat it cannot be seen, and is left out.
    """
    repeats = len(by_repeat)
    value = float(by_repeat[:, 0].mean())
    drawn = by_repeat[:, 1:][:, np.isfinite(by_repeat[:, 1:]).all(0)]
    if drawn.shape[1] < 2 or models < 2:
        return value, math.inf, 1.0
    variance = float(drawn.mean(0).var()) * models / (models - 1)
    extra = 0.0
    if repeats > 1:
        deviations = drawn - drawn.mean(1, keepdims=True)
        explained = float(deviations.var(axis=0, ddof=1).mean())
        extra = max(0.0, float(by_repeat[:, 0].var(ddof=1)) - explained) / repeats
    total = variance + extra
    if not total:
        return value, 0.0, models - 1.0
    freedom = total**2 / (variance**2 / (models - 1) + extra**2 / max(1, repeats - 1))
    return value, math.sqrt(total), freedom


def _p_value(value: float, error: float, freedom: float) -> float:
    """Return the two-sided p-value of a difference by Student's distribution."""
    if not error:
        return float(value == 0)
    return min(1.0, 2 * float(stats.t.sf(abs(value) / error, freedom)))


def compare_runs(runs: Mapping[str, RunRecord], metric: Metric) -> list[Difference]:
    """Compare the methods of different runs; return them under the names "method (run)".

    runs: their records, by name.

    A method of two runs is compared with itself. Two runs without a common method are compared
    by every pair of their methods. Raises InputError for fewer than two runs, for runs that weigh
    kinds of suspects differently, and for runs that judged the same suspects in no repeat.
    """
    if len(runs) < 2:
        raise InputError("expected the folders of two different runs or more")
    if metric != "auc" and len({tuple(sorted(r.suite.weigh.items())) for r in runs.values()}) > 1:
        raise InputError(
            "expected runs with the same `weigh:`, found different weights; compare them by "
            "--metric auc, which has no weights"
        )
    rates = {name: _rates(record) for name, record in runs.items()}
    differences: list[Difference] = []
    for first, second in combinations(runs, 2):
        shared = [m for m in rates[first] if m in rates[second]]
        every_pair = [(a, b) for a in rates[first] for b in rates[second]]
        for a, b in [(m, m) for m in shared] or every_pair:
            one, two = _common_repeats(rates[first][a], rates[second][b])
            if one:
                differences += compare(metric, {f"{a} ({first})": one, f"{b} ({second})": two})
    if not differences:
        raise InputError(
            "expected runs that judged the same suspects in the same repeats, found none in "
            "common; compare runs of one suite, or of suites with one zoo, seed and split"
        )
    return with_holm(differences)


def with_holm(differences: Sequence[Difference]) -> list[Difference]:
    """Return differences with p-values that are corrected for their number."""
    corrected = holm([difference.p_value for difference in differences])
    return [
        difference.model_copy(update={"p_holm": p})
        for difference, p in zip(differences, corrected, strict=True)
    ]


def _rates(record: RunRecord) -> dict[str, dict[Repeat, JudgedRates]]:
    positive = {model.digest: model.positive for model in record.models}
    kinds = {model.digest: model.kind for model in record.models}
    by_method: dict[str, dict[Repeat, JudgedRates]] = {}
    for trial in record.trials:
        if trial.error is None:
            by_method.setdefault(trial.method, {})[trial.zoo, trial.repeat] = JudgedRates.of(
                trial.matching_rates, trial.calibration_rates, positive, kinds, record.suite.weigh
            )
    return by_method


def _common_repeats(one: RatesByRepeat, two: RatesByRepeat) -> tuple[RatesByRepeat, RatesByRepeat]:
    """Return both methods' rates in the repeats in which they judged the same suspects."""
    same = [
        k
        for k in one.keys() & two.keys()
        if one[k].positives.keys() == two[k].positives.keys()
        and one[k].negatives.keys() == two[k].negatives.keys()
    ]
    return {k: one[k] for k in same}, {k: two[k] for k in same}
