"""ModelDiff beyond the contract: what is in a DDV, and what the similarity of two is."""

from __future__ import annotations

import pytest
import torch
from fpbench_modeldiff import ModelDiff, similarity
from torch import Tensor, nn

from fpbench import Access, FieldError, Fingerprint, TrialError
from fpbench.testing import TOYS, toy_zoo

ZOO = toy_zoo(TOYS[0])
TINY = ModelDiff(n_queries=4)


def fingerprint(
    ddv: list[float], access: Access = Access.PROBS, classes: bool = True
) -> Fingerprint:
    evidence = {"ddv": torch.tensor(ddv).double(), "access": torch.tensor(access),
                "classes": torch.tensor(classes)}  # fmt: skip
    return Fingerprint(torch.zeros(2 * len(ddv), 1), evidence)


def construct(method: ModelDiff, zoo=ZOO, access: Access = Access.OUTPUT) -> Fingerprint:
    return method.construct(zoo.case(method, access))


def pairs(queries: Tensor) -> tuple[Tensor, Tensor]:
    one, other = queries.chunk(2)
    return one, other


def test_an_entry_is_the_cosine_distance_within_a_pair() -> None:
    # The replies of the first pair are equal; those of the second are orthogonal.
    replies = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    assert TINY.match(fingerprint([0, 1]), replies) == pytest.approx(1)
    assert TINY.match(fingerprint([1, 0]), replies) == pytest.approx(0)


@pytest.mark.parametrize("reads", ["probs", "logits"])
def test_outputs_are_read_as_their_probabilities_are(reads: str) -> None:
    method = ModelDiff(n_queries=20, reads=reads)
    rates = [
        method.verify(construct(method, access=access), ZOO.oracle(ZOO.negatives[0], access))
        for access in (Access.PROBS, Access.OUTPUT)
    ]
    assert rates[0] == pytest.approx(rates[1], abs=1e-4)


def test_labels_count_by_whether_they_change() -> None:
    replies = torch.tensor([3, 1, 3, 2])
    assert TINY.match(fingerprint([0, 1], Access.LABEL), replies) == pytest.approx(1)
    assert TINY.match(fingerprint([1, 1], Access.LABEL), replies) == pytest.approx(0.5**0.5)


def test_in_regression_an_entry_is_how_far_the_answer_moved() -> None:
    replies = torch.tensor([[1.0], [1.0], [4.0], [-3.0]])
    assert TINY.match(fingerprint([3, 4], Access.OUTPUT, classes=False), replies) == pytest.approx(
        1
    )


def test_other_classes_than_the_targets_can_be_compared() -> None:
    method = ModelDiff(n_queries=20)
    torch.manual_seed(0)
    other = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).requires_grad_(False)
    rate = method.verify(construct(method, access=Access.PROBS), ZOO.oracle(other, Access.PROBS))
    assert 0 < rate < 1


@pytest.mark.parametrize("goal", ["diverse", "artefact", "untargeted"])
@pytest.mark.parametrize("toy", [0, 1, 2], ids=["classification", "regression", "generation"])
def test_every_goal_moves_answers_more_than_noise_does(goal: str, toy: int) -> None:
    zoo = toy_zoo(TOYS[toy])
    method = ModelDiff(n_queries=80, goal=goal)
    start, moved = pairs(construct(method, zoo).queries)
    low, high = zoo.scenario.input_range
    eps = method.eps * (high - low)
    noise = eps * (2 * torch.rand(start.shape, generator=torch.Generator().manual_seed(0)) - 1)

    def change(x: Tensor) -> float:
        return float((zoo.target(x) - zoo.target(start)).flatten(1).norm(dim=1).mean())

    assert change(moved) > change((start + noise).clamp(low, high))


def test_diverse_drives_each_output_across_the_mean() -> None:
    start, moved = pairs(construct(ModelDiff(n_queries=80, goal="diverse")).queries)
    z, driven = ZOO.target(start), ZOO.target(moved)
    assert (((driven - z) * (z.mean(0) - z)).sum(1) > 0).all()


def test_counterparts_stay_within_eps() -> None:
    start, moved = pairs(construct(ModelDiff(n_queries=80, eps=0.05)).queries)
    assert float((moved - start).abs().max()) == pytest.approx(0.05, abs=1e-6)


def test_centring_drops_what_two_vectors_share() -> None:
    one, other = torch.tensor([9.0, 10, 11]), torch.tensor([11.0, 10, 9])
    assert similarity(one, other, centred=False) > 0.98
    assert similarity(one, other, centred=True) == 0
    assert similarity(one, 3 * one, centred=True) == pytest.approx(1)


@pytest.mark.parametrize("bad", [0.0, 0.3, torch.nan, torch.inf])
def test_a_broken_models_answers_match_nothing(bad: float) -> None:
    assert TINY.match(fingerprint([0, 1]), torch.full((4, 2), bad)) == 0


def test_a_target_that_nothing_moves_is_told() -> None:
    with pytest.raises(TrialError, match="larger eps"):
        construct(ModelDiff(n_queries=4, eps=1e-6), access=Access.LABEL)


def test_one_query_is_no_pair() -> None:
    with pytest.raises(FieldError, match="n_queries"):
        ModelDiff(n_queries=1)
