"""Finished work on disk: models and trials, by what they are, checked when read.

store/models/<scenario>@<version>/<2 of digest>/<digest>/
    recipe.json           the lineage, for people
    weights.safetensors   tensors, never code
    made.json             utility, seconds, versions, the weights' sha256; sealed
store/trials/<2 of key>/<key>.json        one trial's result; sealed
store/locks/                              one lock per model while it is made
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from ..api.errors import ResourceError
from ..api.recipe import Recipe
from ..api.scenario import Scenario

SCHEMA = "fpbench.model/1"

log = logging.getLogger("fpbench")


def sha256(data: bytes) -> str:
    """A content's name."""
    return hashlib.sha256(data).hexdigest()


def sealed(data: Mapping[str, Any]) -> bytes:
    """JSON that carries the checksum of its own content."""
    return json.dumps({**data, "seal": _seal(data)}, indent=1).encode()


def unsealed(raw: bytes) -> dict[str, Any] | None:
    """What `sealed` wrote, or None if it is not that any more."""
    try:
        data = json.loads(raw)
        seal = data.pop("seal")
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    return data if seal == _seal(data) else None


def _seal(data: Mapping[str, Any]) -> str:
    return sha256(json.dumps(data, sort_keys=True).encode())


def write(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all, even after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class Store:
    """A folder of finished work; any number of runs may share it."""

    root: Path

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
        version = f"{scenario.name}@{scenario.version}"
        return self.root / "models" / version / recipe.digest[:2] / recipe.digest

    def made(self, recipe: Recipe, scenario: Scenario) -> dict[str, Any] | None:
        """How a model came to be: made.json, or None if the store has no such model."""
        try:
            raw = (self.folder(recipe, scenario) / "made.json").read_bytes()
        except OSError:
            return None
        made = unsealed(raw)
        return made if made and made.get("schema") == SCHEMA else None

    def intact(self, recipe: Recipe, scenario: Scenario) -> bool:
        """Whether a model is there and every byte of it is right.

        What is there and wrong is set aside under another name, told, and never used.
        """
        folder = self.folder(recipe, scenario)
        if not folder.exists():
            return False
        made = self.made(recipe, scenario)
        try:
            weights = (folder / "weights.safetensors").read_bytes()
        except OSError:
            weights = b""
        if made and made["weights_sha256"] == sha256(weights):
            return True
        aside = folder.with_name(f"{folder.name}.damaged-{os.getpid()}-{os.urandom(3).hex()}")
        try:
            folder.rename(aside)
        except FileNotFoundError:
            return False  # another run was faster
        log.warning("%s was damaged in the store; set aside as %s", recipe, aside)
        return False

    def load(self, recipe: Recipe, scenario: Scenario, device: torch.device) -> nn.Module:
        """A fresh copy of a model: eval mode, parameters frozen. Raises OSError or ValueError."""
        folder = self.folder(recipe, scenario)
        made = self.made(recipe, scenario)
        raw = (folder / "weights.safetensors").read_bytes()
        if made is None or made["weights_sha256"] != sha256(raw):
            raise ValueError(f"{recipe} changed in the store while it was being used: {folder}")
        with torch.device("meta"):
            model = scenario.architecture(recipe.arch)()
        try:
            state = load(raw)
        except SafetensorError as error:
            raise ValueError(f"expected safetensors in {folder}, got {error}") from None
        model.load_state_dict(state, assign=True)
        return model.to(device).eval().requires_grad_(False)

    def save(
        self, recipe: Recipe, scenario: Scenario, model: nn.Module, facts: Mapping[str, Any]
    ) -> None:
        """Put a finished model into the store, whole or not at all."""
        folder = self.folder(recipe, scenario)
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".tmp-"))
        try:
            weights = save(
                {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
            )
            made = {
                "schema": SCHEMA,
                "digest": recipe.digest,
                "weights_sha256": sha256(weights),
                **facts,
            }
            lineage = {"model": str(recipe), "lineage": recipe.describe()}
            write(temporary / "weights.safetensors", weights)
            write(temporary / "recipe.json", json.dumps(lineage, indent=1).encode())
            write(temporary / "made.json", sealed(made))
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @contextmanager
    def locked(self, recipes: Sequence[Recipe]) -> Iterator[None]:
        """Hold the locks of some models while they are made.

        Always taken in one order, so two runs wait for each other and never for ever.
        """
        locks = self.root / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            for digest in sorted(recipe.digest for recipe in recipes):
                held.enter_context(FileLock(locks / f"{digest}.lock"))
            yield

    def trial(self, key: str) -> dict[str, Any] | None:
        """A finished trial's result, or None. A damaged one is set aside."""
        path = self.root / "trials" / key[:2] / f"{key}.json"
        try:
            raw = path.read_bytes()
        except OSError:
            return None
        result = unsealed(raw)
        if result is None:
            path.rename(path.with_suffix(f".damaged-{os.urandom(3).hex()}"))
            log.warning("a trial's result was damaged in the store and was set aside: %s", path)
        return result

    def save_trial(self, key: str, result: Mapping[str, Any]) -> None:
        """Keep a finished trial's result."""
        write(self.root / "trials" / key[:2] / f"{key}.json", sealed(result))
