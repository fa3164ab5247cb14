"""SAC beyond the contract: what it asks, what it ignores, what it says when it cannot."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from fpbench_sac import SAC
from torch import nn

from fpbench import Access, Case, FieldError, Pool, TrialError
from fpbench.testing import TOYS, ToyClassification, ToyGeneration, ToyRegression, toy_zoo

ZOO = toy_zoo(TOYS[0])
LEVELS = sorted(Access)


class Renamed(nn.Module):
    """The target, its classes in another order."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ZOO.target(x).roll(1, dims=1)


class Centred(nn.Module):
    """A model of the same probabilities, whose logits have mean zero."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.model(x)
        return z - z.mean(1, keepdim=True)


@dataclass(frozen=True)
class Greys(ToyClassification):
    """The toy with forty images of 12 x 12, each of a grey of its own."""

    input_shape = (1, 12, 12)
    output_shape = (3,)

    def load(self):
        x = torch.linspace(0, 1, 40)[:, None, None, None].expand(-1, 1, 12, 12).clone()
        return {"test": Pool(x, torch.arange(40) % 3)}


def asked(scenario, **fields):
    torch.manual_seed(0)
    target = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    case = Case(
        scenario=scenario, target=target, access=Access.PROBS,
        rng=torch.Generator().manual_seed(0), device=torch.device("cpu"),
    )  # fmt: skip
    return SAC(n_queries=40, **{"samples": "cutmix", **fields}).construct(case).queries


@pytest.mark.parametrize("access", LEVELS)
def test_what_a_suspect_calls_its_classes_does_not_matter(access):
    method = SAC(n_queries=30)
    fingerprint = method.construct(ZOO.case(method, access))
    assert method.verify(fingerprint, ZOO.oracle(Renamed(), access)) == pytest.approx(1)


def test_probabilities_tell_as_much_as_logits_of_mean_zero():
    method = SAC(n_queries=30)
    rates = []
    for access in (Access.PROBS, Access.OUTPUT):
        case = ZOO.case(method, access)
        object.__setattr__(case, "target", Centred(case.target))
        suspect = Centred(ZOO.negatives[0])
        rates.append(method.verify(method.construct(case), ZOO.oracle(suspect, access)))
    assert rates[0] == pytest.approx(rates[1], abs=1e-5)


def test_wrong_asks_what_the_target_gets_wrong():
    method = SAC(n_queries=10, samples="wrong")
    queries = method.construct(ZOO.case(method, Access.PROBS)).queries
    inputs, truth = ZOO.scenario.data("test")
    which = [(inputs == q).flatten(1).all(1).nonzero().item() for q in queries]
    assert (ZOO.target(queries).argmax(1) != truth[which]).all()
    assert len(set(which)) == 10


def test_too_few_mistakes_name_the_way_out():
    method = SAC(n_queries=400, samples="wrong")
    with pytest.raises(TrialError, match="n_queries of no more, or samples=cutmix"):
        method.construct(ZOO.case(method, Access.PROBS))


@pytest.mark.parametrize("place", ["corner", "anywhere"])
def test_cutmix_pastes_one_small_box_of_another_image(place):
    for image in asked(Greys(), cut=0.25, place=place)[:, 0]:
        greys, counts = image.unique(return_counts=True)
        assert len(greys) == 2
        rows, columns = (image == greys[counts.argmin()]).nonzero().unbind(1)
        box = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert box.unique().numel() == 1
        assert max(box.shape) <= 3


@pytest.mark.parametrize(("place", "untouched"), [("corner", True), ("anywhere", False)])
def test_only_boxes_in_a_corner_leave_the_middle_alone(place, untouched):
    middle = asked(Greys(), cut=0.25, place=place)[:, 0, 4:8, 4:8]
    assert bool((middle == middle[:, :1, :1]).all()) is untouched


def test_plain_asks_test_inputs_as_they_are():
    assert (asked(Greys(), samples="plain").flatten(1).std(1) == 0).all()


def test_latent_codes_are_asked_as_they_are():
    zoo = toy_zoo(ToyGeneration())
    method = SAC(n_queries=20)
    queries = method.construct(zoo.case(method, Access.OUTPUT)).queries
    inputs = zoo.scenario.data("test").inputs
    assert (queries[:, None] == inputs).all(2).any(1).all()


def test_one_output_cannot_be_correlated():
    assert "two elements or more" in SAC().declines(ToyRegression())


def test_only_a_classifier_gets_inputs_wrong():
    assert SAC().declines(ToyGeneration()) is None
    assert "has no classes" in SAC(samples="wrong").declines(ToyGeneration())


def test_one_query_has_no_pair():
    with pytest.raises(FieldError, match="n_queries"):
        SAC(n_queries=1)


@pytest.mark.parametrize("reply", [float("nan"), float("inf"), 0.0])
def test_a_broken_suspects_replies_are_like_no_other(reply):
    method = SAC(n_queries=30)
    fingerprint = method.construct(ZOO.case(method, Access.OUTPUT))
    expected = fingerprint.evidence["correlations"]
    off = ~torch.eye(30, dtype=torch.bool)
    d = float((expected - 0.5).abs()[off].mean())
    rate = method.match(fingerprint, torch.full((30, 5), reply))
    assert rate == pytest.approx(max(0, 1 - d / 0.5))
