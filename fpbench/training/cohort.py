"""Train a cohort: all members side by side or one after another, each as if it were alone."""

from __future__ import annotations

import copy
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from ..api.recipe import Lab, Recipe
from ..api.scenario import Pool
from ..compute.stack import Stack, Way, choose_way
from .augment import Augment
from .losses import Loss, by_member


def last_layer(model: nn.Module) -> str:
    """Return the name of the last module with parameters of its own: the output layer."""
    *_, last = (name for name, module in model.named_modules() if [*module.parameters(False)])
    return str(last)


PIXELS = 64 * 64
"""Of a picture, from which on a network that trains alone on a CPU has channels last in memory."""


def widened(out: Tensor) -> Tensor:
    """Return bfloat16 outputs as float32, since losses are sums of small numbers."""
    return out.float() if out.dtype is torch.bfloat16 else out


Optimizer = Literal["adam", "adamw", "sgd"]


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """Same-architecture models and everything that their training depends on; see `fit`."""

    lab: Lab
    recipes: Sequence[Recipe]
    models: Sequence[nn.Module]
    pool: Pool
    loss: Loss
    epochs: int
    lr: float
    batch_size: int
    layers: str
    cosine: bool
    masks: Sequence[Mapping[str, Tensor]] | None
    optimizer: Optimizer
    weight_decay: float
    augment: Augment
    share: float

    def __len__(self) -> int:
        return len(self.models)

    def part(self, first: int, end: int) -> Cohort:
        """Return a cohort of the members `first` to `end`."""
        own = slice(first, end)
        return replace(
            self, recipes=self.recipes[own], models=self.models[own],
            masks=self.masks[own] if self.masks else None,
        )  # fmt: skip

    @property
    def batches(self) -> int:
        """Steps per epoch."""
        return math.ceil(self.inputs / self.batch_size)

    @property
    def inputs(self) -> int:
        """The number of inputs that each member learns from."""
        return max(1, round(self.share * len(self.pool.inputs)))

    def rngs(self) -> list[torch.Generator]:
        """Return a new generator for each member, seeded by its recipe."""
        return [self.lab.rng(recipe) for recipe in self.recipes]

    def subsets(self, rngs: Sequence[torch.Generator]) -> Tensor | None:
        """Return the indices (members, inputs) that each member learns from; None for all."""
        total, count = len(self.pool.inputs), self.inputs
        if count == total:
            return None
        return torch.stack([torch.randperm(total, generator=rng)[:count] for rng in rngs])

    def order(self, rngs: Sequence[torch.Generator], subsets: Tensor | None) -> Sequence[Tensor]:
        """Return an epoch's batches, indices (members, n): every member draws its own order."""
        order = torch.stack([torch.randperm(self.inputs, generator=rng) for rng in rngs])
        if subsets is not None:
            order = subsets.gather(1, order)
        return order.to(self.lab.device).tensor_split(self.batches, dim=1)

    def autocast(self) -> torch.autocast:
        """Return the context of a forward pass in the scenario's precision."""
        low = self.lab.scenario.precision == "bfloat16"
        return torch.autocast(self.lab.device.type, torch.bfloat16, enabled=low)


class Learner(ABC):
    """The members of a cohort while they learn. A subclass says what one step is.

    stack:   the members' networks, called as `stack(x, shared=False)`.
    learned: the parameters that training changes.
    """

    def __init__(self, cohort: Cohort, way: Way) -> None:
        self.cohort = cohort
        for model in cohort.models:
            model.train(cohort.layers == "all")
        self.stack = together(cohort.models, way, cohort.pool.inputs[:2])
        head = last_layer(cohort.models[0])
        prefix = f"{head}." if head else ""  # a network that is one layer is its own last layer
        self.learned = [
            p.requires_grad_()
            for name, p in self.stack.params.items()
            if cohort.layers == "all" or name.startswith(prefix)
        ]
        self.kept: dict[str, Tensor] = {}
        if masks := cohort.masks:
            for n in masks[0]:
                mask = torch.stack([m[n] for m in masks]).to(cohort.lab.device)
                self.kept[n] = mask.view_as(self.stack.params[n])

    def descent(self, params: Sequence[Tensor], beta: float = 0.9) -> Callable[[Tensor], None]:
        """Return a function that takes a loss and does one step of the cohort's optimizer, annealed
        if the cohort is.

        It calls torch's updates directly: torch.optim.Adam checks its parameters at every step,
        which takes as long as updating a stack of small networks.

        beta: Adam's first decay rate; SGD's momentum is always 0.9.
        """
        cohort, lr, params = self.cohort, self.cohort.lr, list(params)
        moments, squares = ([torch.zeros_like(p) for p in params] for _ in range(2))
        counts = [torch.zeros((), dtype=torch.float, device=p.device) for p in params]
        steps = cohort.epochs * cohort.batches
        done = itertools.count(1)

        def descend(loss: Tensor) -> None:
            nonlocal lr
            for p in params:
                p.grad = None
            # Only these gradients: a loss may depend on other networks' weights too.
            loss.backward(inputs=params)
            rows = zip(params, (p.grad for p in params), moments, squares, counts, strict=True)
            found = [row for row in rows if row[1] is not None]
            own, grads, m, v, count = ([*column] for column in zip(*found, strict=True))
            with torch.no_grad():
                if cohort.optimizer == "sgd":
                    sgd(
                        own, grads, m, fused=True, weight_decay=cohort.weight_decay, momentum=0.9,
                        lr=lr, dampening=0.0, nesterov=False, maximize=False,
                    )  # fmt: skip
                else:
                    adam(
                        own, grads, m, v, [], count, fused=True, amsgrad=False, beta1=beta,
                        beta2=0.999, lr=lr, weight_decay=cohort.weight_decay, eps=1e-8,
                        maximize=False, decoupled_weight_decay=cohort.optimizer == "adamw",
                    )  # fmt: skip
            if cohort.cosine:
                lr = cohort.lr * (1 + math.cos(math.pi * next(done) / steps)) / 2

        return descend

    def losses(self, out: Tensor, truth: Tensor) -> Tensor:
        """Return each member's loss (members,) of outputs and truth (members, n, ...)."""
        if len(self.cohort) == 1:
            return self.cohort.loss(widened(out)[0], truth[0])[None]
        return self._by_member(widened(out), truth)

    @cached_property
    def _by_member(self) -> Loss:
        return by_member(self.cohort.loss)

    def mask(self) -> None:
        """Set pruned weights back to zero."""
        with torch.no_grad():
            for name, mask in self.kept.items():
                self.stack.params[name].mul_(mask)

    @abstractmethod
    def step(self, batch: Tensor) -> Tensor:
        """Learn from each member's batch, indices (members, n); return the losses (members,)."""

    def finish(self) -> None:
        """Write the learned weights into the models."""
        self.stack.unstack(self.cohort.models)
        for model in self.cohort.models:
            model.eval()


