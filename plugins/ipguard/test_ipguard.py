"""IPGuard beyond the contract: where its points lie, and what it says when it fails."""

from __future__ import annotations

import pytest
import torch
from fpbench_ipguard import IPGuard

from fpbench import Access, TrialError
from fpbench.testing import TOYS, toy_zoo

ZOO = toy_zoo(TOYS[0])


def gaps(x: torch.Tensor) -> torch.Tensor:
    top = ZOO.target(x).topk(2).values
    return top[:, 0] - top[:, 1]


def test_points_lie_beside_the_boundary_and_carry_the_targets_label() -> None:
    method = IPGuard(n_queries=30, steps=300, margin=0.1)
    fingerprint = method.construct(ZOO.case(method, Access.LABEL))
    assert torch.equal(ZOO.target(fingerprint.queries).argmax(1), fingerprint.evidence["labels"])
    ordinary = gaps(ZOO.scenario.data("train").inputs)
    assert gaps(fingerprint.queries).max() < ordinary.median()


def test_a_larger_margin_lies_deeper() -> None:
    depth = []
    for margin in (0.05, 0.5):
        method = IPGuard(n_queries=20, steps=500, margin=margin)
        depth.append(gaps(method.construct(ZOO.case(method, Access.LABEL)).queries).mean())
    assert depth[0] < depth[1]


def test_too_few_crossings_say_which_setting_to_raise() -> None:
    method = IPGuard(n_queries=50, steps=1, lr=1e-6, pool=1)
    with pytest.raises(TrialError, match="larger pool, more steps or a larger lr"):
        method.construct(ZOO.case(method, Access.LABEL))
