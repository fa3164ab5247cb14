"""Attempt a trial. Workers do this once the models are made."""

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
from ..api.scenario import restore_data
from ..api.work import Result, Trial
from ..store.checks import KeptTrial
from ..store.store import Store
from .data import require_data
from .environment import device_name
from .isolation import isolated
from .key import Job
from .plan import derived_seed
from .resources import memory_errors_fail_trial, shortage


def attempt(job: Job, *, store: Store, device: str) -> Result:
    """Construct a fingerprint and judge every suspect by it, or return the kept result.

    An exception of the method becomes the `error` of the result. Such a result is not kept.
    """
    if result := kept_result(job, store=store, device=device):
        return result
    trial = job.trial
    try:
        with isolated():
            job.check()
            result, _ = run_trial(trial, store.pinned(job.weights), torch.device(device))
            job.check()  # the trial may have imported more modules
    except (KeyboardInterrupt, ResourceError):
        raise  # data that is missing is missing for every method
    except BaseException as error:  # SystemExit too: a method may raise anything
        if shortage(error):
            raise
        text = str(error).strip() if isinstance(error, FpbenchError) else ""
        return Result(trial=trial, device=device_name(device), error=text or traceback_of(error))
    key = job.key(device_name(device))
    store.save_trial(key, {name: getattr(result, name) for name in KeptTrial.model_fields})
    return result


def kept_result(job: Job, *, store: Store, device: str) -> Result | None:
    """Return the kept result of a job; None if there is none, or if the job is fresh."""
    kept = None if job.fresh else store.trial(job.key(device_name(device)))
    return Result(trial=job.trial, cached=True, **kept) if kept else None


def run_trial(trial: Trial, store: Store, device: torch.device) -> tuple[Result, Fingerprint]:
    """Run a trial, even if the store has its result. Raises what the method raises."""
    # A copy, because a method that changes itself must not affect its other repeats.
    scenario, method = trial.scenario, copy.deepcopy(trial.method)
    require_data(scenario)
    for recipes in (trial.suspects, trial.ensemble if method.needs_ensemble else trial.calibration):
        for positive, side in ((True, "positive"), (False, "negative")):
            if not any(r.descends_from(trial.target) is positive for r in recipes):
                raise TrialError(
                    f"expected at least one {side} suspect in each half of the split, got none "
                    "that could be made and has weights of its own"
                )
    seed = derived_seed("method", trial.seed, method.name)
    case = _make_case(trial, store, device, seed)
    # Before the clock starts, because the construction time must not include the module that torch
    # imports when the first optimizer is made.
    import_module("torch._dynamo")
    try:
        # This makes methods repeatable that draw from a global generator.
        _seed_generators(seed)
        began, cpu_began = time.perf_counter(), time.process_time()
        with memory_errors_fail_trial(trial.label):
            fingerprint = method.construct(case)
            _synchronize(device)
        construct_seconds = time.perf_counter() - began
        construct_cpu_seconds = time.process_time() - cpu_began
        if not isinstance(fingerprint, Fingerprint):
            raise TrialError(f"expected a Fingerprint from construct, got {clipped(fingerprint)}")
        verifier = _Verifier(trial, method, fingerprint, store, device)
        rates = verifier.rates(trial.suspects)
        verify_seconds, verify_cpu_seconds = verifier.seconds, verifier.cpu_seconds
        calibration_rates = verifier.rates(trial.calibration)
    finally:
        data_changed = restore_data(scenario)  # no other method may see the changes of this one
    if data_changed:
        raise TrialError(
            f"expected {trial.label} not to change the scenario's data, found it changed; work on "
            "a clone"
        )
    target = store.load(trial.target, scenario, device).state_dict()
    used_target = case.target.state_dict()
    if used_target.keys() != target.keys() or not all(
        torch.equal(used_target[name], t) for name, t in target.items()
    ):
        raise TrialError(
            f"expected {trial.label} not to change the target, found other weights or running "
            "statistics; work on copy.deepcopy(case.target)"
        )
    result = Result(
        trial=trial,
        matching_rates=rates,
        calibration_rates=calibration_rates,
        queries=verifier.queries,
        construct_seconds=construct_seconds,
        verify_seconds=verify_seconds,
        construct_cpu_seconds=construct_cpu_seconds,
        verify_cpu_seconds=verify_cpu_seconds,
        device=device_name(str(device)),
        losses=case.progress.points(began),
        threads=torch.get_num_threads(),
    )
    return result, fingerprint


def _make_case(trial: Trial, store: Store, device: torch.device, seed: int) -> Case:
    """Return the argument of `construct`, with the models loaded."""

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


class _Verifier:
    """Judges models by a fingerprint. Each model is behind an oracle of its own.

    seconds, cpu_seconds: wall-clock time and processor time spent in `verify` so far, without the
             time to load models.
    queries: the largest number of queries that one model answered.
    """

    def __init__(
        self, trial: Trial, method: Fingerprinter, fingerprint: Fingerprint, store: Store,
        device: torch.device,
    ) -> None:  # fmt: skip
        self._trial, self._method, self._fingerprint = trial, method, fingerprint
        self._store, self._device = store, device
        self.seconds, self.cpu_seconds, self.queries = 0.0, 0.0, 0

    def rates(self, recipes: Sequence[Recipe]) -> dict[str, float]:
        """Return each model's matching rate by its digest.

        Generators are seeded per model, so that no rate depends on the other models.
        """
        by_digest = {recipe.digest: recipe for recipe in recipes}
        rates = {}
        for digest in shuffle_suspects(by_digest, self._trial.seed):
            _seed_generators(derived_seed("verify", self._trial.seed, digest))
            rates[digest] = self._rate(by_digest[digest])
        return {digest: rates[digest] for digest in by_digest}

    def _rate(self, recipe: Recipe) -> float:
        trial, method = self._trial, self._method
        oracle = oracle_of(
            self._store.load(recipe, trial.scenario, self._device), trial.access,
            input_shape=trial.scenario.input_shape, input_range=trial.scenario.input_range,
            device=self._device, input_dtype=trial.scenario.input_dtype, quantised=trial.quantised,
        )  # fmt: skip
        began, cpu_began = time.perf_counter(), time.process_time()
        with memory_errors_fail_trial(trial.label):
            rate = method.verify(self._fingerprint, oracle)
        self.seconds += time.perf_counter() - began
        self.cpu_seconds += time.process_time() - cpu_began
        self.queries = max(self.queries, oracle.queries)
        if oracle.queries > trial.method.n_queries:
            raise TrialError(
                f"expected at most {trial.method.n_queries} queries per suspect, got "
                f"{oracle.queries} from {trial.label} on {recipe}"
            )
        return check_rate(rate, trial.label, str(recipe))


def shuffle_suspects(digests: Iterable[str], seed: int) -> list[str]:
    """Return digests in the order in which suspects are queried.

    In a zoo the positives come first: that order would reveal which suspects are positive.
    """
    return sorted(digests, key=lambda digest: derived_seed("order", seed, digest))


def _seed_generators(seed: int) -> None:
    """Seed every global generator that a method may draw from."""
    # This runs once per model, and torch.manual_seed would look for every kind of device each time.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def check_rate(rate: Any, label: str, suspect: str) -> float:
    """Return a matching rate as a number. Raises TrialError unless it is a number in [0, 1]."""
    try:
        number = math.nan if isinstance(rate, str | bytes) else float(rate)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= 1:
        raise TrialError(
            f"expected a matching rate in [0, 1], got {clipped(rate)} from {label} on {suspect}"
        )
    return number


def _synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished its work, so that the clock includes it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
