"""Make a fingerprint of the owner's model: build the zoo, construct, calibrate, write the file."""

from __future__ import annotations

import platform
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..api.errors import FpbenchError, InputError, SuiteError, TrialError
from ..api.fields import fields_as_json
from ..api.fingerprinter import Fingerprint, Fingerprinter
from ..api.oracle import Access, Oracle, oracle_of
from ..api.recipe import Recipe
from ..api.work import Trial
from ..engine.attempt import run_trial
from ..engine.environment import device_name, versions
from ..engine.isolation import isolated
from ..engine.key import weights_of
from ..engine.plan import Plan, derived_seed, trials_without
from ..engine.registry import Registry
from ..engine.run import Setting, build_zoo, prepared, twins_of
from ..engine.suite import Suite
from ..store.files import sha256
from ..store.store import Store
from .combined import RULES, Combined, Rule, joined
from .comparable import inside, profile_of
from .fingerprint_file import save
from .scores import as_logits
from .threshold import (
    Threshold,
    find_threshold,
    makings_needed,
    makings_of,
    recognised,
    require_makings,
)

LEAST_FOUND = 0.5
"""The share of known copies that a useful method recognises."""

EXPECTED_WITHIN = 0.05
"""The part of a measure by which the target may differ from what its owner expects."""


@dataclass(frozen=True)
class Candidate:
    """A method that was tried on the owner's zoo.

    found, of: the number of known copies above the threshold, of those not learned from.
    reason:    why the method has no fingerprint; None if it has one.
    """

    label: str
    trial: Trial | None = None
    fingerprint: Fingerprint | None = None
    seconds: float = 0.0
    threshold: Threshold | None = None
    models: Sequence[Mapping[str, Any]] = ()
    found: int = 0
    of: int = 0
    reason: str | None = None

    def rank(self) -> tuple[bool, float, float, int]:
        """Return a key by which the best candidate is the largest.

        Of the methods that recognise enough known copies, the one is best that judges the fewest
        independent models copies when their making is left out; then, the one that recognises the
        most known copies; then, the one with the fewest queries.
        """
        if self.threshold is None or self.trial is None:
            return False, -2.0, 0.0, 0
        found = self.found / self.of
        return found >= LEAST_FOUND, -self.threshold.left_out, found, -self.trial.method.n_queries

    def as_json(self) -> dict[str, Any]:
        """Return the candidate's entry in the fingerprint's file."""
        return {
            "method": self.label, "reason": self.reason, "found": self.found, "of": self.of,
            "left_out": self.threshold and self.threshold.left_out,
            "threshold": self.threshold and self.threshold.rate,
        }  # fmt: skip


