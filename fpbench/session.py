"""Functions that commands and Python callers share: load plugins and suites, run, plan, read.

`fpbench.run`, `fpbench.plan` and `fpbench.read` are defined here. Heavy imports are inside the
functions, so that `fpbench --help` does not wait for them.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .api.errors import printable

if TYPE_CHECKING:
    from .api.results import Report
    from .api.work import Executor, PlanSummary
    from .engine.registry import Registry
    from .engine.suite import Suite

PathLike = str | os.PathLike[str]


# ── for Python and notebooks ──────────────────────────────────────────────────────


def run(
    suite: PathLike, *, store: PathLike | None = None, runs: PathLike | None = None,
    device: str | None = None, only: Sequence[str] = (), more: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None, plugins: Sequence[PathLike] = (),
    executor: str = "inline", fresh: Sequence[str] | bool = (), tracking: bool = True,
    quiet: bool = False,
) -> Report:  # fmt: skip
    """Run a suite, as `fpbench run` does. Work that is in the store is not repeated.

    suite:     the suite's file.
    store:     the folder of finished models and trials; by default $FPBENCH_STORE or "store".
    runs:      the folder of results; by default $FPBENCH_RUNS or "runs".
    device:    "cpu", "cuda", "cuda:1" ...; by default a GPU if there is one.
    only:      the methods to run, from the suite or installed; by default all of the suite.
    more:      methods to run in addition to those of the suite.
    overrides: values by dotted keys of the suite: {"methods.metav.n_queries": 50}.
    plugins:   plugin files to load; each call reads them anew.
    executor:  the name of the executor that does the work.
    fresh:     methods to try anew even if the store has their results; True for all.
    tracking:  send the results to MLflow too.
    quiet:     show no progress.

    Raises FpbenchError: InputError, PluginError or ResourceError. A method that fails does not
    raise; `report.why_not(method)` says why it failed.
    """
    from .engine.run import Setting
    from .engine.run import run as run_suite
    from .reporting.terminal import Bars
    from .store.store import Store

    registry, loaded = load_suite(*_as_arguments(suite, plugins, overrides, only, more))
    if not tracking and registry.manager.has_plugin("mlflow"):
        registry.manager.unregister(name="mlflow")
    bars = None if quiet else Bars()
    if bars:
        registry.manager.register(bars, "terminal")
    found = find_device(device)
    parent = Path(runs or os.environ.get("FPBENCH_RUNS", "runs"))
    setting = Setting(
        store=Store(_store_folder(store)), folder=new_folder(parent / loaded.name),
        executor=find_executor(registry, executor, [found], workers=None, limit=None),
        hook=registry.manager.hook,
        device=found, fresh=find_fresh(registry, loaded, fresh),
    )  # fmt: skip
    with bars or nullcontext():
        return run_suite(loaded, setting)


def plan(
    suite: PathLike, *, store: PathLike | None = None, device: str | None = None,
    only: Sequence[str] = (), more: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None, plugins: Sequence[PathLike] = (),
) -> PlanSummary:  # fmt: skip
    """Return what `run` would do: models to make, trials, refusals, disk space and time."""
    from .engine.plan import Plan
    from .store.store import Store

    _, loaded = load_suite(*_as_arguments(suite, plugins, overrides, only, more))
    return Plan.of(loaded).summary(Store(_store_folder(store)), find_device(device))


def read(folder: PathLike) -> Report:
    """Return the report of a finished run. Raises InputError if `folder` holds no such run."""
    from .api.results import Report
    from .results.folder import read as read_folder

    return Report(Path(folder), read_folder(Path(folder)))


def _as_arguments(
    suite: PathLike, plugins: Sequence[PathLike], overrides: Mapping[str, Any] | None,
    only: Sequence[str], more: Sequence[str],
) -> tuple[Path, tuple[Path, ...], tuple[str, ...], tuple[str, ...]]:  # fmt: skip
    """Return the arguments of `load_suite`, as the command line would pass them.

    Override values are written as JSON, which is also YAML.
    """
    for name, value in (("only", only), ("more", more), ("plugins", plugins)):
        _refuse_text(name, value)
    settings = [f"{key}={json.dumps(value)}" for key, value in (overrides or {}).items()]
    added = additions(tuple(more))
    return Path(suite), tuple(map(Path, plugins)), (*added, *settings), tuple(only)


def _refuse_text(name: str, value: object) -> None:
    """Raise TypeError if the value is one text and not a list of texts."""
    if isinstance(value, str):
        raise TypeError(f"{name}: expected a list of words, got {value!r}; write [{value!r}]")


def _store_folder(store: PathLike | None) -> Path:
    return Path(store or os.environ.get("FPBENCH_STORE", "store"))


# ── for commands and Python ───────────────────────────────────────────────────────


def load_plugins(plugins: tuple[Path, ...]) -> Registry:
    """Load every installed plugin, then the plugin files."""
    from .engine.registry import Registry

    return Registry.load(plugins)


def load_suite(
    suite: Path, plugins: tuple[Path, ...], overrides: tuple[str, ...], only: tuple[str, ...]
) -> tuple[Registry, Suite]:
    """Load the plugins, then read a suite that uses them."""
    from .engine.suite import Suite

    registry = load_plugins(plugins)
    return registry, Suite.load(suite, registry, overrides=overrides, only=only)


def load_case(
    case: Path, plugins: tuple[Path, ...], overrides: tuple[str, ...], methods: tuple[str, ...]
) -> tuple[Registry, Suite]:
    """Load an owner's case. `methods` are names, or `auto` for all that are installed."""
    if "auto" not in methods:
        return load_suite(case, plugins, overrides, methods)
    from .engine.suite import Suite

    registry = load_plugins(plugins)
    entries = json.dumps([{"method": name} for name in sorted(registry.methods)])
    every = f"methods={entries}"
    return registry, Suite.load(case, registry, overrides=(every, *overrides))


