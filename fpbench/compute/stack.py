"""Models of one architecture as one: their weights stacked, and run one of several ways."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from hashlib import sha256
from types import CodeType

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from .fused import Fused, fused
from .ways import Way, enough, faster

MEASURED = 64
"""Inputs on which the two ways of answering are timed: some networks are large."""

ELEMENTS = 2**25
"""Input elements that models are asked at once: activations take tens of times their memory."""


def parts(x: Tensor, models: int = 1, most: int = 1024) -> tuple[Tensor, ...]:
    """Split a batch (n, ...) that `models` networks will answer into what memory holds: `most`
    inputs each, fewer where they are large."""
    size = max(1, min(most, ELEMENTS // (models * max(1, x[:1].numel()))))
    split: tuple[Tensor, ...] = x.split(size)
    return split


def signature(model: nn.Module) -> tuple[object, ...]:
    """Models with equal signatures can be stacked: same modules, tensors' shapes and code."""
    # Sorted: pruning, for one, registers a layer's tensors anew in another order.
    shapes = tuple(sorted((name, tuple(t.shape)) for name, t in model.state_dict().items()))
    # What runs fastest is remembered by this, and must not outlive what its author edits.
    codes = dict.fromkeys(getattr(type(m).forward, "__code__", None) for m in model.modules())
    told = "".join(_told(code) for code in codes if code)
    return type(model), repr(model), shapes, sha256(told.encode()).hexdigest()


def _told(code: CodeType) -> str:
    """A function's code in words that are the same in every process."""
    return f"{code.co_code!r} {code.co_names} {[_constant(c) for c in code.co_consts]}"


def _constant(found: object) -> str:
    if isinstance(found, frozenset):  # in another order in each process
        return repr(sorted(map(repr, found)))
    return _told(found) if isinstance(found, CodeType) else repr(found)


class Stack:
    """Same-architecture models as one module with a leading member dimension.

    params, buffers: name -> (members, *shape), copies without gradient.
    size:   how many members.
    way:    how they run, see `fpbench.compute.ways`.
    """

    def __init__(self, models: Sequence[nn.Module], way: Way = "stacked") -> None:
        """One alone is never stacked."""
        params, buffers = stack_module_state(list(models))
        self.params: dict[str, Tensor] = {name: p.detach().clone() for name, p in params.items()}
        self.buffers: dict[str, Tensor] = {name: b.clone() for name, b in buffers.items()}
        self.size = len(models)
        self.take("looped" if self.size == 1 and way != "looped_last" else way)
        # A skeleton without weights: functional_call brings them.
        self.skeleton = copy.deepcopy(models[0]).to("meta").train(models[0].training)

    def take(self, way: Way) -> None:
        """Run this way from now on. `params` are new tensors afterwards."""
        self.way: Way = way
        last = way in ("looped_last", "fused")
        self.params = {name: _in_memory(p, last) for name, p in self.params.items()}

    def __call__(self, x: Tensor, *, shared: bool) -> Tensor:
        """Every member's output: (members, n, *output_shape).

        x: (n, *input_shape) for all members if `shared`, else (members, n, *input_shape).
        """
        if self.way == "fused":
            return self._fused(self.params, self.buffers, x, shared=shared)
        if self.way == "stacked":
            over_all = (0, 0, None if shared else 0)
            run = vmap(self._one, in_dims=over_all, randomness="different")
            out: Tensor = run(self.params, self.buffers, x)
            return out
        if not shared:
            x = _in_memory(x, self.way == "looped_last")
        elif self.way == "looped_last" and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        # unbind, for the gradient of p[i] would be as large as p for every member.
        each = {name: p.unbind(0) for name, p in self.params.items()}
        return torch.stack([
            self._one(
                {name: p[i] for name, p in each.items()},
                {name: b[i] for name, b in self.buffers.items()},
                x if shared else x[i],
            )
            for i in range(self.size)
        ])  # fmt: skip

    @cached_property
    def ways(self) -> tuple[Way, ...]:
        """Those that differ for these members, the plainest first."""
        return ways_of(self.skeleton, self.size)

    @cached_property
    def _fused(self) -> Fused:
        found = fused(self.skeleton)
        assert found is not None, "no such way: see `ways`"
        return found

    def _one(self, params: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        out: Tensor = functional_call(self.skeleton, (params, buffers), (x,))
        return out

    def first(self, size: int, way: Way) -> Stack:
        """The first members, on the same weights, answering one way."""
        part = copy.copy(self)
        part.params = {name: p[:size] for name, p in self.params.items()}
        part.buffers = {name: b[:size] for name, b in self.buffers.items()}
        part.size = min(size, self.size)
        part.take(way)
        return part

    def unstack(self, models: Sequence[nn.Module]) -> None:
        """Write each member's weights and buffers back into its model."""
        with torch.no_grad():
            for i, model in enumerate(models):
                for name, p in model.named_parameters():
                    p.copy_(self.params[name][i])
                for name, b in model.named_buffers():
                    b.copy_(self.buffers[name][i])


def _in_memory(stacked: Tensor, last: bool) -> Tensor:
    """A stack of images or kernels (members, n, channels, height, width), channels last in memory
    or not; any other tensor as it is."""
    if stacked.ndim != 5:
        return stacked
    if not last:
        return stacked.contiguous()
    return stacked.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)


def ways_of(model: nn.Module, members: int) -> tuple[Way, ...]:
    """The ways that differ for members of this architecture, the plainest first."""
    looped: tuple[Way, ...] = ("looped",)
    if any(p.ndim == 4 for p in model.parameters()):
        looped = ("looped", "looped_last")
    if members == 1:
        return looped
    return (*looped, "fused", "stacked") if fused(model) else (*looped, "stacked")


class Stacks:
    """Models of any architectures, answering in their order; those of one architecture in one
    pass or one after another, whichever is faster."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        groups: dict[tuple[object, ...], list[int]] = {}
        for i, model in enumerate(models):
            groups.setdefault(signature(model), []).append(i)
        self._stacks = {key: Stack([models[i] for i in members]) for key, members in groups.items()}
        self._order = torch.tensor([i for members in groups.values() for i in members]).argsort()

    def __call__(self, x: Tensor) -> Tensor:
        """Every model's output on x (n, *input_shape): (models, n, *output_shape).

        Differentiable in x, not in the models' weights.
        """
        for key, stack in self._stacks.items():
            if (way := _way(key, stack, x)) != stack.way:
                stack.take(way)
        out = torch.cat([stack(x, shared=True) for stack in self._stacks.values()])
        return out[self._order.to(out.device)]


def _way(key: tuple[object, ...], stack: Stack, x: Tensor) -> Way:
    """How a stack answers x fastest, and, where x has a gradient, finds it."""
    differentiated = torch.is_grad_enabled() and x.requires_grad
    some = x.detach()[:MEASURED].requires_grad_(differentiated)
    size = enough(stack.size, some.numel())

    def trial(way: Way) -> tuple[Callable[[], object], int]:
        part = stack.first(size, way)

        def step() -> None:
            out = part(some, shared=True)
            if differentiated:
                torch.autograd.grad(out.sum(), some)

        return step, size

    return faster(
        ("answer", key, tuple(some.shape), differentiated, size, str(x.device)),
        {way: partial(trial, way) for way in stack.ways},
        x.device,
        f"answer: {size} x {key[0]}, {len(some)} inputs of {tuple(some.shape[1:])}"
        f"{', with gradients' if differentiated else ''}",
    )
