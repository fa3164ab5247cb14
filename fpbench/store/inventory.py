"""List and verify a store: models, trials, damaged entries set aside, temporary files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import Timeout

from .checks import DIGEST, damaged_file, lineage_of, made_of, trial_of
from .files import NewerError, read
from .store import TRIALS_LOCK, Store

MODEL, TRIAL, ASIDE, TEMPORARY = "model", "trial", "set aside", "temporary"


@dataclass(frozen=True)
class Item:
    """A file or folder in a store.

    kind: MODEL, TRIAL, ASIDE or TEMPORARY.
    name: the digest of its model, or the key of its trial.
    """

    kind: str
    path: Path
    name: str

    @property
    def lock(self) -> str:
        """The name of the lock that a process holds while it works on the item."""
        folders = self.path.parent.name, self.path.parent.parent.name
        return TRIALS_LOCK if "trials" in folders else self.name

    @property
    def bytes(self) -> int:
        """The bytes that the item takes on disk."""
        try:
            files = [self.path] if self.path.is_file() else [*self.path.rglob("*")]
            return sum(file.stat().st_size for file in files)
        except FileNotFoundError:  # removed by another process
            return 0


def items(store: Store) -> Iterator[Item]:
    """Yield all files and folders of fpbench below models/, trials/ and ways/, and no others."""
    for folder in sorted((store.root / "models").glob("*/??/*")):
        yield from _items(folder, MODEL)
        if DIGEST.fullmatch(folder.name):
            for file in sorted(folder.glob("*")):
                for item in _items(file, ""):
                    yield Item(item.kind, file, folder.name)
    for file in sorted((store.root / "trials").glob("??/*")):
        yield from _items(file, TRIAL)
    # Versions before 0.2 kept measurements in ways/. Nothing reads them any more.
    for file in sorted((store.root / "ways").glob("*")):
        yield Item(TEMPORARY, file, file.stem)


def _items(path: Path, kind: str) -> Iterator[Item]:
    """Yield the item at a path, if there is one.

    kind: the kind of an item that is neither temporary nor set aside; empty to yield no such item.
    """
    name = path.name.removeprefix(".tmp-").split("-")[0].split(".")[0]
    if path.name.startswith(".tmp-"):
        yield Item(TEMPORARY, path, name)
    elif ".damaged-" in path.name:
        yield Item(ASIDE, path, name)
    elif kind and DIGEST.fullmatch(path.name.removesuffix("" if kind == MODEL else ".json")):
        yield Item(kind, path, name)


def _describe_model(folder: Path) -> str:
    """Return the recipe and architecture of a stored model, from its recipe.json and made.json."""
    try:
        made = made_of(read(folder / "made.json") or b"", folder) or {}
    except NewerError:
        return "of a later fpbench"
    lineage = lineage_of(read(folder / "recipe.json") or b"", folder.name)
    name = f"{lineage[-1]['recipe'] if lineage else 'unknown'} {made.get('arch', '')}".strip()
    return name if name.isprintable() else repr(name)


def summarise(store: Store) -> dict[str, Any]:
    """Return the content of a store in numbers. Weights are not checked.

    The keys are `store` (its folder), `models` (count and bytes per scenario and kind), `trials`,
    `set_aside` and `temporary` (count and bytes), and `damaged` (the paths that were set aside).
    """
    groups: dict[tuple[str, str], list[int]] = {}
    others: dict[str, list[Item]] = {TRIAL: [], ASIDE: [], TEMPORARY: []}
    for item in items(store):
        if item.kind == MODEL:
            group = (item.path.parent.parent.name, _describe_model(item.path))
            groups.setdefault(group, []).append(item.bytes)
        else:
            others[item.kind].append(item)
    totals = {
        name: {"count": len(others[kind]), "bytes": sum(item.bytes for item in others[kind])}
        for name, kind in (("trials", TRIAL), ("set_aside", ASIDE), ("temporary", TEMPORARY))
    }
    return {
        "store": str(store.root),
        "models": [
            {"scenario": scenario, "kind": kind, "count": len(sizes), "bytes": sum(sizes)}
            for (scenario, kind), sizes in sorted(groups.items())
        ],
        **totals,
        "damaged": [str(item.path) for item in others[ASIDE]],
    }


@dataclass
class Findings:
    """The result of `verify`.

    damaged: by damaged path, the path after it was set aside; None while a run makes it again.
    newer:   messages about files that a later fpbench wrote.
    """

    models: int = 0
    trials: int = 0
    damaged: dict[str, str | None] = field(default_factory=dict)
    newer: list[str] = field(default_factory=list)


def verify(store: Store, step: Callable[[], None] = lambda: None) -> Findings:
    """Read every byte of every model and trial, and set aside the damaged ones.

    `step` is called once per model and trial.
    """
    findings = Findings()
    for item in items(store):
        if item.kind not in (MODEL, TRIAL):
            continue
        findings.models += item.kind == MODEL
        findings.trials += item.kind == TRIAL
        try:
            if _damaged_part(item):
                _set_aside(store, item, findings)
        except NewerError as error:
            findings.newer.append(str(error))
        step()
    return findings


def _set_aside(store: Store, item: Item, findings: Findings) -> None:
    """Set aside an item's damaged part, unless a run holds its lock."""
    try:
        with store.lock(item.lock, timeout=5):
            # Look again: a run may have set it aside or made it again before we had the lock.
            if part := _damaged_part(item):
                findings.damaged[str(part)] = str(store.set_aside(part, str(part)))
    except Timeout:
        findings.damaged[str(item.path)] = None


def _damaged_part(item: Item) -> Path | None:
    """Return the damaged path of a model or trial, or None."""
    if item.kind != MODEL:
        raw = read(item.path)
        return item.path if raw is not None and trial_of(raw, item.path) is None else None
    damaged = damaged_file(item.path) if item.path.exists() else None
    if damaged == "recipe.json":
        # Only people read this file: the model stays, and the next run writes the file again.
        return path if (path := item.path / damaged).exists() else None
    return item.path if damaged else None