def make_fingerprint(
    suite: Suite, setting: Setting, registry: Registry, out: Path, level: float,
    rule: Rule | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Construct the fingerprint of a suite's target, write its file and return its metadata.

    Of several methods the one is taken that is best on the zoo of the suite, before any suspect is
    seen; or, with a rule, all of them are combined by it. The threshold follows from the rates of
    the models that no method of the fingerprint learns from.

    level: the false positive rate.
    rule:  how the rates of all methods become one.

    Raises SuiteError unless the suite has one zoo and a method that applies; InputError if there
    are too few makings of independent models for the level, or if no method recognises enough known
    copies; TrialError if the target or the only method fails.
    """
    tried = try_methods(suite, setting, level)
    if rule is not None:
        tried.append(_combine(tried, rule, setting, level))
    best = max(tried, key=Candidate.rank) if rule is None else tried[-1]
    if best.trial is None or best.fingerprint is None or best.threshold is None:
        raise TrialError(best.reason or "no method made a fingerprint")
    if best.found < LEAST_FOUND * best.of:
        raise InputError(
            f"expected a method that recognises at least half of the known copies at "
            f"{100 * level:.3g} % false positives, got {best.found} of {best.of} from {best.label}"
            + ("" if len(tried) > 1 else "; --method auto takes the best of all installed methods"),
            "--method",
        )
    trial = best.trial
    meta = {
        "case": suite.name,
        "scenario": {
            "name": suite.scenario.name,
            "version": suite.scenario.version,
            "fields": fields_as_json(suite.scenario),
        },
        "method": _describe_method(trial.method, registry),
        "tried": [candidate.as_json() for candidate in tried],
        "access": str(trial.access),
        "quantised": trial.quantised,
        "target": _describe_target(trial, setting.store),
        "calibration": {
            "threshold": asdict(best.threshold),
            "models": list(best.models),
            "not_judged": _not_judged(suite, best.models),
            "rounded": rate_rounded_target(trial, best.fingerprint, setting),
        },
        "suite": {
            "sha256": sha256(suite.source.text.encode()),
            "text": suite.source.text,
            "overrides": list(suite.overrides),
        },
        "construct_seconds": best.seconds,
        "device": device_name(setting.device),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {**versions(), "platform": platform.platform()},
    }  # fmt: skip
    save(out, best.fingerprint, meta)
    return meta


def try_methods(suite: Suite, setting: Setting, level: float) -> list[Candidate]:
    """Build a suite's zoo and construct the fingerprints of its methods.

    Raises SuiteError, InputError and TrialError as `make_fingerprint` does.
    """
    plan = Plan.of(replace(suite, repeats=1))
    _check(plan, level)
    with prepared(plan, setting):
        failures = build_zoo(plan, setting)
        target = suite.zoos[0].target
        if (reason := failures.get(target.digest)) is not None:
            raise TrialError(f"the target could not be made: {reason.splitlines()[-1]}")
        _check_target(plan, setting.store)
        twins = twins_of(plan, weights_of(plan, setting.store), failures)
        tried = [
            _try(_by_makings(trial, suite.seed, level), setting, level)
            for trial in trials_without(plan, {*failures, *twins})
        ]
    return tried + [Candidate(label, reason=reason) for label, reason in plan.refusals.items()]


def _combine(tried: Sequence[Candidate], rule: Rule, setting: Setting, level: float) -> Candidate:
    """Return one candidate of all that were tried. Its models are those that no part learned from.

    Raises InputError for fewer than two methods, if a method made no fingerprint, or if too few
    makings are left to judge.
    """
    if failed := next((c for c in tried if c.fingerprint is None), None):
        raise InputError(
            f"expected a fingerprint of each method to combine, got none of {failed.label}: "
            f"{failed.reason}",
            "--combine",
        )
    if len(tried) < 2:
        raise InputError("expected two methods or more to combine, got one", "--combine")
    trials = [candidate.trial for candidate in tried if candidate.trial is not None]
    method = Combined(
        parts=tuple(t.method for t in trials), levels=tuple(t.access for t in trials), rule=rule
    )
    fingerprint = joined([c.fingerprint for c in tried if c.fingerprint is not None])
    trial = replace(trials[0], method=method, access=method.access, label=method.name)
    recipes = {r.digest: r for t in trials for r in (*t.suspects, *t.calibration)}
    rates = [{model["digest"]: model["rate"] for model in c.models} for c in tried]
    models = [
        _describe(recipe, RULES[rule]([own[digest] for own in rates]), fingerprint, trial,
                  setting.store, torch.device(setting.device))
        for digest, recipe in recipes.items()
        if all(digest in own for own in rates)
    ]  # fmt: skip
    require_makings(len(makings_of(models)), level)
    threshold = find_threshold(makings_of(models), level)
    found, of = recognised(models, threshold.rate)
    seconds = sum(candidate.seconds for candidate in tried)
    return Candidate(method.name, trial, fingerprint, seconds, threshold, models, found, of)


def _describe_method(method: Fingerprinter, registry: Registry) -> dict[str, Any]:
    """Return a method's entry in the fingerprint's file."""
    if isinstance(method, Combined):
        parts = [
            {**_describe_method(part, registry), "access": str(level)}
            for part, level in zip(method.parts, method.levels, strict=True)
        ]
        return {"name": method.name, "fields": {"rule": method.rule}, "parts": parts}
    return {
        "name": method.name,
        "fields": fields_as_json(method),
        "from": registry.methods[method.name].source,
    }


def _check(plan: Plan, level: float) -> None:
    """Raise SuiteError if there are several zoos or no method applies, InputError if the negatives
    cannot support the level."""
    suite = plan.suite
    if len(suite.zoos) > 1:
        raise SuiteError(
            f"expected one zoo, got {len(suite.zoos)}; choose one by -o zoo.seed=SEED",
            suite.source.where(("zoo", "seeds")),
        )
    if not plan.trials:
        first = suite.methods[0]
        raise SuiteError(plan.refusals[first.label], first.place)
    makings = {making_of(recipe) for recipe in suite.zoos[0].negatives}
    require_makings(len(makings), level)


def _check_target(plan: Plan, store: Store) -> None:
    """Raise InputError if the target's utility is not what its owner expects, or if its main
    measure is far from that of every known model, as when its inputs are normalised in another
    way."""
    zoo, scenario, source = plan.suite.zoos[0], plan.suite.scenario, plan.suite.source

    def utility(recipe: Recipe) -> Mapping[str, float]:
        return (store.made(recipe, scenario) or {}).get("utility") or {}

    own = utility(zoo.target)
    for measure, expected in plan.suite.expects.items():
        where = source.where(("expects", measure))
        if measure not in own:
            raise SuiteError(
                f"expected a measure of {scenario.name}, {' or '.join(own)}, got {measure!r}", where
            )
        if abs(own[measure] - expected) > EXPECTED_WITHIN * abs(expected):
            raise SuiteError(
                f"expected a target whose {measure} is within {100 * EXPECTED_WITHIN:g} % of "
                f"{expected:g}, got {own[measure]:.4g}; does it expect another normalisation of "
                "its inputs, or another order of classes?",
                where,
            )
    if not own:
        return
    name = next(iter(own))
    theirs = [u[name] for r in zoo.negatives if name in (u := utility(r))]
    if theirs and not inside(own[name], theirs):
        raise InputError(
            f"expected a target whose {name} is near those of the independent models, "
            f"{min(theirs):.3f} to {max(theirs):.3f}, got {own[name]:.3f}; does it expect another "
            "normalisation of its inputs, or another order of classes? If the figure is right, add "
            "negatives that are as good",
            str(getattr(zoo.target, "file", zoo.target)),
        )


def making_of(recipe: Recipe) -> str:
    """Return how a model was made, without its seed."""
    return str(recipe).rpartition("#")[0] or str(recipe)


def _by_makings(trial: Trial, seed: int, level: float) -> Trial:
    """Return a trial in which a method that learns does so from whole makings of negatives, and in
    which all other models are judged.

    A method rates makings that it has learned from better than new ones, so only makings that are
    new to it may decide its threshold. It gets at most half of them, and leaves as many as the
    level needs.
    """
    if not trial.method.needs_ensemble:
        return trial
    models = (*trial.suspects, *trial.calibration)
    makings: dict[str, list[Recipe]] = {}
    for recipe in models:
        if not recipe.descends_from(trial.target):
            makings.setdefault(making_of(recipe), []).append(recipe)
    order = sorted(makings)
    random.Random(derived_seed("makings", seed)).shuffle(order)  # noqa: S311
    n = max(0, min(len(order) // 2, len(order) - makings_needed(level)))
    negatives = [recipe for making in order[:n] for recipe in makings[making]]
    positives = [recipe for recipe in trial.ensemble if recipe.descends_from(trial.target)]
    per_side = min(len(positives), len(negatives))
    ensemble = (*positives[:per_side], *negatives[:per_side])
    learned = {recipe.digest for recipe in (*ensemble, *negatives)}
    judged = tuple(recipe for recipe in models if recipe.digest not in learned)
    return replace(trial, ensemble=ensemble, suspects=judged, calibration=())


def _try(trial: Trial, setting: Setting, level: float) -> Candidate:
    """Construct a method's fingerprint and rate the models that it has not learned from."""
    if trial.method.judges_data:
        return Candidate(trial.label, reason="judges every model of the owner's data a copy")
    if trial.method.needs_ensemble and not trial.ensemble:
        return Candidate(
            trial.label, reason="the zoo has too few makings to learn from some and judge by others"
        )
    device = torch.device(setting.device)
    try:
        with isolated():
            result, fingerprint = run_trial(trial, setting.store, device)
    except (FpbenchError, MemoryError) as error:
        if not isinstance(error, TrialError):
            raise
        return Candidate(trial.label, reason=str(error))
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())
        return Candidate(
            trial.label, reason=f"{trial.label} failed: {type(error).__name__}: {reason}"
        )
    rates = {**result.matching_rates, **result.calibration_rates}
    models = [
        _describe(recipe, rates[recipe.digest], fingerprint, trial, setting.store, device)
        for recipe in (*trial.suspects, *trial.calibration)
    ]
    threshold = find_threshold(makings_of(models), level)
    found, of = recognised(models, threshold.rate)
    return Candidate(
        trial.label, trial, fingerprint, result.construct_seconds, threshold, models, found, of
    )


