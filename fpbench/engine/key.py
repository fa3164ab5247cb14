"""What a trial's result depends on, as one digest."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import torch

from .. import api
from ..api.fields import plain
from ..api.recipe import Recipe
from ..api.work import Trial
from ..store.checks import TRIAL
from ..store.files import sha256
from ..store.prune import Needed, devices
from ..store.store import Store
from .plan import Plan, without
from .suite import Suite


def trial_key(trial: Trial, store: Store, device: str) -> str:
    """What a trial's result depends on, as one digest; `device` by its name in results.

    Models enter by their weights, methods by their source: a store that was rebuilt, or a
    method that was edited, never meets old results.
    """

    def weights(recipes: Sequence[Recipe]) -> list[list[str]]:
        return [
            [r.digest, (store.made(r, trial.scenario) or {}).get("weights_sha256", "")]
            for r in recipes
        ]

    content = {
        "schema": TRIAL,
        "method": trial.method.name,
        "fields": plain(trial.method),
        "source": _source(type(trial.method)),
        "contract": _contract(),
        "seed": trial.seed,
        "access": str(trial.access),
        "scenario": [str(trial.scenario), trial.scenario.version],
        "target": weights([trial.target]),
        "ensemble": weights(trial.ensemble),
        "suspects": weights(trial.suspects),
        "calibration": weights(trial.calibration),
        "quantised": trial.quantised,
        "device": device,
        "torch": torch.__version__,
    }
    return sha256(json.dumps(content, sort_keys=True).encode())


@cache
def _source(cls: type) -> str:
    """The digest of the files that a method and its own bases are written in."""
    files = {
        file
        for base in cls.__mro__
        if base is not object and (file := inspect.getsourcefile(base)) is not None
    }
    return sha256(b"\0".join(Path(file).read_bytes() for file in sorted(files)))


@cache
def _contract() -> str:
    digest = hashlib.sha256()
    for file in sorted(Path(api.__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


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
        gone = {r.digest for r in everything if store.made(r, suite.scenario) is None}
        keys |= {
            trial_key(without(trial, gone), store, device) for trial in plan.trials for device in on
        }
    return Needed(frozenset(folders), frozenset(keys))
