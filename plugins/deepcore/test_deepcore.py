"""DeepCore beyond the contract: where its points lie, and what each identification reads."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from fpbench_deepcore import CorePoints, DeepCore, DeepCoreCluster
from torch import nn

from fpbench import Access, Fingerprint, Pool, TrialError
from fpbench.testing import TOYS, ToyClassification, Zoo, toy_zoo

ZOO = toy_zoo(TOYS[0])
ALL: list[CorePoints] = [
    DeepCore(n_queries=30, identify="cosine"),
    DeepCore(n_queries=30, identify="divergence"),
    DeepCoreCluster(n_queries=30),
]
EACH = pytest.mark.parametrize("method", ALL, ids=str)


@cache
def made(method: CorePoints) -> Fingerprint:
    return method.construct(ZOO.case(method, Access.PROBS))


def rates(method: CorePoints, models: list[nn.Module]) -> list[float]:
    fingerprint = made(method)
    return [method.verify(fingerprint, ZOO.oracle(m, Access.PROBS)) for m in models]


def likeness(method: DeepCore, one: list[float], two: list[float]) -> float:
    """The rate of a suspect that replies `two` where the target replies `one`."""
    fingerprint = Fingerprint(torch.zeros(1, 1), {"replies": torch.tensor([one])})
    return method.match(fingerprint, torch.tensor([two]))


@pytest.mark.parametrize("start", ["noise", "data"])
def test_the_target_is_surer_of_core_points_than_of_its_training_inputs(start: str) -> None:
    method = DeepCore(n_queries=30, start=start, confidence=0.9999)
    sure = ZOO.target(made(method).queries).softmax(1).amax(1)
    known = ZOO.target(ZOO.scenario.data("train").inputs).softmax(1).amax(1)
    assert sure.min() > known.quantile(0.75)


@pytest.mark.parametrize("n", [30, 12, 3])
def test_classes_have_equal_shares(n: int) -> None:
    labels = ZOO.target(made(DeepCore(n_queries=n)).queries).argmax(1)
    counts = labels.bincount(minlength=5)
    assert counts.sum() == n
    assert counts.max() - counts.min() <= 1


def test_points_stop_at_the_confidence_asked_for() -> None:
    method = DeepCore(n_queries=30, start="noise", confidence=0.6)
    sure = ZOO.target(made(method).queries).softmax(1).amax(1)
    assert sure.min() > 0.6
    # A point may start beyond it; those that had to move were not carried on.
    assert sure.median() < 0.75


def test_a_larger_pool_gives_surer_points() -> None:
    doubt = []
    for pool in (1, 4):
        x = made(DeepCore(n_queries=30, steps=60, pool=pool)).queries
        doubt.append(1 - ZOO.target(x).softmax(1).amax(1).mean())
    assert doubt[1] < doubt[0]


@EACH
def test_copies_rate_above_strangers(method: CorePoints) -> None:
    # The second half: the first is the ensemble that the cluster learns from.
    copies = rates(method, ZOO.positives[4::2])
    strangers = rates(method, ZOO.negatives[3:])
    assert min(copies) > max(strangers)


@EACH
@pytest.mark.parametrize("reply", [float("nan"), 0.2, 0.0])
def test_a_broken_models_replies_rate_below_the_target(method: CorePoints, reply: float) -> None:
    broken = method.match(made(method), torch.full((30, 5), reply))
    assert 0 <= broken < rates(method, [ZOO.target])[0]


def test_cosine_tells_sure_replies_apart_by_their_small_probabilities() -> None:
    one, two = [1 - 1.1e-5, 1e-5, 1e-6, 1e-9], [1 - 1.1e-5, 1e-9, 1e-6, 1e-5]
    assert likeness(DeepCore(identify="divergence"), one, two) > 0.999
    assert likeness(DeepCore(identify="divergence", temperature=4.0), one, two) < 0.99
    assert likeness(DeepCore(identify="cosine"), one, two) < 0.9


@pytest.mark.parametrize("identify", ["cosine", "divergence"])
def test_similarities_span_the_whole_scale(identify: str) -> None:
    method = DeepCore(identify=identify)
    assert likeness(method, [1.0, 0.0], [1.0, 0.0]) == pytest.approx(1)
    assert likeness(method, [1.0, 0.0], [0.0, 1.0]) == pytest.approx(0, abs=1e-6)


def test_divergence_is_the_jensen_shannon_divergence() -> None:
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.1, 0.3, 0.6])
    jsd = sum((a * (a / ((p + q) / 2)).log()).sum() / 2 for a in (p, q)) / torch.tensor(2.0).log()
    found = likeness(DeepCore(identify="divergence"), p.tolist(), q.tolist())
    assert found == pytest.approx(1 - float(jsd), abs=1e-6)


def test_the_cluster_puts_its_own_models_on_their_side() -> None:
    target, copy_, student, *strangers = rates(
        DeepCoreCluster(n_queries=30), [ZOO.target, *ZOO.positives[:2], *ZOO.negatives[:3]]
    )
    assert min(target, copy_, student) > 0.5 > max(strangers)


def test_two_classes_will_do() -> None:
    @dataclass(frozen=True)
    class Sides(ToyClassification):
        """Which half of an interval a number is in."""

        input_shape = (1,)
        output_shape = (2,)
        input_range = (-1.0, 1.0)

        def load(self) -> Mapping[str, Pool]:
            x = torch.linspace(-1, 1, 10)[:, None]
            return {"train": Pool(x, (x[:, 0] > 0).long())}

    model = nn.Linear(1, 2).requires_grad_(False)
    model.weight.copy_(torch.tensor([[-3.0], [3.0]]))
    model.bias.zero_()
    other = copy.deepcopy(model)
    other.weight.neg_()
    zoo, method = Zoo(Sides(), model, [], []), DeepCore(n_queries=5)
    fingerprint = method.construct(zoo.case(method, Access.PROBS))
    found = [method.verify(fingerprint, zoo.oracle(m, Access.PROBS)) for m in (model, other)]
    assert found == pytest.approx([1, 0], abs=1e-6)


def test_points_that_cannot_reach_their_class_say_which_setting_to_raise() -> None:
    with pytest.raises(TrialError, match="more steps, a larger lr or a larger pool"):
        made(DeepCore(n_queries=30, steps=1))


def test_a_class_without_training_inputs_says_so() -> None:
    class Gap(type(ZOO.scenario)):
        def load(self) -> Mapping[str, Pool]:
            return {k: Pool(x, y.clamp(1)) for k, (x, y) in super().load().items()}

    method = DeepCore(n_queries=30, start="data")
    zoo = Zoo(Gap(), ZOO.target, ZOO.positives, ZOO.negatives)
    with pytest.raises(TrialError, match='start: "noise"'):
        method.construct(zoo.case(method, Access.PROBS))
