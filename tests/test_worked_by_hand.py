"""Matching rates of SAC, FBI, AKH and Random worked out by hand, on replies written down here.

A model is a table: query number i is the input i / 8, and row i is the output.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from fpbench_fbi import FBI
from fpbench_sac import SAC
from torch import Tensor, nn

from fpbench import Access, Case, Fingerprinter, Pool, TrialError
from fpbench.builtin.methods.controls import Akh, Random
from fpbench.testing import ToyClassification, Zoo

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Numbered(ToyClassification):
    """The toy with as many test inputs as there are truths, input i being i / 8."""

    truth: tuple[int, ...] = ()

    input_shape = (1,)
    output_shape = (3,)

    def load(self) -> Mapping[str, Pool]:
        n = len(self.truth)
        return {"test": Pool(torch.arange(n)[:, None] / 8, torch.tensor(self.truth))}


class Table(nn.Module):
    """Answers input i / 8 with row i; a row that is a label stands for its logits."""

    def __init__(self, rows: Sequence[Any]) -> None:
        super().__init__()
        table = torch.tensor(rows)
        self.rows = nn.functional.one_hot(table).float() if table.ndim == 1 else table

    def forward(self, x: Tensor) -> Tensor:
        return self.rows[(8 * x[:, 0]).round().long()]


def rate(
    method: Fingerprinter, access: Access, target: Sequence[Any], suspect: Sequence[Any],
    truth: Sequence[int] | None = None,
) -> float:  # fmt: skip
    """Construct on one table, verify on another."""
    scenario = Numbered(tuple(truth or [0] * len(target)))
    case = Case(scenario=scenario, target=Table(target), access=access,
                rng=torch.Generator().manual_seed(0), device=CPU)  # fmt: skip
    zoo = Zoo(scenario, case.target, [], [])
    return method.verify(method.construct(case), zoo.oracle(Table(suspect), access))


# ── SAC: C_ij = (1 - cos) / 2, d = mean over pairs of |C - C'|, r = 1 - d / 0.5 ─────

X, Y = [1.0, 0, 0], [0, 1.0, 0]
U = [1 / math.sqrt(2), -1 / math.sqrt(2), 0]
V = [1 / math.sqrt(6), 1 / math.sqrt(6), -2 / math.sqrt(6)]
"""Two orthogonal unit vectors of mean zero, so that centring does not change them."""


def times(row: list[float], by: float) -> list[float]:
    return [by * v for v in row]


def plus(one: list[float], other: list[float]) -> list[float]:
    return [a + b for a, b in zip(one, other, strict=True)]


@pytest.mark.parametrize(
    ("target", "suspect", "expected"),
    [
        # The same, whatever the lengths and the axes: pairs 12, 13, 23 have C = 0, 1/2, 1/2.
        ([U, U, V], [times(V, 5), V, U], 1),
        # C = 0, 1/2, 1/2 against 1/2, 1/2, 0: d = (1/2 + 0 + 1/2) / 3 = 1/3.
        ([U, U, V], [U, V, V], 1 / 3),
        # C = 0, 1/2, 1/2 against 1, 1/2, 1/2: d = 1/3.
        ([U, U, V], [U, times(U, -1), V], 1 / 3),
        # cos(U, U + V) = 1 / sqrt 2. C = 1/2, c, c with c = (1 - 1 / sqrt 2) / 2 against 0, 0, 0:
        # d = (1/2 + 2 c) / 3, so r = 1 - (1 + 4 c) / 3 = (sqrt 2) / 3.
        ([U, V, plus(U, V)], [U, U, U], math.sqrt(2) / 3),
        # C = 0, 0, 0 against 1, 1/2, 1/2: d = 2/3, beyond 0.5.
        ([U, U, U], [U, times(U, -1), V], 0),
    ],
)
@pytest.mark.parametrize("access", [Access.PROBS, Access.OUTPUT])
def test_sac_of_logits(target, suspect, expected, access):
    method = SAC(n_queries=3, samples="plain")
    assert rate(method, access, target, suspect) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("access", [Access.PROBS, Access.OUTPUT])
def test_sac_centres_logits(access):
    # Logits 3 X and 3 Y less their mean are (2, -1, -1) and (-1, 2, -1): cos = -3 / 6, C = 3/4;
    # 3 X and 6 X have C = 0. Target 3/4, 0, 3/4; suspect, all classes alike, 1/2, 1/2, 1/2:
    # d = (1/4 + 1/2 + 1/4) / 3 = 1/3.
    target = [times(X, 3), times(Y, 3), times(X, 6)]
    alike = [[1.0, 1, 1], [2.0, 2, 2], [0.0, 0, 0]]
    method = SAC(n_queries=3, samples="plain")
    assert rate(method, access, target, alike) == pytest.approx(1 / 3, abs=1e-6)


@pytest.mark.parametrize("access", [Access.PROBS, Access.OUTPUT])
def test_sac_of_probabilities_as_they_are(access):
    # (1/2, 1/2, 0) and (1/2, 0, 1/2): cos = 1/2, C = 1/4. Target: pairs 1/4, 1/4, 0.
    # Suspect, one answer for all: 0, 0, 0. d = 1/6.
    far = -100.0
    target = [[0, 0, far], [0, far, 0], [0, far, 0]]
    method = SAC(n_queries=3, samples="plain", reads="probs")
    assert rate(method, access, target, [X, X, X]) == pytest.approx(2 / 3, abs=1e-6)


def test_sac_of_labels_counts_pairs_judged_alike():
    # Target: only pair 12 is of one label. Suspect: 12, 13 and 23 are. 4 of 6 pairs judged alike.
    method = SAC(n_queries=4, samples="plain")
    assert rate(method, Access.LABEL, [0, 0, 1, 2], [5, 5, 5, 7]) == pytest.approx(4 / 6)


def test_sac_scales_by_d0():
    # d = 1/3 as above; d0 = 1.
    method = SAC(n_queries=3, samples="plain", d0=1.0)
    assert rate(method, Access.OUTPUT, [U, U, V], [U, V, V]) == pytest.approx(2 / 3)


# ── FBI: r = I / min(H, H) ──────────────────────────────────────────────────────────

HALVES = [0, 0, 0, 0, 1, 1, 1, 1]
ONE_OFF = [0, 0, 0, 1, 1, 1, 1, 0]  # the joint table is 3, 1, 1, 3 of 8


@pytest.mark.parametrize(
    ("correction", "expected"),
    [
        # H = ln 2 = 0.693147 for both.
        # H of the pair = -(2 * 3/8 ln 3/8 + 2 * 1/8 ln 1/8) = 0.735622 + 0.519860 = 1.255482.
        # I = 1.386294 - 1.255482 = 0.130812; I / H = 0.188722.
        ("none", 0.188722),
        # (2 - 1) / 16 = 0.0625 more for each H, (4 - 1) / 16 = 0.1875 more for the pair's:
        # I = 0.130812 + 0.125 - 0.1875 = 0.068312; H = 0.755647; I / H = 0.090402.
        ("miller-madow", 0.090402),
        # Of the 70 ways to deal four of eight, 2 have a table of I = ln 2, 32 one of I = 0.130812
        # and 36 one of I = 0: the mean is (1.386294 + 4.185987) / 70 = 0.079604.
        # (0.130812 - 0.079604) / (0.693147 - 0.079604) = 0.083463.
        ("chance", 0.083463),
    ],
)
def test_fbi_of_labels(correction, expected):
    method = FBI(n_queries=8, reads="labels", correction=correction)
    assert rate(method, Access.LABEL, HALVES, ONE_OFF) == pytest.approx(expected, abs=2e-6)
    renamed = [2 - label for label in ONE_OFF]
    assert rate(method, Access.LABEL, HALVES, renamed) == pytest.approx(expected, abs=2e-6)


def test_fbi_divides_by_the_smaller_entropy():
    # The suspect merges two of the target's four classes in pairs: it is a function of them, and
    # I = its H = ln 2, while the target's H is ln 4.
    method = FBI(n_queries=8, reads="labels", correction="none")
    assert rate(method, Access.LABEL, [0, 0, 1, 1, 2, 2, 3, 3], HALVES) == pytest.approx(1)


@pytest.mark.parametrize(
    ("suspect", "expected"),
    [
        ([2, 2, 0, 0], 1),  # wrong where the target is, if by another label
        ([1, 0, 1, 0], 0),  # wrong on every second: the target's mistakes tell nothing of its own
    ],
)
def test_fbi_of_mistakes(suspect, expected):
    method = FBI(n_queries=4, correction="none", reads="mistakes")
    found = rate(method, Access.LABEL, [1, 1, 0, 0], suspect, truth=[0, 0, 0, 0])
    assert found == pytest.approx(expected)


# ── the controls: shares of equal labels ────────────────────────────────────────────

TRUTH = [0, 0, 1, 1, 2]
TARGET = [0, 1, 1, 0, 2]  # wrong on the second and on the fourth


@pytest.mark.parametrize(
    ("suspect", "everywhere", "on_mistakes"),
    [
        (TARGET, 5 / 5, 2 / 2),
        (TRUTH, 3 / 5, 0 / 2),  # all but the target's mistakes
        ([0, 1, 0, 1, 0], 2 / 5, 1 / 2),  # as the target on the first and the second
        ([1, 2, 0, 2, 0], 0 / 5, 0 / 2),  # wrong on both mistakes, by other labels
    ],
)
def test_random_and_akh(suspect, everywhere, on_mistakes):
    for method, expected in ((Random(n_queries=5), everywhere), (Akh(n_queries=5), on_mistakes)):
        found = rate(method, Access.LABEL, TARGET, suspect, truth=TRUTH)
        assert found == pytest.approx(expected)


def test_akh_asks_the_targets_mistakes_and_nothing_else():
    case = Case(scenario=Numbered(tuple(TRUTH)), target=Table(TARGET), access=Access.LABEL,
                rng=torch.Generator().manual_seed(0), device=CPU)  # fmt: skip
    queries = Akh(n_queries=5).construct(case).queries
    assert sorted((8 * queries[:, 0]).tolist()) == [1, 3]


def test_akh_has_nothing_to_ask_of_a_target_without_mistakes():
    with pytest.raises(TrialError, match="gets wrong, akh found none among 5; take another method"):
        rate(Akh(n_queries=5), Access.LABEL, TRUTH, TRUTH, truth=TRUTH)
