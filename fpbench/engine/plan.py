"""Plan a suite: which models to make, in which groups, and which trials to run on which models."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from math import floor

from ..api.errors import PluginError, SuiteError
from ..api.fingerprinter import Fingerprinter
from ..api.oracle import Access
from ..api.recipe import Recipe
from ..api.scenario import Scenario
from ..api.work import Cohort, PlanSummary, Trial
from ..store.store import Store
from . import estimate
from .data import require_inputs
from .suite import Suite, Zoo
from .twins import refuse_equal_files
from .zoo_files import refuse_missing_files


def derived_seed(*parts: object) -> int:
    """Return a seed for the thing that `parts` name, independent of the order of work."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class Plan:
    """Every model and every trial of a suite.

    refusals: by method label, why the method does not apply. Its results are n/a, never zero.
    """

    suite: Suite
    trials: tuple[Trial, ...]
    refusals: Mapping[str, str]

    @classmethod
    def of(cls, suite: Suite) -> Plan:
        """Plan a suite.

        Raises SuiteError if two models are of one file, or if the split leaves no models to judge
        or learn from, and PluginError if the scenario does not say what one input is.
        """
        refuse_equal_files(suite)
        require_inputs(suite.scenario)
        if suite.quantised and suite.scenario.input_kind != "continuous":
            raise SuiteError(
                f"quantised: expected false, for the inputs of {suite.scenario} are "
                f"{suite.scenario.input_kind} and no image holds them, got true",
                suite.source.where(("quantised",)),
            )
        refusals: dict[str, str] = {}
        trials = []
        splits = []
        for zoo, repeat in product(suite.zoos, range(suite.repeats)):
            learn, judged = _split(suite, zoo, repeat)
            splits.append((zoo, repeat, learn, (*learn[0], *learn[1]), (*judged[0], *judged[1])))
        _check_fpr(suite, min(len(learn[1]) for _, _, learn, _, _ in splits))
        for variant in suite.methods:
            access = choose_access(variant.method, suite.scenario, suite.api)
            reason = _reason_to_decline(variant.method, suite.scenario)
            if reason is None and access is None:
                levels = " or ".join(str(a) for a in sorted(variant.method.accepts))
                reason = f"{variant.method.name} needs {levels}; the suite's api gives {suite.api}"
            if reason is not None or access is None:
                refusals[variant.label] = reason or "declined"
                continue
            for zoo, repeat, learn, calibration, suspects in splits:
                ensemble: tuple[Recipe, ...] = ()
                if variant.method.needs_ensemble:
                    per_side = (variant.ensemble or 2 * max(map(len, learn))) // 2
                    available = min(map(len, learn))
                    if variant.ensemble and per_side > available:
                        raise SuiteError(
                            f"ensemble: expected at most {2 * available} models, as many as the "
                            f"split leaves to learn from, got {variant.ensemble}",
                            variant.place,
                        )
                    ensemble = (*learn[0][:per_side], *learn[1][:per_side])
                trials.append(
                    Trial(
                        scenario=suite.scenario,
                        method=variant.method,
                        label=variant.label,
                        repeat=repeat,
                        seed=derived_seed("trial", suite.seed, repeat),
                        target=zoo.target,
                        ensemble=ensemble,
                        suspects=suspects,
                        access=access,
                        calibration=calibration,
                        quantised=suite.quantised,
                        zoo=zoo.seed,
                    )
                )
        return cls(suite, tuple(trials), refusals)

    @cached_property
    def models(self) -> tuple[Recipe, ...]:
        """The models of all zoos."""
        return tuple(recipe for zoo in self.suite.zoos for recipe in zoo.models)

    def generations(self) -> list[list[Recipe]]:
        """Return every model of every lineage, grouped by depth: parents before children."""
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

    def cohorts(self, recipes: Iterable[Recipe]) -> list[list[Recipe]]:
        """Group models into cohorts. A cohort is made and saved together.

        The models of a cohort belong to one zoo, because weights depend on the cohort in their last
        digits, and a zoo must not depend on the other zoos of the suite. Models that take long are
        made a few at a time, so that little is lost when a run is stopped. The size of a cohort
        follows from counts, not from measured times, because a continued run must form the same
        cohorts again.
        """
        groups: dict[object, list[Recipe]] = {}
        for recipe in recipes:
            key = self._zoo_of[recipe.digest], recipe.cohort()
            groups.setdefault(key, []).append(recipe)
        scenario = self.suite.scenario
        return [part for group in groups.values() for part in estimate.split_group(group, scenario)]

    @cached_property
    def _zoo_of(self) -> dict[str, int]:
        """The seed of each model's zoo, by the model's digest."""
        zoos = self.suite.zoos
        return {r.digest: zoo.seed for zoo in zoos for m in zoo.models for r in m.lineage()}

    def summary(self, store: Store, device: str) -> PlanSummary:
        """Return what a run would do. The store is read and not changed."""
        suite, scenario, zoo = self.suite, self.suite.scenario, self.suite.zoos[0]
        learn, judged = _split(suite, zoo, 0)
        missing = [
            recipe
            for generation in self.generations()
            for recipe in generation
            if store.made(recipe, scenario) is None
        ]
        refuse_missing_files(missing, suite.places)
        return PlanSummary(
            suite=suite.name,
            scenario=str(scenario),
            task=scenario.task,
            api=str(suite.api),
            repeats=suite.repeats,
            positives=Counter(r.name for r in zoo.positives),
            negatives=Counter(r.name for r in zoo.negatives),
            judged=(len(judged[0]), len(judged[1])),
            ensemble=(len(learn[0]), len(learn[1])),
            missing=Counter(recipe.name for recipe in missing),
            cohorts=tuple(
                Cohort(cohort[0].kind, tuple(map(str, cohort))) for cohort in self.cohorts(missing)
            ),
            trials=Counter(trial.label for trial in self.trials),
            tasks={trial.label: _describe_task(trial) for trial in self.trials},
            bytes=estimate.size(missing, scenario),
            refusals=self.refusals,
            device=device,
            seconds=estimate.seconds(missing, scenario, zoo.target.arch, device),
            smaller=suite.smaller,
            zoos=tuple(zoo.seed for zoo in suite.zoos),
        )


