"""DeepFoolFP beyond the contract: its attack is minimal, its points flip."""

from __future__ import annotations

import pytest
import torch
from fpbench_deepfoolfp import DeepFoolFP
from torch import nn

from fpbench import Access, TrialError, deepfool
from fpbench.testing import TOYS, toy_zoo

ZOO = toy_zoo(TOYS[0])
WIDE = (-1e6, 1e6)


def test_on_a_linear_model_the_perturbation_is_the_distance_to_the_nearest_boundary() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(6, 4).requires_grad_(False), torch.randn(50, 6)
    moved = deepfool(model, x, WIDE, overshoot=0.02)
    z = model(x)
    k0 = z.argmax(1)
    distance = torch.full((50, 4), float("inf"))
    for i in range(50):
        for k in range(4):
            if k != k0[i]:
                w = model.weight[k] - model.weight[k0[i]]
                distance[i, k] = (z[i, k] - z[i, k0[i]]).abs() / w.norm()
    torch.testing.assert_close(
        (moved - x).norm(dim=1), 1.02 * distance.amin(1), rtol=0.01, atol=1e-3
    )
    assert (model(moved).argmax(1) == distance.argmin(1)).all()


def test_every_point_flips_where_nothing_is_clipped() -> None:
    x = ZOO.scenario.data("train").inputs[:200]
    moved = deepfool(ZOO.target, x, WIDE)
    assert (ZOO.target(moved).argmax(1) != ZOO.target(x).argmax(1)).all()


def test_points_that_have_flipped_stay_where_they_are() -> None:
    x = ZOO.scenario.data("train").inputs[:50]
    torch.testing.assert_close(
        deepfool(ZOO.target, x, WIDE, steps=50), deepfool(ZOO.target, x, WIDE, steps=500)
    )


def test_kept_points_carry_a_label_the_target_gives_with_certainty() -> None:
    method = DeepFoolFP(n_queries=30)
    fingerprint = method.construct(ZOO.case(method, Access.LABEL))
    logits = ZOO.target(fingerprint.queries)
    assert torch.equal(logits.argmax(1), fingerprint.evidence["labels"])
    top = logits.topk(2).values
    assert (top[:, 0] - top[:, 1] > method.certainty).all()


def test_too_few_flips_say_which_setting_to_raise() -> None:
    method = DeepFoolFP(n_queries=50, pool=1, certainty=1e6)
    with pytest.raises(TrialError, match="larger pool or more steps"):
        method.construct(ZOO.case(method, Access.LABEL))
