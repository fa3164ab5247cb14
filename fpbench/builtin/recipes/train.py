"""Training from scratch, for the target and for independent suspects."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

from torch import nn

from fpbench import Lab, Positive, PositiveFloat, Recipe, fit


@dataclass(frozen=True, kw_only=True)
class Trained(Recipe):
    """The fields of recipes that train a cohort. Recipes that differ only in their seed form one.

    epochs:     passes over the pool.
    lr:         Adam's learning rate.
    batch_size: inputs per step.
    cosine:     decrease the learning rate to zero along a cosine.
    """

    epochs: Positive = 50
    lr: PositiveFloat = 1e-3
    batch_size: Positive = 64
    cosine: bool = False

    @property
    @abstractmethod
    def pool(self) -> str:
        """The pool that the model trains on."""

    def passes(self) -> Mapping[str, int]:
        return {self.pool: self.epochs}

    def cohort(self) -> Hashable:
        return type(self), replace(self, seed=0).digest

    def make(self, lab: Lab) -> nn.Module:
        return self.make_many([self], lab)[0]


@dataclass(frozen=True, kw_only=True)
class Train(Trained):
    """Train a new model on the labels of a pool.

    model: the architecture.
    pool:  "train" is the owner's data, "public" is other data of the same domain, "irrelevant" is
           data of another domain.
    """

    name = "train"
    needs_parent = False

    model: str
    pool: Literal["train", "public", "irrelevant"] = "train"

    @property
    def kind(self) -> str:
        if self.pool == "irrelevant":
            return "irrelevant"
        return f"independent {self.model} ({self.pool})"

    @classmethod
    def make_many(cls, recipes: Sequence[Self], lab: Lab) -> list[nn.Module]:
        one = recipes[0]
        models = [lab.new(recipe, recipe.model) for recipe in recipes]
        fit(
            lab, recipes, models, lab.scenario.data(one.pool),
            epochs=one.epochs, lr=one.lr, batch_size=one.batch_size, cosine=one.cosine,
        )  # fmt: skip
        return models