def _check_fpr(suite: Suite, negatives: int) -> None:
    """Raise SuiteError if the negatives to learn from cannot support the suite's `fpr`."""
    smallest = 1 / (1 + negatives)
    if suite.fpr is not None and suite.fpr < smallest - 1e-12:
        raise SuiteError(
            f"fpr: expected at least 1/(1 + {negatives}) = {smallest:.4f}, the smallest rate that "
            f"{negatives} negatives to learn from support, got {suite.fpr}",
            suite.source.where(("fpr",)),
        )


def _reason_to_decline(method: Fingerprinter, scenario: Scenario) -> str | None:
    """Return why a method does not apply, or None. Raises PluginError if `declines` raises."""
    try:
        reason = method.declines(scenario)
        return None if reason is None else str(reason)
    except Exception as error:
        raise PluginError(
            f"method {method.name}: expected declines to say why it does not apply, or None; it "
            f"raised {type(error).__name__}: {error}"
        ) from error


def _describe_task(trial: Trial) -> str:
    """Describe in words what a method will do."""
    text = f"{trial.method.n_queries} queries to each of {len(trial.suspects)} suspects"
    text += f", answered with {trial.access}"
    if trial.ensemble:
        text += f"; learns from {len(trial.ensemble)} others"
    return text


def choose_access(method: Fingerprinter, scenario: Scenario, api: Access) -> Access | None:
    """Return the richest level that the method accepts, the task offers and the suite's API gives;
    None if there is none."""
    levels = [a for a in method.accepts if a <= api and a in scenario.offers]
    return max(levels, default=None)


Side = list[Recipe]


def _split(suite: Suite, zoo: Zoo, repeat: int) -> tuple[tuple[Side, Side], tuple[Side, Side]]:
    """Return (positives, negatives) to learn from, and (positives, negatives) to judge, of one
    repeat.

    The draw does not depend on the seed of the zoo.
    """
    rng = random.Random(derived_seed("split", suite.seed, repeat))  # noqa: S311
    pairs = []
    for side, recipes in (("positives", zoo.positives), ("negatives", zoo.negatives)):
        learn, judged = _halves(recipes, suite.split, suite.stratify, rng)
        if not learn or not judged:
            raise SuiteError(
                f"expected enough {side} for both halves of the split, got {len(recipes)}",
                suite.source.where(("zoo", side)),
            )
        pairs.append((learn, judged))
    (learn_pos, judged_pos), (learn_neg, judged_neg) = pairs
    return (learn_pos, learn_neg), (judged_pos, judged_neg)


def _halves(
    recipes: Sequence[Recipe], share: float, stratify: bool, rng: random.Random
) -> tuple[Side, Side]:
    """Draw `share` of the models to learn from, and return them and the rest.

    If `stratify` is true, the share holds for each kind of model within one model, and for all
    models exactly. The function walks along the models, sorted by kind, and takes one whenever the
    next whole number of the share is reached. Otherwise the models count as one kind.
    """
    kinds: dict[str, Side] = {}
    for recipe in recipes:
        kinds.setdefault(recipe.kind if stratify else "", []).append(recipe)
    order = list(kinds.values())
    rng.shuffle(order)
    for group in order:
        rng.shuffle(group)
    sorted_by_kind = [recipe for group in order for recipe in group]
    offset = rng.random()
    learn: Side = []
    judged: Side = []
    for i, recipe in enumerate(sorted_by_kind):
        is_due = floor((i + 1) * share + offset) > floor(i * share + offset)
        (learn if is_due else judged).append(recipe)
    # A method may take only the first k models; those must be a fair draw too.
    rng.shuffle(learn)
    return learn, judged


def trials_without(plan: Plan, digests: Collection[str]) -> list[Trial]:
    """Return a plan's trials without some models, such as those that could not be made.

    The trials of a target that is among them are left out.
    """

    def kept(recipes: Sequence[Recipe]) -> tuple[Recipe, ...]:
        return tuple(recipe for recipe in recipes if recipe.digest not in digests)

    return [
        replace(
            trial,
            ensemble=kept(trial.ensemble),
            suspects=kept(trial.suspects),
            calibration=kept(trial.calibration),
        )
        for trial in plan.trials
        if trial.target.digest not in digests
    ]
