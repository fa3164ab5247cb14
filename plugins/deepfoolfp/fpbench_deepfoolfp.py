"""DeepFoolFP: a classifier is fingerprinted by its minimal adversarial examples.

Wang and Chang, *Fingerprinting Deep Neural Networks - a DeepFool Approach*, ISCAS 2021, on
Moosavi-Dezfooli, Fawzi and Frossard, *DeepFool: a simple and accurate method to fool deep
neural networks*, CVPR 2016.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fpbench import (
    Access,
    Case,
    Classification,
    Fingerprint,
    Fingerprinter,
    NonNegativeFloat,
    Positive,
    TrialError,
    agreement,
    hookimpl,
)


@dataclass(frozen=True, kw_only=True)
class DeepFoolFP(Fingerprinter):
    """Push training points just over the nearest boundary and remember the label found there.

    Points that the target labels rightly are pushed, all in one batch, each until its label
    changes. Of those whose label changed with certainty, the ones that had to be moved least are
    kept, as even as possible over pairs of old and new label. The matching rate is the share of
    them a suspect labels as the target does.

    steps:      DeepFool's iterations at most; 50 as in public implementations.
    overshoot:  eta, by which the whole perturbation is stretched past the boundary; 0.02, ibid.
    candidates: the classes with the largest logits that are tried; 10, ibid.
    pool:       points pushed for each one kept; the paper does not say.
    certainty:  the least gap between a kept point's two largest logits: nearer to the boundary,
                rounding alone could flip it. Our addition.
    """

    name = "deepfoolfp"
    supports = Classification
    accepts = frozenset({Access.LABEL})

    steps: Positive = 50
    overshoot: NonNegativeFloat = 0.02
    candidates: Positive = 10
    pool: Positive = 4
    certainty: NonNegativeFloat = 1e-4

    def construct(self, case: Case) -> Fingerprint:
        inputs, truth = case.scenario.data("train")
        drawn = torch.randperm(len(inputs), generator=case.rng)[: self.pool * self.n_queries]
        start, labels = inputs[drawn].to(case.device), truth[drawn].to(case.device)
        with torch.no_grad():
            right = case.target(start).argmax(1) == labels
        start, labels = start[right], labels[right]
        x = deepfool(
            case.target, start, case.scenario.input_range,
            steps=self.steps, overshoot=self.overshoot, candidates=self.candidates,
        )  # fmt: skip

        with torch.no_grad():
            logits = case.target(x)
        top = logits.topk(2).values
        new = logits.argmax(1)
        kept = ((new != labels) & (top[:, 0] - top[:, 1] > self.certainty)).nonzero().squeeze(1)
        if len(kept) < self.n_queries:
            raise TrialError(
                f"expected {self.n_queries} points to change their label, {len(kept)} of {len(x)} "
                f"did in {self.steps} steps; give deepfoolfp a larger pool or more steps"
            )
        moved = (x - start).flatten(1).norm(dim=1) / start.flatten(1).norm(dim=1).clamp_min(1e-12)
        pair = labels * logits.shape[1] + new
        kept = kept[_evenly(moved[kept], pair[kept])[: self.n_queries]]
        return Fingerprint(x[kept].cpu(), {"labels": new[kept].cpu()})

    def match(self, fingerprint: Fingerprint, replies: Tensor) -> float:
        return agreement(replies, fingerprint.evidence["labels"])


def deepfool(
    model: nn.Module, start: Tensor, input_range: tuple[float, float],
    *, steps: int = 50, overshoot: float = 0.02, candidates: int = 10,
) -> Tensor:  # fmt: skip
    """Multi-class DeepFool (CVPR 2016, algorithm 2) on a batch (n, ...); returns it moved.

    While a point keeps its first label k0, it goes towards the nearest boundary of the model's
    linearisation: l = argmin_k |z_k - z_k0| / ||w_k||, w_k = grad(z_k - z_k0), by
    (|z_l - z_k0| + 1e-4) / ||w_l||^2 w_l. The overshoot stretches the sum of all steps, from the
    start, for a stretch of each alone stalls on the boundary. Clipped to `input_range`; inputs that
    are at its border and would leave it are left out of w (ours: the paper does not clip).
    """
    low, high = input_range
    with torch.no_grad():
        logits = model(start)
    first = logits.argmax(1)
    # The label itself stands first; the others are the classes to walk to.
    ranked = logits.topk(min(candidates, logits.shape[1]), dim=1).indices
    total = torch.zeros_like(start)
    x = start.clone()
    for _ in range(steps):
        with torch.no_grad():
            todo = (model(x).argmax(1) == first).nonzero().squeeze(1)
        if not len(todo):
            break
        here = x[todo].clone().requires_grad_()
        z = model(here).gather(1, ranked[todo])
        slopes = torch.stack(
            [torch.autograd.grad(z[:, k].sum(), here, retain_graph=True)[0].flatten(1)
             for k in range(z.shape[1])], dim=1,
        )  # (n, classes, inputs)  # fmt: skip
        f = (z[:, 1:] - z[:, :1]).abs().detach()
        w = slopes[:, 1:] - slopes[:, :1]
        # A coordinate at the border that would leave the box cannot help: count without it, or
        # clipping eats each step and the point creeps along the boundary.
        at = here.detach().flatten(1)[:, None]
        w = w.masked_fill(((at <= low) & (w < 0)) | ((at >= high) & (w > 0)), 0)
        norm = w.norm(dim=2).clamp_min(1e-12)
        nearest = (f / norm).argmin(1)
        row = torch.arange(len(todo), device=x.device)
        length = (f[row, nearest] + 1e-4) / norm[row, nearest] ** 2
        total[todo] += (length[:, None] * w[row, nearest]).view_as(here)
        x[todo] = (start[todo] + (1 + overshoot) * total[todo]).clamp(low, high)
    return x


def _evenly(moved: Tensor, pair: Tensor) -> Tensor:
    """An order in which every pair's least moved point comes before any pair's second least."""
    order = moved.argsort()
    rank = torch.empty_like(order)
    seen: dict[int, int] = {}
    for i in order.tolist():
        rank[i] = seen[int(pair[i])] = seen.get(int(pair[i]), -1) + 1
    # A stable sort keeps the least moved first within a rank.
    return order[rank[order].argsort(stable=True)]


@hookimpl
def fpbench_fingerprinters() -> list[type[Fingerprinter]]:
    return [DeepFoolFP]
