"""What lies in a store: models, trials, what was set aside, what was left half written."""

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
    name: the model's digest or the trial's key, also where a model or trial is set aside or
          half written; the name of the lock that guards it follows from it.
    """

    what: str
    path: Path
    name: str

    @property
    def lock(self) -> str:
        """The lock of whoever may be working on it."""
        folders = self.path.parent.name, self.path.parent.parent.name
        return SMALL if "trials" in folders else self.name

    @property
    def bytes(self) -> int:
        """What it takes on disk."""
        try:
            files = [self.path] if self.path.is_file() else [*self.path.rglob("*")]
            return sum(file.stat().st_size for file in files)
        except FileNotFoundError:  # gone meanwhile
            return 0


def items(store: Store) -> Iterator[Item]:
    """Everything below models/, trials/ and ways/ that fpbench put there, and no other file."""
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


def kind(folder: Path) -> str:
    """What a stored model is by its recipe.json: recipe and architecture."""
    try:
        made = made_of(read(folder / "made.json") or b"", folder) or {}
    except NewerError:
        return "of a later fpbench"
    lineage = lineage_of(read(folder / "recipe.json") or b"", folder.name)
    name = f"{lineage[-1]['recipe'] if lineage else 'unknown'} {made.get('arch', '')}".strip()
    return name if name.isprintable() else repr(name)


def listed(store: Store) -> dict[str, Any]:
    """A store's content by numbers; nothing is checked but what is read for it.

    models: per scenario and kind, how many and how many bytes. trials, set_aside, temporary: how
    many, how many bytes; and of those set aside the paths.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    others: dict[str, list[Item]] = {TRIAL: [], ASIDE: [], TEMPORARY: []}
    for item in items(store):
        if item.what == MODEL:
            group = (item.path.parent.parent.name, kind(item.path))
            groups.setdefault(group, []).append(item.bytes)
        else:
            others[item.what].append(item)
    totals = {
        what.replace(" ", "_"): {"count": len(found), "bytes": sum(item.bytes for item in found)}
        for what, found in (("trials", others[TRIAL]), (ASIDE, others[ASIDE]),
                            (TEMPORARY, others[TEMPORARY]))
    }  # fmt: skip
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
class Verdict:
    """What `verify` found. damaged: what was set aside, and where it is now; None for a model
    that a run is making anew at the moment."""

    models: int = 0
    trials: int = 0
    damaged: dict[str, str | None] = field(default_factory=dict)
    newer: list[str] = field(default_factory=list)


def verify(store: Store, step: Callable[[], None] = lambda: None) -> Verdict:
    """Read every byte of every model and trial; set aside what is damaged. `step` is called once
    per model and trial."""
    verdict = Verdict()
    for item in items(store):
        if item.what not in (MODEL, TRIAL):
            continue
        verdict.models += item.what == MODEL
        verdict.trials += item.what == TRIAL
        try:
            if _fault(item):
                _set_aside(store, item, verdict)
        except NewerError as error:
            verdict.newer.append(str(error))
        step()
    return verdict


def _set_aside(store: Store, item: Item, verdict: Verdict) -> None:
    try:
        with store.lock(item.lock, timeout=5):
            # A run may have set it aside meanwhile, or made it anew.
            if broken := _fault(item):
                verdict.damaged[str(broken)] = str(store.set_aside(broken, str(broken)))
    except Timeout:
        verdict.damaged[str(item.path)] = None


def _fault(item: Item) -> Path | None:
    """What of a model or trial is damaged, if anything."""
    if item.what != MODEL:
        raw = read(item.path)
        return item.path if raw is not None and trial_of(raw, item.path) is None else None
    wrong = fault(item.path) if item.path.exists() else None
    if wrong == "recipe.json":
        # For people; a whole model is not given up for it, and the next run writes it again.
        return path if (path := item.path / wrong).exists() else None
    return item.path if wrong else None
