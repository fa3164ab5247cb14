"""A suspect behind its API: what it answers, counts and refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fpbench import Access, Oracle, TrialError, agreement, log_probabilities, reply
from fpbench.api.oracle import oracle_of

LEVELS = [(level, wanted) for level in Access for wanted in Access if wanted <= level]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3))


def opened(model, access=Access.OUTPUT, **given):
    cpu = torch.device("cpu")
    return oracle_of(model, access, input_shape=(2,), input_range=(-1.0, 1.0), device=cpu, **given)


def questions(n=5):
    return torch.rand(n, 2, generator=torch.Generator().manual_seed(n)) * 2 - 1


@pytest.mark.parametrize(
    ("access", "shown"),
    [
        (Access.LABEL, lambda z: z.argmax(-1)),
        (Access.PROBS, lambda z: z.softmax(-1)),
        (Access.OUTPUT, lambda z: z),
    ],
)
def test_an_oracle_answers_at_its_level(model, access, shown):
    x = questions()
    assert torch.equal(opened(model, access)(x), shown(model(x)))


@pytest.mark.parametrize(("granted", "wanted"), LEVELS)
def test_less_access_than_granted_may_be_asked_for(model, granted, wanted):
    x = questions()
    assert torch.equal(opened(model, granted)(x, wanted), reply(model(x), wanted))


@pytest.mark.parametrize(
    ("granted", "wanted"), [(a, b) for a in Access for b in Access if (a, b) not in LEVELS]
)
def test_more_access_than_granted_is_refused(model, granted, wanted):
    with pytest.raises(TrialError, match=f"access level {granted} or less, got one at {wanted}"):
        opened(model, granted)(questions(), wanted)


def test_every_input_is_counted(model):
    oracle = opened(model)
    for n in (1, 5, 3):
        oracle(questions(n))
    assert oracle.queries == 9


def test_large_batches_are_answered_in_parts_and_in_order(model):
    x = questions(10)
    assert torch.allclose(opened(model, batch_size=3)(x), model(x))


def test_answers_carry_no_gradients(model):
    assert not opened(model)(questions().requires_grad_()).requires_grad


def test_dropout_is_off_behind_an_api():
    suspect = nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 3)).train()
    oracle, x = opened(suspect), questions()
    assert torch.equal(oracle(x), oracle(x))


@pytest.mark.parametrize("bad", [1.001, -2.0, float("nan"), float("inf")])
def test_what_no_api_would_take_is_refused(model, bad):
    x = questions()
    x[3, 1] = bad
    with pytest.raises(TrialError, match=r"inside the input range \[-1.0, 1.0\]"):
        opened(model)(x)


def test_rounding_at_the_border_is_no_offence(model):
    assert len(opened(model)(torch.full((1, 2), 1 + 1e-7))) == 1


def test_a_quantised_oracle_is_asked_what_a_byte_can_carry():
    x = torch.tensor([[-1.0, 1.0], [0.0, 0.3]])
    carried = opened(nn.Identity(), quantised=True)(x)
    steps = (carried + 1) / 2 * 255
    assert torch.allclose(steps, steps.round(), atol=1e-4)
    assert (carried - x).abs().max() <= 1 / 255 + 1e-6  # half a step of a range two wide
    assert torch.equal(carried[0], x[0])


@pytest.mark.parametrize("shape", [(5, 3), (5,), (2,), (5, 2, 1)])
def test_queries_of_another_shape_are_refused(model, shape):
    with pytest.raises(TrialError, match=r"shape \(n, 2\), got"):
        opened(model)(torch.zeros(shape))


def test_no_attribute_of_an_oracle_leads_to_the_model(model):
    oracle = opened(model)
    found = [getattr(oracle, name) for name in dir(oracle)]
    found += [getattr(thing, "__self__", None) for thing in found]
    assert not any(isinstance(thing, nn.Module | torch.Tensor) for thing in found)
    assert not hasattr(oracle, "__dict__")


def test_agreement_counts_equal_labels():
    labels = torch.tensor([0, 1, 2, 2])
    assert agreement(torch.tensor([0, 1, 0, 2]), labels) == 0.75
    assert agreement(torch.eye(3)[[0, 1, 0, 2]], labels) == 0.75


@pytest.mark.parametrize("labels", [torch.tensor([0, 1, 2]), torch.tensor([], dtype=torch.long)])
def test_replies_that_do_not_pair_up_with_labels_are_refused(labels):
    with pytest.raises(TrialError, match="one reply for each"):
        agreement(torch.zeros(len(labels) and 4, dtype=torch.long), labels)


def test_the_count_of_queries_cannot_be_set_back():
    oracle = Oracle(lambda x: x, Access.OUTPUT)
    oracle(torch.zeros(3, 2))
    with pytest.raises(AttributeError):
        oracle.queries = 0
    assert oracle.queries == 3


def test_log_probabilities_are_the_same_from_probabilities_and_logits(model):
    z = 10 * model(questions())
    for access in (Access.PROBS, Access.OUTPUT):
        found = log_probabilities(reply(z, access), access)
        assert torch.allclose(found, z.log_softmax(-1), atol=1e-6)


def test_log_probabilities_are_finite_for_probabilities_rounded_to_zero():
    z = torch.tensor([[0.0, 500.0, 400.0]])
    logs = log_probabilities(reply(z, Access.PROBS), Access.PROBS)
    assert logs.isfinite().all()
    assert torch.allclose(logs, log_probabilities(z, Access.OUTPUT))


def test_labels_have_no_log_probabilities():
    with pytest.raises(TrialError, match="probabilities or logits, got labels"):
        log_probabilities(torch.tensor([1, 2]), Access.LABEL)


class Shy(torch.Tensor):
    """Inputs that say they are none."""

    def __len__(self):
        return 0


def test_inputs_are_counted_whatever_they_say_of_themselves():
    oracle = Oracle(lambda x: x, Access.OUTPUT)
    assert type(oracle(torch.zeros(5, 2).as_subclass(Shy))) is torch.Tensor
    assert oracle.queries == 5
