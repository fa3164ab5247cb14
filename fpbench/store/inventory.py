"""List and verify a store: models, trials, damaged entries set aside, temporary files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import Timeout

from .checks import DIGEST, fault, lineage_of, made_of, trial_of
from .files import NewerError, read
from .store import SMALL, Store

MODEL, TRIAL, ASIDE, TEMPORARY = "model", "trial", "set aside", "temporary"


@dataclass(frozen=True)
class Item:
    """A file or folder in a store.

    what: one of the four words above.
    name: the digest of the model or the key of the trial that it is, or is a part of.
    """

    what: str
    path: Path
    name: str

    @property
    def lock(self) -> str:
        """The name of the lock that a process holds while it works on the item."""
        folders = self.path.parent.name, self.path.parent.parent.name
        return SMALL if "trials" in folders else self.name

    @property
    def bytes(self) -> int:
        """The bytes that it takes on disk."""
        try:
            files = [self.path] if self.path.is_file() else [*self.path.rglob("*")]
            return sum(file.stat().st_size for file in files)
        except FileNotFoundError:  # gone meanwhile
            return 0


def items(store: Store) -> Iterator[Item]:
    """Yield everything that fpbench put below models/, trials/ and ways/, and no other file."""
    for folder in sorted((store.root / "models").glob("*/??/*")):
        yield from _items(folder, MODEL)
        if DIGEST.fullmatch(folder.name):
            for file in sorted(folder.glob("*")):
                for item in _items(file, ""):
                    yield Item(item.what, file, folder.name)
    for file in sorted((store.root / "trials").glob("??/*")):
        yield from _items(file, TRIAL)
    # Versions before 0.2 kept measurements in ways/, which nothing reads any more.
    for file in sorted((store.root / "ways").glob("*")):
        yield Item(TEMPORARY, file, file.stem)


def _items(path: Path, what: str) -> Iterator[Item]:
    name = path.name.removeprefix(".tmp-").split("-")[0].split(".")[0]
    if path.name.startswith(".tmp-"):
        yield Item(TEMPORARY, path, name)
    elif ".damaged-" in path.name:
        yield Item(ASIDE, path, name)
    elif what and DIGEST.fullmatch(path.name.removesuffix("" if what == MODEL else ".json")):
        yield Item(what, path, name)


def _kind(folder: Path) -> str:
    """Return the recipe and architecture of a stored model, by its recipe.json and made.json."""
    try:
        made = made_of(read(folder / "made.json") or b"", folder) or {}
    except NewerError:
        return "of a later fpbench"
    lineage = lineage_of(read(folder / "recipe.json") or b"", folder.name)
    name = f"{lineage[-1]['recipe'] if lineage else 'unknown'} {made.get('arch', '')}".strip()
    return name if name.isprintable() else repr(name)


def summarise(store: Store) -> dict[str, Any]:
    """Return a store's content in numbers; weights are not checked.

    The keys are `models` (count and bytes per scenario and kind), `trials`, `set_aside` and
    `temporary` (count and bytes), and `damaged` (the paths of what was set aside).
    """
    groups: dict[tuple[str, str], list[int]] = {}
    others: dict[str, list[Item]] = {TRIAL: [], ASIDE: [], TEMPORARY: []}
    for item in items(store):
        if item.what == MODEL:
            group = (item.path.parent.parent.name, _kind(item.path))
            groups.setdefault(group, []).append(item.bytes)
        else:
            others[item.what].append(item)
    totals = {
        name: {"count": len(others[what]), "bytes": sum(item.bytes for item in others[what])}
        for name, what in (("trials", TRIAL), ("set_aside", ASIDE), ("temporary", TEMPORARY))
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

    damaged: each damaged path and the path it was set aside as; None while a run makes it again.
    newer:   messages about what a later fpbench wrote.
    """

    models: int = 0
    trials: int = 0
    damaged: dict[str, str | None] = field(default_factory=dict)
    newer: list[str] = field(default_factory=list)


def verify(store: Store, step: Callable[[], None] = lambda: None) -> Findings:
    """Read every byte of every model and trial; set aside what is damaged.

    `step` is called once per model and trial.
    """
    findings = Findings()
    for item in items(store):
        if item.what not in (MODEL, TRIAL):
            continue
        findings.models += item.what == MODEL
        findings.trials += item.what == TRIAL
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
            # A run may have set it aside meanwhile, or made it anew.
            if broken := _damaged_part(item):
                findings.damaged[str(broken)] = str(store.set_aside(broken, str(broken)))
    except Timeout:
        findings.damaged[str(item.path)] = None


def _damaged_part(item: Item) -> Path | None:
    """Return the path of what is damaged of a model or trial, or None."""
    if item.what != MODEL:
        raw = read(item.path)
        return item.path if raw is not None and trial_of(raw, item.path) is None else None
    wrong = fault(item.path) if item.path.exists() else None
    if wrong == "recipe.json":
        # Only people read it: the model stays, and the next run writes the file again.
        return path if (path := item.path / wrong).exists() else None
    return item.path if wrong else None