def train(cohort: Cohort, learner: type[Learner]) -> None:
    """Train a cohort's models in place: side by side, or one after another as `choose_way` says."""
    way = choose_way(cohort.models[0], len(cohort))
    if way == "looped":
        for i in range(len(cohort)):
            _epochs(cohort.part(i, i + 1), learner, way)
    else:
        _together(cohort, learner, way)


def _together(cohort: Cohort, learner: type[Learner], way: Way) -> None:
    try:
        _epochs(cohort, learner, way)
    except torch.OutOfMemoryError:
        # Nothing was written back yet, and every generator starts anew, so halves give the same.
        if len(cohort) == 1:
            raise
        torch.cuda.empty_cache()
        half = len(cohort) // 2
        _together(cohort.part(0, half), learner, way)
        _together(cohort.part(half, len(cohort)), learner, way)


def _epochs(cohort: Cohort, learner: type[Learner], way: Way) -> None:
    student, rngs = learner(cohort, way), cohort.rngs()
    subsets = cohort.subsets(rngs)
    reported: set[int] = set()
    for epoch in range(1, cohort.epochs + 1):
        total = torch.zeros(len(cohort), device=cohort.lab.device)
        for batch in cohort.order(rngs, subsets):
            total += student.step(batch)
        for i in torch.nonzero(~total.isfinite()).flatten().tolist():
            if i not in reported:
                reported.add(i)
                cohort.lab.failed(
                    cohort.recipes[i],
                    f"its loss became {total[i]:g} in epoch {epoch} of {cohort.epochs}",
                )
    student.finish()


class Alone:
    """One model as a stack of one, run as PyTorch runs it: nothing is gathered, nothing mapped.

    params: by name, of a copy; without a member dimension, without gradient.
    """

    def __init__(self, model: nn.Module, example: Tensor | None = None) -> None:
        """Copy a model; `example` are some of the inputs (n, *input_shape) it will get."""
        self._last = example is not None and _gains_by_channels_last(model, example)
        self._module = copy.deepcopy(model).requires_grad_(False)
        if self._last:
            self._module.to(memory_format=torch.channels_last)
        self.params: dict[str, Tensor] = dict(self._module.named_parameters())

    def __call__(self, x: Tensor, *, shared: Literal[False]) -> Tensor:
        """Return the output (1, n, *output_shape) of x (1, n, *input_shape), as a Stack would."""
        own = x[0].contiguous(memory_format=torch.channels_last) if self._last else x[0]
        out: Tensor = self._module(own)
        return out[None]

    def unstack(self, models: Sequence[nn.Module]) -> None:
        """Write weights and buffers back into the one model."""
        models[0].load_state_dict(self._module.state_dict())


def together(models: Sequence[nn.Module], way: Way, example: Tensor | None = None) -> Stack | Alone:
    """Return models to be trained at once: a stack, or one alone."""
    return Stack(models, way) if len(models) > 1 else Alone(models[0], example)


def _gains_by_channels_last(model: nn.Module, example: Tensor) -> bool:
    """Say whether a network takes large pictures on a CPU and can have channels last in memory."""
    pictures = example.ndim == 4 and example.device.type == "cpu"
    if not pictures or example.shape[-2:].numel() < PIXELS:
        return False
    trial = copy.deepcopy(model).to(memory_format=torch.channels_last)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            trial(example.contiguous(memory_format=torch.channels_last))
    except Exception:  # a `view`, say, which needs channels first
        return False
    return True
