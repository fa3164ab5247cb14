"""The promises of a method, a function for each; `fpbench.testing` runs them all.

Each takes a MethodOnToy and raises AssertionError: what was expected, found, and what to do.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..api.errors import TrialError
from ..api.fingerprinter import Fingerprint
from .method_on_toy import MethodOnToy
from .toys import identical

TOLERANCE = 1e-3
"""How far rounding may move a matching rate: less than any report shows."""


def constructs(subject: MethodOnToy) -> None:
    """construct returns a Fingerprint: at most n_queries inputs inside the scenario's range"""
    fingerprint, _ = subject.first
    expect(isinstance(fingerprint, Fingerprint), "construct to return a Fingerprint",
           type(fingerprint).__name__, "return Fingerprint(queries, evidence)")  # fmt: skip
    tensors = {"queries": fingerprint.queries, **fingerprint.evidence}
    for name, t in tensors.items():
        kind = type(t).__name__
        expect(isinstance(t, Tensor), f"{name} to be a tensor", kind, "wrap it: torch.tensor(...)")
        expect(t.layout is torch.strided, f"{name} dense", t.layout, "call .to_dense()")
        expect(t.device.type == "cpu", f"{name} on the CPU", t.device, "call .cpu()")
        expect(not t.requires_grad, f"{name} without gradient", "one that has", "call .detach()")
    queries, scenario, most = fingerprint.queries, subject.zoo.scenario, subject.method.n_queries
    size = ", ".join(map(str, scenario.input_shape))
    expect(tuple(queries.shape[1:]) == scenario.input_shape, f"queries of shape (n, {size})",
           tuple(queries.shape), "stack single inputs in the first dimension")  # fmt: skip
    expect(1 <= len(queries) <= most, f"1 to {most} queries", len(queries),
           "n_queries counts inputs: a pair is two of them")  # fmt: skip
    expect(queries.dtype == scenario.input_dtype, f"queries of {scenario.input_dtype}",
           queries.dtype, "make them of the type of the scenario's inputs")  # fmt: skip
    low, high = scenario.input_range
    least, largest = float(queries.min()), float(queries.max())
    expect(low - 1e-6 <= least and largest <= high + 1e-6, f"queries in [{low}, {high}]",
           f"[{least:.4g}, {largest:.4g}]", "clamp them to scenario.input_range")  # fmt: skip


def works_at_its_access(subject: MethodOnToy) -> None:
    """verify works at each level in `accepts` and asks for no more than that"""
    subject.rates(subject.zoo.target)


def keeps_its_budget(subject: MethodOnToy) -> None:
    """verify asks each suspect at most n_queries inputs"""
    most, fingerprint = subject.method.n_queries, subject.fingerprint()
    for model in (subject.zoo.target, subject.zoo.negatives[0]):
        oracle = subject.zoo.oracle(model, subject.access)
        subject.method.verify(fingerprint, oracle)
        expect(oracle.queries <= most, f"at most {most} queries to a suspect", oracle.queries,
               "ask less, or share n_queries out among the rounds")  # fmt: skip


def repeats(subject: MethodOnToy) -> None:
    """the same seed gives the same fingerprint"""
    todo = "draw from case.rng alone, and keep nothing from an earlier construct"
    one, (two, _) = subject.first[0], subject.second
    expect(torch.equal(one.queries, two.queries), "equal queries from equal seeds", "others", todo)
    for name in {**one.evidence, **two.evidence}:
        a, b = one.evidence.get(name), two.evidence.get(name)
        same = a is not None and b is not None and torch.equal(a, b)
        expect(same, f"equal evidence {name!r} from equal seeds", "another", todo)


def leaves_models_alone(subject: MethodOnToy) -> None:
    """the target and the ensemble are as before: weights, mode, gradients, hooks"""
    expect("models" not in subject.first[1], "models as construct was given them",
           "one with other weights, mode, gradients or hooks",
           "work on copy.deepcopy(model), and remove hooks")  # fmt: skip


def leaves_randomness_alone(subject: MethodOnToy) -> None:
    """Python's and numpy's global random states are as before"""
    # Checked in the second construction: a library may draw while the first imports it.
    expect("randomness" not in subject.second[1], "the states of random and numpy.random as before",
           "another", "seed nothing global: draw from case.rng, or seed a generator of your own "
           "by it")  # fmt: skip


