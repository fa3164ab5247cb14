"""FBI beyond the contract: what its distance ignores, and what its corrections are good for."""

from __future__ import annotations

import pytest
import torch
from fpbench_fbi import FBI

from fpbench import Access, Fingerprint, TrialError
from fpbench.testing import TOYS, toy_zoo

ZOO = toy_zoo(TOYS[0])
CORRECTIONS = ("miller-madow", "chance", "none")


def rate(ours, replies, truth=None, reads="labels", **fields):
    truth = torch.zeros_like(ours) if truth is None else truth
    fingerprint = Fingerprint(torch.zeros(len(ours), 1), {"labels": ours, "truth": truth})
    return FBI(n_queries=len(ours), reads=reads, **fields).match(fingerprint, replies)


def drawn(n_classes, seed, n=100):
    return torch.randint(n_classes, (n,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_renamed_labels_are_the_same_labels(correction):
    labels = drawn(10, seed=0)
    names = torch.randperm(1000, generator=torch.Generator().manual_seed(1))[:10]
    assert rate(labels, names[labels], correction=correction) == pytest.approx(1)
    assert rate(labels, drawn(10, seed=2), correction=correction) < 0.5


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_one_label_for_everything_tells_nothing(correction):
    labels, constant = drawn(10, seed=0), torch.full((100,), 7)
    assert rate(labels, constant, correction=correction) == 0
    assert rate(constant, labels, correction=correction) == 0
    assert rate(constant, constant, correction=correction) == 0


def independent(n_classes, correction):
    rates = [
        rate(drawn(n_classes, seed), drawn(n_classes, seed + 1000), correction=correction)
        for seed in range(100)
    ]
    return sum(rates) / len(rates)


def test_independent_labels_are_rated_near_0_once_corrected_and_not_before():
    assert independent(5, "none") > 0.04
    assert independent(5, "miller-madow") < 0.015
    assert independent(10, "none") > 0.18
    # More pairs of classes than twice the queries' worth: half of the bias stays.
    assert independent(10, "miller-madow") < 0.6 * independent(10, "none")
    assert independent(10, "chance") < 0.02


def test_entropy_asks_where_the_target_is_least_sure():
    method = FBI(n_queries=50, selection="entropy")
    queries = method.construct(ZOO.case(method, Access.LABEL)).queries

    def entropy(x):
        log = ZOO.target(x).log_softmax(1)
        return -(log.exp() * log).sum(1)

    everything = entropy(ZOO.scenario.data("test").inputs).sort(descending=True).values
    torch.testing.assert_close(entropy(queries).sort(descending=True).values, everything[:50])


def test_mistakes_are_compared_and_not_which():
    truth = drawn(10, seed=0)
    wrong = drawn(10, seed=1) < 3
    ours, theirs = truth + wrong, truth + 2 * wrong
    assert rate(ours, theirs, truth, reads="mistakes") == pytest.approx(1)
    assert rate(ours, theirs, truth) < 1
    # Renamed classes are all mistakes: nothing is left to tell.
    assert rate(ours, ours + 100, truth, reads="mistakes") == 0


def test_replies_that_are_no_labels_are_refused():
    with pytest.raises(TrialError, match="a label for each of 100 queries"):
        rate(drawn(10, seed=0), torch.zeros(100, 10))


def test_a_target_without_mistakes_names_the_way_out():
    case = ZOO.case(FBI(), Access.LABEL)
    inputs, _ = case.scenario.data("test")
    sure = FBI(n_queries=2, reads="mistakes", selection="random")
    right = next(seed for seed in range(99) if _all_right(inputs, sure.n_queries, seed))
    with pytest.raises(TrialError, match="reads: labels"):
        sure.construct(ZOO.case(sure, Access.LABEL, seed=right))


def _all_right(inputs, n, seed):
    drawn = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))[:n]
    truth = ZOO.scenario.data("test").truth[drawn]
    return bool((ZOO.target(inputs[drawn]).argmax(1) == truth).all())
