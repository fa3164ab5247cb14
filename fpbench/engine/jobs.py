"""What a worker does: make a cohort of models, attempt a trial."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import json
import math
import platform
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import api
from ..api.errors import FpbenchError, TrialError
from ..api.fields import plain
from ..api.fingerprinter import Case, Ensemble
from ..api.oracle import oracle_of
from ..api.recipe import Recipe
from ..api.result import Built, Result, Trial
from ..api.scenario import Scenario
from ..api.stack import Stacks, signature
from .plan import derived_seed
from .store import Store, sha256

# Adam's moments of a dead unit decay into denormal numbers, on which CPUs are many times slower.
torch.set_flush_denormal(True)


class Bench:
    """The lab that recipes work in: parents from the store, seeds from digests."""

    def __init__(self, scenario: Scenario, store: Store, device: torch.device) -> None:
        self.scenario = scenario
        self.device = device
        self.failures: dict[str, str] = {}
        self._store = store

    def parent(self, recipe: Recipe) -> nn.Module:
        assert recipe.parent is not None, f"{recipe} has no parent"
        return self._store.load(recipe.parent, self.scenario, self.device).requires_grad_()

    def new(self, recipe: Recipe, model: str) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed("init", recipe.digest))
            return self.scenario.architectures[model]().to(self.device)

    def rng(self, recipe: Recipe) -> torch.Generator:
        return torch.Generator().manual_seed(derived_seed("rng", recipe.digest))

    def failed(self, recipe: Recipe, reason: str) -> None:
        self.failures.setdefault(recipe.digest, f"{recipe}: {reason}")


def build(recipes: Sequence[Recipe], *, scenario: Scenario, store: Store, device: str) -> Built:
    """Make one cohort and put it into the store; what another run made meanwhile is reused."""
    began = time.perf_counter()
    with store.locked(recipes):
        todo = [recipe for recipe in recipes if not store.intact(recipe, scenario)]
        lab = Bench(scenario, store, torch.device(device))
        if todo:
            try:
                models = _made(todo, lab)
            except FpbenchError:
                raise
            except (Exception, SystemExit):
                reason = traceback.format_exc()
                models = []
                for recipe in todo:
                    lab.failed(recipe, reason)
            seconds = time.perf_counter() - began
            good = [
                (recipe, model)
                for recipe, model in zip(todo, models, strict=False)
                if recipe.digest not in lab.failures
            ]
            for (recipe, model), utility in zip(
                good, _utilities([m for _, m in good], lab), strict=True
            ):
                facts = {
                    "arch": recipe.arch,
                    "utility": utility,
                    "seconds": seconds / len(todo),
                    "cohort": len(todo),
                    "device": device_name(device),
                    "made": datetime.now(UTC).isoformat(timespec="seconds"),
                    "versions": versions(),
                }
                store.save(recipe, scenario, model, facts)
    return Built(
        recipes=tuple(recipes),
        seconds=time.perf_counter() - began,
        device=device,
        reused=len(recipes) - len(todo),
        failures=lab.failures,
    )


def _made(recipes: Sequence[Recipe], lab: Bench) -> list[nn.Module]:
    """Make a cohort under a seed of its own; what is not finite counts as failed."""
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed("cohort", *(r.digest for r in recipes)))
        models = type(recipes[0]).make_many(recipes, lab)
    for recipe, model in zip(recipes, models, strict=True):
        with torch.device("meta"):
            expected = lab.scenario.architectures[recipe.arch]()
        if signature(model)[2] != signature(expected)[2]:
            lab.failed(recipe, f"expected a network of architecture {recipe.arch}, got another")
        elif not all(bool(t.isfinite().all()) for t in model.state_dict().values()):
            lab.failed(recipe, "its weights are not finite")
    return models


def _utilities(models: Sequence[nn.Module], lab: Bench) -> list[dict[str, float]]:
    """Every model's utility on the test pool, a whole architecture in one pass."""
    if not models:
        return []
    inputs, truth = lab.scenario.data("test")
    answer = Stacks([model.to(lab.device).eval() for model in models])
    with torch.no_grad():
        parts = [answer(x.to(lab.device)).cpu() for x in inputs.split(1024)]
    return [lab.scenario.utility(output, truth) for output in torch.cat(parts, dim=1)]


