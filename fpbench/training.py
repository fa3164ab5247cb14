"""One training loop for every recipe: a cohort side by side, each member as if alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import vmap

from .api.recipe import Lab, Recipe
from .api.scenario import Pool
from .api.stack import Stack

Loss = Callable[[Tensor, Tensor], Tensor]


def last_layer(model: nn.Module) -> str:
    """The name of the last module that has parameters of its own: the output layer."""
    *_, last = (name for name, module in model.named_modules() if [*module.parameters(False)])
    return str(last)


def fit(
    lab: Lab,
    recipes: Sequence[Recipe],
    models: Sequence[nn.Module],
    pool: Pool,
    *,
    loss: Loss,
    epochs: int,
    lr: float,
    batch_size: int,
    layers: str = "all",
    cosine: bool = False,
    masks: Sequence[Mapping[str, Tensor]] | None = None,
) -> None:
    """Train same-architecture models in place, all at once, with Adam.

    Each member draws its batch order from its recipe's own generator and its loss touches no
    other member, so it gets the weights it would have got alone, up to rounding. A member
    whose loss is no longer finite is reported to the lab; the others go on.

    loss:   of one member's batch, (n, *output_shape) and truth (n, ...), a scalar.
    layers: "all", or "last" to leave all else as it is, running statistics included.
    cosine: anneal the learning rate to zero over the epochs.
    masks:  per member, by parameter name, 0 where a weight has been pruned and stays so.
    """
    if not epochs:
        return
    try:
        _fit(lab, recipes, models, pool, loss, epochs, lr, batch_size, layers, cosine, masks)
    except torch.OutOfMemoryError:
        # Nothing was written back yet, and every generator starts anew: halves are the same.
        if len(models) == 1:
            raise
        torch.cuda.empty_cache()
        half = len(models) // 2
        for part in (slice(None, half), slice(half, None)):
            fit(
                lab, recipes[part], models[part], pool, loss=loss, epochs=epochs, lr=lr,
                batch_size=batch_size, layers=layers, cosine=cosine,
                masks=masks[part] if masks else None,
            )  # fmt: skip


def _fit(
    lab: Lab,
    recipes: Sequence[Recipe],
    models: Sequence[nn.Module],
    pool: Pool,
    loss: Loss,
    epochs: int,
    lr: float,
    batch_size: int,
    layers: str,
    cosine: bool,
    masks: Sequence[Mapping[str, Tensor]] | None,
) -> None:
    for model in models:
        model.train(layers == "all")
    stack = Stack(models)
    head = last_layer(models[0])
    prefix = f"{head}." if head else ""  # a network that is one layer is its own last layer
    learned = [
        p.requires_grad_()
        for name, p in stack.params.items()
        if layers == "all" or name.startswith(prefix)
    ]
    kept = {}
    if masks:
        kept = {name: torch.stack([m[name] for m in masks]).to(lab.device) for name in masks[0]}

    inputs, truth = (t.to(lab.device) for t in pool)
    rngs = [lab.rng(recipe) for recipe in recipes]
    batches = math.ceil(len(inputs) / batch_size)
    optimizer = torch.optim.Adam(learned, lr=lr, fused=True)
    steps = epochs * batches
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: (1 + math.cos(math.pi * step / steps)) / 2 if cosine else 1.0
    )
    reported: set[int] = set()

    for epoch in range(1, epochs + 1):
        order = torch.stack([torch.randperm(len(inputs), generator=rng) for rng in rngs])
        total = torch.zeros(len(models), device=lab.device)
        for batch in order.to(lab.device).tensor_split(batches, dim=1):
            out = stack(inputs[batch], shared=False)
            losses = vmap(loss)(out, truth[batch])
            optimizer.zero_grad()
            losses.sum().backward()
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                for name, mask in kept.items():
                    stack.params[name].mul_(mask)
            total += losses.detach()
        for i in torch.nonzero(~total.isfinite()).flatten().tolist():
            if i not in reported:
                reported.add(i)
                lab.failed(recipes[i], f"its loss became {total[i]:g} in epoch {epoch} of {epochs}")

    stack.unstack(models)
    for model in models:
        model.eval()
