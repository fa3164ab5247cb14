"""Models of one architecture as one: their weights stacked, run in one of three ways.

"fused" is one network that has all members' channels (see `fused`), "stacked" one vmapped pass over
all members' weights, "looped" one member after another. `choose_way` says which, by a rule: from
the network's graph and the size of its weights, never from the clock. So the same members give the
same numbers on an idle machine and on a busy one. docs/performance.md shows what the rule costs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from .fused import Fused, fused

Way = Literal["fused", "stacked", "looped"]

LARGE = 2**24
"""Bytes of one member's weights from which on members run one after another: large products fill a
device by themselves, and weights side by side only cost memory."""

SMALL = 2**18
"""Bytes of one member's weights up to which a network whose graph is not known is stacked: vmap's
rules cost time, which only small networks win back."""

ELEMENTS = 2**25
"""Input elements that models are asked at once: activations take tens of times their memory."""

PROBED = 2
"""Inputs of the first pass that tells whether a network can run in its way at all."""

_held: list[Way] = []


@contextmanager
def using(way: Way) -> Iterator[None]:
    """Take one way for everything inside, whatever the rule says: for tests and benchmarks."""
    _held.append(way)
    try:
        yield
    finally:
        _held.pop()


def choose_way(model: nn.Module, members: int) -> Way:
    """Return how so many members of a network's architecture run."""
    if _held:
        return _held[-1]
    weights = sum(p.nbytes for p in model.parameters())
    if members == 1 or weights >= LARGE:
        return "looped"
    if fused(model) is not None:
        return "fused"
    return "stacked" if weights <= SMALL else "looped"


def parts(x: Tensor, models: int = 1, most: int = 1024) -> tuple[Tensor, ...]:
    """Split a batch (n, ...) that `models` networks will answer into what memory holds: `most`
    inputs each, fewer where they are large."""
    size = max(1, min(most, ELEMENTS // (models * max(1, x[:1].numel()))))
    split: tuple[Tensor, ...] = x.split(size)
    return split


def signature(model: nn.Module) -> tuple[object, ...]:
    """Return what equals for models that can be stacked: type, modules, tensors' shapes."""
    # Sorted: pruning, for one, registers a layer's tensors anew in another order.
    shapes = tuple(sorted((name, tuple(t.shape)) for name, t in model.state_dict().items()))
    return type(model), repr(model), shapes


class Stack:
    """Same-architecture models as one module with a leading member dimension.

    params, buffers: name -> (members, *shape), copies without gradient.
    size:   how many members.
    way:    how they run. A network that cannot run in its way (a choice by numbers under vmap, a
            `view` of what is channels last) is looped instead; the first pass finds out.
    """

    def __init__(self, models: Sequence[nn.Module], way: Way | None = None) -> None:
        """Stack some models; by default `choose_way` says how they run."""
        params, buffers = stack_module_state(list(models))
        self.params: dict[str, Tensor] = {name: p.detach().clone() for name, p in params.items()}
        self.buffers: dict[str, Tensor] = {name: b.clone() for name, b in buffers.items()}
        self.size = len(models)
        self.way: Way = way or choose_way(models[0], self.size)
        if self.size == 1:
            self.way = "looped"
        # A skeleton without weights: functional_call brings them.
        self.skeleton = _without_weights(models[0]).train(models[0].training)
        if self.way == "fused" and self._fused is None:
            self.way = "looped"
        self._probed = self.way == "looped"
        if self.way == "fused":
            self.params = {name: _channels_last(p) for name, p in self.params.items()}

    def __call__(self, x: Tensor, *, shared: bool) -> Tensor:
        """Return every member's output: (members, n, *output_shape).

        x: (n, *input_shape) for all members if `shared`, else (members, n, *input_shape).
        """
        if not self._probed:
            self._probe(x[:PROBED] if shared else x[:, :PROBED], shared)
        return self._run(x, self.buffers, shared)

    def _probe(self, x: Tensor, shared: bool) -> None:
        """Loop the members from now on if they cannot run in their way. Changes nothing else."""
        devices = [x.device] if x.device.type == "cuda" else []
        kept = {name: b.clone() for name, b in self.buffers.items()}
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=devices):
                self._run(x.detach(), kept, shared)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # whatever the network's code does; if it is wrong, the loop says so
            self.way = "looped"
        self._probed = True

    def _run(self, x: Tensor, buffers: dict[str, Tensor], shared: bool) -> Tensor:
        if self.way == "fused":
            assert self._fused is not None, "choose_way fuses only what can be fused"
            return self._fused(self.params, buffers, x, shared=shared)
        if self.way == "stacked":
            over_all = (0, 0, None if shared else 0)
            run = vmap(self._one, in_dims=over_all, randomness="different")
            out: Tensor = run(self.params, buffers, x)
            return out
        # unbind, for the gradient of p[i] would be as large as p for every member.
        each = {name: p.unbind(0) for name, p in self.params.items()}
        return torch.stack([
            self._one(
                {name: p[i] for name, p in each.items()},
                {name: b[i] for name, b in buffers.items()},
                x if shared else x[i],
            )
            for i in range(self.size)
        ])  # fmt: skip

    @cached_property
    def _fused(self) -> Fused | None:
        return fused(self.skeleton)

    def _one(self, params: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        out: Tensor = functional_call(self.skeleton, (params, buffers), (x,))
        return out

    def unstack(self, models: Sequence[nn.Module]) -> None:
        """Write each member's weights and buffers back into its model."""
        with torch.no_grad():
            for i, model in enumerate(models):
                for name, p in model.named_parameters():
                    p.copy_(self.params[name][i])
                for name, b in model.named_buffers():
                    b.copy_(self.buffers[name][i])


def _without_weights(model: nn.Module) -> nn.Module:
    """Return a copy of a network on the meta device. Weights that are tied stay tied.

    `Module.to` would untie them, and a computation with a meta tensor gives any numbers.
    """
    memo: dict[int, Any] = {id(b): b.to("meta") for b in model.buffers()}
    memo |= {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, memo)


def _channels_last(stacked: Tensor) -> Tensor:
    """Lay a stack of kernels (members, out, in, height, width) out with channels last in memory."""
    if stacked.ndim != 5:
        return stacked
    return stacked.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)


class Stacks:
    """Models of any architectures that answer in their order, a stack for each architecture."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        groups: dict[tuple[object, ...], list[int]] = {}
        for i, model in enumerate(models):
            groups.setdefault(signature(model), []).append(i)
        self._stacks = [Stack([models[i] for i in members]) for members in groups.values()]
        self._order = torch.tensor([i for members in groups.values() for i in members]).argsort()

    def __call__(self, x: Tensor) -> Tensor:
        """Return every model's output on x (n, *input_shape): (models, n, *output_shape).

        Differentiable in x, not in the models' weights.
        """
        out = torch.cat([stack(x, shared=True) for stack in self._stacks])
        return out[self._order.to(out.device)]
