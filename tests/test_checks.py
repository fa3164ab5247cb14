"""Each check of the contract catches the method that breaks it, and no other check does."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from fpbench import Access, Case, Classification, Fingerprint, Fingerprinter, Oracle, TrialError
from fpbench.testing import N_QUERIES, check_fingerprinter, run_checks
from fpbench.testing.checks import CHECKS, survives_two_classes
from fpbench.testing.method_on_toy import MethodOnToy
from fpbench.testing.toys import TOYS, TWO_CLASSES, identical, toy_zoo


@dataclass(frozen=True, kw_only=True)
class Good(Fingerprinter):
    """Ask random test inputs; the rate falls with the replies' distance from the target's."""

    name = "good"
    supports = Classification
    accepts = frozenset({Access.PROBS})

    def construct(self, case: Case) -> Fingerprint:
        inputs = case.scenario.data("test").inputs
        x = inputs[torch.randperm(len(inputs), generator=case.rng)[: self.n_queries]]
        return Fingerprint(x, {"probs": case.target(x).softmax(-1)})

    def match(self, fingerprint: Fingerprint, replies: Tensor) -> float:
        far = (replies - fingerprint.evidence["probs"]).abs().sum(-1).nan_to_num(2) / 2
        return 1 - float(far.mean())


class ManyQueries(Good):
    def construct(self, case):
        return Fingerprint(case.scenario.data("test").inputs, {})


class OutOfRange(Good):
    def construct(self, case):
        return Fingerprint(2 * super().construct(case).queries, {})


class ListEvidence(Good):
    def construct(self, case):
        return Fingerprint(super().construct(case).queries, {"labels": [1, 2]})


class SparseEvidence(Good):
    def construct(self, case):
        return Fingerprint(super().construct(case).queries, {"mask": torch.eye(3).to_sparse()})


class Crashes(Good):
    def construct(self, case):
        return {}["queries"]


class Greedy(Good):
    def verify(self, fingerprint, oracle: Oracle):
        return self.match(fingerprint, oracle(fingerprint.queries, Access.OUTPUT).softmax(-1))


class ReadsLabels(Good):
    def match(self, fingerprint, replies):
        return float((replies == fingerprint.evidence["probs"].argmax(-1)).double().mean())


class AsksTwice(Good):
    def verify(self, fingerprint, oracle):
        oracle(fingerprint.queries)
        return super().verify(fingerprint, oracle)


class OwnDice(Good):
    def construct(self, case):
        x = torch.rand(self.n_queries, *case.scenario.input_shape, generator=OWN)
        return Fingerprint(x, {"probs": case.target(x).softmax(-1)})


OWN = torch.Generator().manual_seed(0)


class Nudges(Good):
    def construct(self, case):
        next(case.target.parameters()).mul_(1 + 1e-6)
        return super().construct(case)


class LeavesHook(Good):
    def construct(self, case):
        case.target.register_forward_hook(lambda *_: None)
        return super().construct(case)


class SeedsNumpy(Good):
    def construct(self, case):
        np.random.seed(int(torch.randint(1000, (), generator=case.rng)))
        return super().construct(case)


class DrawsPython(Good):
    def construct(self, case):
        random.random()  # noqa: S311
        return super().construct(case)


class SpoilsData(Good):
    def construct(self, case):
        fingerprint = super().construct(case)
        case.scenario.data("train").inputs.clamp_(max=0.9)
        return fingerprint


class SpoilsDataUnseen(Good):
    """In place, by a way that torch does not count."""

    def construct(self, case):
        fingerprint = super().construct(case)
        case.scenario.data("public").truth.numpy()[0] += 1
        return fingerprint


class AboveOne(Good):
    def match(self, fingerprint, replies):
        return 1.5 * super().match(fingerprint, replies)


class NaNForNaN(Good):
    def match(self, fingerprint, replies):
        return float("nan") if replies.isnan().any() else super().match(fingerprint, replies)


class UpsideDown(Good):
    def match(self, fingerprint, replies):
        return 1 - super().match(fingerprint, replies)


class AlwaysYes(Good):
    def match(self, fingerprint, replies):
        return 1.0


class WearsOut(Good):
    """The first verification by a fingerprint changes it: the next ones rate lower."""

    def construct(self, case):
        fingerprint = super().construct(case)
        return Fingerprint(fingerprint.queries, {**fingerprint.evidence, "fresh": torch.tensor(1)})

    def match(self, fingerprint, replies):
        fresh = bool(fingerprint.evidence["fresh"])
        fingerprint.evidence["fresh"].zero_()
        return super().match(fingerprint, replies) * (1 if fresh else 0.99)


class DrawsInMatch(Good):
    def match(self, fingerprint, replies):
        return super().match(fingerprint, replies) * (1 - 0.1 * float(torch.rand(())))


class BitForBit(Good):
    """Replies count where they equal the target's to the last bit."""

    def match(self, fingerprint, replies):
        return float((replies == fingerprint.evidence["probs"]).double().mean())


