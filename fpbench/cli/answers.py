"""Answers of `list` and `describe`, kept on disk: finding them imports torch, which takes seconds.

A kept answer serves while the same distributions are installed and no local Python file that was
loaded to find it has changed. Local files are those outside of `site-packages` and Python itself:
editable plugins, and fpbench in a clone.
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

BEGAN = time.time_ns()

Plugins = tuple[Path, ...]


def listed(plugins: Plugins) -> list[dict[str, Any]]:
    """Return a row for each thing that is installed or that a plugin file offers."""
    rows: list[dict[str, Any]] = _offers(plugins)["rows"]
    return rows


def known() -> list[dict[str, Any]]:
    """Return the rows of `listed` if they are kept, else none; plugins are never imported."""
    kept = _read(_environment())
    return kept["rows"] if kept else []


def described(name: str, plugins: Plugins) -> dict[str, Any]:
    """Return the description of one scenario, recipe or method.

    Raises PluginError for an unknown name.
    """
    entries: dict[str, dict[str, Any]] = _offers(plugins)["entries"]
    if name in entries:
        return entries[name]
    from ..engine.registry import describe_offer

    return describe_offer(session.load_plugins(plugins), name)


def _offers(plugins: Plugins) -> dict[str, Any]:
    """Return the rows of everything and the descriptions by name.

    Plugin files are being worked on: their answers are not kept. Where torch is loaded already,
    nothing would be saved.
    """
    lasting = not plugins and "torch" not in sys.modules
    before = _environment() if lasting else ""
    if lasting and (kept := _read(before)):
        return kept
    from ..engine.registry import describe_offer, list_offers

    registry = session.load_plugins(plugins)
    rows, entries = list_offers(registry), {}
    for row in rows:
        with suppress(Exception):  # `describe` of this name finds the error again
            entries[row["name"]] = describe_offer(registry, row["name"])
    offers: dict[str, Any] = json.loads(json.dumps({"rows": rows, "entries": entries}, default=str))
    if lasting and not registry.broken:
        _keep(before, offers)
    return offers


def _environment() -> str:
    """Return a digest of Python, fpbench, its variables and the installed distributions."""
    installed = []
    for folder in sys.path:
        with suppress(OSError), os.scandir(folder or ".") as entries:
            installed += [
                (entry.name, entry.stat().st_mtime_ns)
                for entry in entries
                if entry.name.endswith((".dist-info", ".egg-info"))
            ]
    variables = {k: v for k, v in os.environ.items() if k.startswith("FPBENCH_")}
    found = [__version__, sys.version, sys.path, sorted(installed), sorted(variables.items())]
    return sha256(json.dumps(found).encode())


def _file() -> Path:
    """Return where the answers of this Python environment are kept."""
    from platformdirs import user_cache_path

    folder = os.environ.get("FPBENCH_CACHE") or user_cache_path("fpbench") / "answers"
    return Path(folder) / f"{sha256(sys.prefix.encode())}.json"


def _read(environment: str) -> dict[str, Any] | None:
    """Return the kept answers, or None where there are none or they may be stale."""
    try:
        kept = unsealed(_file().read_bytes())
    except OSError:
        return None
    if kept is None or kept["environment"] != environment:
        return None
    changed = any(_modified(file) != at for file, at in kept["modified"].items())
    return None if changed else kept


def _keep(environment: str, offers: dict[str, Any]) -> None:
    """Keep answers, unless something changed while they were found."""
    installed = tuple(
        sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")
    )
    files = [vars(module).get("__file__") for module in list(sys.modules.values())]
    modified = {
        file: _modified(file)
        for file in files
        if isinstance(file, str) and not file.startswith(installed)
    }
    if environment == _environment() and all(at < BEGAN for at in modified.values()):
        kept = {**offers, "environment": environment, "modified": modified}
        with suppress(OSError):  # without a place to keep it, the next command finds it again
            write(_file(), sealed(kept))


def _modified(file: str) -> int:
    """Return when a file was last modified, in nanoseconds; 0 for a file that is not there."""
    try:
        return os.stat(file).st_mtime_ns
    except OSError:
        return 0
