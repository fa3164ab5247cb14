"""MetaV beyond the contract: its objective, its add-ons, what it learns."""

from __future__ import annotations

from statistics import fmean

import pytest
import torch
from fpbench_metav import MetaV, verifier

from fpbench import Access
from fpbench.testing import TOYS, toy_zoo


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
