"""MetaFinger beyond the contract: who validates, how inputs are transformed, what is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fpbench_metafinger import MetaFinger, split

from fpbench import Access, Case, TrialError
from fpbench.testing import TOYS, toy_zoo

ZOO = toy_zoo(TOYS[0], size=12)


def case(method: MetaFinger, **change) -> Case:
    given = ZOO.case(method, Access.LABEL)
    return replace(given, ensemble=replace(given.ensemble, **change))


def test_a_third_of_every_recipe_validates_and_nobody_does_both() -> None:
    recipes = ["distill"] * 6 + ["finetune"] * 3 + ["retrain"]
    used, held = split(10, recipes, 1 / 3, torch.Generator().manual_seed(0))
    assert sorted(used + held) == list(range(10))
    assert sorted(recipes[i] for i in held) == ["distill", "distill", "finetune"]


def test_some_of_every_recipe_are_for_training() -> None:
    used, held = split(4, ["a", "a", "b", "b"], 0.95, torch.Generator().manual_seed(0))
    assert len(used) == len(held) == 2


def test_unseen_copies_answer_as_expected_more_than_strangers_do() -> None:
    method = MetaFinger(n_queries=20)
    fingerprint = method.construct(case(method))
    copies, strangers = (
        [method.verify(fingerprint, ZOO.oracle(model, Access.LABEL)) for model in side[6:]]
        for side in (ZOO.positives, ZOO.negatives)
    )
    assert sum(copies) / len(copies) > sum(strangers) / len(strangers) + 0.1


def test_training_parts_the_negatives_it_sees_from_the_positives() -> None:
    gaps = []
    for epochs, lr in ((1, 1e-6), (20, 0.01)):
        method = MetaFinger(n_queries=60, pool=1, epochs=epochs, lr=lr, validation=0)
        given = case(method)
        queries = method.construct(given).queries
        answers = (out.softmax(-1) for out in given.ensemble.outputs(queries))
        positives, negatives = (p.mean(0) for p in answers)
        gaps.append(float((positives - negatives).abs().sum(1).mean()))
    assert gaps[1] > gaps[0] + 0.1


def test_the_widest_gaps_come_first_and_there_are_none_without_a_gap() -> None:
    method = MetaFinger(n_queries=200, pool=1, epochs=1)
    fingerprint = method.construct(case(method))
    gap = fingerprint.evidence["gap"]
    assert 0 < len(fingerprint.queries) < 200
    assert torch.equal(gap, gap.sort(descending=True).values)
    assert gap[-1] > 0


def test_the_transformed_inputs_are_what_the_models_see() -> None:
    method = MetaFinger(n_queries=20, epochs=2, transform=True)
    plain = replace(method, transform=False)
    one, two = (m.construct(case(m)).queries for m in (method, plain))
    assert one.shape != two.shape or not torch.equal(one, two)


@pytest.mark.parametrize("shape", [(3, 1, 4, 4), (3, 3, 7, 5), (3, 31), (3, 2, 9)], ids=str)
def test_transformations_fit_inputs_of_any_shape_and_stay_in_the_range(shape) -> None:
    method, rng = MetaFinger(noise=0.5, transform=True), torch.Generator().manual_seed(0)
    x = 4 * torch.rand(shape, generator=rng) - 3
    for _ in range(40):
        seen = method._transformed(x, -3.0, 1.0, rng)
        assert seen.shape == x.shape
        assert seen.min() >= -3
        assert seen.max() <= 1


def test_rows_of_a_table_are_not_mirrored_nor_blurred() -> None:
    method, rng = MetaFinger(noise=0.01, transform=True), torch.Generator().manual_seed(0)
    x = torch.rand(20, 31, generator=rng)
    assert all((method._transformed(x, 0.0, 1.0, rng) - x).abs().max() < 0.1 for _ in range(40))


def test_a_motion_of_nothing_leaves_an_image_alone() -> None:
    method = MetaFinger(shear=0, shift=0, zoom=0)
    x = torch.rand(2, 1, 6, 8)
    moved = method._moved(x, torch.Generator().manual_seed(0))
    torch.testing.assert_close(moved, x, rtol=0, atol=1e-5)


def test_what_moves_in_has_the_lowest_value() -> None:
    method, rng = MetaFinger(noise=0, transform=True), torch.Generator().manual_seed(0)
    x = torch.full((2, 1, 6, 8), -3.0)
    for _ in range(40):
        torch.testing.assert_close(method._transformed(x, -3.0, 1.0, rng), x)


def test_models_alike_leave_nothing_to_keep() -> None:
    method = MetaFinger(n_queries=10, epochs=1)
    same = [ZOO.target, ZOO.target]
    with pytest.raises(TrialError, match="more epochs or a larger pool"):
        method.construct(
            case(method, positives=same, negatives=same, positive_recipes=[], negative_recipes=[])
        )


def test_those_trained_with_validate_where_nobody_else_can() -> None:
    method = MetaFinger(n_queries=10, epochs=3)
    one = case(method, positives=ZOO.positives[:1], negatives=ZOO.negatives[:1])
    fingerprint = method.construct(one)
    labels = fingerprint.evidence["labels"]
    assert (ZOO.negatives[0](fingerprint.queries).argmax(1) != labels).all()
