"""A loose plugin of methods and recipes that take their process with them, or never end."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fpbench import (
    Access,
    Case,
    Fingerprint,
    Fingerprinter,
    Lab,
    Recipe,
    hookimpl,
)


@dataclass(frozen=True, kw_only=True)
class Trouble(Fingerprinter):
    """Does what `kind` says when it constructs; `log` is a file for process ids."""

    name = "trouble"
    accepts = frozenset(Access)

    n_queries: int = 1
    kind: str = "none"
    log: str = ""

    def construct(self, case: Case) -> Fingerprint:
        if self.kind == "exits":
            os._exit(7)
        if self.kind == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind in ("hangs", "clings"):
            child = subprocess.Popen(["sleep", "1000"])
            with Path(self.log).open("a") as file:
                file.write(f"{os.getpid()}\n{child.pid}\n")
            # The second lets no other thread of Python's run.
            (time if self.kind == "hangs" else ctypes.PyDLL(None)).sleep(1000)
        if self.kind == "waits once" and not Path(self.log).exists():
            import ray

            Path(self.log).write_text(ray.get_runtime_context().get_node_id())
            time.sleep(1000)
        if self.kind == "prints":
            print("noise")
            os.write(1, b"more noise\n")
        return Fingerprint(torch.zeros(1, *case.scenario.input_shape), {})

    def match(self, fingerprint: Fingerprint, replies: Tensor) -> float:
        return 0.5


@dataclass(frozen=True, kw_only=True)
class Crowd(Recipe):
    """Networks as they were initialised. The process does not bear more than `most` at a time,
    nor the one of seed `bad`."""

    name = "crowd"
    needs_parent = False

    model: str = "slim"
    most: int = 100
    bad: int = 0

    def cohort(self) -> tuple[str, int]:
        return self.name, self.most

    def make(self, lab: Lab) -> nn.Module:
        return lab.new(self, self.model)

    @classmethod
    def make_many(cls, recipes: Sequence[Crowd], lab: Lab) -> list[nn.Module]:  # type: ignore[override]
        if len(recipes) > recipes[0].most or any(r.seed == r.bad for r in recipes):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().make_many(recipes, lab)


@hookimpl
def fpbench_recipes() -> list[type[Recipe]]:
    return [Crowd]


@hookimpl
def fpbench_fingerprinters() -> list[type[Fingerprinter]]:
    return [Trouble]
