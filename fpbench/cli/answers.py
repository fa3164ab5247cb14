"""Answers of `list` and `describe`, kept on disk, because finding them imports torch for seconds.

Kept answers are valid while the same distributions are installed and no local Python file that was
loaded to find them has changed. A local file is one outside `site-packages` and Python itself: an
editable plugin, or fpbench in a clone.
"""

from __future__ import annotations

import json
import os
import sys
import sysconfig
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import __version__, session
from ..store.files import sealed, sha256, unsealed, write

STARTED = time.time_ns()
"""When this process started, in nanoseconds."""

Plugins = tuple[Path, ...]


def list_offers(plugins: Plugins) -> list[dict[str, Any]]:
    """Return a row for each scenario, recipe and method, and for each broken plugin."""
    rows: list[dict[str, Any]] = _offers(plugins)["rows"]
    return rows


def kept_rows() -> list[dict[str, Any]]:
    """Return the kept rows of `list_offers`, or an empty list. This imports no plugin."""
    kept = _read(_environment())
    return kept["rows"] if kept else []


def describe(name: str, plugins: Plugins) -> dict[str, Any]:
    """Return the description of one scenario, recipe or method.

    Raises PluginError for an unknown name.
    """
    entries: dict[str, dict[str, Any]] = _offers(plugins)["entries"]
    if name in entries:
        return entries[name]
    from ..engine.registry import describe_offer

    return describe_offer(session.load_plugins(plugins), name)


def _offers(plugins: Plugins) -> dict[str, Any]:
    """Return the rows of `list_offers` and the descriptions by name.

    Answers about plugin files are not kept, because such files change often. If torch is loaded
    already, keeping answers would save no time.
    """
    keep = not plugins and "torch" not in sys.modules
    before = _environment() if keep else ""
    if keep and (kept := _read(before)):
        return kept
    from ..engine.registry import describe_offer, list_offers

    registry = session.load_plugins(plugins)
    rows, entries = list_offers(registry), {}
    for row in rows:
        with suppress(Exception):  # `describe` of this name shows the error
            entries[row["name"]] = describe_offer(registry, row["name"])
    offers: dict[str, Any] = json.loads(json.dumps({"rows": rows, "entries": entries}, default=str))
    if keep and not registry.broken:
        _keep(before, offers)
    return offers


def _environment() -> str:
    """Return a digest of the versions of Python and fpbench, variables and distributions."""
    installed = []
    for folder in sys.path:
        with suppress(OSError), os.scandir(folder or ".") as entries:
            installed += [
                (entry.name, entry.stat().st_mtime_ns)
                for entry in entries
                if entry.name.endswith((".dist-info", ".egg-info"))
            ]
    variables = {k: v for k, v in os.environ.items() if k.startswith("FPBENCH_")}
    parts = [__version__, sys.version, sys.path, sorted(installed), sorted(variables.items())]
    return sha256(json.dumps(parts).encode())


def _file() -> Path:
    """Return the file that keeps the answers of this Python environment."""
    from platformdirs import user_cache_path

    folder = os.environ.get("FPBENCH_CACHE") or user_cache_path("fpbench") / "answers"
    return Path(folder) / f"{sha256(sys.prefix.encode())}.json"


def _read(environment: str) -> dict[str, Any] | None:
    """Return the kept answers, or None if there are none or they may be out of date."""
    try:
        kept = unsealed(_file().read_bytes())
    except OSError:
        return None
    if kept is None or kept["environment"] != environment:
        return None
    changed = any(_modified(file) != at for file, at in kept["modified"].items())
    return None if changed else kept


def _keep(environment: str, offers: dict[str, Any]) -> None:
    """Keep answers, unless a file or a distribution changed while they were found."""
    installed = tuple(
        sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")
    )
    files = [vars(module).get("__file__") for module in list(sys.modules.values())]
    modified = {
        file: _modified(file)
        for file in files
        if isinstance(file, str) and not file.startswith(installed)
    }
    if environment == _environment() and all(at < STARTED for at in modified.values()):
        kept = {**offers, "environment": environment, "modified": modified}
        with suppress(OSError):  # the next command finds the answers again
            write(_file(), sealed(kept))


def _modified(file: str) -> int:
    """Return when a file was last modified, in nanoseconds; 0 if there is no such file."""
    try:
        return os.stat(file).st_mtime_ns
    except OSError:
        return 0
