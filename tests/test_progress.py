"""What is kept of the losses that a method tells."""

from __future__ import annotations

import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fpbench import TrialError
from fpbench.api.fingerprinter import MOST_POINTS, Progress


@given(st.integers(0, 1000))
def test_points_are_few_and_spread_evenly_over_the_steps(count: int) -> None:
    progress = Progress()
    for step in range(count):
        progress(float(step))
    steps = [step for step, _, _ in progress.points(0.0)]
    assert len(steps) <= MOST_POINTS
    assert len(steps) >= min(count, MOST_POINTS // 2)
    every = steps[1] if len(steps) > 1 else 1
    assert steps == list(range(0, count, every))
    assert [loss for _, _, loss in progress.points(0.0)] == steps


def test_seconds_count_from_where_construction_began() -> None:
    progress, began = Progress(), time.perf_counter()
    progress(1.0)
    ((_, seconds, _),) = progress.points(began)
    assert 0 <= seconds <= time.perf_counter() - began


def test_a_loss_is_kept_without_its_graph_and_as_it_was() -> None:
    progress, w = Progress(), torch.tensor(2.0, requires_grad=True)
    loss = w * 3
    progress(loss)
    with torch.no_grad():
        loss.zero_()
    assert progress.points(0.0)[0][2] == 6.0


def test_several_numbers_are_no_loss() -> None:
    with pytest.raises(TrialError, match="expected one number as a step's loss, got 3"):
        Progress()(torch.zeros(3))
