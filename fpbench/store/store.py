"""Keep finished models and trials on disk, and check them when they are read.

store/models/<scenario>@<version>/<2 of digest>/<digest>/
    recipe.json           the lineage, for people; sealed
    weights.safetensors   tensors, never code
    made.json             utility, seconds, versions, the weights' sha256; digests of the code of
                          recipe and scenario, where known; sealed
store/trials/<2 of key>/<key>.json        one trial's result; sealed
store/locks/                              one lock per model while it is made
store/running/                            per run in progress, the models that it uses; sealed
store/moves/                              per cohort that is being moved into place; sealed

A model appears in one step, by the rename of its finished folder. The names of damaged folders and
files contain `.damaged-`. The names of unfinished ones begin with `.tmp-`.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from safetensors import SafetensorError

from ..api.errors import ResourceError
from .checks import MODEL, damaged_file, lineage_as_json, made_of, trial_of
from .files import (
    read,
    sealed,
    sha256,
    sha256_of,
    sync_folder,
    unfinished,
    unsealed,
    write,
)

if TYPE_CHECKING:  # so that looking something up does not load torch
    import torch
    from torch import Tensor, nn

    from ..api.recipe import Recipe
    from ..api.scenario import Scenario

TRIALS_LOCK = "small"
"""The name of the lock for writing or moving the file of a trial."""

PRUNE_LOCK = "prune"
"""The name of the lock for removing models, and for writing the list of models that a run uses."""

log = logging.getLogger("fpbench")


@dataclass(frozen=True)
class Store:
    """A folder of finished work. Any number of runs may share it.

    weights: by a model's digest, the sha256 of the weights that `load` accepts; None to accept the
             weights that made.json names.
    """

    root: Path
    weights: Mapping[str, str] | None = field(default=None, compare=False, repr=False)

    def pinned(self, weights: Mapping[str, str]) -> Store:
        """Return the same store, which loads only these weights."""
        return replace(self, weights=weights)

    def require(self, size: int) -> None:
        """Raise ResourceError unless the store's disk has `size` bytes left."""
        folder = self.root.absolute()
        while not folder.exists():
            folder = folder.parent
        if size > (free := shutil.disk_usage(folder).free):
            raise ResourceError(
                f"expected {size / 1e9:.1f} GB of free disk for the models in {self.root}, found "
                f"{free / 1e9:.1f} GB; free some, or give --store another disk"
            )

    def folder(self, recipe: Recipe, scenario: Scenario) -> Path:
        """Return the folder of a model, whether or not it exists."""
        return self.folder_of(f"{scenario.name}@{scenario.version}", recipe.digest)

    def folder_of(self, scenario: str, digest: str) -> Path:
        """Return the folder of a model by name@version of its scenario and by its digest."""
        return self.root.joinpath("models", scenario, digest[:2], digest)

    def made(self, recipe: Recipe, scenario: Scenario) -> dict[str, Any] | None:
        """Return the made.json of a model, or None if the store has no such model.

        Raises NewerError.
        """
        return self.made_at(self.folder(recipe, scenario))

    def made_at(self, folder: Path) -> dict[str, Any] | None:
        """Return the made.json in a model's folder, or None. Raises NewerError."""
        path = folder / "made.json"
        return made_of(read(path) or b"", path)

    def intact(self, recipe: Recipe, scenario: Scenario) -> bool:
        """Return whether a model exists and every byte of it is right. Raises NewerError."""
        folder = self.folder(recipe, scenario)
        return folder.exists() and damaged_file(folder) is None

    def mend(self, recipe: Recipe, scenario: Scenario) -> bool:
        """Set aside the damaged parts of a model. Return whether the model can be used then.

        Call this only with the model's lock: another run may just have made the model again.
        """
        recipe_json = lineage_as_json(str(recipe), recipe.describe())
        return self.mend_at(self.folder(recipe, scenario), str(recipe), recipe_json)

    def mend_at(self, folder: Path, name: str, recipe_json: bytes) -> bool:
        """Do as `mend` does for the model in a folder.

        name:        the model's name in the warning.
        recipe_json: the content that replaces a damaged recipe.json.
        """
        if not folder.exists():
            return False
        damaged = damaged_file(folder)
        if damaged == "recipe.json":
            # Only people read this file: the model itself can be used.
            self.set_aside(folder / damaged, name)
            write(folder / damaged, recipe_json)
        elif damaged:
            self.set_aside(folder, name)
        return damaged in (None, "recipe.json")

    def set_aside(self, path: Path, name: str) -> Path:
        """Rename something damaged and log a warning. Only `prune` ever removes it.

        name: the name of the damaged thing in the warning.
        """
        aside = path.with_name(f"{path.name}.damaged-{os.urandom(4).hex()}")
        if path.exists():
            path.rename(aside)
            log.warning("%s was damaged in the store; set aside as %s", name, aside)
        return aside

    def load(self, recipe: Recipe, scenario: Scenario, device: torch.device) -> nn.Module:
        """Return a fresh copy of a model, in eval mode and with frozen parameters.

        On a CPU, large weights are mapped from the file into memory and copied only where they are
        changed. A file is hashed once per process. Raises ResourceError if the weights have changed
        or do not fit the architecture.
        """
        from safetensors.torch import load, load_file

        from .network import SMALL_WEIGHTS, make_network

        folder = self.folder(recipe, scenario)
        weights = folder / "weights.safetensors"
        accepted = self.weights
        if accepted is None:
            made = self.made(recipe, scenario) or {}
            accepted = {recipe.digest: made.get("weights_sha256", "")}
        if accepted.get(recipe.digest, "") != sha256_of(weights, reread=False):
            raise ResourceError(
                f"{recipe} changed in the store while it was being used ({folder}); the same "
                "command makes it again"
            )
        try:
            small = weights.stat().st_size < SMALL_WEIGHTS
            state = load(weights.read_bytes()) if small else load_file(weights, device=str(device))
        except SafetensorError:
            state = {}
        model = make_network(scenario, recipe.arch, state, device)
        if model is None:
            raise ResourceError(
                f"expected the weights of a {recipe.arch} as safetensors in {folder}, found "
                "others; remove that folder to have it made again"
            )
        return model

    def save(
        self, models: Sequence[tuple[Recipe, nn.Module, Mapping[str, Any]]], scenario: Scenario
    ) -> None:
        """Put a cohort of finished models into the store, each with more keys of its made.json.

        Either all of the models become visible or none, even if the process is killed. If only a
        part of a cohort were kept, the rest would be made as a smaller cohort, and their weights
        would differ in the last digits.
        """
        from safetensors.torch import save

        journal = self.root / "moves" / f"{os.urandom(8).hex()}.json"
        moves: list[tuple[Path, Path]] = []
        try:
            for recipe, model, more in models:
                weights = save(_apart(model.state_dict()))
                made = {"schema": MODEL, "digest": recipe.digest, "weights_sha256": sha256(weights),
                        **more}  # fmt: skip
                folder = self.folder(recipe, scenario)
                moves.append((_temporary_folder(folder), folder))
                temporary = moves[-1][0]
                write(temporary / "weights.safetensors", weights)
                write(temporary / "recipe.json", lineage_as_json(str(recipe), recipe.describe()))
                write(temporary / "made.json", sealed(made))
            places = [[str(path.relative_to(self.root)) for path in move] for move in moves]
            write(journal, sealed({"moves": places}))
        except BaseException:
            for temporary, _ in moves:
                shutil.rmtree(temporary, ignore_errors=True)
            raise
        # From here on nothing is taken back: `complete` does what an interruption leaves undone.
        self._finish(journal, moves)

    @staticmethod
    def _finish(journal: Path, moves: Iterable[tuple[Path, Path]]) -> None:
        """Do the moves that a journal lists, then remove the journal."""
        moves = [*moves]
        for temporary, folder in moves:
            _rename(temporary, folder)
        for parent in {folder.parent for _, folder in moves}:
            sync_folder(parent)
        journal.unlink(missing_ok=True)

    def complete(self) -> None:
        """Finish the moves of processes that were interrupted during a move."""
        for journal in sorted((self.root / "moves").glob("*.json")):
            listed = (unsealed(read(journal) or b"") or {"moves": []})["moves"]
            self._finish(journal, [(self.root / old, self.root / new) for old, new in listed])

    @contextmanager
    def new(self, folder: Path) -> Iterator[Path]:
        """Yield an empty folder. At the end of the block it becomes the folder of a model.

        If the block raises, the empty folder is removed with its content.
        """
        temporary = _temporary_folder(folder)
        try:
            yield temporary
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def lock(self, name: str, timeout: float = -1) -> FileLock:
        """Return a lock of this store. A model's lock has its digest as name.

        A lock is released when the process that holds it ends.

        timeout: seconds to wait for the lock; -1 for no limit.
        """
        locks = self.root / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        return FileLock(locks / f"{name}.lock", timeout=timeout)

    @contextmanager
    def locked(self, recipes: Sequence[Recipe]) -> Iterator[None]:
        """Hold the locks of some models while they are made.

        Locks are always taken in the same order, so that two runs cannot block each other for ever.
        """
        with ExitStack() as held:
            for digest in sorted(recipe.digest for recipe in recipes):
                held.enter_context(self.lock(digest))
            yield

    @contextmanager
    def using(self, digests: Iterable[str]) -> Iterator[None]:
        """Keep `prune` from removing some models until the block or the process ends."""
        lease = self.root / "running" / f"{os.urandom(8).hex()}.json"
        lease.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lease.with_suffix(".lock")) as held:
            try:
                with self.lock(PRUNE_LOCK):
                    self.complete()
                    write(lease, sealed({"digests": sorted(digests), "process": os.getpid()}))
                yield
            finally:
                lease.unlink(missing_ok=True)
                Path(held.lock_file).unlink(missing_ok=True)

    def trial(self, key: str) -> dict[str, Any] | None:
        """Return a finished trial's result, or None. Raises NewerError.

        A damaged result is set aside.
        """
        path = self._trial_path(key)
        if (raw := read(path)) is None:
            return None
        if (result := trial_of(raw, path)) is not None:
            return result
        with self.lock(TRIALS_LOCK):
            # Look again: another run may have written the result before we had the lock.
            if (result := trial_of(read(path) or b"", path)) is None:
                self.set_aside(path, "a trial's result")
        return result

    def save_trial(self, key: str, result: Mapping[str, Any]) -> None:
        """Keep a finished trial's result."""
        with self.lock(TRIALS_LOCK):
            write(self._trial_path(key), sealed(result))

    def _trial_path(self, key: str) -> Path:
        return self.root / "trials" / key[:2] / f"{key}.json"


def _apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors on the CPU that share no memory, which tied weights do."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in state.items()}
    first: dict[int, str] = {}
    return {
        name: t if first.setdefault(t.untyped_storage().data_ptr(), name) == name else t.clone()
        for name, t in tensors.items()
    }


def _temporary_folder(folder: Path) -> Path:
    """Make a new folder next to another one, and return it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = unfinished(folder)
    temporary.mkdir()
    return temporary


def _rename(temporary: Path, folder: Path) -> None:
    """Give a folder its name, unless another process has done so."""
    try:
        temporary.rename(folder)
    except OSError:
        if temporary.is_dir() and not folder.is_dir():
            raise
