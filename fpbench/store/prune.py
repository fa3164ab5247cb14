"""Remove models and trials from a store that no kept suite uses."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..api.errors import ResourceError
from .checks import made_of, trial_of
from .files import NewerError, read, unsealed
from .inventory import MODEL, TRIAL, Item, items
from .store import PRUNE_LOCK, TRIALS_LOCK, Store


@dataclass(frozen=True)
class Needed:
    """The models and trials that suites use.

    folders: the folders of the models.
    keys:    the keys of the trials.
    """

    folders: frozenset[Path]
    keys: frozenset[str]


def devices(store: Store) -> set[str]:
    """Return the names of the devices from which the store has trials."""
    trials = (_read_trial(item.path) for item in items(store) if item.kind == TRIAL)
    return {trial["device"] for trial in trials if trial}


def _read_trial(path: Path) -> dict[str, Any] | None:
    try:
        return trial_of(read(path) or b"", path)
    except NewerError:
        return None


def find_waste(store: Store, needed: Needed) -> list[Item]:
    """Return the items that can be removed.

    Those are models and trials that no kept suite uses, items that were set aside, and temporary
    files. Models and trials of a later fpbench are left to that fpbench.
    """
    store.complete()  # models that a killed run had finished are not waste
    return [
        item
        for item in items(store)
        if not (item.kind == MODEL and (item.path in needed.folders or _is_newer(item)))
        and not (item.kind == TRIAL and (item.name in needed.keys or _is_newer(item)))
    ]


def _is_newer(item: Item) -> bool:
    """Return whether a later fpbench wrote a model or trial."""
    path = item.path / "made.json" if item.kind == MODEL else item.path
    parse = made_of if item.kind == MODEL else trial_of
    try:
        parse(read(path) or b"", path)
    except NewerError:
        return True
    return False


@dataclass
class Removed:
    """The result of `remove`.

    gone:  the items that were removed.
    bytes: the bytes that they took.
    kept:  the items that runs in progress use or are making.
    """

    gone: list[Item] = field(default_factory=list)
    bytes: int = 0
    kept: list[Item] = field(default_factory=list)


def remove(store: Store, unneeded: Iterable[Item]) -> Removed:
    """Remove items, except those that runs in progress use or are making.

    A run that starts meanwhile waits. Raises ResourceError if the list of the models that a run
    uses is damaged.
    """
    removed = Removed()
    with store.lock(PRUNE_LOCK):
        used = _used_models(store)
        for item in unneeded:
            if item.kind == MODEL and item.name in used:
                removed.kept.append(item)
                continue
            try:
                # A run holds the lock of a model while it makes the model, and the lock of the
                # trials only for a moment.
                with store.lock(item.lock, timeout=5 if item.lock == TRIALS_LOCK else 0):
                    size = item.bytes
                    _remove(item)
            except Timeout:
                removed.kept.append(item)
            except FileNotFoundError:  # another process has removed it
                continue
            else:
                removed.gone.append(item)
                removed.bytes += size
    return removed


def _remove(item: Item) -> None:
    if item.path.is_dir():
        # The folder is renamed first, so that no process finds a part of a model.
        renamed = item.path.with_name(f".tmp-{item.name}-removed")
        shutil.rmtree(renamed, ignore_errors=True)
        item.path.rename(renamed)
        shutil.rmtree(renamed)
    else:
        item.path.unlink()


def _used_models(store: Store) -> set[str]:
    """Return the digests of the models that runs in progress use. Remove the lists of dead runs."""
    used: set[str] = set()
    for path in sorted((store.root / "running").glob("*.lock")):
        lease = path.with_suffix(".json")
        try:
            with FileLock(path, timeout=0):
                lease.unlink(missing_ok=True)
                path.unlink()
        except Timeout:
            raw = read(lease)
            if raw is None:
                continue  # the run is just starting, and waits for us, or it is just ending
            content = unsealed(raw)
            if content is None:
                raise ResourceError(
                    f"expected the models that a run in progress uses in {lease}, found it "
                    "damaged; prune when that run has ended"
                ) from None
            used.update(content["digests"])
    return used