def additions(methods: tuple[str, ...]) -> tuple[str, ...]:
    """Return the overrides that add methods to a suite, as `--with` does."""
    from .engine.source import addition

    return tuple(map(addition, methods))


def find_fresh(registry: Registry, suite: Suite, methods: Sequence[str] | bool) -> frozenset[str]:
    """Return the labels of the suite's methods to try anew, as `--fresh` does.

    methods: labels or names of methods; True for all.

    Raises InputError for a text that is neither a label nor a name of the suite.
    """
    from .api.errors import InputError

    _refuse_text("fresh", methods)
    names = {variant.label: variant.method.name for variant in suite.methods}
    if isinstance(methods, bool):
        return frozenset(names if methods else ())
    for method in methods:
        if method not in (known := {*names, *names.values()}):
            raise InputError(registry.missing("method", method, known), f"--fresh {method}")
    return frozenset(label for label, name in names.items() if {label, name} & set(methods))


def find_device(device: str | None) -> str:
    """Return the named device; by default the first GPU, or the CPU if there is no GPU.

    Raises ResourceError if the device does not exist.
    """
    import torch

    from .api.errors import ResourceError

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise ResourceError(
            f"--device {device}: expected a device of this machine, got an error: {reason}"
        ) from None
    return device


def find_devices(names: str | None) -> list[str]:
    """Return the devices of a list such as `cuda:0,cuda:1`; by default one, as `find_device`.

    Raises ResourceError if one does not exist, InputError if one is named twice.
    """
    from .api.errors import InputError

    if not names:
        return [find_device(None)]
    found = [find_device(name.strip()) for name in names.split(",")]
    if len(found) > len(set(found)):
        raise InputError(f"expected every device once, got {names}", "--device")
    return found


def find_executor(
    registry: Registry, name: str | None, devices: list[str], *, workers: int | None,
    limit: int | None,
) -> Executor:  # fmt: skip
    """Return the named executor; by default that of $FPBENCH_EXECUTOR, or `local`.

    Several devices, workers or a limit make `local` the default. Raises InputError for a name that
    no plugin offers, and for options that the executor refuses.
    """
    from .api.errors import InputError

    needs_local = workers or limit or len(devices) > 1
    name = name or ("local" if needs_local else os.environ.get("FPBENCH_EXECUTOR", "local"))
    hook = registry.manager.hook
    found: Executor | None = hook.fpbench_executor(
        name=name, devices=devices, workers=workers, limit=limit,
        setup=partial(prepare_worker, tuple(registry.files)),
    )  # fmt: skip
    if found is None:
        names = [offered for plugin in hook.fpbench_executor_names() for offered in plugin]
        raise InputError(registry.missing("executor", name, names), "--executor")
    return found


@cache
def prepare_worker(plugins: tuple[Path, ...]) -> None:
    """Set up a worker's process like the run's own process: log, arithmetic, plugin files."""
    from .engine.environment import tune
    from .engine.registry import Registry

    log_to_stderr()
    tune()  # as `run` does
    Registry.load(plugins, installed=())


def new_folder(parent: Path) -> Path:
    """Return the path of a new run's folder: `parent` and an id. Ids are unique, sorted by time."""
    import secrets
    from datetime import UTC, datetime

    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return parent / f"{stamp}-{secrets.token_hex(2)}"


class _Printable(logging.Formatter):
    """A formatter of log messages that cannot control the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def log_to_stderr() -> None:
    """Show warnings and errors on stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
