"""Removing from a store what no suite that is kept has a use for."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from ..api.errors import ResourceError
from .checks import made_of, trial_of
from .files import NewerError, read, unsealed
from .inventory import MODEL, TRIAL, Item, items
from .store import PRUNE, SMALL, Store


@dataclass(frozen=True)
class Needed:
    """What some suites name: the folders of models, the keys of trials."""

    folders: frozenset[Path]
    keys: frozenset[str]


def devices(store: Store) -> set[str]:
    """Return the names of the devices that the store has trials of."""
    found = set()
    for item in items(store):
        if item.what == TRIAL:
            trial = _trial(item.path)
            found |= {trial["device"]} if trial else set()
    return found


def _trial(path: Path) -> dict[str, str] | None:
    try:
        return trial_of(read(path) or b"", path)
    except NewerError:
        return None


def waste(store: Store, needed: Needed) -> list[Item]:
    """What no kept suite names, what was set aside, what was left half written.

    What a later fpbench made is for that one to remove.
    """
    store.complete()  # what a killed run had finished is no waste
    return [
        item
        for item in items(store)
        if not (item.what == MODEL and (item.path in needed.folders or _is_newer(item)))
        and not (item.what == TRIAL and (item.name in needed.keys or _is_newer(item)))
    ]


def _is_newer(item: Item) -> bool:
    path = item.path / "made.json" if item.what == MODEL else item.path
    look = made_of if item.what == MODEL else trial_of
    try:
        look(read(path) or b"", path)
    except NewerError:
        return True
    return False


@dataclass
class Removed:
    """What `remove` did. kept: what runs in progress use or are making."""

    gone: list[Item] = field(default_factory=list)
    bytes: int = 0
    kept: list[Item] = field(default_factory=list)


def remove(store: Store, found: Iterable[Item]) -> Removed:
    """Remove it, save what runs in progress use or are making; a run that begins waits.

    Raises ResourceError where it cannot be told what a run uses.
    """
    removed = Removed()
    with store.lock(PRUNE):
        used = _used(store)
        for item in found:
            if item.what == MODEL and item.name in used:
                removed.kept.append(item)
                continue
            try:
                # A model's lock is held for as long as it is made, the other for a moment.
                with store.lock(item.lock, timeout=5 if item.lock == SMALL else 0):
                    size = item.bytes
                    _remove(item)
            except Timeout:
                removed.kept.append(item)
            except FileNotFoundError:  # somebody else was faster
                continue
            else:
                removed.gone.append(item)
                removed.bytes += size
    return removed


def _remove(item: Item) -> None:
    if item.path.is_dir():
        # Under another name at once: nobody must find half a model.
        doomed = item.path.with_name(f".tmp-{item.name}-removed")
        shutil.rmtree(doomed, ignore_errors=True)
        item.path.rename(doomed)
        shutil.rmtree(doomed)
    else:
        item.path.unlink()


def _used(store: Store) -> set[str]:
    """The digests of the models that runs in progress use; what dead runs left is removed."""
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
                continue  # it begins, and waits for us, or ends
            told = unsealed(raw)
            if told is None:
                raise ResourceError(
                    f"expected the models that a run in progress uses in {lease}, found it "
                    "damaged; prune when that run has ended"
                ) from None
            used.update(told["digests"])
    return used
