"""Run a suite: build every missing model, attempt every trial, announce each step to the hooks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from ..api.recipe import Recipe
from ..api.results import Report
from ..api.work import Built, Executor, Lost, Result
from ..store.store import Store
from .attempt import attempt, kept_result
from .build import build
from .environment import device_name, tuned
from .key import Job, changed_code, weights_of
from .plan import Plan, trials_without
from .record import keep_samples, record
from .suite import Suite
from .twins import find_twins

log = logging.getLogger("fpbench")


@dataclass(frozen=True)
class Setting:
    """The surroundings of a run.

    store:    the store of models and trials.
    folder:   the folder of the run's results.
    executor: does the work.
    hook:     pluggy's hooks, which are called after each step.
    device:   the device that estimates are made for and that results name.
    limit:    seconds that a trial may take; None for no limit.
    fresh:    the labels of the methods to run again even if the store has their results.
    """

    store: Store
    folder: Path
    executor: Executor
    hook: Any
    device: str
    limit: float | None = None
    fresh: frozenset[str] = frozenset()


def run(suite: Suite, setting: Setting) -> Report:
    """Run a suite to its end and return its report.

    The results are on disk before `fpbench_reported` is called.
    """
    plan = Plan.of(suite)
    began = datetime.now(UTC), time.perf_counter()
    with prepared(plan, setting):
        return _run(plan, setting, *began)


@contextmanager
def prepared(plan: Plan, setting: Setting) -> Iterator[None]:
    """Prepare the process and the store for work on a plan, and close the executor at the end.

    Inside the block the process is tuned, and `prune` does not remove the plan's models. The plan
    is announced. Raises ResourceError if the disk has too little space for the missing models.
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

    weights = weights_of(plan, store)
    twins = twins_of(plan, weights, failures)
    results: list[Result] = []
    trials = trials_without(plan, {*failures, *twins})
    jobs = [Job.of(trial, weights, trial.label in setting.fresh) for trial in trials]
    # Kept results are looked up here and not in workers, so that a run with nothing left to do
    # starts no worker.
    kept = [kept_result(job, store=store, device=setting.device) for job in jobs]
    todo = [job for job, result in zip(jobs, kept, strict=True) if result is None]
    work = partial(attempt, store=for_workers(store))
    for result in chain(filter(None, kept), _attempt_all(setting, work, todo)):
        results.append(result)
        hook.fpbench_attempted(result=result)

    labels = [variant.label for variant in suite.methods]
    zoos = [zoo.seed for zoo in suite.zoos]
    results.sort(
        key=lambda r: (labels.index(r.trial.label), zoos.index(r.trial.zoo), r.trial.repeat)
    )
    setting.folder.mkdir(parents=True, exist_ok=True)
    hook.fpbench_finishing(folder=setting.folder)
    run_record = record(
        plan, results, failures, twins, store=store, folder=setting.folder, started=started,
        seconds=time.perf_counter() - began, device=setting.device,
    )  # fmt: skip
    keep_samples(plan, failures, store=store, folder=setting.folder, device=setting.device)
    report = Report(setting.folder, run_record, tuple(results))
    hook.fpbench_reported(report=report)
    return report


def build_zoo(plan: Plan, setting: Setting) -> dict[str, str]:
    """Make every model of a plan that the store lacks.

    Return, by digest, why some models could not be made. Models that other code made are reused,
    with a warning.
    """
    suite, store, failures = plan.suite, setting.store, dict[str, str]()
    for sentence in changed_code(plan, store):
        log.warning("%s", sentence)
    make = partial(build, scenario=suite.scenario, store=for_workers(store))
    for generation in plan.generations():
        missing = [r for r in generation if not store.intact(r, suite.scenario)]
        failures |= {
            r.digest: f"{r}: its parent could not be made"
            for r in missing
            if r.parent and r.parent.digest in failures
        }
        todo = [r for r in missing if r.digest not in failures]
        for built in _build_all(setting, make, plan.cohorts(todo)):
            failures |= built.failures
            setting.hook.fpbench_built(built=built)
    return failures


def twins_of(plan: Plan, weights: Mapping[str, str], failures: Mapping[str, str]) -> dict[str, str]:
    """Return the twins among the models that were made, as `find_twins` does, and log a warning."""
    made = {digest: own for digest, own in weights.items() if digest not in failures}
    twins = find_twins(plan.suite, made)
    if twins:
        pair = next(iter(twins.items()))
        twin, kept = ({recipe.digest: recipe for recipe in plan.models}[d] for d in pair)
        log.warning(
            "suspects that have the same weights as others are left out (%d): for example %s, "
            "which equals %s", len(twins), twin, kept,
        )  # fmt: skip
    return twins


def for_workers(store: Store) -> Store:
    """Return the store with an absolute path, because a worker may have another working folder."""
    return replace(store, root=store.root.absolute())


def _build_all(
    setting: Setting, make: Callable[..., Built], groups: Iterable[Sequence[Recipe]]
) -> Iterator[Built]:
    """Yield the outcome of each cohort, made or failed.

    If the process of a cohort is lost, the cohort is made once more in halves. A cohort that is too
    large for the memory may fit in halves. A member that ends its process then costs only the
    members of its half.
    """
    halves: list[Sequence[Recipe]] = []
    for outcome in setting.executor.map(make, groups):
        if isinstance(outcome, Lost) and (half := len(outcome.item) // 2):
            log.warning("%s x %s: %s; it is tried again in halves", len(outcome.item),
                        outcome.item[0].kind, outcome.reason)  # fmt: skip
            halves += [outcome.item[:half], outcome.item[half:]]
        else:
            yield _lost_cohort(outcome, setting) if isinstance(outcome, Lost) else outcome
    for outcome in setting.executor.map(make, halves):
        yield _lost_cohort(outcome, setting) if isinstance(outcome, Lost) else outcome


def _lost_cohort(lost: Lost[Sequence[Recipe]], setting: Setting) -> Built:
    """Return the outcome of a cohort if its process was lost: all of its models failed."""
    failures = {recipe.digest: f"{recipe}: {lost.reason}" for recipe in lost.item}
    return Built(tuple(lost.item), lost.seconds, setting.device, failures=failures)


def _attempt_all(
    setting: Setting, work: Callable[..., Result], jobs: Iterable[Job]
) -> Iterator[Result]:
    """Yield the result of each trial. If the process of a trial was lost, the trial has failed."""
    for outcome in setting.executor.map(work, jobs, setting.limit):
        if isinstance(outcome, Lost):
            device = device_name(setting.device)
            yield Result(trial=outcome.item.trial, device=device, error=outcome.reason)
        else:
            yield outcome
