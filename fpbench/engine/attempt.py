"""What a worker does next: attempt a trial."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import api
from ..api.errors import TrialError
from ..api.fields import plain
from ..api.fingerprinter import Case, Ensemble, Fingerprint
from ..api.oracle import oracle_of
from ..api.recipe import Recipe
from ..api.result import Result, Trial
from ..api.scenario import POOLS, Scenario, forget
from .facts import device_name
from .plan import derived_seed
from .store import Store, sha256


def attempt(trial: Trial, *, store: Store, device: str) -> Result:
    """Construct a fingerprint and judge every suspect by it; a trial done before is looked up.

    Whatever the method raises becomes the result's `error`, and is never kept.
    """
    where = torch.device(device)
    key = trial_key(trial, store, device)
    if known := store.trial(key):
        return Result(trial=trial, cached=True, **known)
    try:
        result, _ = tried(trial, store, where)
    except (Exception, SystemExit) as error:
        text = str(error) if isinstance(error, TrialError) else traceback.format_exc()
        return Result(trial=trial, device=device_name(device), error=text)
    kept = ("matching_rates", "calibration_rates", "queries", "construct_seconds",
            "verify_seconds", "device")  # fmt: skip
    store.save_trial(key, {name: getattr(result, name) for name in kept})
    return result


def tried(trial: Trial, store: Store, device: torch.device) -> tuple[Result, Fingerprint]:
    """Do a trial, whether or not it was done before. Raises what the method raises."""
    scenario, method = trial.scenario, trial.method
    for recipes in (trial.suspects, trial.ensemble if method.needs_ensemble else trial.calibration):
        for positive, side in ((True, "positive"), (False, "negative")):
            if not any(r.descends_from(trial.target) is positive for r in recipes):
                raise TrialError(
                    f"expected at least one {side} suspect in each half of the split, got none "
                    "that could be made"
                )
    seed = derived_seed("method", trial.seed, method.name)
    case = _case(trial, store, device, seed)
    # Now: a construction's seconds are not those of reading the data, nor of importing what
    # torch imports when an optimizer is first made.
    versions = _versions(scenario)
    import_module("torch._dynamo")
    try:
        # A method that draws from torch's global generator is repeatable too, and changes it for
        # nobody else.
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            began = time.perf_counter()
            fingerprint = method.construct(case)
            _finish(device)
            construct_seconds = time.perf_counter() - began
            judged = _Verified(trial, fingerprint, store, device)
            rates = judged.rates(trial.suspects)
            verify_seconds = judged.seconds
            calibration_rates = judged.rates(trial.calibration)
    finally:
        # Data is everybody's: what this method did to it must not reach the next.
        if spoiled := versions != _versions(scenario):
            forget()
    if spoiled:
        raise TrialError(f"expected {trial.label} to leave the scenario's data as it is; clone it")
    result = Result(
        trial=trial,
        matching_rates=rates,
        calibration_rates=calibration_rates,
        queries=judged.queries,
        construct_seconds=construct_seconds,
        verify_seconds=verify_seconds,
        device=device_name(str(device)),
    )
    return result, fingerprint


def _case(trial: Trial, store: Store, device: torch.device, seed: int) -> Case:
    """What the method is given."""

    def load(recipes: Sequence[Recipe]) -> list[nn.Module]:
        return [store.load(recipe, trial.scenario, device) for recipe in recipes]

    ensemble = None
    if trial.method.needs_ensemble:
        positives, negatives = (
            [r for r in trial.ensemble if r.descends_from(trial.target) is positive]
            for positive in (True, False)
        )
        ensemble = Ensemble(
            positives=load(positives),
            negatives=load(negatives),
            positive_recipes=[r.name for r in positives],
            negative_recipes=[r.name for r in negatives],
        )
    return Case(
        scenario=trial.scenario,
        target=store.load(trial.target, trial.scenario, device),
        access=trial.access,
        rng=torch.Generator().manual_seed(seed),
        device=device,
        ensemble=ensemble,
    )


class _Verified:
    """Judges models by a fingerprint, each behind an oracle of its own.

    seconds: spent in `verify` so far; loading the models is not the method's work.
    queries: the most that one model was asked.
    """

    def __init__(
        self, trial: Trial, fingerprint: Fingerprint, store: Store, device: torch.device
    ) -> None:
        self._trial, self._fingerprint = trial, fingerprint
        self._store, self._device = store, device
        self.seconds, self.queries = 0.0, 0

    def rates(self, recipes: Sequence[Recipe]) -> dict[str, float]:
        """Each model's matching rate, by its digest."""
        return {recipe.digest: self._rate(recipe) for recipe in recipes}

    def _rate(self, recipe: Recipe) -> float:
        trial, method = self._trial, self._trial.method
        oracle = oracle_of(
            self._store.load(recipe, trial.scenario, self._device), trial.access,
            input_shape=trial.scenario.input_shape, input_range=trial.scenario.input_range,
            device=self._device, quantised=trial.quantised,
        )  # fmt: skip
        began = time.perf_counter()
        rate = method.verify(self._fingerprint, oracle)
        self.seconds += time.perf_counter() - began
        self.queries = max(self.queries, oracle.queries)
        if oracle.queries > method.n_queries:
            raise TrialError(
                f"expected at most {method.n_queries} queries per suspect, got "
                f"{oracle.queries} from {trial.label} on {recipe}"
            )
        return checked_rate(rate, trial.label, str(recipe))


def _versions(scenario: Scenario) -> list[int]:
    """How often each of the scenario's tensors was changed in place."""
    return [t._version for pool in POOLS for t in scenario.data(pool)]


def checked_rate(rate: Any, label: str, suspect: str) -> float:
    """A matching rate that is one: a finite number in [0, 1]. Raises TrialError."""
    try:
        number = float(rate)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= 1:
        raise TrialError(
            f"expected a matching rate in [0, 1], got {rate!r} from {label} on {suspect}"
        )
    return number


def trial_key(trial: Trial, store: Store, device: str) -> str:
    """What a trial's result depends on, as one digest.

    Models enter by their weights, methods by their source: a store that was rebuilt, or a
    method that was edited, never meets old results.
    """

    def weights(recipes: Sequence[Recipe]) -> list[list[str]]:
        return [
            [r.digest, (store.made(r, trial.scenario) or {}).get("weights_sha256", "")]
            for r in recipes
        ]

    content = {
        "schema": "fpbench.trial/2",
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
        "device": device_name(device),
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


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def without(trial: Trial, gone: set[str]) -> Trial:
    """A trial without the models that could not be made."""
    return replace(
        trial,
        ensemble=tuple(r for r in trial.ensemble if r.digest not in gone),
        suspects=tuple(r for r in trial.suspects if r.digest not in gone),
        calibration=tuple(r for r in trial.calibration if r.digest not in gone),
    )
