"""A loose plugin that does everything a plugin should not."""

from __future__ import annotations

import os
import random
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from toys import Blobs, Drawn, Grid

import fpbench
from fpbench import Case, Fingerprint, Fingerprinter, Lab, Oracle, Pool, Recipe, Scenario


class Odd(BaseException):
    """No Exception: a plain `except Exception` does not see it."""


class SilentError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Weird:
    def __float__(self) -> float:
        raise Odd("not a number")

    def __repr__(self) -> str:
        raise RuntimeError("no picture")


def raising(error: BaseException) -> Callable[..., None]:
    def act(*_: object) -> None:
        raise error

    return act


def deeper() -> None:
    deeper()


def mutate(case: Case) -> None:
    for p in case.target.parameters():
        p.data.mul_(1.001)  # not even autograd's version counter sees this


def mutate_ensemble(case: Case) -> None:
    assert case.ensemble is not None
    for model in (*case.ensemble.positives, *case.ensemble.negatives):
        for p in model.parameters():
            p.data.zero_()


IN_CONSTRUCT: dict[str, Callable[[Case], Any]] = {
    "raises": lambda case: 1 / 0,
    "exits": lambda case: sys.exit(0),
    "odd": raising(Odd("stop")),
    "generator-exit": raising(GeneratorExit()),
    "silent": raising(SilentError()),
    "wordless": raising(fpbench.TrialError("")),
    "endless": raising(ValueError("x" * 1_000_000)),
    "memory": raising(MemoryError()),
    "recursion": lambda case: deeper(),
    "mutates": mutate,
}
"""Trouble -> what is done; these trials fail."""

REASONS = {
    "raises": "ZeroDivisionError", "exits": "SystemExit", "odd": "Odd: stop",
    "generator-exit": "GeneratorExit", "silent": "SilentError", "wordless": "TrialError",
    "endless": "xxx", "memory": "ran out of memory", "recursion": "RecursionError",
    "mutates": "expected bad(trouble=mutates) not to change the target",
    "no-fingerprint": "expected a Fingerprint from construct, got None",
    "nan": "got nan from", "inf": "got inf from", "text": "got '0.5' from", "none": "got None from",
    "weird": "Odd: not a number", "nan-tensor": "got tensor(nan) from", "two": "got tensor([",
    "late": "ZeroDivisionError", "greedy": "expected at most 5 queries per suspect, got 10",
}  # fmt: skip
"""Trouble -> what the failed trial says."""

RATES: dict[str, Any] = {
    "nan": float("nan"), "inf": float("inf"), "text": "0.5", "none": None, "weird": Weird(),
    "nan-tensor": torch.tensor(float("nan")), "two": torch.tensor([0.5, 0.5]),
}  # fmt: skip


def seed_everything() -> None:
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)


GLOBAL: dict[str, Callable[[], object]] = {
    "seeds": seed_everything,
    "dtype": lambda: torch.set_default_dtype(torch.float64),
    "device": lambda: torch.set_default_device("meta"),
    "threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "gradients": lambda: torch.set_grad_enabled(False),
    "deterministic": lambda: torch.use_deterministic_algorithms(True),
    "cudnn": lambda: setattr(torch.backends.cudnn, "benchmark", True),
    "precision": lambda: torch.set_float32_matmul_precision("medium"),
    "folder": lambda: os.chdir("/"),
    "environment": lambda: os.environ.update(FPBENCH_STORE="/nowhere"),
    "filters": lambda: warnings.simplefilter("error"),
    "stdout": lambda: setattr(sys, "stdout", None),
    "prints": lambda: (print("some words of mine"), os.write(1, b"")),
    "warns": lambda: warnings.warn("look out", stacklevel=1),
}
"""Trouble -> what is done to the whole process; these trials are fine."""


