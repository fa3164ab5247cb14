"""Zest beyond the contract: signatures are what segments contribute, rates compare directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

import pytest
import torch
from fpbench_zest import Zest, segmented
from torch import nn

from fpbench import Access, Case, Pool, TrialError
from fpbench.testing import TOYS, ToyRegression, toy_zoo


@dataclass(frozen=True)
class Centred(ToyRegression):
    """The toy with two outputs, and inputs whose mean over the pool is 0."""

    output_shape = (2,)

    def load(self) -> Mapping[str, Pool]:
        x = torch.rand(50, 6, generator=torch.Generator().manual_seed(0))
        return {"train": Pool(torch.cat([x, -x]), torch.zeros(100, 2))}


def test_the_signature_of_a_linear_model_is_what_each_segment_contributes() -> None:
    torch.manual_seed(0)
    model = nn.Linear(6, 2, bias=False).requires_grad_(False)
    rng = torch.Generator().manual_seed(0)
    case = Case(Centred(), model, Access.OUTPUT, rng, torch.device("cpu"))
    fingerprint = Zest(n_queries=20, masks=20, segments=3).construct(case)
    x = fingerprint.queries[0]
    pairs = (x * model.weight).double().view(2, 3, 2).sum(2)  # outputs, segments
    torch.testing.assert_close(
        fingerprint.evidence["signature"].view(3, 2), pairs.T, atol=1e-6, rtol=1e-5
    )


def test_an_element_is_the_inputs_or_the_pools_mean() -> None:
    zoo, method = toy_zoo(TOYS[0]), Zest(n_queries=60, masks=12, segments=4)
    x = method.construct(zoo.case(method, Access.PROBS)).queries.view(5, 12, 1, 4, 4)
    inputs = zoo.scenario.data("train").inputs
    first, mean = x[:, 0], inputs.mean(0)
    assert all((inputs == point).flatten(1).all(1).any() for point in first)
    shown = x == first[:, None]
    assert (shown | (x == mean)).all()
    assert 0.3 < shown[:, 1:].float().mean() < 0.7


def test_images_are_cut_by_a_grid_across_channels() -> None:
    segment = segmented((3, 8, 8), 9)
    assert (segment == segment[0]).all()
    assert segment.unique(return_counts=True)[1].tolist() == [
        3 * a * b for a in (3, 3, 2) for b in (3, 3, 2)
    ]


def test_rows_are_cut_into_runs_and_never_finer_than_features() -> None:
    assert segmented((31,), 9).unique().tolist() == list(range(9))
    assert (segmented((31,), 9).diff() >= 0).all()
    assert segmented((6,), 9).tolist() == list(range(6))


def test_rates_compare_directions() -> None:
    zoo, method = toy_zoo(TOYS[1]), Zest()
    fingerprint = method.construct(zoo.case(method, Access.OUTPUT))
    replies = zoo.target(fingerprint.queries)
    assert method.match(fingerprint, replies) == pytest.approx(1)
    assert method.match(fingerprint, 7 * replies) == pytest.approx(1)
    assert method.match(fingerprint, -replies) == 0
    assert method.match(fingerprint, replies * float("nan")) == 0


@pytest.mark.parametrize("scenario", TOYS, ids=str)
def test_tells_copies_from_strangers(scenario) -> None:
    zoo, method = toy_zoo(scenario), Zest()
    fingerprint = method.construct(zoo.case(method, Access.OUTPUT))
    positives, negatives = (
        [method.verify(fingerprint, zoo.oracle(model, Access.OUTPUT)) for model in side]
        for side in (zoo.positives, zoo.negatives)
    )
    assert fmean(p > n for p in positives for n in negatives) >= 0.9


@pytest.mark.parametrize("settings", [{"masks": 16}, {"n_queries": 19}])
def test_a_fit_that_cannot_be_made_says_which_setting_to_change(settings) -> None:
    zoo, method = toy_zoo(TOYS[0]), Zest(**{"segments": 16, **settings})
    with pytest.raises(TrialError, match="change masks or segments"):
        method.construct(zoo.case(method, Access.PROBS))
