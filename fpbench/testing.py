"""The contract of a fingerprinting method, as tests: for `fpbench check` and for pytest.

from fpbench.testing import check_fingerprinter
def test_contract():
    check_fingerprinter(MyMethod)
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from .api.fingerprinter import Fingerprint, Fingerprinter
from .api.oracle import Access
from .api.scenario import Scenario
from .engine.attempt import checked_rate
from .toys import TOYS, Zoo, toy_zoo

N_QUERIES = 12


# ── the checks: each takes a method that applies, a zoo and an access level ────────


def constructs(method: Fingerprinter, zoo: Zoo, access: Access) -> None:
    """construct returns a Fingerprint: at most n_queries inputs inside the scenario's range"""
    fingerprint = method.construct(zoo.case(method, access))
    expect(isinstance(fingerprint, Fingerprint), "a Fingerprint", type(fingerprint).__name__)
    queries = fingerprint.queries
    shape = tuple(queries.shape)
    expect(
        shape[1:] == zoo.scenario.input_shape, f"queries (n, *{zoo.scenario.input_shape})", shape
    )
    expect(1 <= len(queries) <= method.n_queries, f"1 to {method.n_queries} queries", len(queries))
    tensors = {"queries": queries, **fingerprint.evidence}
    for name, t in tensors.items():
        expect(t.device.type == "cpu", f"{name} on the CPU (.cpu())", t.device)
        expect(not t.requires_grad, f"{name} without gradient (.detach())", "one that has")
    low, high = zoo.scenario.input_range
    found = f"[{float(queries.min()):.4g}, {float(queries.max()):.4g}]"
    inside = low - 1e-6 <= float(queries.min()) and float(queries.max()) <= high + 1e-6
    expect(inside, f"queries in [{low}, {high}] (clamp them)", found)


def repeats(method: Fingerprinter, zoo: Zoo, access: Access) -> None:
    """the same seed gives the same fingerprint: draw from case.rng alone"""
    one, two = (_constructed(method, zoo, access) for _ in range(2))
    expect(torch.equal(one.queries, two.queries), "equal queries from equal seeds", "others")
    for name in one.evidence:
        same = torch.equal(one.evidence[name], two.evidence[name])
        expect(same, f"equal evidence {name!r} from equal seeds", "other values")


def leaves_models_alone(method: Fingerprinter, zoo: Zoo, access: Access) -> None:
    """the target and the ensemble are as before: weights, mode, gradients, hooks"""
    case = zoo.case(method, access)
    models = [case.target, *(case.ensemble.positives if case.ensemble else [])]
    before = [_state(model) for model in models]
    method.construct(case)
    for model, was in zip(models, before, strict=True):
        expect(_state(model) == was, "models unchanged by construct", "one that was changed")


def leaves_randomness_alone(method: Fingerprinter, zoo: Zoo, access: Access) -> None:
    """Python's and numpy's random states are as before: seed nothing global"""
    before = repr((random.getstate(), np.random.get_state(legacy=False)["state"]))
    _constructed(method, zoo, access)
    after = repr((random.getstate(), np.random.get_state(legacy=False)["state"]))
    # repr shortens the array, but any draw moves its position or all of it.
    expect(before == after, "random and numpy.random as before", "a changed state")


def keeps_its_budget(method: Fingerprinter, zoo: Zoo, access: Access) -> None:
    """verify asks at most n_queries inputs, at the access it was given"""
    fingerprint = _constructed(method, zoo, access)
    oracle = zoo.oracle(zoo.target, access)
    method.verify(fingerprint, oracle)
    expect(
        oracle.queries <= method.n_queries, f"at most {method.n_queries} queries", oracle.queries
    )


def rates_in_range(method: Fingerprinter, zoo: Zoo, access: Access) -> None:
    """every matching rate is a finite number in [0, 1], for a broken model's replies too"""
    fingerprint = _constructed(method, zoo, access)
    constant = copy.deepcopy(zoo.target)
    for p in constant.parameters():
        p.zero_()
    for model in (zoo.target, *zoo.positives, *zoo.negatives, constant):
        rate = method.verify(fingerprint, zoo.oracle(model, access))
        checked_rate(rate, method.name, "a toy suspect")


def rates_the_target_highest(method: Fingerprinter, zoo: Zoo, access: Access) -> None:
    """no independent model has a higher matching rate than the target itself"""
    fingerprint = _constructed(method, zoo, access)
    target, *others = (
        method.verify(fingerprint, zoo.oracle(model, access))
        for model in (zoo.target, *zoo.negatives)
    )
    expect(target >= max(others) - 1e-6, "the target rated highest",
           f"{target:.3f} for it and {max(others):.3f} for an independent model")  # fmt: skip
    expect(not math.isclose(target, min(others)), "an independent model rated below the target",
           f"{target:.3f} for all")  # fmt: skip


Check = Callable[[Fingerprinter, Zoo, Access], None]
CHECKS: tuple[Check, ...] = (
    constructs,
    repeats,
    leaves_models_alone,
    leaves_randomness_alone,
    keeps_its_budget,
    rates_in_range,
    rates_the_target_highest,
)


def run_checks(cls: type[Fingerprinter]) -> list[dict[str, Any]]:
    """Every check on every toy scenario that the method applies to, at every access level.

    Each row: check, scenario, access, passed, reason (what was expected and what was found).
    """
    method = cls(**{"n_queries": N_QUERIES, **cls.quick})
    rows = []
    for scenario in TOYS:
        if (reason := method.declines(scenario)) is not None:
            rows.append(_row("declines", scenario, None, f"declined: {reason}", passed=True))
            continue
        for access in sorted(method.accepts & scenario.offers):
            for check in CHECKS:
                try:
                    check(method, toy_zoo(scenario), access)
                except Exception as error:
                    reason = f"{type(error).__name__}: {error}".removeprefix("AssertionError: ")
                    rows.append(_row(check.__name__, scenario, access, reason, passed=False))
                else:
                    what = check.__doc__ or ""
                    rows.append(_row(check.__name__, scenario, access, what, passed=True))
    return rows


def check_fingerprinter(cls: type[Fingerprinter]) -> None:
    """Raise AssertionError with every broken promise of a method."""
    broken = [
        f"{row['check']} ({row['scenario']}, {row['access']}): {row['reason']}"
        for row in run_checks(cls)
        if not row["passed"]
    ]
    assert not broken, "\n".join([f"{cls.name} breaks its contract:", *broken])


def expect(holds: bool, expected: object, found: object) -> None:
    """Say what was expected and what was found, to the author of a method."""
    if not holds:
        raise AssertionError(f"expected {expected}, found {found}")


def _row(
    check: str, scenario: Scenario, access: Access | None, reason: str, *, passed: bool
) -> dict[str, Any]:
    level = str(access) if access else None
    return {"check": check, "scenario": scenario.name, "access": level, "passed": passed,
            "reason": reason}  # fmt: skip


def _constructed(method: Fingerprinter, zoo: Zoo, access: Access) -> Fingerprint:
    # As in a run: torch's global generator is seeded and restored by the harness.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return method.construct(zoo.case(method, access))


def _state(model: nn.Module) -> tuple[Any, ...]:
    tensors = tuple(t.numpy().tobytes() for t in model.state_dict().values())
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    grads = tuple((p.requires_grad, p.grad is None) for p in model.parameters())
    return tensors, model.training, hooks, grads