# ── trials ────────────────────────────────────────────────────────────────────────


def attempt(trial: Trial, *, store: Store, device: str) -> Result:
    """Construct a fingerprint and judge every suspect by it; a trial done before is looked up.

    Whatever the method raises becomes the result's `error`, and is never kept.
    """
    where = torch.device(device)
    key = trial_key(trial, store, device)
    if known := store.trial(key):
        return Result(trial=trial, cached=True, **known)
    try:
        result = _attempt(trial, store, where)
    except (Exception, SystemExit) as error:
        text = str(error) if isinstance(error, TrialError) else traceback.format_exc()
        return Result(trial=trial, device=device_name(device), error=text)
    kept = ("matching_rates", "queries", "construct_seconds", "verify_seconds", "device")
    store.save_trial(key, {name: getattr(result, name) for name in kept})
    return result


def _attempt(trial: Trial, store: Store, device: torch.device) -> Result:
    scenario, method = trial.scenario, trial.method
    for recipes in (trial.suspects, trial.ensemble if method.needs_ensemble else None):
        for positive, side in ((True, "positive"), (False, "negative")):
            if recipes is not None and not any(
                r.descends_from(trial.target) is positive for r in recipes
            ):
                raise TrialError(
                    f"expected at least one {side} suspect in each half of the split, got none "
                    "that could be made"
                )

    def load(recipes: Sequence[Recipe]) -> list[nn.Module]:
        return [store.load(recipe, scenario, device) for recipe in recipes]

    ensemble = None
    if method.needs_ensemble:
        sides = [
            [r for r in trial.ensemble if r.descends_from(trial.target) is positive]
            for positive in (True, False)
        ]
        ensemble = Ensemble(positives=load(sides[0]), negatives=load(sides[1]))
    seed = derived_seed("method", trial.seed, method.name)
    case = Case(
        scenario=scenario,
        target=store.load(trial.target, scenario, device),
        access=trial.access,
        rng=torch.Generator().manual_seed(seed),
        device=device,
        ensemble=ensemble,
    )
    oracles = [
        oracle_of(
            model, trial.access, input_shape=scenario.input_shape,
            input_range=scenario.input_range, device=device,
        )
        for model in load(trial.suspects)
    ]  # fmt: skip

    scenario.data("train")  # a construction's seconds are not those of reading the data
    # A method that draws from torch's global generator is repeatable too, and changes it for
    # nobody else.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        began = time.perf_counter()
        fingerprint = method.construct(case)
        _finish(device)
        constructed = time.perf_counter()
        rates = {}
        for suspect, oracle in zip(trial.suspects, oracles, strict=True):
            rate = checked_rate(method.verify(fingerprint, oracle), trial.label, str(suspect))
            if oracle.queries > method.n_queries:
                raise TrialError(
                    f"expected at most {method.n_queries} queries per suspect, got "
                    f"{oracle.queries} from {trial.label} on {suspect}"
                )
            rates[suspect.digest] = rate
        verified_at = time.perf_counter()
    return Result(
        trial=trial,
        matching_rates=rates,
        queries=max(oracle.queries for oracle in oracles),
        construct_seconds=constructed - began,
        verify_seconds=verified_at - constructed,
        device=device_name(str(device)),
    )


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
        "schema": "fpbench.trial/1",
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


@cache
def versions() -> dict[str, str]:
    """Of everything a result may depend on."""
    names = ("fpbench", "torch", "numpy", "scikit-learn", "safetensors")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), **found}


@cache
def device_name(device: str) -> str:
    """What a device is called in results: "cpu", or the GPU's name."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return device


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def without(trial: Trial, gone: set[str]) -> Trial:
    """A trial without the models that could not be made."""
    return replace(
        trial,
        ensemble=tuple(r for r in trial.ensemble if r.digest not in gone),
        suspects=tuple(r for r in trial.suspects if r.digest not in gone),
    )
