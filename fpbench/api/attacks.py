"""Adversarial attacks for methods. Each one moves a whole batch of points at once.

Points move along gradients of the model's output. The model must be in eval mode and its parameters
must be frozen; a case's target is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..compute.stack import ELEMENTS

BETAS = (0.9, 0.999)
"""Adam's decay rates, as in its paper."""


def deepfool(
    model: nn.Module, start: Tensor, input_range: tuple[float, float],
    *, steps: int = 50, overshoot: float = 0.02, candidates: int = 10, along_border: bool = False,
) -> Tensor:  # fmt: skip
    """Move a batch (n, ...) across decision boundaries with multi-class DeepFool; return it moved.

    Moosavi-Dezfooli, Fawzi and Frossard, *DeepFool*, CVPR 2016, algorithm 2. While a point keeps
    its first label k0, it moves towards the nearest boundary of the model's linearisation,
    l = argmin_k |z_k - z_k0| / ||w_k|| with w_k = grad(z_k - z_k0), by
    (|z_l - z_k0| + 1e-4) / ||w_l||^2 w_l. The factor 1 + `overshoot` applies to the sum of all
    steps from the start, because points stall on the boundary if it applies to each step. Points
    are clipped to `input_range`.

    candidates:   how many classes, those with the largest outputs, take part; the label is one.
    along_border: remove the components of w that would take an input out of the range when it is
                  at the border already. Clipping removes that part of each step, and the overshoot
                  with it, so points approach the boundary and stop on it. With this option they end
                  a few percent farther, past the boundary. It is our addition; the paper does not
                  clip.
    """
    low, high = input_range
    with torch.no_grad():
        logits = model(start)
    # The first column is the label itself; the others are the classes to move to.
    ranked = logits.topk(min(candidates, logits.shape[1]), dim=1).indices
    total = torch.zeros_like(start)
    x = start.clone()
    moving = torch.arange(len(x), device=x.device)
    for _ in range(steps):
        points = x[moving].requires_grad_()
        z = model(points)
        keeps_label = z.argmax(1) == ranked[moving, 0]
        if not keeps_label.any():
            break
        z = z.gather(1, ranked[moving])
        slopes = _slopes(z, points)[keeps_label]
        moving, z = moving[keeps_label], z.detach()[keeps_label]
        f = (z[:, 1:] - z[:, :1]).abs()
        w = slopes[:, 1:] - slopes[:, :1]
        if along_border:
            inputs = points.detach()[keeps_label].flatten(1)[:, None]
            w = w.masked_fill(((inputs <= low) & (w < 0)) | ((inputs >= high) & (w > 0)), 0)
        norm = w.norm(dim=2).clamp_min(1e-12)
        nearest = (f / norm).argmin(1)
        row = torch.arange(len(moving), device=x.device)
        length = (f[row, nearest] + 1e-4) / norm[row, nearest] ** 2
        total[moving] += (length[:, None] * w[row, nearest]).view(-1, *x.shape[1:])
        x[moving] = (start[moving] + (1 + overshoot) * total[moving]).clamp(low, high)
    return x


def _slopes(z: Tensor, x: Tensor) -> Tensor:
    """Return the gradient of each column of z (n, k) in x (n, ...), as (n, k, inputs).

    One backward pass takes as many columns as memory holds.
    """
    columns = torch.eye(z.shape[1], device=z.device, dtype=z.dtype)[:, None].expand(-1, len(z), -1)
    slopes = [
        torch.autograd.grad(z, x, group, retain_graph=True, is_grads_batched=True)[0].flatten(2)
        for group in columns.split(max(1, ELEMENTS // x.numel()))
    ]
    return torch.cat(slopes).transpose(0, 1)


def pgd(
    loss: Callable[[Tensor], Tensor], start: Tensor, input_range: tuple[float, float],
    *, eps: float, step: float, steps: int, rng: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Move a batch (n, ...) by projected gradient ascent in the L-infinity ball; return it moved.

    Madry et al., *Towards Deep Learning Models Resistant to Adversarial Attacks*, ICLR 2018:
    x <- clip(x + step * sign(grad loss(x))). The clip keeps points within `eps` of the start and
    in `input_range`.

    loss:      maps a batch (n, ...) to one value per point (n,); the attack increases it.
    eps, step: in the unit of the inputs.
    rng:       a CPU generator. With it, points start uniformly inside their balls.
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
    """Move each point of a batch (n, ...) with Adam until its loss is at most `enough`.

    Returns the moved batch. Kingma and Ba, *Adam: A Method for Stochastic Optimization*, ICLR 2015,
    algorithm 1. torch's own optimiser cannot stop single points.

    loss:     maps the points that still move (k, ...), and their indices in the batch (k,), to one
              value per point (k,). Points that have stopped cost no time.
    lr:       a share of the width of `input_range`. Each step ends with a clip to the range.
    steps:    the most steps that a point makes.
    progress: a case's `progress`; it gets the mean loss of all points at each step.
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
