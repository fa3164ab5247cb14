"""One training loop for every recipe: a cohort at once, each member as if it were alone.

A recipe calls `fit`. A task whose models are not trained on a loss of their outputs registers a
`Learner` of its own for its scenario class:

    @learner_of.register
    def _(scenario: MyTask, arch: str) -> type[Learner]:
        return MyLearner
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import singledispatch

import torch
from torch import Tensor, nn

from ..api.recipe import Lab, Recipe
from ..api.scenario import Generation, Pool, Scenario
from ..compute.stack import Way
from .adversarial import Adversarial
from .augment import Augment, Augmenter
from .cohort import Cohort, Learner, Optimizer, last_layer, train
from .losses import Loss

__all__ = ["Learner", "Supervised", "fit", "last_layer", "learner_of"]


def fit(
    lab: Lab,
    recipes: Sequence[Recipe],
    models: Sequence[nn.Module],
    pool: Pool,
    *,
    loss: Loss | None = None,
    epochs: int,
    lr: float,
    batch_size: int,
    layers: str = "all",
    cosine: bool = False,
    masks: Sequence[Mapping[str, Tensor]] | None = None,
    optimizer: Optimizer = "adam",
    weight_decay: float = 0.0,
    augment: Augment = "none",
    share: float = 1.0,
) -> None:
    """Train same-architecture models in place.

    Each member draws its batch order from its recipe's own generator, and its loss touches no
    other member. So it gets the weights that it would have got alone, up to rounding; only the
    draws of dropout differ. A rule says whether members train side by side or one after another
    (`fpbench.compute.stack.choose_way`). A member whose loss is no longer finite is reported to
    the lab; the others go on. The forward pass computes in the scenario's `precision`.

    loss:   of one member's batch, (n, *output_shape) and truth (n, ...), a scalar. Without one,
            the task's own training, see `learner_of`.
    layers: "all", or "last" to leave all else as it is, running statistics included.
    cosine: anneal the learning rate to zero over the epochs.
    masks:  per member, by parameter name, 0 where a weight has been pruned and stays so.
    optimizer: Adam, AdamW, or SGD with momentum 0.9.
    weight_decay: decoupled from the gradient for AdamW, else added to it (L2).
    augment: how inputs are changed, see `Augmenter`. Adversarial training ignores it.
    share:  the share of the pool, in (0, 1], that each member learns from. Each draws its own.

    Raises InputError for an `augment` that the scenario's inputs do not allow.
    """
    if not epochs:
        return
    scenario = lab.scenario
    learner = learner_of(scenario, recipes[0].arch) if loss is None else Supervised
    cohort = Cohort(
        lab=lab, recipes=recipes, models=models, pool=Pool(*(t.to(lab.device) for t in pool)),
        loss=loss or scenario.loss, epochs=epochs, lr=lr, batch_size=batch_size, layers=layers,
        cosine=cosine, masks=masks, optimizer=optimizer, weight_decay=weight_decay,
        augment=augment, share=share,
    )  # fmt: skip
    train(cohort, learner)


class Supervised(Learner):
    """Learns inputs with right answers, by a loss that says how far off an output is."""

    def __init__(self, cohort: Cohort, way: Way) -> None:
        super().__init__(cohort, way)
        self.descend = self.descent(self.learned)
        self.augmenter: Augmenter | None = None
        if cohort.augment != "none":
            inputs = cohort.pool.inputs
            self.augmenter = Augmenter(cohort.augment, cohort.lab, cohort.recipes, inputs)

    def step(self, batch: Tensor) -> Tensor:
        inputs, truth = self.cohort.pool
        x, mixed = inputs[batch], None
        if self.augmenter and self.augmenter.kind == "mixup":
            mixed, others = self.augmenter.mixing(batch.shape[1], x.device)
            batch_of_others = batch.gather(1, others)
            x = torch.lerp(inputs[batch_of_others], x, mixed.view(-1, *[1] * (x.ndim - 1)))
        elif self.augmenter:
            x = self.augmenter(x)
        with self.cohort.autocast():
            out = self.stack(x, shared=False)
        losses = self.losses(out, truth[batch])
        if mixed is not None:
            losses = mixed * losses + (1 - mixed) * self.losses(out, truth[batch_of_others])
        self.descend(losses.sum())
        self.mask()
        return losses.detach()


@singledispatch
def learner_of(scenario: Scenario, arch: str) -> type[Learner]:
    """Return what trains an architecture of a scenario where a recipe gives no loss of its own.

    By default `Supervised`, with the scenario's loss.
    """
    return Supervised


@learner_of.register
def _(scenario: Generation, arch: str) -> type[Learner]:
    """Train a generator against a new discriminator, if its architecture has one."""
    return Adversarial if arch in scenario.discriminators else Supervised
