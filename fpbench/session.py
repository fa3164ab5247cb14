"""What a command and a Python caller share: load plugins and a suite, find devices, run, plan.

`fpbench.run`, `fpbench.plan` and `fpbench.read` live here. Imports are inside the functions, so
that `fpbench --help` waits for none of them.
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
    """Run a suite, as `fpbench run` does. Work that is in the store is not done again.

    suite:     the suite's file.
    store:     the folder of finished models and trials; $FPBENCH_STORE or "store".
    runs:      the folder of results; $FPBENCH_RUNS or "runs".
    device:    "cpu", "cuda", "cuda:1" ...; by default a GPU if there is one.
    only:      the methods to run, of the suite or any other; all of the suite if empty.
    more:      methods to run beside those of the suite.
    overrides: values by the suite's dotted keys: {"methods.metav.n_queries": 50}.
    plugins:   plugin files to load; each call reads them anew.
    executor:  the name of the executor that does the work.
    fresh:     the methods to try anew, though the store has results of them; True for all.
    tracking:  whether results go to MLflow too.
    quiet:     show nothing while it runs.

    Raises FpbenchError: InputError, PluginError or ResourceError. A method that fails raises
    nothing; `report.why_not(method)` says why.
    """
    from .engine.run import Setting
    from .engine.run import run as run_suite
    from .reporting.terminal import Bars
    from .store.store import Store

    registry, loaded = load_suite(*_as_words(suite, plugins, overrides, only, more))
    if not tracking and registry.manager.has_plugin("mlflow"):
        registry.manager.unregister(name="mlflow")
    bars = None if quiet else Bars()
    if bars:
        registry.manager.register(bars, "terminal")
    where = find_device(device)
    parent = Path(runs or os.environ.get("FPBENCH_RUNS", "runs"))
    setting = Setting(
        store=Store(_store_folder(store)), folder=new_folder(parent / loaded.name),
        executor=find_executor(registry, executor, [where], workers=None, limit=None),
        hook=registry.manager.hook,
        device=where, fresh=find_fresh(registry, loaded, fresh),
    )  # fmt: skip
    with bars or nullcontext():
        return run_suite(loaded, setting)


def plan(
    suite: PathLike, *, store: PathLike | None = None, device: str | None = None,
    only: Sequence[str] = (), more: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None, plugins: Sequence[PathLike] = (),
) -> PlanSummary:  # fmt: skip
    """Say what `run` would do: models to make, trials, who declines and why, disk and time."""
    from .engine.plan import Plan
    from .store.store import Store

    _, loaded = load_suite(*_as_words(suite, plugins, overrides, only, more))
    return Plan.of(loaded).summary(Store(_store_folder(store)), find_device(device))


def read(folder: PathLike) -> Report:
    """Return the report of a finished run. Raises InputError if `folder` is not a run's."""
    from .api.results import Report
    from .results.folder import read as read_folder

    return Report(Path(folder), read_folder(Path(folder)))


def _as_words(
    suite: PathLike, plugins: Sequence[PathLike], overrides: Mapping[str, Any] | None,
    only: Sequence[str], more: Sequence[str],
) -> tuple[Path, tuple[Path, ...], tuple[str, ...], tuple[str, ...]]:  # fmt: skip
    """Return the arguments of `load_suite`, as the command line would hand them over.

    Override values are written as JSON, which is also YAML.
    """
    for name, value in (("only", only), ("more", more), ("plugins", plugins)):
        _refuse_word(name, value)
    settings = [f"{key}={json.dumps(value)}" for key, value in (overrides or {}).items()]
    added = additions(tuple(more))
    return Path(suite), tuple(map(Path, plugins)), (*added, *settings), tuple(only)


def _refuse_word(name: str, value: object) -> None:
    """Raise TypeError for a text where a list of them is expected: its letters are no methods."""
    if isinstance(value, str):
        raise TypeError(f"{name}: expected a list of words, got {value!r}; write [{value!r}]")


def _store_folder(store: PathLike | None) -> Path:
    return Path(store or os.environ.get("FPBENCH_STORE", "store"))


# ── for commands too ──────────────────────────────────────────────────────────────


def load_plugins(plugins: tuple[Path, ...]) -> Registry:
    """Load every installed plugin, then some plugin files."""
    from .engine.registry import Registry

    return Registry.load(plugins)


def load_suite(
    suite: Path, plugins: tuple[Path, ...], overrides: tuple[str, ...], only: tuple[str, ...]
) -> tuple[Registry, Suite]:
    """Load the plugins, then read a suite against them."""
    from .engine.suite import Suite

    registry = load_plugins(plugins)
    return registry, Suite.load(suite, registry, overrides=overrides, only=only)


def additions(methods: tuple[str, ...]) -> tuple[str, ...]:
    """Return the overrides that add methods to a suite; `--with` stands for them."""
    from .engine.source import addition

    return tuple(map(addition, methods))


def find_fresh(registry: Registry, suite: Suite, methods: Sequence[str] | bool) -> frozenset[str]:
    """Return the labels of a suite's methods that some words mean, as `--fresh` does; True is all.

    Raises InputError for a word that is neither a label nor a name.
    """
    from .api.errors import InputError

    _refuse_word("fresh", methods)
    names = {variant.label: variant.method.name for variant in suite.methods}
    if isinstance(methods, bool):
        return frozenset(names if methods else ())
    for method in methods:
        if method not in (known := {*names, *names.values()}):
            raise InputError(registry.missing("method", method, known), f"--fresh {method}")
    return frozenset(label for label, name in names.items() if {label, name} & set(methods))


def find_device(device: str | None) -> str:
    """Return the named device if it exists; by default the first GPU, else the CPU."""
    import torch

    from .api.errors import ResourceError

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise ResourceError(
            f"--device {device}: expected a device that is there: {reason}"
        ) from None
    return device


def find_devices(names: str | None) -> list[str]:
    """Return the devices in `cuda:0,cuda:1` if all exist; by default one, as `find_device`."""
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
    """Return the executor of a name; by default that of $FPBENCH_EXECUTOR, or `local`.

    Raises InputError for a name that no plugin offers, and for options that the executor refuses.
    """
    from .api.errors import InputError

    beyond = workers or limit or len(devices) > 1
    name = name or ("local" if beyond else os.environ.get("FPBENCH_EXECUTOR", "local"))
    hook = registry.manager.hook
    found: Executor | None = hook.fpbench_executor(
        name=name, devices=devices, workers=workers, limit=limit,
        setup=partial(prepare_worker, tuple(registry.files)),
    )  # fmt: skip
    if found is None:
        names = [known for offered in hook.fpbench_executor_names() for known in offered]
        raise InputError(registry.missing("executor", name, names), "--executor")
    return found


@cache
def prepare_worker(plugins: tuple[Path, ...]) -> None:
    """Make a worker's process like the run's own: log, arithmetic, plugin files."""
    from .engine.environment import tune
    from .engine.registry import Registry

    log_to_stderr()
    tune()  # as `run` does
    Registry.load(plugins, installed=())


def new_folder(parent: Path) -> Path:
    """Return a new folder's path, runs/<suite>/<id>: ids sort by time and never collide."""
    import secrets
    from datetime import UTC, datetime

    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return parent / f"{stamp}-{secrets.token_hex(2)}"


class _Printable(logging.Formatter):
    """Formats log messages so that their text cannot control the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def log_to_stderr() -> None:
    """Show warnings and worse on stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
