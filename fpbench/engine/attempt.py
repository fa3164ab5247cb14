"""What a worker does next: attempt a trial."""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import nn

from ..api.errors import FpbenchError, ResourceError, TrialError, clipped, traceback_of
from ..api.fingerprinter import Case, Ensemble, Fingerprint, Fingerprinter
from ..api.oracle import oracle_of
from ..api.recipe import Recipe
from ..api.scenario import POOLS, Scenario, forget_data
from ..api.work import Result, Trial
from ..store.checks import Kept
from ..store.store import Store
from .data import require_data
from .environment import device_name
from .isolation import contained
from .key import Job
from .plan import derived_seed
from .resources import own_memory, shortage


def attempt(job: Job, *, store: Store, device: str) -> Result:
    """Construct a fingerprint and judge every suspect by it, or return the kept result.

    Whatever the method raises becomes the result's `error`, and is never kept.
    """
    if found := kept(job, store=store, device=device):
        return found
    trial = job.trial
    try:
        with contained():
            job.check()
            result, _ = tried(trial, store.pinned(job.weights), torch.device(device))
            job.check()  # what was imported meanwhile, too
    except (KeyboardInterrupt, ResourceError):
        raise  # data that is not there would be there for no other method
    except BaseException as error:
        # SystemExit too, and whatever else a method comes up with.
        if shortage(error):
            raise
        text = str(error).strip() if isinstance(error, FpbenchError) else ""
        return Result(trial=trial, device=device_name(device), error=text or traceback_of(error))
    key = job.key(device_name(device))
    store.save_trial(key, {name: getattr(result, name) for name in Kept.model_fields})
    return result


def kept(job: Job, *, store: Store, device: str) -> Result | None:
    """Return the kept result of a job; None if there is none, or the job is to be tried anew."""
    known = None if job.fresh else store.trial(job.key(device_name(device)))
    return Result(trial=job.trial, cached=True, **known) if known else None


def tried(trial: Trial, store: Store, device: torch.device) -> tuple[Result, Fingerprint]:
    """Do a trial, whether or not it was done before. Raises what the method raises."""
    # A copy: frozen or not, what a method does to itself must not reach its other repeats.
    scenario, method = trial.scenario, copy.deepcopy(trial.method)
    require_data(scenario)
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
        # A method that draws from a global generator is repeatable too.
        _seed(seed)
        began, on_cpu = time.perf_counter(), time.process_time()
        with own_memory(trial.label):
            fingerprint = method.construct(case)
            _finish(device)
        construct_seconds = time.perf_counter() - began
        construct_cpu_seconds = time.process_time() - on_cpu
        if not isinstance(fingerprint, Fingerprint):
            raise TrialError(f"expected a Fingerprint from construct, got {clipped(fingerprint)}")
        judged = _Verified(trial, method, fingerprint, store, device)
        rates = judged.rates(trial.suspects)
        verify_seconds, verify_cpu_seconds = judged.seconds, judged.cpu_seconds
        calibration_rates = judged.rates(trial.calibration)
    finally:
        # Data is everybody's: what this method did to it must not reach the next.
        if spoiled := versions != _versions(scenario):
            forget_data()
    if spoiled:
        raise TrialError(f"expected {trial.label} to leave the scenario's data as it is; clone it")
    target = store.load(trial.target, scenario, device).state_dict()
    found = case.target.state_dict()
    if found.keys() != target.keys() or not all(
        torch.equal(found[name], t) for name, t in target.items()
    ):
        raise TrialError(
            f"expected {trial.label} to leave the target as it is, found other weights or running "
            "statistics; work on copy.deepcopy(case.target)"
        )
    result = Result(
        trial=trial,
        matching_rates=rates,
        calibration_rates=calibration_rates,
        queries=judged.queries,
        construct_seconds=construct_seconds,
        verify_seconds=verify_seconds,
        construct_cpu_seconds=construct_cpu_seconds,
        verify_cpu_seconds=verify_cpu_seconds,
        device=device_name(str(device)),
        losses=case.progress.points(began),
        threads=torch.get_num_threads(),
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

    seconds, cpu_seconds: spent in `verify` so far, by the clock and by the processor; loading the
             models is not the method's work.
    queries: the most that one model was asked.
    """

    def __init__(
        self, trial: Trial, method: Fingerprinter, fingerprint: Fingerprint, store: Store,
        device: torch.device,
    ) -> None:  # fmt: skip
        self._trial, self._method, self._fingerprint = trial, method, fingerprint
        self._store, self._device = store, device
        self.seconds, self.cpu_seconds, self.queries = 0.0, 0.0, 0

    def rates(self, recipes: Sequence[Recipe]) -> dict[str, float]:
        """Each model's matching rate, by its digest; asked as if each were the only one."""
        by_digest = {recipe.digest: recipe for recipe in recipes}
        found = {}
        for digest in asked_order(by_digest, self._trial.seed):
            _seed(derived_seed("verify", self._trial.seed, digest))
            found[digest] = self._rate(by_digest[digest])
        return {digest: found[digest] for digest in by_digest}

    def _rate(self, recipe: Recipe) -> float:
        trial, method = self._trial, self._method
        oracle = oracle_of(
            self._store.load(recipe, trial.scenario, self._device), trial.access,
            input_shape=trial.scenario.input_shape, input_range=trial.scenario.input_range,
            device=self._device, quantised=trial.quantised,
        )  # fmt: skip
        began, on_cpu = time.perf_counter(), time.process_time()
        with own_memory(trial.label):
            rate = method.verify(self._fingerprint, oracle)
        self.seconds += time.perf_counter() - began
        self.cpu_seconds += time.process_time() - on_cpu
        self.queries = max(self.queries, oracle.queries)
        if oracle.queries > trial.method.n_queries:
            raise TrialError(
                f"expected at most {trial.method.n_queries} queries per suspect, got "
                f"{oracle.queries} from {trial.label} on {recipe}"
            )
        return checked_rate(rate, trial.label, str(recipe))


def asked_order(digests: Iterable[str], seed: int) -> list[str]:
    """The order in which suspects are asked: their own, positives first, would tell who is who."""
    return sorted(digests, key=lambda digest: derived_seed("order", seed, digest))


def _seed(seed: int) -> None:
    """Seed every global generator that a method may draw from."""
    # torch.manual_seed looks for every kind of device that there is, once per model.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def _versions(scenario: Scenario) -> list[int]:
    """How often each of the scenario's tensors was changed in place."""
    return [t._version for pool in POOLS for t in scenario.data(pool)]


def checked_rate(rate: Any, label: str, suspect: str) -> float:
    """A matching rate that is one: a finite number in [0, 1]. Raises TrialError."""
    try:
        number = math.nan if isinstance(rate, str | bytes) else float(rate)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= 1:
        raise TrialError(
            f"expected a matching rate in [0, 1], got {clipped(rate)} from {label} on {suspect}"
        )
    return number


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
