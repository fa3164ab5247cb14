"""The one tensor of an answer that holds several, such as a mapping or a tuple."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .errors import InputError

USUAL = "logits"
"""The name by which libraries call the raw scores."""


class ChooseOutput:
    """A forward hook: it takes one tensor of a network's answer.

    name:   the architecture's name, for messages.
    shape:  the shape of one output.
    output: the name of the tensor to take, or its place in a tuple; by default the one of the right
            shape is taken, or of several the one that is called logits.
    """

    def __init__(self, name: str, shape: tuple[int, ...], output: str | None) -> None:
        self.name, self.shape, self.output = name, shape, output

    def __call__(self, _: nn.Module, inputs: tuple[Any, ...], answer: Any) -> Tensor:
        if isinstance(answer, Tensor) and self.output is None:
            return answer
        tensors = tensors_of(answer)
        if self.output is not None:
            if self.output in tensors:
                return tensors[self.output]
            raise InputError(
                f"expected {self.name} to answer with an output {self.output!r}, got "
                f"{_words(answer, tensors)}"
            )
        right = {name: t for name, t in tensors.items() if tuple(t.shape[1:]) == self.shape}
        if len(right) > 1 and USUAL in right:
            return right[USUAL]
        if len(right) == 1:
            return next(iter(right.values()))
        advice = (
            f"name one of them, as {self.name}@{next(iter(right))}"
            if right
            else "return the logits, or name an output, as NETWORK@OUTPUT"
        )
        raise InputError(
            f"expected {self.name} to answer with one tensor of shape {self.shape} for an input, "
            f"got {_words(answer, tensors)}; {advice}"
        )


def tensors_of(answer: Any) -> dict[str, Tensor]:
    """Return the tensors of an answer by name, or by place: of a mapping, sequence or dataclass."""
    if isinstance(answer, Tensor):
        return {"0": answer}
    if isinstance(answer, Mapping):
        items = [(str(name), value) for name, value in answer.items()]
    elif dataclasses.is_dataclass(answer) and not isinstance(answer, type):
        items = [(f.name, getattr(answer, f.name)) for f in dataclasses.fields(answer)]
    elif hasattr(answer, "_fields"):
        items = [(name, getattr(answer, name)) for name in answer._fields]
    elif isinstance(answer, list | tuple):
        items = [(str(i), value) for i, value in enumerate(answer)]
    else:
        items = [*getattr(answer, "__dict__", {}).items()]
    return {name: value for name, value in items if isinstance(value, Tensor)}


def _words(answer: Any, tensors: Mapping[str, Tensor]) -> str:
    kind = type(answer).__name__
    shapes = ", ".join(f"{name[:40]} {tuple(t.shape[1:])}" for name, t in [*tensors.items()][:6])
    return f"a {kind} of {shapes}" if shapes else f"a {kind} without tensors"
