"""What a trial's result depends on, as one digest."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

from .. import api
from ..api.fields import plain
from ..api.recipe import Recipe
from ..api.result import Trial
from .files import sha256
from .store import Store
from .whole import TRIAL


def trial_key(trial: Trial, store: Store, device: str) -> str:
    """What a trial's result depends on, as one digest; `device` by its name in results.

    Models enter by their weights, methods by their source: a store that was rebuilt, or a
    method that was edited, never meets old results.
    """

    def weights(recipes: Sequence[Recipe]) -> list[list[str]]:
        return [
            [r.digest, (store.made(r, trial.scenario) or {}).get("weights_sha256", "")]
            for r in recipes
        ]

    content = {
        "schema": TRIAL,
        "method": trial.method.name,
        "fields": plain(trial.method),
        "source": _source(type(trial.method)),
        "contract": _contract(),
        "seed": trial.seed,
        "access": str(trial.access),
        "scenario": [str(trial.scenario), trial.scenario.version],
        "target": weights([trial.target]),
        "ensemble": weights(trial.ensemble),
        "suspects": weights(trial.suspects),
        "calibration": weights(trial.calibration),
        "quantised": trial.quantised,
        "device": device,
        "torch": torch.__version__,
    }
    return sha256(json.dumps(content, sort_keys=True).encode())


@cache
def _source(cls: type) -> str:
    """The digest of the files that a method and its own bases are written in."""
    files = {
        file
        for base in cls.__mro__
        if base is not object and (file := inspect.getsourcefile(base)) is not None
    }
    return sha256(b"\0".join(Path(file).read_bytes() for file in sorted(files)))


@cache
def _contract() -> str:
    digest = hashlib.sha256()
    for file in sorted(Path(api.__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