@dataclass(frozen=True, kw_only=True)
class Bad(Grid):
    """A method with some trouble; without any it asks what `grid` asks."""

    name = "bad"

    trouble: str = ""
    n_queries: int = 5

    def construct(self, case: Case) -> Fingerprint:
        fingerprint = super().construct(case)
        if act := IN_CONSTRUCT.get(self.trouble):
            act(case)
        if self.trouble in GLOBAL:
            GLOBAL[self.trouble]()
        if self.trouble == "itself":
            object.__setattr__(self, "n_queries", 1_000)
        if self.trouble == "no-fingerprint":
            return None  # type: ignore[return-value]
        return fingerprint

    def verify(self, fingerprint: Fingerprint, oracle: Oracle) -> float:
        rate = super().verify(fingerprint, oracle)
        if self.trouble == "late" and rate < 1:
            raise ZeroDivisionError
        if self.trouble == "greedy":
            object.__setattr__(self, "n_queries", 1_000)
            oracle(fingerprint.queries)
        found: float = RATES.get(self.trouble, rate)
        return found


@dataclass(frozen=True, kw_only=True)
class Spoiler(Grid):
    """Zeroes the models it learns from."""

    name = "spoiler"
    needs_ensemble = True

    def construct(self, case: Case) -> Fingerprint:
        mutate_ensemble(case)
        return super().construct(case)


@dataclass(frozen=True, kw_only=True)
class Undecided(Grid):
    """Cannot say whether it applies."""

    name = "undecided"

    def declines(self, scenario: Scenario) -> str | None:
        raise KeyError("undecided")


@dataclass(frozen=True, kw_only=True)
class Moody(Grid):
    """Refuses its own fields, and not as it should."""

    name = "moody"

    def __post_init__(self) -> None:
        raise AttributeError("no such mood")


@dataclass(frozen=True, kw_only=True)
class Clumsy(Drawn):
    """A network, or trouble."""

    name = "clumsy"

    def make(self, lab: Lab) -> nn.Module:
        model = super().make(lab)
        if self.trouble in GLOBAL:
            GLOBAL[self.trouble]()
        if self.trouble == "none":
            return None  # type: ignore[return-value]
        if self.trouble == "odd":
            raise Odd("stop")
        if self.trouble == "data":
            lab.scenario.data("test").inputs.numpy()[:] = 0
        if self.trouble == "trial-error":
            raise fpbench.TrialError("not my day")
        return model


@dataclass(frozen=True)
class Spoiled(Blobs):
    """Blobs, with something wrong in one pool."""

    name = "spoiled"
    trouble: str = ""

    def load(self) -> Mapping[str, Pool]:
        pools = dict(super().load())
        x, y = pools["public"]
        if self.trouble == "raises":
            raise OSError("the disk is\nelsewhere")
        if self.trouble == "away":
            raise fpbench.ResourceError("expected the data of spoiled, found none")
        if self.trouble == "exits":
            sys.exit(0)
        wrong: dict[str, Any] = {
            "shape": Pool(x[:, :1], y), "nan": Pool(x * float("nan"), y), "range": Pool(9 + x, y),
            "lengths": Pool(x, y[1:]), "empty": Pool(x[:0], y[:0]), "no tensor": Pool([], y),
            "no pool": 42, "double": Pool(x.double(), y), "column": Pool(x, y[:, None]),
            "from one": Pool(x, y + 1), "int32": Pool(x, y.int()),
            "one-hot": Pool(x, torch.nn.functional.one_hot(y)),
        }  # fmt: skip
        pools["public"] = wrong.get(self.trouble, pools["public"])
        if self.trouble == "absent":
            del pools["public"]
        return pools

    def utility(self, output: Tensor, truth: Tensor) -> dict[str, float]:
        found = super().utility(output, truth)
        return {"accuracy": float("nan")} if self.trouble == "useless" else found


@fpbench.hookimpl
def fpbench_scenarios() -> list[type[Scenario]]:
    return [Spoiled]


@fpbench.hookimpl
def fpbench_recipes() -> list[type[Recipe]]:
    return [Clumsy]


@fpbench.hookimpl
def fpbench_fingerprinters() -> list[type[Fingerprinter]]:
    return [Bad, Spoiler, Undecided, Moody]
