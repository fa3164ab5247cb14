"""Training from scratch, for the target and for independent suspects."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, ClassVar, Literal, Self

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from fpbench import InputError, Lab, Pool, Positive, PositiveFloat, Recipe, Scenario, fit


@dataclass(frozen=True, kw_only=True)
class Trained(Recipe):
    """The fields of recipes that train a cohort. Recipes that differ only in their seed form one.

    epochs:     passes over the pool.
    lr:         learning rate of the optimizer.
    batch_size: inputs per step.
    cosine:     decrease the learning rate to zero along a cosine.
    optimizer:  adam, adamw, or sgd with momentum 0.9.
    weight_decay: decoupled for adamw, L2 for the others.
    augment:    change the inputs at random: flip, shift or cutout for images; noise or mixup for
                any inputs.
    share:      train on this share of the pool. Each model draws its own inputs.
    """

    added: ClassVar[frozenset[str]] = frozenset({"optimizer", "weight_decay", "augment", "share"})

    epochs: Positive = 50
    lr: PositiveFloat = 1e-3
    batch_size: Positive = 64
    cosine: bool = False
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    augment: Literal["none", "flip", "shift", "cutout", "noise", "mixup"] = "none"
    share: Annotated[float, Field(gt=0, le=1)] = 1.0

    @property
    @abstractmethod
    def pool(self) -> str:
        """The pool that the model trains on."""

    def passes(self) -> Mapping[str, int]:
        return {self.pool: self.epochs}

    def cohort(self) -> Hashable:
        return type(self), replace(self, seed=0).digest

    @property
    def variation(self) -> str:
        """The fields of the training that differ from their defaults, as part of a kind."""
        texts = [
            text
            for text, differs in (
                (self.optimizer, self.optimizer != "adam"),
                (f"decay {self.weight_decay:g}", self.weight_decay),
                (self.augment, self.augment != "none"),
                (f"share {self.share:g}", self.share < 1),
            )
            if differs
        ]
        return ", ".join(texts)

    def fit(self, lab: Lab, recipes: Sequence[Recipe], models: Sequence[nn.Module], pool: Pool,
            loss: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:  # fmt: skip
        """Train models as the fields say."""
        fit(
            lab, recipes, models, pool, loss=loss, epochs=self.epochs, lr=self.lr,
            batch_size=self.batch_size, cosine=self.cosine, optimizer=self.optimizer,
            weight_decay=self.weight_decay, augment=self.augment, share=self.share,
        )  # fmt: skip

    def make(self, lab: Lab) -> nn.Module:
        return self.make_many([self], lab)[0]


@dataclass(frozen=True, kw_only=True)
class Train(Trained):
    """Train a new model on the labels of a pool.

    model: the architecture.
    pool:  "train" is the owner's data, "public" is other data of the same domain, "irrelevant" is
           data of another domain.
    label_smoothing: the share of each label that is spread over all classes; for classifiers.
    """

    name = "train"
    needs_parent = False

    model: str
    pool: Literal["train", "public", "irrelevant"] = "train"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    added: ClassVar[frozenset[str]] = Trained.added | {"label_smoothing"}

    @property
    def kind(self) -> str:
        if self.pool == "irrelevant":
            return "irrelevant"
        smoothing = f"smoothing {self.label_smoothing:g}" if self.label_smoothing else ""
        parts = filter(None, (self.pool, self.variation, smoothing))
        return f"independent {self.model} ({', '.join(parts)})"

    @classmethod
    def make_many(cls, recipes: Sequence[Self], lab: Lab) -> list[nn.Module]:
        one = recipes[0]
        models = [lab.new(recipe, recipe.model) for recipe in recipes]
        one.fit(lab, recipes, models, lab.scenario.data(one.pool), one._loss(lab.scenario))
        return models

    def _loss(self, scenario: Scenario) -> Callable[[Tensor, Tensor], Tensor] | None:
        """Return the loss with smoothed labels, or None for the scenario's own.

        Raises InputError if the scenario has no classes.
        """
        if not self.label_smoothing:
            return None
        if scenario.task != "classification":
            raise InputError(
                f"label_smoothing: expected 0 for {scenario}, whose task is {scenario.task}, got "
                f"{self.label_smoothing:g}"
            )
        return partial(F.cross_entropy, label_smoothing=self.label_smoothing)
