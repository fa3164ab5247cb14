"""The harness from Python and notebooks: `fpbench.run`, `fpbench.plan`, `fpbench.read`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import launch

if TYPE_CHECKING:
    from .api.report import Report
    from .api.result import PlanSummary

_Path = str | os.PathLike[str]


def run(
    suite: _Path, *, store: _Path | None = None, runs: _Path | None = None,
    device: str | None = None, only: Sequence[str] = (), more: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None, plugins: Sequence[_Path] = (),
    executor: str = "inline", tracking: bool = True, quiet: bool = False,
) -> Report:  # fmt: skip
    """Run a suite; what is in the store is not done again. What `fpbench run` does.

    suite:     a suite's file.
    store:     the folder of finished models and trials; $FPBENCH_STORE or "store".
    runs:      the folder of results; $FPBENCH_RUNS or "runs".
    device:    "cpu", "cuda", "cuda:1" ...; a GPU if there is one.
    only:      the methods to run, of the suite or any other; all of the suite if empty.
    more:      methods to run beside those of the suite.
    overrides: values by the suite's dotted keys: {"methods.metav.n_queries": 50}.
    plugins:   loose files to load, read anew by every call.
    executor:  who does the work.
    tracking:  whether results go to MLflow too.
    quiet:     show nothing while it runs.

    Raises FpbenchError: SuiteError, PluginError or ResourceError. A method that fails is told in
    the report (`why_not`).
    """
    from .builtin.reporters.terminal import Bars
    from .engine.run import Setting
    from .engine.run import run as run_suite
    from .engine.store import Store

    registry, loaded = launch.load(*_suite(suite, plugins, overrides, only, more))
    if not tracking and registry.manager.has_plugin("mlflow"):
        registry.manager.unregister(name="mlflow")
    bars = None if quiet else Bars()
    if bars:
        registry.manager.register(bars, "terminal")
    where = launch.device(device)
    parent = Path(runs or os.environ.get("FPBENCH_RUNS", "runs"))
    setting = Setting(
        store=Store(_store(store)), folder=launch.new_folder(parent / loaded.name),
        executor=launch.executor(registry, executor, where), hook=registry.manager.hook,
        device=where,
    )  # fmt: skip
    with bars or nullcontext():
        return run_suite(loaded, setting)


def plan(
    suite: _Path, *, store: _Path | None = None, device: str | None = None,
    only: Sequence[str] = (), more: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None, plugins: Sequence[_Path] = (),
) -> PlanSummary:  # fmt: skip
    """What `run` would do: models to make, trials, who declines and why, disk and time."""
    from .engine.plan import Plan
    from .engine.store import Store

    _, loaded = launch.load(*_suite(suite, plugins, overrides, only, more))
    return Plan.of(loaded).summary(Store(_store(store)), launch.device(device))


def read(folder: _Path) -> Report:
    """The report of a finished run, from its folder. Raises SuiteError when it is none."""
    from .api.report import Report
    from .builtin.reporters.folder import read as read_folder

    data = read_folder(Path(folder))
    return Report(data["suite"]["name"], Path(folder), data)


def _suite(
    suite: _Path, plugins: Sequence[_Path], overrides: Mapping[str, Any] | None,
    only: Sequence[str], more: Sequence[str],
) -> tuple[Path, tuple[Path, ...], tuple[str, ...], tuple[str, ...]]:  # fmt: skip
    """What the command line would have handed over. A value goes as JSON, which is YAML."""
    for name, value in (("only", only), ("more", more), ("plugins", plugins)):
        if isinstance(value, str):
            raise TypeError(f"{name}: expected a list of words, got {value!r}; write [{value!r}]")
    settings = [f"{key}={json.dumps(value)}" for key, value in (overrides or {}).items()]
    added = launch.additions(tuple(more))
    return Path(suite), tuple(map(Path, plugins)), (*added, *settings), tuple(only)


def _store(store: _Path | None) -> Path:
    return Path(store or os.environ.get("FPBENCH_STORE", "store"))
