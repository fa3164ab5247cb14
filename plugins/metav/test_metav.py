"""MetaV beyond the contract: its objective, its add-ons, what it learns."""

from __future__ import annotations

from statistics import fmean

import pytest
import torch
from fpbench_metav import MetaV, verifier

from fpbench import Access, Classification
from fpbench.testing import TOYS, toy_zoo

CLASSIFIER = next(toy for toy in TOYS if isinstance(toy, Classification))


def rates(method: MetaV, scenario, access: Access) -> tuple[list[float], list[float]]:
    """Matching rates of the models the ensemble does not hold."""
    zoo = toy_zoo(scenario, size=12)
    torch.manual_seed(0)
    fingerprint = method.construct(zoo.case(method, access))
    judged = slice(6, None)
    return tuple(
        [method.verify(fingerprint, zoo.oracle(model, access)) for model in side[judged]]
        for side in (zoo.positives, zoo.negatives)
    )


@pytest.mark.parametrize("scenario", TOYS, ids=str)
@pytest.mark.parametrize("objective", ["sampled", "full"])
def test_tells_unseen_copies_from_strangers(scenario, objective: str) -> None:
    method = MetaV(n_queries=20, steps=400, objective=objective)
    positives, negatives = rates(method, scenario, Access.OUTPUT)
    assert fmean(p > n for p in positives for n in negatives) >= 0.9


def test_the_papers_verifier_has_one_hidden_layer_of_100() -> None:
    shapes = [tuple(p.shape) for p in verifier(700, MetaV().hidden, 0.0).parameters()]
    assert shapes == [(100, 700), (100,), (2, 100), (2,)]


def test_queries_move_away_from_where_they_start() -> None:
    zoo = toy_zoo(TOYS[1])
    ends = []
    for steps in (1, 200):
        method = MetaV(n_queries=5, steps=steps)
        torch.manual_seed(0)
        ends.append(method.construct(zoo.case(method, Access.OUTPUT)).queries)
    assert (ends[0] - ends[1]).abs().mean() > 0.01


def constructed(scenario, access: Access = Access.OUTPUT, **fields):
    """A zoo, a method and the fingerprint that it makes there."""
    zoo = toy_zoo(scenario, size=12)
    method = MetaV(n_queries=20, steps=100, **fields)
    torch.manual_seed(0)
    return zoo, method, method.construct(zoo.case(method, access))


@pytest.mark.parametrize("objective", ["sampled", "full"])
def test_frozen_queries_stay_where_they_start(objective: str) -> None:
    zoo, _, fingerprint = constructed(CLASSIFIER, query_lr=0, data_share=1.0, objective=objective)
    inputs = zoo.scenario.data("public").inputs
    start = fingerprint.queries[:, None].flatten(2) - inputs[None].flatten(2)
    nearest = start.abs().amax(-1).amin(1)
    low, high = zoo.scenario.input_range
    # A query starts at 0.9 of an input's distance from the middle of the range.
    assert nearest.max() <= 0.1 * (high - low) / 2 + 1e-5


def test_frozen_queries_tell_unseen_copies_from_strangers() -> None:
    method = MetaV(n_queries=20, steps=400, query_lr=0, data_share=1.0)
    positives, negatives = rates(method, CLASSIFIER, Access.OUTPUT)
    assert fmean(p > n for p in positives for n in negatives) >= 0.9


def test_a_rate_of_its_own_moves_queries_faster() -> None:
    slow, fast = (constructed(CLASSIFIER, query_lr=lr)[2].queries for lr in (1e-4, 1e-2))
    start = constructed(CLASSIFIER, query_lr=0)[2].queries
    assert (fast - start).abs().mean() > 10 * (slow - start).abs().mean()


def test_log_probabilities_are_the_same_from_probabilities_and_logits() -> None:
    found = []
    for access in (Access.PROBS, Access.OUTPUT):
        zoo, method, fingerprint = constructed(CLASSIFIER, access, reads="log_probs")
        found.append([
            method.verify(fingerprint, zoo.oracle(model, access))
            for model in (*zoo.positives, *zoo.negatives)
        ])  # fmt: skip
    assert found[0] == pytest.approx(found[1], abs=1e-4)


def test_log_probabilities_are_declined_where_there_are_no_classes() -> None:
    method = MetaV(reads="log_probs")
    reasons = [method.declines(toy) for toy in TOYS]
    assert [reason is None for reason in reasons] == [
        isinstance(toy, Classification) for toy in TOYS
    ]