def broken(cls: type[Fingerprinter]) -> dict[str, str]:
    """The checks that fail, and what they say; those that need no other process."""
    subject = MethodOnToy(cls(n_queries=N_QUERIES), toy_zoo(TOYS[0]), Access.PROBS)
    said = {}
    for check in CHECKS:
        try:
            check(subject)
        except AssertionError as error:
            said[check.__name__] = str(error)
    return said


def test_a_good_method_breaks_nothing() -> None:
    assert not broken(Good)


@pytest.mark.parametrize(
    ("cls", "check", "todo"),
    [
        (OwnDice, "repeats", "draw from case.rng alone"),
        (AsksTwice, "keeps_its_budget", "ask less"),
        (Nudges, "leaves_models_alone", r"copy.deepcopy\(model\)"),
        (LeavesHook, "leaves_models_alone", "remove hooks"),
        (SeedsNumpy, "leaves_randomness_alone", "seed nothing global"),
        (DrawsPython, "leaves_randomness_alone", "seed nothing global"),
        (SpoilsData, "leaves_data_alone", r"clone\(\)"),
        (SpoilsDataUnseen, "leaves_data_alone", r"clone\(\)"),
        (AboveOne, "rates_in_range", "for the target, found 1.5; clamp it"),
        (NaNForNaN, "rates_in_range", "answers NaN, found nan"),
        (UpsideDown, "rates_the_target_highest", "let 1 mean"),
        (AlwaysYes, "rates_the_target_highest", "let match depend on the replies"),
        (WearsOut, "rates_the_same_in_any_batch", "keep no state"),
        (DrawsInMatch, "rates_the_same_in_any_batch", "draw nothing in match"),
        (BitForBit, "rates_an_identical_model_alike", "compare with a tolerance"),
    ],
)
def test_a_check_catches_who_breaks_it(cls: type[Good], check: str, todo: str) -> None:
    said = broken(cls)
    # Chance in match and comparing bits show in both checks that verify the target twice.
    assert set(said) - {check} <= {"rates_an_identical_model_alike", "rates_the_same_in_any_batch"}
    if cls not in (DrawsInMatch, BitForBit):
        assert set(said) == {check}
    assert re.search(todo, said[check])


