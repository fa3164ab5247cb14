"""The two maps: build every missing model, attempt every trial, announce what happened."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..api.errors import SuiteError
from ..api.recipe import Recipe
from ..api.report import Report
from ..api.result import Executor, Result
from .attempt import attempt, without
from .build import build
from .plan import Plan, cohorts
from .record import record
from .store import Store
from .suite import Suite

log = logging.getLogger("fpbench")


@dataclass(frozen=True)
class Setting:
    """Where a run happens: its store, its folder, who does the work, who hears of it."""

    store: Store
    folder: Path
    executor: Executor
    hook: Any
    device: str


def run(suite: Suite, setting: Setting) -> Report:
    """Run a suite to its end; results are on disk before anybody is told."""
    # Adam's moments of a dead unit decay into denormals, which slow CPUs down many times over.
    torch.set_flush_denormal(True)
    try:
        return _run(suite, setting)
    finally:
        torch.set_flush_denormal(False)


def _run(suite: Suite, setting: Setting) -> Report:
    store, hook = setting.store, setting.hook
    started, began = datetime.now(UTC), time.perf_counter()
    plan = Plan.of(suite)
    summary = plan.summary(store, setting.device)
    tell(hook.fpbench_planned, plan=summary)
    store.require(summary.bytes)

    failures: dict[str, str] = {}
    make = partial(build, scenario=suite.scenario, store=store)
    for generation in plan.generations():
        missing = [r for r in generation if not store.intact(r, suite.scenario)]
        failures |= {
            r.digest: f"{r}: its parent could not be made"
            for r in missing
            if r.parent and r.parent.digest in failures
        }
        todo = [r for r in missing if r.digest not in failures]
        for built in setting.executor.map(make, cohorts(todo)):
            failures |= built.failures
            tell(hook.fpbench_built, built=built)
    _refuse_twins(suite, plan.models, store)

    results: list[Result] = []
    trials = [without(trial, set(failures)) for trial in plan.trials]
    if suite.target.digest in failures:
        trials = []
    for result in setting.executor.map(partial(attempt, store=store), trials):
        results.append(result)
        tell(hook.fpbench_attempted, result=result)

    order = [variant.label for variant in suite.methods]
    results.sort(key=lambda r: (order.index(r.trial.label), r.trial.repeat))
    data = record(
        plan, results, failures, store=store, folder=setting.folder, started=started,
        seconds=time.perf_counter() - began, device=setting.device,
    )  # fmt: skip
    report = Report(suite.name, setting.folder, data, tuple(results))
    tell(hook.fpbench_reported, report=report)
    return report


def tell(announcement: Callable[..., Any], **what: Any) -> None:
    """Announce something; who fails to hear it must not take the run down."""
    try:
        announcement(**what)
    except Exception:
        log.exception("a reporter failed; the run goes on")


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
