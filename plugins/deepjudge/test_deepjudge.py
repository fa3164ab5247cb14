"""DeepJudge beyond the contract: its metrics, its seeds, its attack."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from fpbench_deepjudge import DeepJudge

from fpbench import Access, Fingerprint, TrialError
from fpbench.testing import TOYS, toy_zoo

ZOO = toy_zoo(TOYS[0])
CERTAIN = torch.tensor([[1.0, 0], [0, 1]])


def fingerprint(truth: list[int]) -> Fingerprint:
    return Fingerprint(torch.zeros(2, 1), {"probs": CERTAIN, "truth": torch.tensor(truth)})


def construct(method: DeepJudge, access: Access = Access.PROBS) -> Fingerprint:
    return method.construct(ZOO.case(method, access))


def test_jsd_of_equal_answers_is_none_and_of_opposite_ones_the_most() -> None:
    asked = fingerprint([0, 0])
    assert DeepJudge().match(asked, CERTAIN) == pytest.approx(1)
    assert DeepJudge().match(asked, CERTAIN.flip(0)) == pytest.approx(0)


def test_jsd_is_the_mean_of_the_divergences_from_the_middle() -> None:
    suspect = torch.tensor([[0.5, 0.5], [0, 1]])
    first = (math.log(1 / 0.75) + 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)) / 2
    wanted = 1 - (first + 0) / 2 / math.log(2)
    assert DeepJudge().match(fingerprint([0, 0]), suspect) == pytest.approx(wanted)


def test_robd_is_the_difference_of_the_shares_that_keep_their_label() -> None:
    # The target keeps one true label of two; the suspects none, one (the other), both.
    asked = fingerprint([0, 0])
    for labels, rate in (([1, 1], 0.5), ([1, 0], 1), ([0, 0], 0.5)):
        assert DeepJudge().match(asked, torch.tensor(labels)) == pytest.approx(rate)


def test_points_that_changed_their_label_come_first() -> None:
    asked = construct(DeepJudge(n_queries=200, eps=0.1))
    changed = ZOO.target(asked.queries).argmax(1) != asked.evidence["truth"]
    assert changed.any()
    assert not changed.all()
    assert torch.equal(changed, changed.sort(descending=True, stable=True).values)


def test_all_queries_changed_their_label_where_enough_do() -> None:
    asked = construct(DeepJudge(n_queries=20, eps=0.2))
    assert (ZOO.target(asked.queries).argmax(1) != asked.evidence["truth"]).all()


def test_seeds_are_the_surest_of_the_points_labelled_rightly() -> None:
    method = DeepJudge(n_queries=30, seeds=30, eps=0.2)
    asked = construct(method)
    inputs, truth = ZOO.scenario.data("train")
    probs = ZOO.target(inputs).softmax(1)
    right = probs.argmax(1) == truth
    surest = probs.square().sum(1)[right].topk(30).indices
    distance = (asked.queries[:, None] - inputs[right][surest][None]).abs().flatten(2).amax(2)
    assert (distance.amin(1) <= 0.2 + 1e-6).all()


@pytest.mark.parametrize("bad", [0.0, torch.nan])
def test_a_broken_models_answers_are_rated_low(bad: float) -> None:
    assert DeepJudge().match(fingerprint([0, 0]), torch.full((2, 2), bad)) <= 0.5


def test_jsd_cannot_be_had_from_labels() -> None:
    with pytest.raises(TrialError, match="metric robd or auto"):
        construct(DeepJudge(n_queries=10, metric="jsd"), Access.LABEL)


def test_replies_of_other_classes_are_told() -> None:
    with pytest.raises(TrialError, match="classes"):
        DeepJudge().match(fingerprint([0, 0]), torch.full((2, 3), 1 / 3))


@pytest.mark.parametrize(
    ("method", "advice"),
    [(DeepJudge(n_queries=10, eps=1e-6), "larger eps"), (DeepJudge(n_queries=401), "n_queries")],
)
def test_too_little_to_ask_is_told(method: DeepJudge, advice: str) -> None:
    with pytest.raises(TrialError, match=advice):
        construct(method)


def test_a_fingerprint_of_probabilities_serves_robd_too() -> None:
    asked = construct(DeepJudge(n_queries=20, eps=0.2))
    robd = dataclasses.replace(DeepJudge(), metric="robd")
    assert robd.match(asked, ZOO.target(asked.queries).softmax(1)) == 1
