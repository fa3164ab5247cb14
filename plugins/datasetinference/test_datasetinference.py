"""Dataset Inference beyond the contract: its walks, its test, and whom it takes for stolen."""

from __future__ import annotations

from functools import cache
from statistics import fmean

import pytest
import torch
from fpbench_datasetinference import DatasetInference, walked
from scipy.stats import ttest_ind

from fpbench import Access, Fingerprint, TrialError
from fpbench.testing import TOYS, toy_zoo

ZOO = toy_zoo(TOYS[0])
METHOD = DatasetInference(n_queries=3000, epochs=200)


@cache
def constructed() -> Fingerprint:
    return METHOD.construct(ZOO.case(METHOD, Access.LABEL))


def rates(models) -> list[float]:
    return [METHOD.verify(constructed(), ZOO.oracle(m, Access.LABEL)) for m in models]


def test_a_walk_is_as_long_as_the_first_wrong_label_is_far() -> None:
    lengths = torch.tensor([[[1.0, 2.0, 3.0]] * 2] * 2)
    labels = torch.tensor([[[5, 5, 5], [5, 0, 5]], [[0, 0, 0], [5, 5, 0]]]).flatten()
    assert walked(labels, torch.tensor([5, 0]), lengths).tolist() == [[3, 2], [3, 1]]


def test_walks_lead_evenly_away_from_points_of_both_pools() -> None:
    method = DatasetInference(n_queries=240, walks=3, steps=4, reach=0.4, epochs=1)
    fingerprint = method.construct(ZOO.case(method, Access.LABEL))
    lengths = fingerprint.evidence["lengths"]
    assert lengths.shape == (20, 3, 4)
    # So short a walk is seldom clipped: its steps are 1, 2, 3 and 4 times as far.
    ratio = (lengths / lengths[..., :1]).flatten(0, 1).median(0).values
    torch.testing.assert_close(ratio, torch.arange(1.0, 5), atol=0.2, rtol=0)
    ends = fingerprint.queries.view(20, 12, -1)
    for pool, side in zip(("train", "test"), ends.chunk(2), strict=True):
        inputs = ZOO.scenario.data(pool).inputs.flatten(1)
        near = torch.cdist(side[:, 0], inputs).argmin(1)
        assert ((side - inputs[near][:, None]).abs() < 0.05).all()


def test_the_rate_is_welchs_test_as_scipy_does_it() -> None:
    evidence = dict(constructed().evidence)
    n = len(evidence["truth"])
    # A regressor that reads the standardised length itself, as good as undistorted by tanh.
    evidence |= {"mean": torch.zeros(1), "std": torch.ones(1)}
    evidence |= {"w1": torch.full((1, 1), 1e-3), "b1": torch.zeros(1)}
    evidence |= {"w2": torch.ones(1, 1), "b2": torch.zeros(1)}
    labels = ZOO.target(constructed().queries).argmax(1)
    far = walked(labels, evidence["truth"], evidence["lengths"]).squeeze(1).double()
    p = ttest_ind(far[n // 2 :], far[: n // 2], equal_var=False, alternative="greater").pvalue
    rate = METHOD.match(Fingerprint(constructed().queries, evidence), labels)
    assert rate == pytest.approx(1 - p, abs=1e-3)


def test_the_gap_is_significant_on_the_target() -> None:
    assert rates([ZOO.target])[0] > 0.99


def test_copies_and_students_are_told_from_models_of_other_data() -> None:
    strangers = rates(ZOO.negatives[1::2])
    assert fmean(p > n for p in rates(ZOO.positives) for n in strangers) >= 0.8


def test_independent_models_of_the_same_data_are_taken_for_stolen() -> None:
    assert min(rates(ZOO.negatives[::2])) > max(rates(ZOO.negatives[1::2]))


def test_replies_that_are_all_alike_are_rated_zero() -> None:
    evidence = dict(constructed().evidence)
    evidence["lengths"] = torch.ones_like(evidence["lengths"])
    silent = torch.full((len(constructed().queries),), -1)
    assert METHOD.match(Fingerprint(constructed().queries, evidence), silent) == 0


@pytest.mark.parametrize("settings", [{"n_queries": 12}, {"n_queries": 10_000}])
def test_too_few_points_say_what_to_change(settings) -> None:
    method = DatasetInference(**settings)
    with pytest.raises(TrialError, match="change n_queries, or walks and steps"):
        method.construct(ZOO.case(method, Access.LABEL))
