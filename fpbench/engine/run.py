"""The two maps: build every missing model, attempt every trial, announce what happened."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from ..api.errors import SuiteError
from ..api.recipe import Recipe
from ..api.results import Report
from ..api.work import Built, Executor, Lost, Result
from ..store.store import Store
from .attempt import attempt, kept
from .build import build
from .environment import device_name, tuned
from .key import Job, changed_code, weights_of
from .plan import Plan, cohorts, without
from .record import keep_samples, record
from .suite import Suite

log = logging.getLogger("fpbench")


@dataclass(frozen=True)
class Setting:
    """Where a run happens: its store, its folder, who does the work, who hears of it.

    device: the one that estimates are made for and results name.
    limit:  seconds that a trial may take; None for as long as it likes.
    fresh:  the labels of the methods to try anew, whatever results the store has of them.
    """

    store: Store
    folder: Path
    executor: Executor
    hook: Any
    device: str
    limit: float | None = None
    fresh: frozenset[str] = frozenset()


def run(suite: Suite, setting: Setting) -> Report:
    """Run a suite to its end; results are on disk before anybody is told."""
    plan = Plan.of(suite)
    began = datetime.now(UTC), time.perf_counter()
    with framed(plan, setting):
        return _run(plan, setting, *began)


@contextmanager
def framed(plan: Plan, setting: Setting) -> Iterator[None]:
    """The frame of all work on a plan: told, room on the disk, models in use, arithmetic.

    At its end the executor is closed.
    """
    models = [recipe.digest for generation in plan.generations() for recipe in generation]
    try:
        with tuned(), setting.store.using(models):
            summary = plan.summary(setting.store, setting.device)
            setting.hook.fpbench_planned(plan=summary)
            setting.store.require(summary.bytes)
            yield
    finally:
        setting.executor.close()


def _run(plan: Plan, setting: Setting, started: datetime, began: float) -> Report:
    suite, store, hook = plan.suite, setting.store, setting.hook
    failures = build_zoo(plan, setting)

    results: list[Result] = []
    trials = [without(trial, set(failures)) for trial in plan.trials]
    if suite.target.digest in failures:
        trials = []
    weights = weights_of(plan, store)
    jobs = [Job.of(trial, weights, trial.label in setting.fresh) for trial in trials]
    # What is kept is looked up here: a run with nothing left to do starts no worker.
    known = [kept(job, store=store, device=setting.device) for job in jobs]
    todo = [job for job, result in zip(jobs, known, strict=True) if result is None]
    work = partial(attempt, store=shared(store))
    for result in chain(filter(None, known), _attempted(setting, work, todo)):
        results.append(result)
        hook.fpbench_attempted(result=result)

    order = [variant.label for variant in suite.methods]
    results.sort(key=lambda r: (order.index(r.trial.label), r.trial.repeat))
    found = record(
        plan, results, failures, store=store, folder=setting.folder, started=started,
        seconds=time.perf_counter() - began, device=setting.device,
    )  # fmt: skip
    keep_samples(plan, failures, store=store, folder=setting.folder, device=setting.device)
    report = Report(setting.folder, found, tuple(results))
    hook.fpbench_reported(report=report)
    return report


def build_zoo(plan: Plan, setting: Setting) -> dict[str, str]:
    """Make every model of a plan that the store lacks; by digest, why some could not be made.

    Models that other code made are reused, with a warning.
    """
    suite, store, failures = plan.suite, setting.store, dict[str, str]()
    for sentence in changed_code(plan, store):
        log.warning("%s", sentence)
    make = partial(build, scenario=suite.scenario, store=shared(store))
    for generation in plan.generations():
        missing = [r for r in generation if not store.intact(r, suite.scenario)]
        failures |= {
            r.digest: f"{r}: its parent could not be made"
            for r in missing
            if r.parent and r.parent.digest in failures
        }
        todo = [r for r in missing if r.digest not in failures]
        for built in _built(setting, make, cohorts(todo, suite.scenario)):
            failures |= built.failures
            setting.hook.fpbench_built(built=built)
    _refuse_twins(suite, plan.models, store)
    return failures


def shared(store: Store) -> Store:
    """The same store for a worker, who may stand in another folder."""
    return replace(store, root=store.root.absolute())


def _built(
    setting: Setting, make: Callable[..., Built], groups: Iterable[Sequence[Recipe]]
) -> Iterator[Built]:
    """Every cohort, made or failed.

    One whose process was lost is tried once more in halves: what is too large for the memory may
    fit in parts, and a member that takes its process with it takes half of the others.
    """
    halves: list[Sequence[Recipe]] = []
    for outcome in setting.executor.map(make, groups):
        if isinstance(outcome, Lost) and (half := len(outcome.item) // 2):
            log.warning("%s x %s: %s; it is tried again in halves", len(outcome.item),
                        outcome.item[0].kind, outcome.reason)  # fmt: skip
            halves += [outcome.item[:half], outcome.item[half:]]
        else:
            yield _failed(outcome, setting) if isinstance(outcome, Lost) else outcome
    for outcome in setting.executor.map(make, halves):
        yield _failed(outcome, setting) if isinstance(outcome, Lost) else outcome


def _failed(lost: Lost[Sequence[Recipe]], setting: Setting) -> Built:
    failures = {recipe.digest: f"{recipe}: {lost.reason}" for recipe in lost.item}
    return Built(tuple(lost.item), lost.seconds, setting.device, failures=failures)


def _attempted(
    setting: Setting, work: Callable[..., Result], jobs: Iterable[Job]
) -> Iterator[Result]:
    """Every trial's result; nothing is kept of one whose process was lost."""
    for outcome in setting.executor.map(work, jobs, setting.limit):
        if isinstance(outcome, Lost):
            device = device_name(setting.device)
            yield Result(trial=outcome.item.trial, device=device, error=outcome.reason)
        else:
            yield outcome


def _refuse_twins(suite: Suite, models: Iterable[Recipe], store: Store) -> None:
    """Two suspects with the same weights are one suspect counted twice."""
    seen: dict[str, Recipe] = {}
    for recipe in models:
        made = store.made(recipe, suite.scenario)
        if made is None:
            continue
        twin = seen.setdefault(made["weights_sha256"], recipe)
        if twin is not recipe:
            raise SuiteError(
                f"expected suspects that differ, got the same weights from {twin} and {recipe}; "
                "take one of them out",
                suite.places.get(recipe.digest),
            )
