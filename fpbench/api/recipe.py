"""Recipes: how a model of the zoo is made. A model's name follows from its recipe."""

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

from .fields import Count, changed_fields, fields_as_json, validate
from .scenario import Scenario

SCHEME = 1
"""The version of the digest. Another scheme gives every model another name."""

_LINEAGE = frozenset({"scenario", "parent", "seed"})


class Lab(Protocol):
    """The tools that a recipe gets to make models."""

    scenario: Scenario
    device: torch.device

    def parent(self, recipe: Recipe) -> nn.Module:
        """Return a new copy of the recipe's parent on the device. The recipe may change it."""

    def new(self, recipe: Recipe, model: str) -> nn.Module:
        """Return a new model of the architecture `model`, initialised from the recipe's digest."""

    def rng(self, recipe: Recipe) -> torch.Generator:
        """Return a CPU generator. The recipe's digest seeds it, so the order of work has no
        influence on the model."""

    def failed(self, recipe: Recipe, reason: str) -> None:
        """Report that a recipe's model could not be made. The rest of its cohort continues."""


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """The way in which one model is made. Subclass it, add fields and write `make`.

    The fields identify the model: equal recipes stand for the same model, in every suite.

    scenario: the scenario's name and fields, in the form of `str(scenario)`.
    parent:   the recipe of the model that this one starts from; None for training from scratch.
    seed:     the number that distinguishes copies.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """Raise it when `make` makes a different model from the same fields."""

    needs_parent: ClassVar[bool | None] = True
    """Whether the recipe starts from another model, as an obfuscation does; None if it may."""

    recorded: ClassVar[bool] = False
    """Whether the model is a table of recorded answers, for scenarios with this attribute."""

    places: ClassVar[frozenset[str]] = frozenset()
    """Fields that do not identify the model, because they say where something is, such as a path,
    or to which kind it belongs in reports."""

    added: ClassVar[frozenset[str]] = frozenset()
    """Fields that an earlier version of the recipe did not have. At their defaults they do not
    identify the model, so models that were made before keep their names."""

    scenario: str
    parent: Recipe | None = None
    seed: Count = 0

    def __post_init__(self) -> None:
        validate(self, skip=frozenset({"scenario", "parent"}))

    @functools.cached_property
    def digest(self) -> str:
        """The sha256 of the lineage as canonical JSON. It is the model's name in every store."""
        text = json.dumps(self._entry(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def _entry(self) -> dict[str, Any]:
        changed = changed_fields(self) if self.added else {}
        return {
            "scheme": SCHEME,
            "recipe": self.name,
            "version": self.version,
            "fields": {
                name: value
                for name, value in fields_as_json(self, skip=self.places | {"parent"}).items()
                if name not in self.added or name in changed
            },
            "parent": self.parent.digest if self.parent else None,
        }

    def describe(self) -> list[dict[str, Any]]:
        """Return the lineage as JSON values, oldest ancestor first."""
        return [{**step._entry(), "digest": step.digest} for step in reversed([*self.lineage()])]

    @property
    def arch(self) -> str:
        """The architecture's name: the recipe's own field `model`, else the parent's `arch`."""
        own: str | None = getattr(self, "model", None)
        if own is not None:
            return own
        assert self.parent is not None, f"{self.name} has neither a model field nor a parent"
        return self.parent.arch

    @property
    def kind(self) -> str:
        """The group that the model belongs to in reports and in stratified splits."""
        return self.name

    @property
    def uses_seed(self) -> bool:
        """Whether another seed makes another model. A suite must not contain two recipes that
        differ only in a seed that has no effect."""
        return True

    @property
    def source_sha256(self) -> str | None:
        """The sha256 of the file that the model's weights come from; None if they are made.

        Models of the same file are twins, which is known before they are made.
        """
        return None

    def lineage(self) -> Iterator[Recipe]:
        """Yield this recipe, its parent, and so on to the oldest ancestor."""
        step: Recipe | None = self
        while step is not None:
            yield step
            step = step.parent

    def descends_from(self, target: Recipe) -> bool:
        """Return True for the target itself and for its positives.

        Labels of suspects always come from here. A user states them only for models from files, as
        their parents.
        """
        return any(step.digest == target.digest for step in self.lineage())

    def __str__(self) -> str:
        fields = ",".join(
            f"{value}" if key == "model" else f"{key}={value}"
            for key, value in changed_fields(self, skip=_LINEAGE).items()
        )
        own = f"{self.name}({fields})#{self.seed}" if fields else f"{self.name}#{self.seed}"
        return f"{self.parent} > {own}" if self.parent else own

    @classmethod
    def default_zoo(
        cls, scenario: Scenario, target: Mapping[str, Any], train: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """Return the key `zoo` for suites whose target has this recipe and that name no suspects.

        target: the fields of the target in the suite.
        train:  the fields of the recipe `train`, as the suite sets them or by default.

        Default: None, so the suite must name its suspects. Raises FieldError for a target that can
        have none.
        """
        del scenario, target, train
        return None

    @abstractmethod
    def make(self, lab: Lab) -> nn.Module:
        """Make the model. `lab` provides the parent, the scenario, seeded generators, a device."""

    def known_utility(self, lab: Lab) -> dict[str, float] | None:
        """Return the model's utility if it is known before the model is asked. Default: None."""
        del lab
        return None

    def passes(self) -> Mapping[str, int]:
        """Return the epochs of training on each pool, for estimates of time. Default: none."""
        return {}

    def cohort(self) -> Hashable:
        """Return a key: one call of `make_many` makes all recipes with equal keys.

        Default: every recipe has its own cohort.
        """
        return self.digest

    @classmethod
    def make_many(cls, recipes: Sequence[Self], lab: Lab) -> list[nn.Module]:
        """Make a cohort. Default: call `make` for one recipe after another."""
        return [recipe.make(lab) for recipe in recipes]