@pytest.mark.parametrize(
    ("cls", "check", "todo"),
    [
        (ManyQueries, "constructs", "expected 1 to 12 queries, found 400"),
        (OutOfRange, "constructs", "clamp them"),
        (ListEvidence, "constructs", "expected labels to be a tensor, found list; wrap it"),
        (SparseEvidence, "constructs", r"call .to_dense\(\)"),
        (Crashes, "constructs", r"KeyError: 'queries' \(test_checks.py:\d+\); mend it, or decline"),
        (Greedy, "works_at_its_access", "at access level probs or less, got one at output"),
        (ReadsLabels, "works_at_its_access", "take probs out of `accepts`"),
    ],
)
def test_a_gate_names_the_fault_once(
    cls: type[Good], check: str, todo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fpbench.testing.NewProcess", NoChild)
    failed = [row for row in run_checks(cls) if not row["passed"]]
    here = [row for row in failed if row["scenario"] == TOYS[0].name]
    assert [row["check"] for row in here] == [check]
    assert re.search(todo, here[0]["reason"])


class NoChild:
    """In place of another process, for checks that need none."""

    def __init__(self, method: Fingerprinter) -> None: ...
    def __enter__(self):
        return self

    def __exit__(self, *_): ...
    def add(self, subject): ...
    def outcomes(self):
        return []


# ── another process ───────────────────────────────────────────────────────────────────────


class Forgetful(Good):
    """What match needs stays in the module instead of the evidence."""

    def construct(self, case):
        fingerprint = super().construct(case)
        KEPT["probs"] = fingerprint.evidence["probs"]
        return Fingerprint(fingerprint.queries, {})

    def match(self, fingerprint, replies):
        known = KEPT.get("probs", torch.zeros_like(replies))
        return super().match(Fingerprint(fingerprint.queries, {"probs": known}), replies)


KEPT: dict[str, Tensor] = {}


def test_what_construct_left_in_memory_is_missed_in_another_process() -> None:
    failed = [row for row in run_checks(Forgetful) if not row["passed"]]
    assert [row["check"] for row in failed] == ["rates_the_same_in_a_new_process"]
    assert "put all that match needs into the evidence" in failed[0]["reason"]


def test_a_class_inside_a_function_is_told_to_move() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Hidden(Good):
        name = "hidden"

    with pytest.raises(AssertionError, match="stand at the top level of its file"):
        check_fingerprinter(Hidden)


# ── other odds ────────────────────────────────────────────────────────────────────────────


class Sorry(Good):
    def construct(self, case):
        if case.scenario.n_classes < 3:
            raise TrialError("expected three classes, got two; take another scenario")
        return super().construct(case)


class Third(Good):
    def match(self, fingerprint, replies):
        return float(replies[:, 2].mean())


@pytest.mark.parametrize("cls", [Good, Sorry])
def test_two_classes_may_work_or_be_declined_in_a_sentence(cls: type[Good]) -> None:
    survives_two_classes(two_classes(cls))


def test_two_classes_may_not_crash() -> None:
    with pytest.raises(AssertionError, match="IndexError"):
        survives_two_classes(two_classes(Third))


def two_classes(cls: type[Good]) -> MethodOnToy:
    return MethodOnToy(cls(n_queries=N_QUERIES), toy_zoo(TWO_CLASSES), Access.PROBS)


class Misspelt(Good):
    quick = {"step": 3}  # noqa: RUF012


def test_settings_that_do_not_exist_are_named() -> None:
    (row,) = run_checks(Misspelt)
    assert not row["passed"]
    assert "every key of `quick` is a field" in row["reason"]


class LabelsOnly(Good):
    supports = Fingerprinter.supports
    accepts = frozenset({Access.LABEL})


def test_a_task_that_offers_no_such_access_is_declined_with_both_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fpbench.testing.NewProcess", NoChild)
    rows = [row for row in run_checks(LabelsOnly) if row["scenario"] == "toy-regression"]
    assert [row["reason"] for row in rows] == [
        "declined: good needs label; toy-regression gives output"
    ]


@pytest.mark.parametrize("scenario", TOYS, ids=str)
def test_an_identical_model_is_another_and_the_same(scenario) -> None:
    model = toy_zoo(scenario).target
    twin, x = identical(model), scenario.data("test").inputs
    torch.testing.assert_close(twin(x), model(x), rtol=1e-4, atol=1e-4)
    weights = [next(m.parameters()) for m in (model, twin)]
    assert not torch.equal(*(w.sum(1).sort().values for w in weights))
