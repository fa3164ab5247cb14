"""A loose plugin of toys: tasks, networks, recipes and methods that take milliseconds."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fpbench import (
    Access,
    Case,
    Classification,
    Fingerprint,
    Fingerprinter,
    Generation,
    Lab,
    Pool,
    Recipe,
    Regression,
    Scenario,
    agreement,
    hookimpl,
)


def wide() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))


def slim() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3))


def straight() -> nn.Module:
    return nn.Linear(2, 3)


@dataclass(frozen=True)
class Blobs(Classification):
    """Three clouds in the plane."""

    name = "blobs"
    input_shape = (2,)
    output_shape = (3,)
    input_range = (-1.0, 1.0)
    architectures = {"wide": wide, "slim": slim, "straight": straight}  # noqa: RUF012

    def load(self) -> Mapping[str, Pool]:
        rng = torch.Generator().manual_seed(0)
        return {pool: blobs(60, rng) for pool in ("train", "public", "irrelevant", "test")}


def blobs(n: int, rng: torch.Generator) -> Pool:
    centres = torch.tensor([[-0.5, -0.5], [0.5, -0.5], [0.0, 0.6]])
    truth = torch.arange(n) % 3
    noise = 0.3 * torch.randn(n, 2, generator=rng)
    return Pool((centres[truth] + noise).clamp(-1, 1), truth)


@dataclass(frozen=True)
class Line(Regression):
    """A number from another."""

    name = "line"
    input_shape = (1,)
    output_shape = (1,)
    input_range = (-1.0, 1.0)
    architectures = {"one": lambda: nn.Sequential(nn.Linear(1, 4), nn.Linear(4, 1))}  # noqa: RUF012

    def load(self) -> Mapping[str, Pool]:
        x = torch.linspace(-1, 1, 40)[:, None]
        return {pool: Pool(x, 2 * x) for pool in ("train", "public", "irrelevant", "test")}


@dataclass(frozen=True)
class Strokes(Generation):
    """Pictures of 4 x 3 from two numbers."""

    name = "strokes"
    input_shape = (2,)
    output_shape = (12,)
    input_range = (-1.0, 1.0)
    architectures = {"slim": lambda: nn.Sequential(nn.Linear(2, 12), nn.Tanh())}  # noqa: RUF012

    def load(self) -> Mapping[str, Pool]:
        rng = torch.Generator().manual_seed(0)
        codes = self.latents(10, rng)
        return {
            pool: Pool(codes, codes.repeat(1, 6))
            for pool in ("train", "public", "irrelevant", "test")
        }

    def pictures(self, output: Tensor) -> Tensor:
        return (output.unflatten(1, (4, 3)) + 1) / 2


@dataclass(frozen=True)
class Points(Generation):
    """A number near 0.7, in double precision so that two ways of computing can be compared."""

    name = "points"
    input_shape = (3,)
    output_shape = (1,)
    input_range = (-1.0, 1.0)
    architectures = {  # noqa: RUF012
        "slim": lambda: nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1)).double()
    }
    discriminators = {  # noqa: RUF012
        "slim": lambda: nn.Sequential(nn.Linear(1, 8), nn.LeakyReLU(), nn.Linear(8, 1)).double()
    }

    def latents(self, n: int, rng: torch.Generator) -> Tensor:
        return super().latents(n, rng).double()

    def load(self) -> Mapping[str, Pool]:
        rng = torch.Generator().manual_seed(0)
        near = 0.7 + 0.05 * torch.randn(256, 1, generator=rng, dtype=torch.double)
        pools = ("train", "public", "irrelevant", "test")
        return {pool: Pool(self.latents(256, rng), near) for pool in pools}


@dataclass(frozen=True, kw_only=True)
class Drawn(Recipe):
    """A network as it was initialised; writes its name into a file each time it is made."""

    name = "drawn"
    needs_parent = False

    model: str = "slim"
    trouble: str = ""

    def make(self, lab: Lab) -> nn.Module:
        if log := os.environ.get("TOYS_MADE"):
            with Path(log).open("a") as file:
                file.write(f"{self}\n")
            time.sleep(float(os.environ.get("TOYS_SLEEP", "0")))
        if self.trouble == "raises":
            raise RuntimeError("no luck today")
        if self.trouble == "exits":
            raise SystemExit(0)
        if self.trouble == "another":
            return nn.Linear(7, 5)
        model = lab.new(self, self.model)
        if self.trouble == "nan":
            nn.init.constant_(next(model.parameters()), float("nan"))
        return model


@dataclass(frozen=True, kw_only=True)
class Nudged(Recipe):
    """The parent with a little noise on its weights."""

    name = "nudged"

    by: float = 0.01

    def make(self, lab: Lab) -> nn.Module:
        model, rng = lab.parent(self), lab.rng(self)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(self.by * torch.randn(p.shape, generator=rng))
        return model


@dataclass(frozen=True, kw_only=True)
class Grid(Fingerprinter):
    """Ask points drawn from the input range, expect the target's labels."""

    name = "grid"
    accepts = frozenset(Access)

    n_queries: int = 40

    def construct(self, case: Case) -> Fingerprint:
        low, high = case.scenario.input_range
        shape = (self.n_queries, *case.scenario.input_shape)
        x = low + (high - low) * torch.rand(shape, generator=case.rng)
        with torch.no_grad():
            labels = case.target(x).argmax(-1)
        return Fingerprint(x, {"labels": labels})

    def match(self, fingerprint: Fingerprint, replies: Tensor) -> float:
        return agreement(replies, fingerprint.evidence["labels"])


@dataclass(frozen=True, kw_only=True)
class Picky(Grid):
    """Declines every scenario."""

    name = "picky"

    def declines(self, scenario: Scenario) -> str | None:
        return f"picky does not like {scenario.name}"


@hookimpl
def fpbench_scenarios() -> list[type[Scenario]]:
    return [Blobs, Line, Strokes, Points]


@hookimpl
def fpbench_recipes() -> list[type[Recipe]]:
    return [Drawn, Nudged]


@hookimpl
def fpbench_fingerprinters() -> list[type[Fingerprinter]]:
    return [Grid, Picky]
