"""IBSF beyond the contract: where its points lie, and how small a change it notices."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache

import pytest
import torch
from fpbench_ibsf import IBSF
from torch import nn

from fpbench import Access, Fingerprint, TrialError
from fpbench.testing import TOYS, toy_zoo

ZOO = toy_zoo(TOYS[0])


def train() -> torch.Tensor:
    """Return the training inputs. Read anew, since a check of spoiled data reloads the pools."""
    return ZOO.scenario.data("train").inputs


@cache
def made(method: IBSF) -> Fingerprint:
    return method.construct(ZOO.case(method, Access.LABEL))


def rate(method: IBSF, model: nn.Module) -> float:
    return method.verify(made(method), ZOO.oracle(model, Access.LABEL))


def shaken(level: float) -> nn.Module:
    """The target with noise on its weights, as a share of their mean size."""
    model, rng = copy.deepcopy(ZOO.target), torch.Generator().manual_seed(0)
    for p in model.parameters():
        p.add_(level * p.abs().mean() * torch.randn(p.shape, generator=rng))
    return model


def entropy(x: torch.Tensor) -> torch.Tensor:
    return torch.distributions.Categorical(logits=ZOO.target(x)).entropy()


def test_a_change_that_no_ordinary_input_shows_is_caught() -> None:
    model = shaken(0.001)
    assert torch.equal(model(train()).argmax(1), ZOO.target(train()).argmax(1))
    assert rate(IBSF(n_queries=50), model) < 0.9


def test_an_untouched_copy_passes() -> None:
    assert rate(IBSF(n_queries=50), copy.deepcopy(ZOO.target)) == 1


def test_points_lie_where_classes_meet() -> None:
    found = entropy(made(IBSF(n_queries=50)).queries)
    assert found.median() > 0.95 * torch.tensor(5.0).log() > entropy(train()).median()


def test_with_two_classes_only_two_probabilities_meet() -> None:
    top = ZOO.target(made(IBSF(n_queries=50, classes=2)).queries).softmax(1).topk(3).values
    gaps = (top[:, :-1] - top[:, 1:]).median(0).values
    assert gaps[0] < 0.01 < 0.05 < gaps[1]


@pytest.mark.parametrize("eps", [0.1, 0.5])
def test_points_stay_within_eps_of_the_input_they_started_from(eps: float) -> None:
    x = made(IBSF(n_queries=50, eps=eps)).queries
    away = torch.cdist(x.flatten(1), train().flatten(1)).amin(1)
    assert 0.5 * eps < away.max() <= eps + 1e-5


def test_labels_are_given_with_certainty() -> None:
    method = IBSF(n_queries=50, certainty=0.05)
    top = ZOO.target(made(method).queries).topk(2).values
    assert (top[:, 0] - top[:, 1]).min() > 0.05 - 1e-5


def test_a_target_that_is_all_but_sure_does_not_stop_it() -> None:
    method = IBSF(n_queries=50)
    case = ZOO.case(method, Access.LABEL)
    sure = copy.deepcopy(ZOO.target)
    sure[-1].weight.mul_(20)
    sure[-1].bias.mul_(20)
    x = method.construct(replace(case, target=sure)).queries
    assert (sure(train()).softmax(1).amax(1) > 1 - 1e-6).double().mean() > 0.5
    assert sure(x).softmax(1).amax(1).median() < 0.6


def test_too_few_training_inputs_say_so() -> None:
    with pytest.raises(TrialError, match="smaller n_queries"):
        made(IBSF(n_queries=1 + len(train())))
