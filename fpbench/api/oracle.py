"""Oracles: black-box access to suspects through a prediction API that counts queries."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..compute.stack import parts
from .errors import TrialError


class Access(IntEnum):
    """The access levels: how much a prediction API's reply shows, from least to most."""

    LABEL = 1  # index of the most likely class  (n,)
    PROBS = 2  # class probabilities             (n, n_classes)
    OUTPUT = 3  # the model's unchanged output    (n, *output_shape)

    def __str__(self) -> str:
        return self.name.lower()


def reply(output: Tensor, access: Access) -> Tensor:
    """Return what an API of this access level shows of an output (..., n, *output_shape).

    It is differentiable for PROBS and OUTPUT, so a method can train through it. LABEL and PROBS
    take the last dimension as class logits.
    """
    if access is Access.LABEL:
        return output.argmax(-1)
    if access is Access.PROBS:
        return output.softmax(-1)
    return output


def log_probabilities(replies: Tensor, access: Access) -> Tensor:
    """Return a classifier's log-probabilities (..., classes), from its replies at an access level.

    replies: probabilities for PROBS, logits for OUTPUT, each (..., classes). Both give the same
             log-probabilities, except for rounding.

    Probabilities below the smallest normal number of their type (1e-38 for float32) count as that
    number, so that a probability rounded to 0 has a finite logarithm. NaN stays NaN. The function
    is differentiable. A method that trains through it should pass logits and OUTPUT, because the
    gradient of log(p) overflows for the smallest p.

    Raises TrialError for LABEL, because labels have no probabilities.
    """
    if access is Access.LABEL:
        raise TrialError("expected replies of probabilities or logits, got labels")
    least = torch.finfo(replies.dtype).tiny
    if access is Access.PROBS:
        return replies.clamp_min(least).log()
    return replies.log_softmax(-1).clamp_min(math.log(least))


@dataclass
class _Hidden:
    """The state of an oracle: its model's function, its access level, its count of queries."""

    ask: Callable[[Tensor], Tensor]
    access: Access
    queries: int = 0


_hidden: WeakKeyDictionary[Oracle, _Hidden] = WeakKeyDictionary()
"""The state of each oracle. It is not in the oracle itself, so a method that searches the oracle's
attributes, methods and closures finds no model, and cannot reset the count of queries."""


class Oracle:
    """Black-box access to one suspect.

    Call it with a batch of inputs (n, *input_shape) inside the scenario's input range. It replies
    on the CPU, without gradients, at its access level. It has no reference to the model, so a
    method sees replies and nothing else.
    """

    __slots__ = ("__weakref__",)

    def __init__(self, ask: Callable[[Tensor], Tensor], access: Access) -> None:
        _hidden[self] = _Hidden(ask, access)

    @property
    def access(self) -> Access:
        """The level at which this oracle replies."""
        return _hidden[self].access

    @property
    def queries(self) -> int:
        """The number of inputs answered so far."""
        return _hidden[self].queries

    def __call__(self, x: Tensor, access: Access | None = None) -> Tensor:
        """Reply to a batch (n, *input_shape), at a lower access level if `access` names one.

        Raises TrialError for a level above the suite's, and for inputs of another shape or outside
        the input range.
        """
        hidden = _hidden[self]
        if access is not None and access > hidden.access:
            raise TrialError(
                f"expected a query at access level {hidden.access} or less, "
                f"got one at {Access(access)}: the suite's api grants no more"
            )
        x = _plain(x)
        hidden.queries += len(x)
        return _reduced(hidden.ask(x), hidden.access, access)


def _plain(x: Tensor) -> Tensor:
    """Return the numbers only. A subclass of Tensor could watch the model's computation, or say
    that it holds no inputs."""
    with torch._C.DisableTorchFunctionSubclass():
        return Tensor.as_subclass(Tensor.detach(x), Tensor)


def _reduced(replies: Tensor, level: Access, requested: Access | None) -> Tensor:
    """Return replies of one access level as replies of a lower one."""
    if requested is None or requested is level:
        return replies
    if requested is Access.LABEL:
        return replies.argmax(-1)
    return reply(replies, requested)


def to_bytes(x: Tensor, input_range: tuple[float, float]) -> Tensor:
    """Return inputs as the pixels of an 8-bit image: the input range maps to 0..255 (uint8)."""
    low, high = input_range
    return ((x - low) / (high - low) * 255).round().clamp(0, 255).to(torch.uint8)


def from_bytes(pixels: Tensor, input_range: tuple[float, float]) -> Tensor:
    """Return the inputs (float32) that the pixels of an 8-bit image stand for."""
    low, high = input_range
    return low + pixels.float() / 255 * (high - low)


def oracle_of(
    model: nn.Module,
    access: Access,
    *,
    input_shape: tuple[int, ...],
    input_range: tuple[float, float],
    device: torch.device,
    input_dtype: torch.dtype = torch.float32,
    quantised: bool = False,
    batch_size: int = 1024,
) -> Oracle:
    """Put a model behind a prediction API.

    A query of another shape than `input_shape`, outside `input_range` or not of whole numbers where
    `input_dtype` is torch.int64, all three the scenario's, raises TrialError, because a real API
    would not accept it.

    quantised: round queries to the 256 levels of an 8-bit image before the model answers them.
    """
    model = model.to(device).eval()
    low, high = input_range

    def ask(x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != input_shape:
            raise TrialError(
                f"expected queries of shape (n, {', '.join(map(str, input_shape))}), "
                f"got {tuple(x.shape)}"
            )
        if input_dtype is torch.int64 and x.dtype is not torch.int64:
            raise TrialError(f"expected queries of ids, torch.int64, got {x.dtype}")
        rounding = 1e-6 * (high - low)
        if not bool(((x >= low - rounding) & (x <= high + rounding)).all()):
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
