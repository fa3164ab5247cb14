"""Models of one architecture answer in one pass: their weights stacked, `vmap` over them."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

ELEMENTS = 2**25
"""Input elements that models are asked at once: activations take tens of times their memory."""


def parts(x: Tensor, models: int = 1) -> tuple[Tensor, ...]:
    """Split a batch (n, ...) that `models` networks will answer into what memory holds: 1024
    inputs at most, fewer where they are large."""
    size = max(1, min(1024, ELEMENTS // (models * max(1, x[:1].numel()))))
    split: tuple[Tensor, ...] = x.split(size)
    return split


def signature(model: nn.Module) -> tuple[object, ...]:
    """Models with equal signatures can be stacked: same modules, same tensors' shapes."""
    # Sorted: pruning, for one, registers a layer's tensors anew in another order.
    shapes = tuple(sorted((name, tuple(t.shape)) for name, t in model.state_dict().items()))
    return type(model), repr(model), shapes


class Stack:
    """Same-architecture models as one module with a leading member dimension.

    params, buffers: name -> (members, *shape), copies without gradient.
    size: how many members.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        params, buffers = stack_module_state(list(models))
        self.params: dict[str, Tensor] = {name: p.detach().clone() for name, p in params.items()}
        self.buffers: dict[str, Tensor] = {name: b.clone() for name, b in buffers.items()}
        self.size = len(models)
        # A skeleton without weights: functional_call brings them.
        self.skeleton = copy.deepcopy(models[0]).to("meta").train(models[0].training)

    def __call__(self, x: Tensor, *, shared: bool) -> Tensor:
        """Every member's output: (members, n, *output_shape).

        x: (n, *input_shape) for all members if `shared`, else (members, n, *input_shape).
        """

        def one(params: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
            out: Tensor = functional_call(self.skeleton, (params, buffers), (x,))
            return out

        run = vmap(one, in_dims=(0, 0, None if shared else 0), randomness="different")
        out: Tensor = run(self.params, self.buffers, x)
        return out

    def unstack(self, models: Sequence[nn.Module]) -> None:
        """Write each member's weights and buffers back into its model."""
        with torch.no_grad():
            for i, model in enumerate(models):
                for name, p in model.named_parameters():
                    p.copy_(self.params[name][i])
                for name, b in model.named_buffers():
                    b.copy_(self.buffers[name][i])


class Stacks:
    """Models of any architectures, answering in one pass per architecture, in their order."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        groups: dict[tuple[object, ...], list[int]] = {}
        for i, model in enumerate(models):
            groups.setdefault(signature(model), []).append(i)
        self._stacks = [Stack([models[i] for i in members]) for members in groups.values()]
        self._order = torch.tensor([i for members in groups.values() for i in members]).argsort()

    def __call__(self, x: Tensor) -> Tensor:
        """Every model's output on x (n, *input_shape): (models, n, *output_shape).

        Differentiable in x, not in the models' weights.
        """
        out = torch.cat([stack(x, shared=True) for stack in self._stacks])
        return out[self._order.to(out.device)]
