"""UAP beyond the contract: its perturbation fools, its anchors are means, its encoder learns."""

from __future__ import annotations

import math
from statistics import fmean

import pytest
import torch
from fpbench_uap import UAP, contrastive, universal

from fpbench import Access, TrialError
from fpbench.testing import TOYS, toy_zoo

ZOO = toy_zoo(TOYS[0], size=12)
QUICK = {"passes": 2, "samples": 100, "epochs": 100}


def fooled(shift: torch.Tensor) -> float:
    x = ZOO.scenario.data("test").inputs
    changed = ZOO.target((x + shift).clamp(0, 1)).argmax(1) != ZOO.target(x).argmax(1)
    return float(changed.double().mean())


def test_the_perturbation_keeps_its_bound_and_fools_more_new_points_than_noise_does() -> None:
    method = UAP(xi=0.2)
    x = ZOO.scenario.data("train").inputs
    shift = universal(method, ZOO.case(method, Access.PROBS), x)
    assert shift.abs().max() <= 0.2 + 1e-6
    rng = torch.Generator().manual_seed(0)
    noise = [fooled(0.2 * torch.randn(shift.shape, generator=rng).sign()) for _ in range(20)]
    assert fooled(shift) > max(noise)


def test_the_perturbation_stops_where_enough_are_fooled() -> None:
    x, shifts = ZOO.scenario.data("train").inputs, []
    for passes in (1, 10):
        method = UAP(fooling=0.01, passes=passes)
        shifts.append(universal(method, ZOO.case(method, Access.PROBS), x))
    assert torch.equal(*shifts)


def test_queries_are_anchors_then_the_same_anchors_perturbed_alike() -> None:
    method = UAP(n_queries=21, **QUICK)
    queries = method.construct(ZOO.case(method, Access.PROBS)).queries
    assert len(queries) == 20
    plain, moved = queries.chunk(2)
    inside = (moved > 0) & (moved < 1)
    # Where nothing was clipped, all anchors moved by one number.
    step = torch.where(inside, moved - plain, float("nan"))
    spread = step.nan_to_num(-1).amax(0) - step.nan_to_num(1).amin(0)
    assert inside.any(0).all()
    assert spread.max() < 1e-5


def test_a_single_anchor_is_the_training_point_nearest_to_the_mean_of_all_logits() -> None:
    method = UAP(n_queries=2, **QUICK)
    queries = method.construct(ZOO.case(method, Access.PROBS)).queries
    inputs = ZOO.scenario.data("train").inputs
    logits = ZOO.target(inputs)
    nearest = (logits - logits.mean(0)).norm(dim=1).argmin()
    assert torch.equal(queries[0], inputs[nearest])


def test_the_loss_is_that_of_equation_2() -> None:
    codes = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [-1.0, 0.5]])
    stolen, tau = torch.tensor([True, True, False, False]), 0.5
    unit = [c / c.norm() for c in codes]

    def near(i: int, j: int) -> float:
        return math.exp(float(unit[i] @ unit[j]) / tau)

    friend = {0: 1, 1: 0, 2: 3, 3: 2}
    expected = -sum(
        math.log(near(i, friend[i]) / sum(near(i, a) for a in range(4) if a != i)) for i in friend
    )
    assert float(contrastive(codes, stolen, tau)) == pytest.approx(expected / 4, rel=1e-5)


def test_tells_unseen_copies_from_strangers() -> None:
    method = UAP(n_queries=20, passes=2, samples=100)
    torch.manual_seed(0)
    fingerprint = method.construct(ZOO.case(method, Access.PROBS))
    positives, negatives = (
        [method.verify(fingerprint, ZOO.oracle(model, Access.PROBS)) for model in side[6:]]
        for side in (ZOO.positives, ZOO.negatives)
    )
    assert fmean(p > n for p in positives for n in negatives) >= 0.9


@pytest.mark.parametrize("settings", [{"n_queries": 1}, {"n_queries": 802}, {"views": 401}])
def test_too_few_points_say_which_setting_to_change(settings: dict[str, int]) -> None:
    method = UAP(**{**QUICK, **settings})
    with pytest.raises(TrialError, match="change uap's n_queries or views"):
        method.construct(ZOO.case(method, Access.PROBS))
