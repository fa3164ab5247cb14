"""What `list`, `describe` and `plan` say, without waiting for plugins that said it before."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__, session
from ..store.files import sealed, sha256, unsealed, write

if TYPE_CHECKING:
    pass

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
    from ..engine.registry import described

    return described(session.load_plugins(plugins), name)


def _question(plugins: Files) -> Any:
    return ["what is installed?", _places(plugins)]


def _offers(plugins: Files) -> tuple[Any, bool]:
    """The rows of all, and each in full by its name but those that cannot be described."""
    from ..engine.registry import described, listed

    found = session.load_plugins(plugins)
    rows, entries = listed(found), {}
    for row in rows:
        with suppress(Exception):
            entries[row["name"]] = described(found, row["name"])
    return {"rows": rows, "entries": entries}, not found.broken


def _places(plugins: Files) -> list[list[str]]:
    return [[str(file), str(file.absolute())] for file in plugins]


BEGAN = time.time_ns()

GRAIN = 2 * 10**9
"""Nanoseconds: the coarsest times of change that file systems keep."""

KEPT = 200
"""Answers, the newest; a suite that was edited is another question."""

IMPORTED = (".py", ".pyc", ".so", ".pyd", ".pth", ".egg", ".egg-link", "-info")
"""How the names of modules, and of what is installed, end."""

VARIABLES = ("FPBENCH_", "PYTHON", "CUDA_", "HIP_", "OMP_", "MKL_", "TORCH_")


def remembered(question: Any, find: Callable[[], tuple[Any, bool]]) -> Any:
    """The answer to a question, in JSON's values: the kept one, or else what `find` returns.

    find: the answer, and whether it is worth keeping. What it raises is raised, and not kept.
    """
    if "torch" in sys.modules:  # there is nothing to be saved
        return _plain(find()[0])
    name = sha256(json.dumps([question, sys.prefix, sys.path]).encode())
    file = _folder() / f"{name}.json"
    try:
        kept = unsealed(file.read_bytes())
    except OSError:
        kept = None
    if kept is not None and kept["looks"] == _looks(kept["paths"]):
        return kept["answer"]
    installed = [_look(path) for path in sys.path]
    answer, sound = find()
    answer, paths = _plain(answer), _paths()
    # What changed since this process began may have been read before it changed.
    still = installed == [_look(path) for path in sys.path] and all(
        _changed(path) < BEGAN - GRAIN for path in paths if not os.path.isdir(path)
    )
    if sound and still:
        _keep(file, {"paths": paths, "looks": _looks(paths), "answer": answer})
    return answer


def _plain(answer: Any) -> Any:
    """As it comes back from a file, whether it was in one or not."""
    return json.loads(json.dumps(answer, default=str))


def _folder() -> Path:
    if own := os.environ.get("FPBENCH_CACHE"):
        return Path(own)
    from platformdirs import user_cache_path

    return user_cache_path("fpbench") / "answers"


def _keep(file: Path, kept: dict[str, Any]) -> None:
    try:
        write(file, sealed(kept))
        files = sorted(file.parent.glob("*.json"), key=_changed, reverse=True)
        for old in files[KEPT:]:
            old.unlink(missing_ok=True)
    except OSError:
        return  # no place to keep it: the next one waits as this one did


def _paths() -> list[str]:
    """Of every module that is loaded, and of every folder that modules are looked for in."""
    found = {path or "." for path in sys.path}
    for module in list(sys.modules.values()):
        # Some modules make up attributes; their own dictionary does not.
        names = vars(module)
        folders = names.get("__path__")
        if isinstance(folders, Iterable) and not isinstance(folders, str):
            found.update(map(str, folders))
        if isinstance(file := names.get("__file__"), str):
            found.add(file)
    return sorted(found)


def _looks(paths: Iterable[str]) -> str:
    """One digest of what is there, and of what else an answer follows from."""
    around = [
        __version__, sys.version, list(sys.flags),
        sorted((k, v) for k, v in os.environ.items() if k.startswith(VARIABLES)),
        sorted((e.name, e.value, str(e.dist and (e.dist.name, e.dist.version)))
               for e in importlib.metadata.entry_points(group="fpbench")),
    ]  # fmt: skip
    return sha256(json.dumps([around, [_look(path) for path in paths]]).encode())


def _look(path: str) -> Any:
    try:
        if path.endswith(".py"):
            with open(path, "rb") as file:
                return sha256(file.read())
        if os.path.isdir(path):
            return _importable(path)
        about = os.stat(path)
    except OSError:
        return None
    return [about.st_size, about.st_mtime_ns]


def _importable(folder: str) -> list[str]:
    """The names in a folder that an import may find, or that say what is installed. Whoever works
    in a clone has the clone's own folder among these: what a run writes there says nothing."""
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.name.endswith(IMPORTED)
            or (entry.is_dir() and os.path.exists(f"{entry.path}/__init__.py"))
        )


def _changed(path: str | Path) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
