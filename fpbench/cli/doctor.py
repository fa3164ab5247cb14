"""`fpbench doctor`: check each part of an installation, even if another part is broken."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import click

from .. import __version__, session
from ..api.errors import FpbenchError
from . import options


@dataclass(frozen=True)
class Finding:
    """The state of one part. "missing" is no error: only some suites need that data or device."""

    part: str
    state: Literal["ok", "missing", "broken"]
    text: str


def examine(store: Path, runs: Path) -> list[Finding]:
    """Check every part; an exception in a part becomes a "broken" finding of that part."""
    parts: dict[str, Callable[[], Iterator[Finding]]] = {
        "version": _versions,
        "device": _devices,
        "store": lambda: _store(store),
        "runs": lambda: _folder("runs", runs),
        "tracker": lambda: _tracker(runs),
        "plugin": _plugins,
        "data": _data,
    }
    findings: list[Finding] = []
    for part, check in parts.items():
        try:
            findings += check()
        except (Exception, SystemExit) as error:
            kind = "" if isinstance(error, FpbenchError) else f"{type(error).__name__}: "
            findings.append(Finding(part, "broken", kind + " ".join(str(error).split())))
    return findings


def _versions() -> Iterator[Finding]:
    yield Finding("version", "ok", f"fpbench {__version__}, Python {platform.python_version()}, "
                  f"{platform.platform()}")  # fmt: skip
    for name in ("torch", "torchvision", "numpy", "scikit-learn", "safetensors", "mlflow"):
        yield Finding("version", "ok", f"{name} {importlib.metadata.version(name)}")


def _devices() -> Iterator[Finding]:
    import psutil
    import torch

    memory = psutil.virtual_memory()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("device", "ok", f"cpu: {cores} cores, {torch.get_num_threads()} threads, "
                  f"{_size(memory.available)} of {_size(memory.total)} memory free")  # fmt: skip
    if not torch.cuda.is_available():
        yield Finding("device", "missing", "no GPU that torch can use")
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        yield Finding("device", "ok", f"cuda:{index}: {torch.cuda.get_device_name(index)}, "
                      f"{_size(free)} of {_size(total)} memory free")  # fmt: skip


def _folder(part: str, folder: Path) -> Iterator[Finding]:
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    text = f"{folder.absolute()}, {_size(shutil.disk_usage(existing).free)} free"
    if existing != folder.absolute():
        text += "; the first run makes it"
    if os.access(existing, os.W_OK):
        yield Finding(part, "ok", text)
    else:
        yield Finding(part, "broken", f"{text}; expected a folder that you may write to")


def _store(store: Path) -> Iterator[Finding]:
    yield from _folder("store", store)
    models = sum(1 for _ in store.glob("models/*/*/*/made.json"))
    trials = sum(1 for _ in store.glob("trials/*/*.json"))
    held = sum(map(_is_held, store.glob("locks/*.lock")))
    yield Finding("store", "ok", f"{models} models and {trials} trials, {held} locks held")
    aside = sum(1 for _ in store.glob("**/*.damaged-*"))
    if aside:
        yield Finding("store", "broken", f"{aside} files or folders were damaged and set aside as "
                      "*.damaged-*; delete them and check the disk: the next run that needs their "
                      "content makes it anew")  # fmt: skip


def _is_held(lock: Path) -> bool:
    from filelock import FileLock, Timeout

    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def _tracker(runs: Path) -> Iterator[Finding]:
    from ..reporting.mlflow_hook import require_server
    from ..reporting.mlflow_tracker import Tracker
    from ..reporting.mlflow_upload import DEFAULTS

    tracker = Tracker.of(runs)
    if tracker.is_web:
        require_server(tracker)
    yield Finding("tracker", "ok", f"MLflow at {tracker.shown}" + (" answers" * tracker.is_web))
    name = "MLFLOW_DISABLE_TELEMETRY"
    off = os.environ.get(name, DEFAULTS[name]).lower() in ("true", "1")
    yield Finding("tracker", "ok", "MLflow's telemetry is "
                  + ("off" if off else f"on; {name}=true switches it off"))  # fmt: skip


def _plugins() -> Iterator[Finding]:
    registry = session.load_plugins(())
    for entry in sorted(importlib.metadata.entry_points(group="fpbench")):
        source = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
        if reason := registry.broken.get(entry.name):
            yield Finding("plugin", "broken", reason)
        else:
            yield Finding("plugin", "ok", f"{entry.name} ({source})")


def _data() -> Iterator[Finding]:
    for name, offer in sorted(session.load_plugins(()).scenarios.items()):
        try:
            files = offer.cls().files
        except TypeError:
            continue  # only a suite can give the fields that it requires
        for file, places in files.items():
            found = next((place for place in places if place.is_file()), None)
            if found:
                yield Finding("data", "ok", f"{name}: {file} is {found}")
            else:
                searched = ", ".join(map(str, places))
                yield Finding("data", "missing", f"{name}: {file} not found; searched {searched}")
        if not files:
            yield Finding("data", "ok", f"{name}: needs no file")


def _size(n: int) -> str:
    return f"{n / 1e9:.1f} GB"


@click.command()
@options.STORE
@options.RUNS
@options.JSON
def doctor(store_dir: Path, runs_dir: Path, as_json: bool) -> None:
    """Check versions, devices, store, tracker, plugins, data; exit 1 if something is broken."""

    findings = examine(store_dir, runs_dir)
    broken = [finding for finding in findings if finding.state == "broken"]
    if as_json:
        options.answer({"ok": not broken, "findings": [asdict(f) for f in findings]})
    else:
        colours = {"ok": "green", "missing": "yellow", "broken": "red"}
        for f in findings:
            click.echo(f"{click.style(f'{f.state:8}', fg=colours[f.state])} {f.part:8} {f.text}")
        click.echo(f"{len(broken)} broken" if broken else "nothing is broken")
    sys.exit(1 if broken else 0)


COMMANDS = (doctor,)
