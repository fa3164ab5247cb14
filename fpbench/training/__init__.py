"""One training loop for every recipe: a cohort at once, each member as if alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from ..api.recipe import Lab, Recipe
from ..api.scenario import Generation, Pool
from ..compute.ways import Way
from .adversarial import Adversarial
from .cohort import Cohort, Learner, last_layer, train
from .losses import Loss

__all__ = ["fit", "last_layer"]


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
) -> None:
    """Train same-architecture models in place, with Adam.

    Each member draws its batch order from its recipe's own generator and its loss touches no
    other member, so it gets the weights it would have got alone, up to rounding; whether members
    train side by side or one after another is a question of speed, answered by measurement (see
    `fpbench.compute.ways`). Only dropout's draws depend on it. A member whose loss is no longer
    finite is reported to the lab; the others go on. The forward pass computes in the scenario's
    `precision`.

    loss:   of one member's batch, (n, *output_shape) and truth (n, ...), a scalar. Without one,
            the task's own training: the scenario's loss, or, for a generator whose architecture
            has a discriminator, a game against a new one.
    layers: "all", or "last" to leave all else as it is, running statistics included.
    cosine: anneal the learning rate to zero over the epochs.
    masks:  per member, by parameter name, 0 where a weight has been pruned and stays so.
    """
    if not epochs:
        return
    scenario = lab.scenario
    learner: type[Learner] = Supervised
    if loss is None and isinstance(scenario, Generation):
        learner = Adversarial if recipes[0].arch in scenario.discriminators else Supervised
    cohort = Cohort(
        lab=lab, recipes=recipes, models=models, pool=Pool(*(t.to(lab.device) for t in pool)),
        loss=loss or scenario.loss, epochs=epochs, lr=lr, batch_size=batch_size, layers=layers,
        cosine=cosine, masks=masks,
    )  # fmt: skip
    train(cohort, learner)


class Supervised(Learner):
    """Inputs have right answers, and a loss tells how far off an output is."""

    def __init__(self, cohort: Cohort, way: Way) -> None:
        super().__init__(cohort, way)
        self.descend = self.adam(self.learned)

    def step(self, batch: Tensor) -> Tensor:
        inputs, truth = self.cohort.pool
        with self.cohort.autocast():
            out = self.stack(inputs[batch], shared=False)
        losses = self.losses(out, truth[batch])
        self.descend(losses.sum())
        self.mask()
        return losses.detach()
