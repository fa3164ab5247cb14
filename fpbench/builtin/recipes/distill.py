"""Distillation: a new model learns the target's replies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import nn

from fpbench import Lab, Pool

from .train import Trained


@dataclass(frozen=True, kw_only=True)
class Distill(Trained):
    """Train a new model on the target's replies instead of labels (MetaV, section 5.2).

    The loss is the scenario's `distill_loss`: Hinton's for classifiers, mean squared error for
    regressors. The teacher replies once to each input, because an attacker would pay an API for
    each query.

    model: the student's architecture.
    pool:  the pool of the inputs that the teacher replies to.
    """

    name = "distill"

    model: str
    pool: Literal["train", "public"] = "public"

    @property
    def kind(self) -> str:
        return f"distilled {self.model}" + (f" ({self.variation})" if self.variation else "")

    @classmethod
    def make_many(cls, recipes: Sequence[Self], lab: Lab) -> list[nn.Module]:
        one = recipes[0]
        teacher = lab.parent(one)
        inputs = lab.scenario.data(one.pool).inputs
        with torch.no_grad():
            answers = torch.cat([teacher(x.to(lab.device)) for x in inputs.split(256)])
        models = [lab.new(recipe, recipe.model) for recipe in recipes]
        one.fit(lab, recipes, models, Pool(inputs, answers), lab.scenario.distill_loss)
        return models
