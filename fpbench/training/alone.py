"""A single model where a stack is expected."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ..api.stack import Stack
from ..api.ways import Way


class Alone:
    """One model as a stack of one, run as PyTorch runs it: nothing is gathered, nothing mapped.

    params: by name, of a copy; without a member dimension, without gradient.
    """

    def __init__(self, model: nn.Module, way: Way) -> None:
        self._last = way == "looped_last"
        self._module = copy.deepcopy(model).requires_grad_(False)
        if self._last:
            self._module.to(memory_format=torch.channels_last)
        self.params: dict[str, Tensor] = dict(self._module.named_parameters())

    def __call__(self, x: Tensor, *, shared: Literal[False]) -> Tensor:
        """The output (1, n, *output_shape); x (1, n, *input_shape), as a Stack takes it."""
        own = x[0]
        if self._last and own.ndim == 4:
            own = own.contiguous(memory_format=torch.channels_last)
        out: Tensor = self._module(own)
        return out[None]

    def unstack(self, models: Sequence[nn.Module]) -> None:
        """Write weights and buffers back into the one model."""
        models[0].load_state_dict(self._module.state_dict())


def together(models: Sequence[nn.Module], way: Way) -> Stack | Alone:
    """Models to be trained at once: a stack, or one alone."""
    return Stack(models, way) if len(models) > 1 else Alone(models[0], way)