def leaves_data_alone(subject: MethodOnToy) -> None:
    """the scenario's data is as before"""
    expect("data" not in subject.first[1], "the scenario's data as before", "other values",
           "clone() a pool's tensors before changing them in place")  # fmt: skip


def rates_in_range(subject: MethodOnToy) -> None:
    """every matching rate is a finite number in [0, 1], for a broken model's replies too"""
    zoo = subject.zoo
    suspects = {
        "the target": zoo.target,
        "a model that always answers the same": _filled(zoo.target, 0),
        "a model that answers NaN": _filled(zoo.target, float("nan")),
        **{f"positive {k} of the zoo": m for k, m in enumerate(zoo.positives)},
        **{f"negative {k} of the zoo": m for k, m in enumerate(zoo.negatives)},
    }
    for what, rate in zip(suspects, subject.rates(*suspects.values()), strict=True):
        expect(0 <= rate <= 1, f"a matching rate in [0, 1] for {what}", rate,
               "clamp it, and settle what NaN replies count")  # fmt: skip


def rates_the_target_highest(subject: MethodOnToy) -> None:
    """no independent model has a higher matching rate than the target itself, and one a lower"""
    strangers = subject.zoo.negatives
    if subject.method.judges_data:
        strangers = strangers[1::2]  # every second one was trained on other data
    target, *others = subject.rates(subject.zoo.target, *strangers)
    expect(target >= max(others) - 1e-6, "the target rated highest",
           f"{target:.3f} for it and {max(others):.3f} for an independent model",
           "let 1 mean `replies as the target's`")  # fmt: skip
    expect(target > min(others) + 1e-6, "an independent model rated below the target",
           f"{target:.3f} for all", "let match depend on the replies")  # fmt: skip


def rates_the_same_in_any_batch(subject: MethodOnToy) -> None:
    """the same matching rate again, whatever batches the API answers in"""
    (once,) = subject.rates(subject.zoo.target)
    for size in (1, 5):
        again = subject.rates(subject.zoo.target, subject.zoo.target, size=size)
        expect(max(abs(rate - once) for rate in again) <= TOLERANCE,
               f"the target rated {once:.4f} again when its API answers {size} at a time",
               " and then ".join(f"{rate:.4f}" for rate in again),
               "draw nothing in match, keep no state, compare with a tolerance")  # fmt: skip


def rates_an_identical_model_alike(subject: MethodOnToy) -> None:
    """the target with its neurons permuted and its ReLUs rescaled is rated as the target"""
    target, twin = (
        subject.rates(model)[0] for model in (subject.zoo.target, identical(subject.zoo.target))
    )
    expect(abs(target - twin) <= TOLERANCE,
           f"{target:.4f}, as for the target, for the same function written otherwise",
           f"{twin:.4f}", "its replies differ by rounding alone: compare with a tolerance, keep "
           "queries off the very boundary")  # fmt: skip


Check = Callable[[MethodOnToy], None]
CHECKS: tuple[Check, ...] = (
    constructs,
    works_at_its_access,
    keeps_its_budget,
    repeats,
    leaves_models_alone,
    leaves_randomness_alone,
    leaves_data_alone,
    rates_in_range,
    rates_the_target_highest,
    rates_the_same_in_any_batch,
    rates_an_identical_model_alike,
)
GATES = {constructs, works_at_its_access}
"""If one of these fails, the other checks have nothing to look at."""


def survives_two_classes(subject: MethodOnToy) -> None:
    """a target with two classes: it works, or says in a sentence why it does not"""
    try:
        rates_in_range(subject)
    except AssertionError as error:
        # A TrialError is such a sentence.
        if not isinstance(error.__cause__, TrialError):
            raise


def expect(holds: bool, expected: object, found: object, todo: str) -> None:
    """Raise AssertionError unless `holds`; the message tells the method's author what to do."""
    if not holds:
        raise AssertionError(f"expected {expected}, found {found}; {todo}")


def _filled(model: nn.Module, value: float) -> nn.Module:
    broken = copy.deepcopy(model)
    for p in broken.parameters():
        p.fill_(value)
    return broken
