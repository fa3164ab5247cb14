"""What `list`, `describe` and `plan` say, without waiting for plugins that said it before."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import launch
from .engine.remember import remembered

if TYPE_CHECKING:
    from .api.result import PlanSummary

Files = tuple[Path, ...]


def listed(plugins: Files) -> list[dict[str, Any]]:
    """Everything that is installed, a row each."""
    rows: list[dict[str, Any]] = remembered(_question(plugins), lambda: _offers(plugins))["rows"]
    return rows


def known() -> list[dict[str, Any]]:
    """What `listed` says, if it needs not be found first; else nothing."""

    def find() -> tuple[Any, bool]:
        raise LookupError

    try:
        rows: list[dict[str, Any]] = remembered(_question(()), find)["rows"]
    except LookupError:
        return []
    return rows


def described(name: str, plugins: Files) -> dict[str, Any]:
    """One thing that is installed. Raises PluginError for an unknown name."""
    entries = remembered(_question(plugins), lambda: _offers(plugins))["entries"]
    if name in entries:
        entry: dict[str, Any] = entries[name]
        return entry
    from .engine.describe import described

    return described(launch.registry(plugins), name)


def _question(plugins: Files) -> Any:
    return ["what is installed?", _places(plugins)]


def _offers(plugins: Files) -> tuple[Any, bool]:
    """The rows of all, and each in full by its name but those that cannot be described."""
    from .engine.describe import described, listed

    found = launch.registry(plugins)
    rows, entries = listed(found), {}
    for row in rows:
        with suppress(Exception):
            entries[row["name"]] = described(found, row["name"])
    return {"rows": rows, "entries": entries}, not found.broken


def planned(
    suite: Path, store: Path, device: str | None, plugins: Files, *words: tuple[str, ...]
) -> PlanSummary:
    """What a run of a suite would do now. The store is always looked into.

    words: what `launch.load` takes besides.
    """
    from .engine.outline import Costs, Model, Outline
    from .engine.source import Source
    from .engine.store import Store

    def find() -> tuple[Any, bool]:
        from .engine.plan import Plan

        found, loaded = launch.load(suite, plugins, *words)
        plan = Plan.of(loaded)
        outline = plan.outline()
        costs = plan.costs(outline.models, launch.device(device))
        # A recipe that reads a file follows from it too.
        sound = not found.broken and not any(recipe.places for recipe in plan.models)
        return {"outline": vars(outline), "costs": vars(costs)}, sound

    data = Source.read(suite).data
    question = ["plan", data, words, device, _machine(), _places(plugins)]
    kept = remembered(question, find)
    models = [Model(*model) for model in kept["outline"].pop("models")]
    outline = Outline(**kept["outline"], models=models)
    return outline.summary(outline.missing(Store(store)), Costs(**kept["costs"]))


def _places(plugins: Files) -> list[list[str]]:
    return [[str(file), str(file.absolute())] for file in plugins]


def _machine() -> list[Any]:
    """What a device that nobody named, and its speed, depend on."""
    devices = Path("/dev")
    names = os.listdir(devices) if devices.is_dir() else []
    return [
        platform.node(), platform.processor(), os.cpu_count(),
        sorted(name for name in names if name.startswith(("nvidia", "kfd"))),
    ]  # fmt: skip
