"""A suite as work to do: which models, in which groups, and who is tried on whom."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor

from ..api.errors import PluginError, SuiteError
from ..api.fingerprinter import Fingerprinter
from ..api.oracle import Access
from ..api.recipe import Recipe
from ..api.scenario import Scenario
from ..api.work import Cohort, PlanSummary, Trial
from ..store.store import Store
from . import estimate
from .suite import Suite


def derived_seed(*parts: object) -> int:
    """A seed from whatever names the thing it is for: order of work cannot matter."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class Plan:
    """Every model and every trial of a suite.

    refusals: by method label, why it does not apply; it becomes n/a, never zero.
    """

    suite: Suite
    models: tuple[Recipe, ...]
    trials: tuple[Trial, ...]
    refusals: Mapping[str, str]

    @classmethod
    def of(cls, suite: Suite) -> Plan:
        """Plan a suite. Raises SuiteError when its split leaves nothing to judge or learn from."""
        refusals: dict[str, str] = {}
        trials = []
        splits = [_split(suite, repeat) for repeat in range(suite.repeats)]
        halves = [((*learn[0], *learn[1]), (*judged[0], *judged[1])) for learn, judged in splits]
        for variant in suite.methods:
            access = chosen_access(variant.method, suite.scenario, suite.api)
            reason = _declined(variant.method, suite.scenario)
            if reason is None and access is None:
                levels = " or ".join(str(a) for a in sorted(variant.method.accepts))
                reason = f"{variant.method.name} needs {levels}; the suite's api gives {suite.api}"
            if reason is not None or access is None:
                refusals[variant.label] = reason or "declined"
                continue
            for repeat, (learn, _) in enumerate(splits):
                ensemble: tuple[Recipe, ...] = ()
                if variant.method.needs_ensemble:
                    each = (variant.ensemble or 2 * max(map(len, learn))) // 2
                    short = min(map(len, learn))
                    if variant.ensemble and each > short:
                        raise SuiteError(
                            f"ensemble: expected at most {2 * short} models, as many as the split "
                            f"leaves to learn from, got {variant.ensemble}",
                            variant.place,
                        )
                    ensemble = (*learn[0][:each], *learn[1][:each])
                trials.append(
                    Trial(
                        scenario=suite.scenario,
                        method=variant.method,
                        label=variant.label,
                        repeat=repeat,
                        seed=derived_seed("trial", suite.seed, repeat),
                        target=suite.target,
                        ensemble=ensemble,
                        suspects=halves[repeat][1],
                        access=access,
                        calibration=halves[repeat][0],
                        quantised=suite.quantised,
                    )
                )
        models = (suite.target, *suite.positives, *suite.negatives)
        return cls(suite, models, tuple(trials), refusals)

    def generations(self) -> list[list[Recipe]]:
        """Every model of every lineage, parents before children."""
        depths: dict[str, tuple[int, Recipe]] = {}
        for recipe in self.models:
            steps = list(recipe.lineage())
            for depth, step in enumerate(reversed(steps)):
                depths[step.digest] = depth, step
        generations: list[list[Recipe]] = []
        for depth, recipe in sorted(depths.values(), key=lambda pair: pair[0]):
            while len(generations) <= depth:
                generations.append([])
            generations[depth].append(recipe)
        return generations

    def summary(self, store: Store, device: str) -> PlanSummary:
        """Return what a run would do; the store is read and not changed."""
        suite, scenario = self.suite, self.suite.scenario
        learn, judged = _split(suite, 0)
        missing = [
            recipe
            for generation in self.generations()
            for recipe in generation
            if store.made(recipe, scenario) is None
        ]
        return PlanSummary(
            suite=suite.name,
            scenario=str(scenario),
            task=scenario.task,
            api=str(suite.api),
            repeats=suite.repeats,
            positives=Counter(r.name for r in suite.positives),
            negatives=Counter(r.name for r in suite.negatives),
            judged=(len(judged[0]), len(judged[1])),
            ensemble=(len(learn[0]), len(learn[1])),
            missing=Counter(recipe.name for recipe in missing),
            cohorts=tuple(
                Cohort(part[0].kind, tuple(map(str, part))) for part in cohorts(missing, scenario)
            ),
            trials=Counter(trial.label for trial in self.trials),
            tasks={trial.label: _task(trial) for trial in self.trials},
            bytes=estimate.size(missing, scenario),
            refusals=self.refusals,
            device=device,
            seconds=estimate.seconds(missing, scenario, suite.target.arch, device),
            smaller=suite.smaller,
        )


