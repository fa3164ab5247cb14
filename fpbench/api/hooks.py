"""The ten hooks of plugins.

A plugin is a module with an entry point in the group "fpbench". It decorates functions of these
names with `fpbench.hookimpl`. The order of loading has no influence on what plugins offer: two
plugins that offer the same name are an error that names both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from .fingerprinter import Fingerprinter
    from .recipe import Recipe
    from .results import Report
    from .scenario import Scenario
    from .work import Built, Executor, PlanSummary, Result

hookspec = pluggy.HookspecMarker("fpbench")
hookimpl = pluggy.HookimplMarker("fpbench")

# ── what plugins offer: the lists of all plugins are joined ───────────────────────


@hookspec
def fpbench_scenarios() -> Iterable[type[Scenario]]:
    """Return scenario classes. A suite chooses one by its `name`.

    Called when plugins are loaded.
    """
    return ()


@hookspec
def fpbench_recipes() -> Iterable[type[Recipe]]:
    """Return recipe classes: ways to train a model or to obfuscate one.

    A suite's zoo names them under `recipe:`, and their fields are the other keys of an entry.
    Called when plugins are loaded.
    """
    return ()


@hookspec
def fpbench_fingerprinters() -> Iterable[type[Fingerprinter]]:
    """Return classes of fingerprinting methods. A suite names them under `method:`.

    Called when plugins are loaded.
    """
    return ()


# ── executors: the first answer that is not None wins ─────────────────────────────


@hookspec
def fpbench_executor_names() -> Iterable[str]:
    """Return the names that your `fpbench_executor` accepts, for a message.

    Called when a user names an executor that no plugin has.
    """
    return ()


@hookspec(firstresult=True)
def fpbench_executor(
    name: str,
    devices: Sequence[str],
    workers: int | None,
    limit: int | None,
    setup: Callable[[], None],
) -> Executor | None:
    """Return an executor if `name` is yours, else None. Called once per run.

    The first answer that is not None wins. `workers` and `limit` (seconds) are the values of the
    command-line options, or None. Raise InputError for options that your executor does not support.
    A worker in another process must call `setup` before its first job; it loads the plugin files.
    """


# ── announcements: answers are ignored ────────────────────────────────────────────


@hookspec
def fpbench_planned(plan: PlanSummary) -> None:
    """Receive the plan. Called after the suite was read and before anything runs."""


@hookspec
def fpbench_built(built: Built) -> None:
    """Receive a finished cohort of the zoo. Called after its models were stored."""


@hookspec
def fpbench_attempted(result: Result) -> None:
    """Receive the result of a trial. Called after it succeeded or failed (`result.error`)."""


@hookspec
def fpbench_finishing(folder: Path) -> None:
    """Receive the folder of a run's results. Called just before results.json is written there.

    What you leave in the folder says that your work on the run is to be done, even if the process
    is killed before `fpbench_reported`.
    """


@hookspec
def fpbench_reported(report: Report) -> None:
    """Receive the report. Called after the run has ended and `report.folder` has the results."""