def _describe(
    recipe: Recipe, rate: float, fingerprint: Fingerprint, trial: Trial, store: Store,
    device: torch.device,
) -> dict[str, Any]:  # fmt: skip
    """Return a known model's entry in the fingerprint's file. Suspects are compared with it."""
    scenario = trial.scenario
    ask = oracle_of(
        store.load(recipe, scenario, device), trial.access, input_shape=scenario.input_shape,
        input_range=scenario.input_range, device=device, input_dtype=scenario.input_dtype,
        quantised=trial.quantised,
    )  # fmt: skip
    return {
        "digest": recipe.digest,
        "making": making_of(recipe),
        "positive": recipe.descends_from(trial.target),
        "rate": rate,
        "arch": recipe.arch,
        "utility": (store.made(recipe, scenario) or {}).get("utility"),
        "profile": profile_of(ask(fingerprint.queries), scenario),
    }


def rate_rounded_target(
    trial: Trial, fingerprint: Fingerprint, setting: Setting
) -> dict[str, float]:
    """Return the target's own matching rate if its probabilities are rounded, by the step.

    Empty if the method does not get probabilities.
    """
    if trial.access is not Access.PROBS:
        return {}
    scenario, device = trial.scenario, torch.device(setting.device)
    ask = oracle_of(
        setting.store.load(trial.target, scenario, device), trial.access,
        input_shape=scenario.input_shape, input_range=scenario.input_range, device=device,
        quantised=trial.quantised,
    )  # fmt: skip
    rates = {}
    for decimals in range(1, 7):
        step = 10.0**-decimals

        def rounded(x: Tensor, step: float = step) -> Tensor:
            p = (ask(x).double() / step).round() * step
            return as_logits(p, "probs", step).float().softmax(-1)

        rate = trial.method.verify(fingerprint, Oracle(rounded, trial.access))
        rates[f"{step:.0e}"] = float(rate)
    return rates


def _not_judged(suite: Suite, models: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the digests of the independent models that the threshold does not rest on: a method
    has learned from them, or they could not be made, or they are twins."""
    judged = {model["digest"] for model in models}
    return [r.digest for r in suite.zoos[0].negatives if r.digest not in judged]


def _describe_target(trial: Trial, store: Store) -> Mapping[str, Any]:
    made = store.made(trial.target, trial.scenario) or {}
    return {
        "name": str(trial.target),
        "digest": trial.target.digest,
        "weights_sha256": made.get("weights_sha256"),
        "file_sha256": trial.target.source_sha256,
        "utility": made.get("utility"),
    }
