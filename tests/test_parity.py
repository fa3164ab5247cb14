"""Our attacks against those of foolbox and of the Adversarial Robustness Toolbox (ART).

Same model, same points, same settings. Only this file needs both packages. They take seconds to
import, so they are imported in the tests, not in every process that collects this file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from fpbench import deepfool, descend, pgd
from fpbench.testing import TOYS, toy_zoo

if TYPE_CHECKING:
    from art.estimators.classification import PyTorchClassifier

POINTS = 80
STEPS, OVERSHOOT, CANDIDATES = 50, 0.02, 10
BOX, NO_BOX = (0.0, 1.0), (-1e6, 1e6)
PEERS = ("foolbox", "art")


class Attacked:
    """A trained classifier, the points it is attacked on, and its peers' attacks on them."""

    def __init__(self, model: nn.Module, inputs: Tensor) -> None:
        self.model = model
        self.x = inputs[:POINTS]
        self.labels = model(self.x).argmax(1)

    def flipped(self, moved: Tensor) -> Tensor:
        return self.model(moved).argmax(1) != self.labels

    def loss(self, moved: Tensor) -> Tensor:
        """What PGD is to make grow, point by point."""
        return F.cross_entropy(self.model(moved), self.labels, reduction="none")

    def margin(self, moved: Tensor) -> Tensor:
        """By how much the largest other logit beats the first label's."""
        z = self.model(moved)
        first = F.one_hot(self.labels, z.shape[1]).bool()
        return z.masked_fill(first, -torch.inf).amax(1) - z[first]

    def art(self, box: tuple[float, float]) -> PyTorchClassifier:
        from art.estimators.classification import PyTorchClassifier

        classes = self.model(self.x[:1]).shape[1]
        return PyTorchClassifier(
            self.model, nn.CrossEntropyLoss(), tuple(self.x.shape[1:]), classes,
            # Without a box ART must be told of none: it scales its steps by the box's width.
            clip_values=box if box == BOX else None,
        )  # fmt: skip

    def deepfool_by(self, peer: str, box: tuple[float, float]) -> Tensor:
        import foolbox
        from art.attacks.evasion import DeepFool

        if peer == "foolbox":
            attack = foolbox.attacks.L2DeepFoolAttack(
                steps=STEPS, overshoot=OVERSHOOT, candidates=CANDIDATES
            )
            return attack.run(foolbox.PyTorchModel(self.model, bounds=box), self.x, self.labels)
        attack = DeepFool(self.art(box), max_iter=STEPS, epsilon=OVERSHOOT, nb_grads=CANDIDATES,
                          batch_size=len(self.x), verbose=False)  # fmt: skip
        return torch.from_numpy(attack.generate(self.x.numpy()))

    def pgd_by(self, peer: str, eps: float, step: float, steps: int) -> Tensor:
        import foolbox
        from art.attacks.evasion import ProjectedGradientDescent

        if peer == "foolbox":
            attack = foolbox.attacks.LinfProjectedGradientDescentAttack(
                abs_stepsize=step, steps=steps, random_start=False
            )
            model = foolbox.PyTorchModel(self.model, bounds=BOX)
            return attack.run(model, self.x, self.labels, epsilon=eps)
        attack = ProjectedGradientDescent(
            self.art(BOX), eps=eps, eps_step=step, max_iter=steps, num_random_init=0,
            batch_size=len(self.x), verbose=False,
        )  # fmt: skip
        return torch.from_numpy(attack.generate(self.x.numpy(), self.labels.numpy()))


@pytest.fixture(scope="module", params=["toy", "digits"])
def attacked(request: pytest.FixtureRequest) -> Attacked:
    """A small fully connected network, and a convolutional one on the digits."""
    if request.param == "toy":
        zoo = toy_zoo(TOYS[0])
        return Attacked(zoo.target, zoo.scenario.data("train").inputs)
    found = load_digits()
    inputs = torch.from_numpy(found.images[:700]).float()[:, None] / 16
    truth = torch.from_numpy(found.target[:700])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10),
        )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), truth).backward()
        optimizer.step()
    return Attacked(model.eval().requires_grad_(False), inputs)


def ours(attacked: Attacked, box: tuple[float, float]) -> Tensor:
    return deepfool(attacked.model, attacked.x, box,
                    steps=STEPS, overshoot=OVERSHOOT, candidates=CANDIDATES)  # fmt: skip


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("box", [NO_BOX, BOX], ids=["unclipped", "clipped"])
def test_deepfool_flips_as_many_points_as_far_away(
    attacked: Attacked, peer: str, box: tuple[float, float]
) -> None:
    found, theirs = ours(attacked, box), attacked.deepfool_by(peer, box)
    assert attacked.flipped(found).sum() >= attacked.flipped(theirs).sum()
    mean = (found - attacked.x).flatten(1).norm(dim=1).mean()
    wanted = (theirs - attacked.x).flatten(1).norm(dim=1).mean()
    assert float(mean) == pytest.approx(float(wanted), rel=0.02)


def test_along_the_border_deepfool_ends_past_the_boundary_where_foolbox_stops_on_it(
    attacked: Attacked,
) -> None:
    found = deepfool(attacked.model, attacked.x, BOX, steps=STEPS, overshoot=OVERSHOOT,
                     candidates=CANDIDATES, along_border=True)  # fmt: skip
    theirs = attacked.deepfool_by("foolbox", BOX)
    assert attacked.margin(found).median() > 5 * attacked.margin(theirs).median()


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize(("eps", "step", "steps"), [(0.03, 0.003, 10), (0.2, 0.05, 20)])
def test_pgd_finds_the_same_points(
    attacked: Attacked, peer: str, eps: float, step: float, steps: int
) -> None:
    found = pgd(attacked.loss, attacked.x, BOX, eps=eps, step=step, steps=steps)
    theirs = attacked.pgd_by(peer, eps, step, steps)
    torch.testing.assert_close(found, theirs, rtol=0, atol=1e-5)


def test_descending_points_go_as_torchs_adam_takes_each_alone() -> None:
    rng = torch.Generator().manual_seed(0)
    goals, start = torch.rand(2, 30, 5, generator=rng, dtype=torch.double)

    def alone(i: int) -> Tensor:
        x = start[i].clone().requires_grad_()
        optimizer = torch.optim.Adam([x], lr=0.02)
        for _ in range(25):
            loss = (x - goals[i]).square().sum()
            if loss <= 0.01:
                break
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            x.data.clamp_(0.0, 1.0)
        return x.detach()

    found = descend(lambda x, which: (x - goals[which]).square().sum(1), start, (0.0, 1.0),
                    lr=0.02, steps=25, enough=0.01)  # fmt: skip
    arrived = (found - goals).square().sum(1) <= 0.01
    assert arrived.any()
    assert not arrived.all()
    torch.testing.assert_close(found, torch.stack([alone(i) for i in range(30)]))
