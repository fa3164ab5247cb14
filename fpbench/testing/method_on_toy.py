"""Try a method on one toy scenario: watch it construct, then collect its matching rates."""

from __future__ import annotations

import copy
import inspect
import random
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..api.fingerprinter import Case, Fingerprint, Fingerprinter
from ..api.oracle import Access
from ..api.scenario import POOLS, forget_data
from .toys import Zoo


@dataclass(frozen=True)
class MethodOnToy:
    """A method on one toy scenario's zoo at one access level."""

    method: Fingerprinter
    zoo: Zoo
    access: Access

    def _construct(self, turn: int) -> tuple[Fingerprint, set[str]]:
        """Construct a fingerprint; say what the method changed: models, randomness, data."""
        case = self.zoo.case(self.method, self.access)
        with _randomness(turn):
            before = _photograph(case)
            torch.manual_seed(0)
            try:
                fingerprint = self.method.construct(case)
            except Exception as error:
                raise AssertionError(
                    f"expected construct to work, found {self.said(error)}; mend it, or decline "
                    "the scenario (`supports`, `declines`)"
                ) from error
            after = _photograph(case)
        changed = {name for name in before if before[name] != after[name]}
        if "data" in changed:
            forget_data()  # the next construction needs the original data
        return fingerprint, changed

    @cached_property
    def first(self) -> tuple[Fingerprint, set[str]]:
        """The fingerprint that most checks look at, and what its construction changed."""
        return self._construct(1)

    @cached_property
    def second(self) -> tuple[Fingerprint, set[str]]:
        """A second construction with the same seed; by now all imports are done."""
        return self._construct(2)

    def fingerprint(self) -> Fingerprint:
        """Return a copy of the first fingerprint, so that checks cannot disturb each other."""
        return copy.deepcopy(self.first[0])

    def rates(self, *models: nn.Module, size: int = 1024) -> list[float]:
        """Verify models one after another by one fingerprint; replies come `size` at a time."""
        fingerprint = self.fingerprint()
        try:
            return [
                float(self.method.verify(fingerprint, self.zoo.oracle(model, self.access, size)))
                for model in models
            ]
        except Exception as error:
            raise AssertionError(
                f"expected verify to work at access level {self.access}, found "
                f"{self.said(error)}; let match read replies as {self.access} gives them, broken "
                f"ones too, or take {self.access} out of `accepts`"
            ) from error

    def said(self, error: Exception) -> str:
        """Return an exception in one line, with the place in the method's code that raised it."""
        file = inspect.getsourcefile(type(self.method)) or "?"
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
        where = f" ({Path(file).name}:{lines[-1]})" if lines else ""
        return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"


@contextmanager
def _randomness(turn: int) -> Iterator[None]:
    """Give a construction its own global random states, so that reseeding is noticed and undone.

    torch's state is the same in every turn, since a run seeds it for a method.
    """
    python, legacy = random.getstate(), np.random.get_state(legacy=True)
    try:
        with torch.random.fork_rng(devices=[]):
            random.seed(turn)
            np.random.seed(turn)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)


def _photograph(case: Case) -> dict[str, Any]:
    """Return everything that `construct` must leave unchanged."""
    ensemble = case.ensemble
    others = [*ensemble.positives, *ensemble.negatives] if ensemble else []
    pools = [t for pool in POOLS for t in case.scenario.data(pool)]
    drawn = np.random.get_state(legacy=True)
    return {
        "models": [_state(model) for model in (case.target, *others)],
        "randomness": (random.getstate(), *(np.asarray(part).tobytes() for part in drawn)),
        "data": [(tuple(t.shape), t.numpy().tobytes()) for t in pools],
    }


def _state(model: nn.Module) -> tuple[Any, ...]:
    tensors = tuple(t.numpy().tobytes() for t in model.state_dict().values())
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    grads = tuple((p.requires_grad, p.grad is None) for p in model.parameters())
    return tensors, tuple(m.training for m in model.modules()), hooks, grads
