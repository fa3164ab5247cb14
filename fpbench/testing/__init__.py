"""Test that a fingerprinting method keeps its contract, by `fpbench check` or in pytest.

from fpbench.testing import check_fingerprinter
def test_contract():
    check_fingerprinter(MyMethod)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch

from ..api.fingerprinter import Fingerprinter
from ..api.oracle import Access
from ..api.scenario import Scenario
from . import toys
from .checks import CHECKS, GATES, Check, survives_two_classes
from .method_on_toy import MethodOnToy
from .new_process import NewProcess, rates_the_same_in_a_new_process
from .toys import (
    CHECKED,
    TOYS,
    TWO_CLASSES,
    ToyClassification,
    ToyGeneration,
    ToyRegression,
    ToyTokens,
    Zoo,
    toy_zoo,
)

__all__ = [
    "TOYS",
    "ToyClassification",
    "ToyGeneration",
    "ToyRegression",
    "ToyTokens",
    "Zoo",
    "check_fingerprinter",
    "run_checks",
    "toy_zoo",
]

# Tests that `fpbench new` wrote before 0.2 import the toys by this name, after fpbench.testing.
sys.modules.setdefault("fpbench.toys", toys)

N_QUERIES = 12

Row = dict[str, Any]


def run_checks(cls: type[Fingerprinter]) -> list[Row]:
    """Run every check on every toy scenario that the method applies to, at every access level.

    Each row: check, scenario, access, passed, reason (what was expected, what was found, what to
    do).
    """
    try:
        method = cls(**{"n_queries": N_QUERIES, **cls.quick})
    except Exception as error:
        reason = (
            f"expected {cls.__name__} to be made from `quick` and its defaults, found "
            f"{type(error).__name__}: {error}; every key of `quick` is a field with a default"
        )
        return [Row(check="is_made", scenario=None, access=None, passed=False, reason=reason)]
    rows: list[Row] = []
    with NewProcess(method) as child:
        for scenario in CHECKED:
            for subject in _subjects(method, scenario, rows):
                if _kept(subject, CHECKS, rows):
                    child.add(subject)
        for subject in _subjects(method, TWO_CLASSES, rows):
            _kept(subject, (survives_two_classes,), rows)
        for subject, here, there in child.outcomes():
            _kept(
                subject, (partial(rates_the_same_in_a_new_process, here=here, there=there),), rows
            )
    return rows


def check_fingerprinter(cls: type[Fingerprinter]) -> None:
    """Raise AssertionError with every broken promise of a method."""
    broken = [
        f"{row['check']} ({row['scenario']}, {row['access']}): {row['reason']}"
        for row in run_checks(cls)
        if not row["passed"]
    ]
    assert not broken, "\n".join([f"{cls.name} breaks its contract:", *broken])


def _subjects(method: Fingerprinter, scenario: Scenario, rows: list[Row]) -> Iterator[MethodOnToy]:
    """Yield the method at every access level that it accepts and the task offers."""
    levels = sorted(method.accepts & scenario.offers)
    reason = method.declines(scenario)
    if reason is None and not levels:
        needs, offers = (
            " or ".join(map(str, sorted(some))) for some in (method.accepts, scenario.offers)
        )
        reason = f"{method.name} needs {needs}; {scenario.name} gives {offers}"
    if reason is not None:
        rows.append(_row("declines", scenario, None, f"declined: {reason}", passed=True))
        return
    for access in levels:
        yield MethodOnToy(method, toy_zoo(scenario), access)


def _kept(subject: MethodOnToy, checks: Sequence[Check], rows: list[Row]) -> bool:
    """Run checks and add a row for each; return whether further checks make sense."""
    for check in checks:
        function = check.func if isinstance(check, partial) else check
        name, reason = function.__name__, function.__doc__ or ""
        try:
            # A method may draw from torch's global generator without changing it for others.
            with torch.random.fork_rng(devices=[]):
                check(subject)
        except AssertionError as error:
            rows.append(_row(name, subject.zoo.scenario, subject.access, str(error), passed=False))
            if check in GATES:
                return False
        else:
            rows.append(_row(name, subject.zoo.scenario, subject.access, reason, passed=True))
    return True


def _row(
    check: str, scenario: Scenario, access: Access | None, reason: str, *, passed: bool
) -> Row:
    level = str(access) if access else None
    return {"check": check, "scenario": scenario.name, "access": level, "passed": passed,
            "reason": reason}  # fmt: skip
