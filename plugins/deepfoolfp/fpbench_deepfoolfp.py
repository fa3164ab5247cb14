"""DeepFoolFP: a classifier is fingerprinted by its minimal adversarial examples.

Wang and Chang, *Fingerprinting Deep Neural Networks - a DeepFool Approach*, ISCAS 2021, on
Moosavi-Dezfooli, Fawzi and Frossard, *DeepFool: a simple and accurate method to fool deep
neural networks*, CVPR 2016.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

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
    deepfool,
    folded,
    hookimpl,
)


@dataclass(frozen=True, kw_only=True)
class DeepFoolFP(Fingerprinter):
    """Move training points over the nearest boundary with DeepFool and store the new labels.

    Points that the target labels correctly move in one batch, each until its label changes. Of
    those with a clear new label, the points that moved least are kept, as evenly as possible over
    the pairs of old and new label. The matching rate is the share of them that a suspect labels as
    the target does.

    steps:      the most iterations of DeepFool; 50 as in public implementations.
    overshoot:  eta; the whole perturbation is multiplied by 1 + eta. Public implementations of
                DeepFool use 0.02, which ends so close to the boundary that any change of the model
                can relabel the point.
    candidates: how many classes, those with the largest logits, are tried; 10 as in public
                implementations.
    pool:       points that are moved for each one that is kept; the paper does not say.
    certainty:  the least gap between the two largest logits of a kept point, so that rounding does
                not change its label. Our addition.
    """

    name = "deepfoolfp"
    supports = Classification
    accepts = frozenset({Access.LABEL})
    counts_agreement = True
    paper = "Wang and Chang, Fingerprinting Deep Neural Networks - a DeepFool Approach, ISCAS 2021"
    claim = "100 % detection at 0 % false positives on CIFAR-10, CIFAR-100 and ImageNet"

    steps: Positive = 50
    overshoot: NonNegativeFloat = 1.0
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
            folded(case.target, start), start, case.scenario.input_range,
            steps=self.steps, overshoot=self.overshoot, candidates=self.candidates,
            along_border=True,
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
