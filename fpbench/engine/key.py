"""The key of a trial: one digest of everything that its result depends on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from .. import api
from ..api.errors import TrialError
from ..api.fields import fields_as_json
from ..api.recipe import Recipe
from ..api.scenario import Scenario
from ..api.work import Trial
from ..store.checks import TRIAL
from ..store.files import sha256, sha256_of
from ..store.prune import Needed, devices
from ..store.store import Store
from .code import code_of, version
from .plan import Plan, without
from .suite import Suite


@dataclass(frozen=True)
class Job:
    """A trial to attempt, with what the run has found out about it.

    basis:   a digest of the code and the files that the method depends on, as the run loaded them.
    weights: by a model's digest, the sha256 of the weights that the trial is about.
    fresh:   whether to try anew what the store has a result of.
    """

    trial: Trial
    basis: str
    weights: Mapping[str, str]
    fresh: bool = False

    @classmethod
    def of(cls, trial: Trial, weights: Mapping[str, str], fresh: bool = False) -> Job:
        """Make a job of a trial; `weights` may have those of more models."""
        models = (trial.target, *trial.ensemble, *trial.suspects, *trial.calibration)
        own = {recipe.digest: weights.get(recipe.digest, "") for recipe in models}
        return cls(trial, basis(trial), own, fresh)

    def key(self, device: str) -> str:
        """Return the trial's name in the store; `device` is named as in results.

        A store that was rebuilt, a method that was edited, a file that was exchanged never meets
        old results.
        """
        trial = self.trial
        content = {
            "schema": TRIAL,
            "contract": api.CONTRACT,
            "method": trial.method.name,
            "fields": fields_as_json(trial.method),
            "basis": self.basis,
            "seed": trial.seed,
            "access": str(trial.access),
            "scenario": [str(trial.scenario), trial.scenario.version],
            "target": trial.target.digest,
            "ensemble": [recipe.digest for recipe in trial.ensemble],
            "suspects": [recipe.digest for recipe in trial.suspects],
            "calibration": [recipe.digest for recipe in trial.calibration],
            "weights": self.weights,
            "quantised": trial.quantised,
            "device": device,
        }
        return sha256(json.dumps(content, sort_keys=True).encode())

    def check(self) -> None:
        """Raise TrialError if this process has loaded other code, or finds other files, than the
        run: its result is not the one that the key names."""
        if basis(self.trial) != self.basis:
            raise TrialError(
                f"expected the code of {self.trial.label}, and the files that its fields name, as "
                "they were when the run began, found others; run it again to try what is there now"
            )


def basis(trial: Trial) -> str:
    """Return one digest of the code and the files that a method depends on.

    That is the source of its local modules, the bytes of files that its fields name by a `Path`,
    and the versions of torch, numpy and the packages that the modules of method and scenario
    import.
    """
    code, task = code_of(type(trial.method)), code_of(type(trial.scenario))
    packages = {"torch", "numpy", *code.packages, *task.packages}
    content = {
        "source": code.source,
        "files": {str(path): file_digest(path) for path in paths(trial.method)},
        "packages": {package: version(package) for package in packages},
    }
    return sha256(json.dumps(content, sort_keys=True).encode())


def paths(method: Any) -> Iterator[Path]:
    """Yield every path in a dataclass's fields, in lists and mappings too."""
    todo = [getattr(method, field.name) for field in fields(method)]
    while todo:
        value = todo.pop()
        if isinstance(value, Path):
            yield value
        elif isinstance(value, Mapping):
            todo += value.values()
        elif isinstance(value, Collection) and not isinstance(value, str | bytes):
            todo += value


def file_digest(path: Path) -> Any:
    """Return the digest of a file, or of each file in a folder by its place; None for nothing that
    can be read."""
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file()]
        return {str(file.relative_to(path)): file_digest(file) for file in files}
    try:
        return sha256_of(path, again=False) if path.is_file() else None
    except PermissionError:
        return None


def weights_of(plan: Plan, store: Store) -> dict[str, str]:
    """Return the sha256 of the weights of every model of a plan that the store has, by digest."""
    made = {recipe.digest: store.made(recipe, plan.suite.scenario) for recipe in plan.models}
    return {digest: facts["weights_sha256"] for digest, facts in made.items() if facts}


def changed_code(plan: Plan, store: Store) -> list[str]:
    """Return a sentence for every recipe and scenario with models in the store that other code of
    the same version made."""
    scenario = plan.suite.scenario
    source = cache(lambda cls: code_of(cls).source)
    changed: Counter[tuple[str, type[Recipe | Scenario]]] = Counter()
    for recipe in (recipe for generation in plan.generations() for recipe in generation):
        code = (store.made(recipe, scenario) or {}).get("code", {})
        for what, cls in (("recipe", type(recipe)), ("scenario", type(scenario))):
            changed[what, cls] += code.get(what, source(cls)) != source(cls)
    return [
        f"{what} {cls.name}: {count} models in the store were made by other code of version "
        f"{cls.version} than is loaded now, and are reused; raise its `version` if they are to be "
        "made again"
        for (what, cls), count in changed.items()
        if count
    ]


def needed_by(suites: Iterable[Suite], store: Store) -> Needed:
    """Return what some suites name in a store.

    A trial counts as named on every device that the store has trials of.
    """
    folders: set[Path] = set()
    keys: set[str] = set()
    on = devices(store)
    for suite in suites:
        plan = Plan.of(suite)
        everything = [recipe for generation in plan.generations() for recipe in generation]
        folders |= {store.folder(recipe, suite.scenario) for recipe in everything}
        # Models that could not be made are not in the trials either.
        weights = weights_of(plan, store)
        gone = {recipe.digest for recipe in plan.models} - weights.keys()
        jobs = [Job.of(without(trial, gone), weights) for trial in plan.trials]
        keys |= {job.key(device) for job in jobs for device in on}
    return Needed(frozenset(folders), frozenset(keys))
