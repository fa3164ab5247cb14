"""Adversarial attacks that methods build on, each on a whole batch at once.

Points move along gradients of the model's output; the model must be in eval mode, its parameters
frozen, as a case's target is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..compute.stack import ELEMENTS

BETAS = (0.9, 0.999)
"""Adam's decay rates: its paper's."""


def deepfool(
    model: nn.Module, start: Tensor, input_range: tuple[float, float],
    *, steps: int = 50, overshoot: float = 0.02, candidates: int = 10, along_border: bool = False,
) -> Tensor:  # fmt: skip
    """Multi-class DeepFool (CVPR 2016, algorithm 2) on a batch (n, ...); returns it moved.

    While a point keeps its first label k0, it goes towards the nearest boundary of the model's
    linearisation: l = argmin_k |z_k - z_k0| / ||w_k||, w_k = grad(z_k - z_k0), by
    (|z_l - z_k0| + 1e-4) / ||w_l||^2 w_l. The overshoot stretches the sum of all steps, from the
    start, for a stretch of each alone stalls on the boundary. Clipped to `input_range`.

    along_border: leave out of w what would take an input that is at its border out of the range.
                  Clipping eats that part of each step, and with it the overshoot: points creep up
                  to the boundary and stop on it. Without it they end a few percent farther, past
                  the boundary. Ours; the paper does not clip.
    """
    low, high = input_range
    with torch.no_grad():
        logits = model(start)
    # The label itself stands first; the others are the classes to walk to.
    ranked = logits.topk(min(candidates, logits.shape[1]), dim=1).indices
    total = torch.zeros_like(start)
    x = start.clone()
    todo = torch.arange(len(x), device=x.device)
    for _ in range(steps):
        here = x[todo].requires_grad_()
        z = model(here)
        on = z.argmax(1) == ranked[todo, 0]
        if not on.any():
            break
        z = z.gather(1, ranked[todo])
        slopes = _slopes(z, here)[on]
        todo, z, at = todo[on], z.detach()[on], here.detach()[on].flatten(1)[:, None]
        f = (z[:, 1:] - z[:, :1]).abs()
        w = slopes[:, 1:] - slopes[:, :1]
        if along_border:
            w = w.masked_fill(((at <= low) & (w < 0)) | ((at >= high) & (w > 0)), 0)
        norm = w.norm(dim=2).clamp_min(1e-12)
        nearest = (f / norm).argmin(1)
        row = torch.arange(len(todo), device=x.device)
        length = (f[row, nearest] + 1e-4) / norm[row, nearest] ** 2
        total[todo] += (length[:, None] * w[row, nearest]).view(-1, *x.shape[1:])
        x[todo] = (start[todo] + (1 + overshoot) * total[todo]).clamp(low, high)
    return x


def _slopes(z: Tensor, x: Tensor) -> Tensor:
    """The gradient of each column of z (n, k) in x (n, ...): (n, k, inputs), as many columns in one
    backward pass as memory holds."""
    columns = torch.eye(z.shape[1], device=z.device, dtype=z.dtype)[:, None].expand(-1, len(z), -1)
    slopes = [
        torch.autograd.grad(z, x, some, retain_graph=True, is_grads_batched=True)[0].flatten(2)
        for some in columns.split(max(1, ELEMENTS // x.numel()))
    ]
    return torch.cat(slopes).transpose(0, 1)


def pgd(
    loss: Callable[[Tensor], Tensor], start: Tensor, input_range: tuple[float, float],
    *, eps: float, step: float, steps: int, rng: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Projected gradient ascent in the L-infinity ball; returns the batch (n, ...) moved.

    Madry et al., *Towards Deep Learning Models Resistant to Adversarial Attacks*, ICLR 2018:
    x <- clip(x + step * sign(grad loss(x))), clipped to within `eps` of the start and to
    `input_range`. `loss` maps a batch to one value per point (n,), which is to grow; `eps` and
    `step` are in the inputs' own unit. With `rng`, a CPU generator, a point starts uniformly
    inside its ball.
    """
    low, high = input_range
    floor, ceiling = (start - eps).clamp_min(low), (start + eps).clamp_max(high)
    x = start.clone()
    if rng is not None:
        noise = 2 * torch.rand(start.shape, generator=rng) - 1
        x = (x + eps * noise.to(x)).clamp(floor, ceiling)
    for _ in range(steps):
        x.requires_grad_()
        (slope,) = torch.autograd.grad(loss(x).sum(), x)
        x = (x.detach() + step * slope.sign()).clamp(floor, ceiling)
    return x


def descend(
    loss: Callable[[Tensor, Tensor], Tensor], start: Tensor, input_range: tuple[float, float],
    *, lr: float, steps: int, enough: float, progress: Callable[[Tensor], None] | None = None,
) -> Tensor:  # fmt: skip
    """Adam on a batch (n, ...), each point until its loss is `enough` or less; returns it moved.

    `loss` maps the points that still move (k, ...), and which of the n they are (k,), to one value
    per point (k,): those that have arrived are left out and cost no more. `lr` is a share of
    `input_range`, to which points are clipped after each of at most `steps` steps. `progress`, a
    case's, is told the mean loss of all points at each.

    Kingma and Ba, *Adam: A Method for Stochastic Optimization*, ICLR 2015, algorithm 1; torch's
    own optimiser cannot let go of some points.
    """
    low, high = input_range
    moved = start.clone()
    which = torch.arange(len(start), device=start.device)
    losses = torch.zeros_like(which, dtype=start.dtype)
    x, mean, square = start, torch.zeros_like(start), torch.zeros_like(start)
    for step in range(1, steps + 1):
        x = x.detach().requires_grad_()
        value = loss(x, which)
        (slope,) = torch.autograd.grad(value.sum(), x)
        if progress is not None:
            losses[which] = value.detach()
            progress(losses.mean())
        left = (value.detach() > enough).nonzero().squeeze(1)
        if len(left) < len(which):
            moved[which] = x.detach()
            which, x, slope, mean, square = (t[left] for t in (which, x, slope, mean, square))
        if not len(which):
            break
        mean.lerp_(slope, 1 - BETAS[0])
        square.lerp_(slope.square(), 1 - BETAS[1])
        spread = (square / (1 - BETAS[1] ** step)).sqrt_().add_(1e-8)
        length = lr * (high - low) / (1 - BETAS[0] ** step)
        x = x.detach().addcdiv(mean, spread, value=-length).clamp_(low, high)
    moved[which] = x.detach()
    return moved