def _declined(method: Fingerprinter, scenario: Scenario) -> str | None:
    """Why a method does not apply. Raises PluginError when it cannot even say that."""
    try:
        reason = method.declines(scenario)
        return None if reason is None else str(reason)
    except Exception as error:
        raise PluginError(
            f"method {method.name}: expected declines to say why it does not apply, or None; it "
            f"raised {type(error).__name__}: {error}"
        ) from error


def _task(trial: Trial) -> str:
    """What a method will do, in words."""
    text = f"{trial.method.n_queries} queries to each of {len(trial.suspects)} suspects"
    text += f", answered with {trial.access}"
    if trial.ensemble:
        text += f"; learns from {len(trial.ensemble)} others"
    return text


def cohorts(recipes: Iterable[Recipe], scenario: Scenario) -> list[list[Recipe]]:
    """Group models that are made together, and saved together.

    Those that take long are made a few at a time, so that little is lost when a run is stopped.
    How many is counted, not timed: a run that goes on must form the cohorts that it left.
    """
    groups: dict[object, list[Recipe]] = {}
    for recipe in recipes:
        groups.setdefault(recipe.cohort(), []).append(recipe)
    return [part for group in groups.values() for part in estimate.parts(group, scenario)]


def chosen_access(method: Fingerprinter, scenario: Scenario, api: Access) -> Access | None:
    """The richest level the method accepts, the task offers and the suite's API gives."""
    levels = [a for a in method.accepts if a <= api and a in scenario.offers]
    return max(levels, default=None)


Side = list[Recipe]


def _split(suite: Suite, repeat: int) -> tuple[tuple[Side, Side], tuple[Side, Side]]:
    """One repeat's (positives, negatives) to learn from, and those to judge."""
    rng = random.Random(derived_seed("split", suite.seed, repeat))  # noqa: S311
    pairs = []
    for side, recipes in (("positives", suite.positives), ("negatives", suite.negatives)):
        learn, judged = _halves(recipes, suite.split, suite.stratify, rng)
        if not learn or not judged:
            raise SuiteError(
                f"expected {side} enough for both halves of the split, got {len(recipes)}",
                suite.source.where(("zoo", side)),
            )
        pairs.append((learn, judged))
    (learn_pos, judged_pos), (learn_neg, judged_neg) = pairs
    return (learn_pos, learn_neg), (judged_pos, judged_neg)


def _halves(
    recipes: Sequence[Recipe], share: float, stratify: bool, rng: random.Random
) -> tuple[Side, Side]:
    """Draw `share` of the models to learn from: of every kind alike, or of all of them.

    Walking along models sorted by kind and taking one whenever the share is due gives every
    kind its share within one model, and the whole its share exactly.
    """
    kinds: dict[str, Side] = {}
    for recipe in recipes:
        kinds.setdefault(recipe.kind if stratify else "", []).append(recipe)
    order = list(kinds.values())
    rng.shuffle(order)
    for group in order:
        rng.shuffle(group)
    row = [recipe for group in order for recipe in group]
    offset = rng.random()
    learn: Side = []
    judged: Side = []
    for i, recipe in enumerate(row):
        due = floor((i + 1) * share + offset) > floor(i * share + offset)
        (learn if due else judged).append(recipe)
    # So that the first k of them are a fair draw too.
    rng.shuffle(learn)
    return learn, judged


def without(trial: Trial, gone: set[str]) -> Trial:
    """A trial without the models that could not be made."""
    return replace(
        trial,
        ensemble=tuple(r for r in trial.ensemble if r.digest not in gone),
        suspects=tuple(r for r in trial.suspects if r.digest not in gone),
        calibration=tuple(r for r in trial.calibration if r.digest not in gone),
    )
