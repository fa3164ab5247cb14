"""A suspect behind its prediction API: ask, be answered, be counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..compute.stack import parts
from .errors import TrialError


class Access(IntEnum):
    """How much of each reply a prediction API gives away, least first."""

    LABEL = 1  # top-1 class index            (n,)
    PROBS = 2  # class probabilities          (n, n_classes)
    OUTPUT = 3  # the model's output as it is  (n, *output_shape)

    def __str__(self) -> str:
        return self.name.lower()


def reply(output: Tensor, access: Access) -> Tensor:
    """Show a model's output (..., n, *output_shape) as an API of this access level would.

    Differentiable for PROBS and OUTPUT, so a method can train through it. LABEL and PROBS
    read the last dimension as class logits.
    """
    if access is Access.LABEL:
        return output.argmax(-1)
    if access is Access.PROBS:
        return output.softmax(-1)
    return output


@dataclass
class _Behind:
    """What is behind an oracle: who answers, at which level, and how much was asked."""

    ask: Callable[[Tensor], Tensor]
    access: Access
    queries: int = 0


_behind: WeakKeyDictionary[Oracle, _Behind] = WeakKeyDictionary()
"""Kept here, not in the oracle: whoever holds one and digs through its attributes, methods and
their closures finds no model, and cannot set the count of queries back."""


class Oracle:
    """Black-box access to one suspect.

    Call it with a batch of inputs (n, *input_shape) inside the scenario's input range; it
    answers on the CPU, without gradients, at its access level. Nothing leads from the oracle to
    the model behind it: a method sees replies and nothing else.
    """

    __slots__ = ("__weakref__",)

    def __init__(self, ask: Callable[[Tensor], Tensor], access: Access) -> None:
        _behind[self] = _Behind(ask, access)

    @property
    def access(self) -> Access:
        """The level at which this oracle replies."""
        return _behind[self].access

    @property
    def queries(self) -> int:
        """Inputs asked so far."""
        return _behind[self].queries

    def __call__(self, x: Tensor, access: Access | None = None) -> Tensor:
        """Answer a batch (n, *input_shape), at a lower access level if one is named.

        Raises TrialError for more access than the suite grants, or inputs no API would take.
        """
        behind = _behind[self]
        if access is not None and access > behind.access:
            raise TrialError(
                f"expected a query at access level {behind.access} or less, "
                f"got one at {Access(access)}: the suite's api grants no more"
            )
        behind.queries += len(x)
        return reply_as(behind.ask(x), behind.access, access)


def reply_as(answer: Tensor, given: Access, wanted: Access | None) -> Tensor:
    """Reduce an answer of one access level to a lower one."""
    if wanted is None or wanted is given:
        return answer
    if wanted is Access.LABEL:
        return answer.argmax(-1)
    return reply(answer, wanted)


def to_bytes(x: Tensor, input_range: tuple[float, float]) -> Tensor:
    """Inputs as an 8-bit image file holds them: the input range on 0 to 255, rounded, uint8."""
    low, high = input_range
    return ((x - low) / (high - low) * 255).round().clamp(0, 255).to(torch.uint8)


def from_bytes(pixels: Tensor, input_range: tuple[float, float]) -> Tensor:
    """The inputs (float32) that pixels of an 8-bit image file stand for."""
    low, high = input_range
    return low + pixels.float() / 255 * (high - low)


def oracle_of(
    model: nn.Module,
    access: Access,
    *,
    input_shape: tuple[int, ...],
    input_range: tuple[float, float],
    device: torch.device,
    quantised: bool = False,
    batch_size: int = 1024,
) -> Oracle:
    """Put a model behind a prediction API.

    `input_shape` and `input_range` are the scenario's; a query outside them raises
    TrialError, because a real API could not be asked it.
    quantised: ask what an 8-bit image file can carry, not the exact queries.
    """
    model = model.to(device).eval()
    low, high = input_range

    def ask(x: Tensor) -> Tensor:
        # Numbers pass, and nothing that would be told what the model does with them.
        x = Tensor.as_subclass(x.detach(), Tensor)
        if tuple(x.shape[1:]) != input_shape:
            raise TrialError(
                f"expected queries of shape (n, {', '.join(map(str, input_shape))}), "
                f"got {tuple(x.shape)}"
            )
        slack = 1e-6 * (high - low)  # rounding, no more
        if not bool(((x >= low - slack) & (x <= high + slack)).all()):
            raise TrialError(
                f"expected queries inside the input range [{low}, {high}], "
                f"got [{float(x.min()):.4g}, {float(x.max()):.4g}]"
            )
        if quantised:
            x = from_bytes(to_bytes(x, input_range), input_range)
        with torch.no_grad():
            replies = [reply(model(part.to(device)), access) for part in parts(x, most=batch_size)]
        return torch.cat(replies).cpu()

    return Oracle(ask, access)
