"""Finished work on disk: models and trials, by what they are, checked when read.

store/models/<scenario>@<version>/<2 of digest>/<digest>/
    recipe.json           the lineage, for people; sealed
    weights.safetensors   tensors, never code
    made.json             utility, seconds, versions, the weights' sha256; digests of the code of
                          recipe and scenario, where known; sealed
store/trials/<2 of key>/<key>.json        one trial's result; sealed
store/locks/                              one lock per model while it is made
store/running/                            per run in progress, the models it uses; sealed
store/moves/                              per cohort that is put into place just now; sealed

Folders of models and trials are only ever renamed whole. What is damaged gets `.damaged-` into its
name, what is being written begins with `.tmp-`.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from safetensors import SafetensorError

from ..api.errors import ResourceError
from .checks import MODEL, fault, lineage_as_json, made_of, trial_of
from .files import read, sealed, sha256, sha256_of, unsealed, write

if TYPE_CHECKING:  # whoever only looks something up need not wait for torch
    import torch
    from torch import nn

    from ..api.recipe import Recipe
    from ..api.scenario import Scenario

SMALL = "small"
"""The lock for writing or moving the file of a trial."""

PRUNE = "prune"
"""The lock of whoever removes models, and of a run while it says which ones it uses."""

log = logging.getLogger("fpbench")


@dataclass(frozen=True)
class Store:
    """A folder of finished work; any number of runs may share it.

    weights: by a model's digest, the sha256 of the only weights that `load` takes; None for those
             that made.json names.
    """

    root: Path
    weights: Mapping[str, str] | None = field(default=None, compare=False, repr=False)

    def pinned(self, weights: Mapping[str, str]) -> Store:
        """Return the same store, which loads these weights and no others."""
        return replace(self, weights=weights)

    def require(self, needed: int) -> None:
        """Raise ResourceError unless the store's disk has so many bytes left."""
        folder = self.root.absolute()
        while not folder.exists():
            folder = folder.parent
        if needed > (free := shutil.disk_usage(folder).free):
            raise ResourceError(
                f"expected {needed / 1e9:.1f} GB of free disk for the models in {self.root}, found "
                f"{free / 1e9:.1f} GB; free some, or give --store another disk"
            )

    def folder(self, recipe: Recipe, scenario: Scenario) -> Path:
        """Where a model lives, or will."""
        return self.at(f"{scenario.name}@{scenario.version}", recipe.digest)

    def at(self, scenario: str, digest: str) -> Path:
        """Where a model lives, or will, by name@version of its scenario."""
        return self.root.joinpath("models", scenario, digest[:2], digest)

    def made(self, recipe: Recipe, scenario: Scenario) -> dict[str, Any] | None:
        """How a model came to be: made.json, or None if the store has no such model.

        Raises NewerError.
        """
        return self.made_at(self.folder(recipe, scenario))

    def made_at(self, folder: Path) -> dict[str, Any] | None:
        """Likewise, by where it lives."""
        path = folder / "made.json"
        return made_of(read(path) or b"", path)

    def intact(self, recipe: Recipe, scenario: Scenario) -> bool:
        """Whether a model is there and every byte of it is right. Raises NewerError."""
        folder = self.folder(recipe, scenario)
        return folder.exists() and fault(folder) is None

    def mend(self, recipe: Recipe, scenario: Scenario) -> bool:
        """Whether a model is there and right, after what is wrong was set aside.

        Only for the holder of its lock: another run may just have made it anew.
        """
        told = lineage_as_json(str(recipe), recipe.describe())
        return self.mend_at(self.folder(recipe, scenario), str(recipe), told)

    def mend_at(self, folder: Path, what: str, told: bytes) -> bool:
        """Likewise, for a model of which no more is known than its recipe.json."""
        if not folder.exists():
            return False
        wrong = fault(folder)
        if wrong == "recipe.json":
            # The model itself is whole.
            self.set_aside(folder / wrong, what)
            write(folder / wrong, told)
        elif wrong:
            self.set_aside(folder, what)
        return wrong in (None, "recipe.json")

    def set_aside(self, path: Path, what: str) -> Path:
        """Give something damaged another name, and tell. It is never removed but by `prune`."""
        aside = path.with_name(f"{path.name}.damaged-{os.urandom(4).hex()}")
        if path.exists():
            path.rename(aside)
            log.warning("%s was damaged in the store; set aside as %s", what, aside)
        return aside

    def load(self, recipe: Recipe, scenario: Scenario, device: torch.device) -> nn.Module:
        """A fresh copy of a model: eval mode, parameters frozen.

        On a CPU large weights are pages of the file, copied where they are written to. A file is
        hashed once per process. Raises ResourceError if it is not as it was made.
        """
        from safetensors.torch import load, load_file

        from .network import SMALL, network

        folder = self.folder(recipe, scenario)
        weights = folder / "weights.safetensors"
        known = self.weights
        if known is None:
            known = {recipe.digest: (self.made(recipe, scenario) or {}).get("weights_sha256", "")}
        if known.get(recipe.digest, "") != sha256_of(weights, again=False):
            raise ResourceError(
                f"{recipe} changed in the store while it was being used ({folder}); the same "
                "command makes it again"
            )
        try:
            small = weights.stat().st_size < SMALL
            state = load(weights.read_bytes()) if small else load_file(weights, device=str(device))
        except SafetensorError:
            state = {}
        model = network(scenario, recipe.arch, state, device)
        if model is None:
            raise ResourceError(
                f"expected the weights of a {recipe.arch} as safetensors in {folder}, found "
                "others; remove that folder to have it made again"
            )
        return model

    def save(
        self, models: Sequence[tuple[Recipe, nn.Module, Mapping[str, Any]]], scenario: Scenario
    ) -> None:
        """Put finished models, each with the facts of its making, into the store.

        All of them become visible, or none, also when the process is killed meanwhile: a cohort
        that was made in part would be completed by another cohort, with other last digits.
        """
        from safetensors.torch import save

        with ExitStack() as held:
            moves: list[tuple[Path, Path]] = []
            for recipe, model, facts in models:
                tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
                weights = save(tensors)
                made = {"schema": MODEL, "digest": recipe.digest, "weights_sha256": sha256(weights),
                        **facts}  # fmt: skip
                folder = self.folder(recipe, scenario)
                temporary = held.enter_context(_temporary(folder))
                write(temporary / "weights.safetensors", weights)
                write(temporary / "recipe.json", lineage_as_json(str(recipe), recipe.describe()))
                write(temporary / "made.json", sealed(made))
                moves.append((temporary, folder))
            self._move(moves)

    def _move(self, moves: Sequence[tuple[Path, Path]]) -> None:
        """Rename folders, all of them: what a kill leaves undone, `complete` does."""
        journal = self.root / "moves" / f"{os.urandom(8).hex()}.json"
        places = [[str(path.relative_to(self.root)) for path in move] for move in moves]
        write(journal, sealed({"moves": places}))
        for temporary, folder in moves:
            _rename(temporary, folder)
        journal.unlink(missing_ok=True)

    def complete(self) -> None:
        """Finish the moves of processes that were killed in the midst of them."""
        for journal in sorted((self.root / "moves").glob("*.json")):
            for temporary, folder in (unsealed(read(journal) or b"") or {"moves": []})["moves"]:
                _rename(self.root / temporary, self.root / folder)
            journal.unlink(missing_ok=True)

    @contextmanager
    def new(self, folder: Path) -> Iterator[Path]:
        """Yield a folder to fill, which then becomes a model's; if that fails nothing is left."""
        with _temporary(folder) as temporary:
            yield temporary
            temporary.rename(folder)

    def lock(self, name: str, timeout: float = -1) -> FileLock:
        """A lock of this store; a model's is its digest. Ends with the process that holds it."""
        locks = self.root / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        return FileLock(locks / f"{name}.lock", timeout=timeout)

    @contextmanager
    def locked(self, recipes: Sequence[Recipe]) -> Iterator[None]:
        """Hold the locks of some models while they are made.

        Always taken in one order, so two runs wait for each other and never for ever.
        """
        with ExitStack() as held:
            for digest in sorted(recipe.digest for recipe in recipes):
                held.enter_context(self.lock(digest))
            yield

    @contextmanager
    def using(self, digests: Iterable[str]) -> Iterator[None]:
        """Keep `prune` from some models for as long as this lasts, whatever ends it."""
        lease = self.root / "running" / f"{os.urandom(8).hex()}.json"
        lease.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lease.with_suffix(".lock")) as held:
            try:
                with self.lock(PRUNE):
                    self.complete()
                    write(lease, sealed({"digests": sorted(digests), "process": os.getpid()}))
                yield
            finally:
                lease.unlink(missing_ok=True)
                Path(held.lock_file).unlink(missing_ok=True)

    def trial(self, key: str) -> dict[str, Any] | None:
        """A finished trial's result, or None. A damaged one is set aside. Raises NewerError."""
        return self._whole(self._trial(key), trial_of, "a trial's result")

    def save_trial(self, key: str, result: Mapping[str, Any]) -> None:
        """Keep a finished trial's result."""
        with self.lock(SMALL):
            write(self._trial(key), sealed(result))

    def _whole(
        self, path: Path, look: Callable[[bytes, Path], dict[str, Any] | None], what: str
    ) -> dict[str, Any] | None:
        if (raw := read(path)) is None:
            return None
        if (found := look(raw, path)) is not None:
            return found
        with self.lock(SMALL):
            # Another run may have been faster.
            if (found := look(read(path) or b"", path)) is None:
                self.set_aside(path, what)
        return found

    def _trial(self, key: str) -> Path:
        return self.root / "trials" / key[:2] / f"{key}.json"


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside another; what is left of it in the end is removed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".tmp-{folder.name}-"))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _rename(temporary: Path, folder: Path) -> None:
    """Give a folder its name, unless another process has done so."""
    try:
        temporary.rename(folder)
    except OSError:
        if temporary.is_dir() and not folder.is_dir():
            raise
