"""The nine hooks: what a plugin may bring, do and hear.

A plugin is a module with an entry point in group "fpbench"; it decorates functions of these
names with `fpbench.hookimpl`. Loading order never matters: two plugins that offer the same
name are an error that names both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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

# ── what plugins bring: every plugin's list is joined ─────────────────────────────


@hookspec
def fpbench_scenarios() -> Iterable[type[Scenario]]:
    """Called when names are looked up. Return scenarios; a suite picks one by its `name`."""
    return ()


@hookspec
def fpbench_recipes() -> Iterable[type[Recipe]]:
    """Called when names are looked up. Return recipes: ways to train a model or to obfuscate
    one. A suite's zoo names them under `recipe:`; their fields are the other keys."""
    return ()


@hookspec
def fpbench_fingerprinters() -> Iterable[type[Fingerprinter]]:
    """Called when names are looked up. Return fingerprinting methods. A suite names them
    under `method:`."""
    return ()


# ── who does the work: the first answer wins ──────────────────────────────────────


@hookspec
def fpbench_executor_names() -> Iterable[str]:
    """Called when no plugin has an executor of the name that was asked for. Return the names
    that your `fpbench_executor` takes, for the message."""
    return ()


@hookspec(firstresult=True)
def fpbench_executor(
    name: str,
    devices: Sequence[str],
    workers: int | None,
    limit: int | None,
    setup: Callable[[], None],
) -> Executor | None:
    """Called once per run. Return an executor if `name` is yours, else None; the first
    answer that is not None wins. `workers` and `limit`, in seconds, are those of the command
    line, or None. Raise InputError for options that your executor does not support. Another
    process calls `setup` before it takes its first job: it loads the plugin files."""


# ── what is announced: nobody's answer is used ────────────────────────────────────


@hookspec
def fpbench_planned(plan: PlanSummary) -> None:
    """Called when the suite was read and nothing has run."""


@hookspec
def fpbench_built(built: Built) -> None:
    """Called when a cohort of the zoo is in the store."""


@hookspec
def fpbench_attempted(result: Result) -> None:
    """Called when a trial ended, well or with `result.error`."""


@hookspec
def fpbench_reported(report: Report) -> None:
    """Called when everything ended and `report.folder` holds the results."""
