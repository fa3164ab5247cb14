"""Fine-tuning and partial retraining: FTLL, FTAL, RTLL, RTAL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from torch import nn

from fpbench import Lab, Positive, fit, last_layer

from .train import Trained


@dataclass(frozen=True, kw_only=True)
class Finetune(Trained):
    """Continue to train the target on labels of public data (MetaV, section 5.2: 10 epochs).

    layers: "last" trains only the output layer, "all" trains all layers.
    pool:   the attacker's data.
    """

    name = "finetune"
    code: ClassVar[str] = "FT"
    reset: ClassVar[bool] = False

    layers: Literal["last", "all"]
    pool: Literal["train", "public"] = "public"
    epochs: Positive = 10

    @property
    def kind(self) -> str:
        return self.code + {"last": "LL", "all": "AL"}[self.layers]

    @classmethod
    def make_many(cls, recipes: Sequence[Self], lab: Lab) -> list[nn.Module]:
        one = recipes[0]
        models = [lab.parent(recipe) for recipe in recipes]
        if cls.reset:
            for recipe, model in zip(recipes, models, strict=True):
                fresh, name = lab.new(recipe, recipe.arch), last_layer(model)
                model.get_submodule(name).load_state_dict(fresh.get_submodule(name).state_dict())
        fit(
            lab, recipes, models, lab.scenario.data(one.pool),
            epochs=one.epochs, lr=one.lr, batch_size=one.batch_size, cosine=one.cosine,
            layers=one.layers,
        )  # fmt: skip
        return models


@dataclass(frozen=True, kw_only=True)
class Retrain(Finetune):
    """Re-initialise the output layer, then fine-tune (MetaV, section 5.2).

    layers: "last" trains only the new output layer, "all" trains all layers.
    pool:   the attacker's data.
    """

    name = "retrain"
    code = "RT"
    reset = True
