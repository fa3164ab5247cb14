"""A new task brings its own training loop, without a change in fpbench."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from toys import Blobs, Drawn

import fpbench
from conftest import Bench
from fpbench.training import Learner, learner_of


class Backwards(Blobs):
    """A task that is learned by climbing the loss."""

    name = "backwards"


@learner_of.register
def _(scenario: Backwards, arch: str) -> type[Learner]:
    return Climber


class Climber(Learner):
    """Goes up the gradient of each member's own loss."""

    def step(self, batch: Tensor) -> Tensor:
        inputs, truth = self.cohort.pool
        losses = self.losses(self.stack(inputs[batch], shared=False), truth[batch])
        slopes = torch.autograd.grad(losses.sum(), self.learned)
        with torch.no_grad():
            for weight, slope in zip(self.learned, slopes, strict=True):
                weight += 0.1 * slope
        return losses.detach()


def loss_after_training(scenario: Blobs, loss=None) -> float:
    torch.manual_seed(0)
    networks = [nn.Linear(2, 3) for _ in range(2)]
    recipes = [Drawn(scenario=str(scenario), model="slim", seed=seed) for seed in range(2)]
    pool = scenario.data("train")
    fpbench.fit(
        Bench(scenario=scenario), recipes, networks, pool,
        loss=loss, epochs=3, lr=0.05, batch_size=16,
    )  # fmt: skip
    return sum(float(scenario.loss(network(pool.inputs), pool.truth)) for network in networks)


def test_a_task_trains_by_the_learner_that_it_registers():
    assert loss_after_training(Backwards()) > loss_after_training(Blobs()) + 1


def test_a_recipe_with_a_loss_of_its_own_descends_that():
    scenario = Backwards()
    assert loss_after_training(scenario, scenario.loss) < loss_after_training(scenario) - 1
