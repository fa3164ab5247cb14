"""Compute the key of a trial: one digest of everything that its result depends on."""

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
from .plan import Plan, trials_without
from .suite import Suite
from .twins import find_twins


@dataclass(frozen=True)
class Job:
    """A trial to attempt, and the code, files and weights that it depends on.

    dependencies: a digest of the code and the files that the method depends on, as the run loaded
             them.
    weights: by a model's digest, the sha256 of the weights that the trial uses.
    fresh:   whether to run the trial even if the store has its result.
    """

    trial: Trial
    dependencies: str
    weights: Mapping[str, str]
    fresh: bool = False

    @classmethod
    def of(cls, trial: Trial, weights: Mapping[str, str], fresh: bool = False) -> Job:
        """Make a job of a trial. `weights` may contain more models than the trial uses."""
        models = (trial.target, *trial.ensemble, *trial.suspects, *trial.calibration)
        own = {recipe.digest: weights.get(recipe.digest, "") for recipe in models}
        return cls(trial, digest_dependencies(trial), own, fresh)

    def key(self, device: str) -> str:
        """Return the trial's name in the store; `device` is named as in results.

        The key changes when a model is made again with other weights, when the method is edited and
        when a file of the method is exchanged. Old results are then not reused.
        """
        trial = self.trial
        content = {
            "schema": TRIAL,
            "contract": api.CONTRACT,
            "method": trial.method.name,
            "fields": fields_as_json(trial.method),
            "basis": self.dependencies,
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
        run, because the key would not fit the result."""
        if digest_dependencies(self.trial) != self.dependencies:
            raise TrialError(
                f"expected the code of {self.trial.label}, and the files that its fields name, to "
                "stay the same during the run, found others; run it again to use the new ones"
            )


def digest_dependencies(trial: Trial) -> str:
    """Return one digest of the code and the files that a method depends on.

    It covers the source of the method's local modules, the bytes of files that its fields name by a
    `Path`, and the versions of torch, numpy and the packages that the modules of method and
    scenario import.
    """
    method_code, scenario_code = code_of(type(trial.method)), code_of(type(trial.scenario))
    packages = {"torch", "numpy", *method_code.packages, *scenario_code.packages}
    content = {
        "source": method_code.source,
        "files": {str(path): digest_file(path) for path in paths_in_fields(trial.method)},
        "packages": {package: version(package) for package in packages},
    }
    return sha256(json.dumps(content, sort_keys=True).encode())


def paths_in_fields(method: Any) -> Iterator[Path]:
    """Yield every path in the fields of a dataclass, also those inside lists and mappings."""
    todo = [getattr(method, field.name) for field in fields(method)]
    while todo:
        value = todo.pop()
        if isinstance(value, Path):
            yield value
        elif isinstance(value, Mapping):
            todo += value.values()
        elif isinstance(value, Collection) and not isinstance(value, str | bytes):
            todo += value


def digest_file(path: Path) -> Any:
    """Return the digest of a file, or the digests of a folder's files by their relative paths.

    Return None if there is nothing at the path, or nothing that can be read.
    """
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file()]
        return {str(file.relative_to(path)): digest_file(file) for file in files}
    try:
        return sha256_of(path, reread=False) if path.is_file() else None
    except PermissionError:
        return None


def weights_of(plan: Plan, store: Store) -> dict[str, str]:
    """Return, by digest, the sha256 of the weights of each model of a plan that the store has."""
    models = {recipe.digest: store.made(recipe, plan.suite.scenario) for recipe in plan.models}
    return {digest: made["weights_sha256"] for digest, made in models.items() if made}


def changed_code(plan: Plan, store: Store) -> list[str]:
    """Return a sentence for each recipe and scenario with changed code under the same version.

    The code has changed if the store has models that other code of this version made.
    """
    scenario = plan.suite.scenario
    source = cache(lambda cls: code_of(cls).source)
    changed: Counter[tuple[str, type[Recipe | Scenario]]] = Counter()
    for recipe in (recipe for generation in plan.generations() for recipe in generation):
        code = (store.made(recipe, scenario) or {}).get("code", {})
        for kind, cls in (("recipe", type(recipe)), ("scenario", type(scenario))):
            changed[kind, cls] += code.get(kind, source(cls)) != source(cls)
    return [
        f"{kind} {cls.name}: {count} models in the store were made by other code of version "
        f"{cls.version} than is loaded now, and are reused; raise its `version` to make them again"
        for (kind, cls), count in changed.items()
        if count
    ]


def needed_by(suites: Iterable[Suite], store: Store) -> Needed:
    """Return the models and trials in a store that suites use.

    A trial counts on every device from which the store has trials.
    """
    folders: set[Path] = set()
    keys: set[str] = set()
    used_devices = devices(store)
    for suite in suites:
        plan = Plan.of(suite)
        recipes = [recipe for generation in plan.generations() for recipe in generation]
        folders |= {store.folder(recipe, suite.scenario) for recipe in recipes}
        # The trials of a run do not contain the models that could not be made, nor twins.
        weights = weights_of(plan, store)
        missing = {recipe.digest for recipe in plan.models} - weights.keys()
        absent = {*missing, *find_twins(suite, weights)}
        jobs = [Job.of(trial, weights) for trial in trials_without(plan, absent)]
        keys |= {job.key(device) for job in jobs for device in used_devices}
    return Needed(frozenset(folders), frozenset(keys))
