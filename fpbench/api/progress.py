"""A loss while it is descended: what a method may tell of itself while it constructs."""

from __future__ import annotations

import time

from torch import Tensor

from .errors import TrialError

MOST = 100
"""Points that are kept of one construction."""

Point = tuple[int, float, float]
"""A step, counted from 0; seconds since construction began; the loss there."""


class Progress:
    """Told a loss at every step, keeps at most MOST of them, evenly spread over the steps.

    The loss stays where it is, on its device, until somebody asks for the points. On a GPU, whose
    work is queued, seconds are when the step was queued.
    """

    def __init__(self) -> None:
        self._every = 1
        self._steps = 0
        self._told: list[tuple[int, float, Tensor | float]] = []

    def __call__(self, loss: Tensor | float) -> None:
        """Tell the loss of the step that is done: one number. Raises TrialError for more."""
        if isinstance(loss, Tensor) and loss.numel() != 1:
            raise TrialError(
                f"expected one number as a step's loss, got {loss.numel()}; tell their mean"
            )
        if self._steps % self._every == 0 and len(self._told) == MOST:
            # Every second one goes, and from now on only every second one comes.
            self._told, self._every = self._told[::2], 2 * self._every
        if self._steps % self._every == 0:
            # A copy: the method may write its next loss into the same memory.
            kept = loss.detach().clone() if isinstance(loss, Tensor) else loss
            self._told.append((self._steps, time.perf_counter(), kept))
        self._steps += 1

    def points(self, began: float) -> list[Point]:
        """What was kept; `began` is what `time.perf_counter` said when construction began."""
        return [(step, when - began, float(loss)) for step, when, loss in self._told]
