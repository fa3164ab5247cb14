"""How one model of the zoo comes to be: a model is named by how it was made."""

from __future__ import annotations

import functools
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import nn

from .fields import Count, changed, plain, validate
from .scenario import Scenario

SCHEME = 1
"""The version of the digest itself; another scheme means another zoo."""

_LINEAGE = frozenset({"scenario", "parent", "seed"})


class Lab(Protocol):
    """What a recipe may use while it makes models."""

    scenario: Scenario
    device: torch.device

    def parent(self, recipe: Recipe) -> nn.Module:
        """A fresh copy of the recipe's parent on the device, safe to change."""

    def new(self, recipe: Recipe, model: str) -> nn.Module:
        """A new model of an architecture, initialised from the recipe's seed."""

    def rng(self, recipe: Recipe) -> torch.Generator:
        """A CPU generator seeded by the recipe's digest, so that order of work cannot matter."""

    def failed(self, recipe: Recipe, reason: str) -> None:
        """Report that this member could not be made; the rest of its cohort goes on."""


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """How one model comes to be. Subclass it, add fields, write `make`.

    Fields name the model: two equal recipes are one model, in this suite and in every other.

    scenario: the scenario's name and its fields, as `str(scenario)` prints them.
    parent:   the model this one is made from; None for a model trained from scratch.
    seed:     what tells copies apart.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """Raise it when `make` starts to mean something else."""

    needs_parent: ClassVar[bool] = True
    """Whether the recipe starts from another model (an obfuscation) or from nothing."""

    places: ClassVar[frozenset[str]] = frozenset()
    """Fields that tell where something lies, not what it is: no part of the model's name."""

    scenario: str
    parent: Recipe | None = None
    seed: Count = 0

    def __post_init__(self) -> None:
        validate(self, skip=frozenset({"scenario", "parent"}))

    @functools.cached_property
    def digest(self) -> str:
        """sha256 of the lineage as canonical JSON: the model's name in every store."""
        text = json.dumps(self._entry(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def _entry(self) -> dict[str, Any]:
        return {
            "scheme": SCHEME,
            "recipe": self.name,
            "version": self.version,
            "fields": plain(self, skip=self.places | {"parent"}),
            "parent": self.parent.digest if self.parent else None,
        }

    def describe(self) -> list[dict[str, Any]]:
        """The lineage as JSON, oldest first."""
        return [{**step._entry(), "digest": step.digest} for step in reversed([*self.lineage()])]

    @property
    def arch(self) -> str:
        """The architecture's name: its own field `model`, else the parent's."""
        own: str | None = getattr(self, "model", None)
        if own is not None:
            return own
        assert self.parent is not None, f"{self.name} has neither a model field nor a parent"
        return self.parent.arch

    @property
    def kind(self) -> str:
        """What reports group this model under and splits are stratified by."""
        return self.name

    def lineage(self) -> Iterator[Recipe]:
        """This recipe, its parent, and so on to the first."""
        step: Recipe | None = self
        while step is not None:
            yield step
            step = step.parent

    def descends_from(self, target: Recipe) -> bool:
        """True for a positive suspect of `target`. Labels are read off, never written."""
        return any(step.digest == target.digest for step in self.lineage())

    def __str__(self) -> str:
        fields = ",".join(
            f"{value}" if key == "model" else f"{key}={value}"
            for key, value in changed(self, skip=_LINEAGE).items()
        )
        own = f"{self.name}({fields})#{self.seed}" if fields else f"{self.name}#{self.seed}"
        return f"{self.parent} > {own}" if self.parent else own

    @abstractmethod
    def make(self, lab: Lab) -> nn.Module:
        """Make the model. `lab` hands out the parent, the scenario, seeded rngs, a device."""

    def passes(self) -> Mapping[str, int]:
        """Epochs of training on each pool, to estimate how long it takes. Default: none."""
        return {}

    def cohort(self) -> Hashable:
        """Recipes with equal cohorts are made together by one `make_many`. Default: alone."""
        return self.digest

    @classmethod
    def make_many(cls, recipes: Sequence[Self], lab: Lab) -> list[nn.Module]:
        """Make a cohort. Default: one `make` after another."""
        return [recipe.make(lab) for recipe in recipes]
