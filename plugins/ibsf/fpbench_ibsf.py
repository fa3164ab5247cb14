"""IBSF: a control of integrity, not of theft: its fingerprints break when a model is changed.

Bai, He, Ma, Zhu and Jin, *Intersecting-Boundary-Sensitive Fingerprinting for Tampering Detection
of DNN Models*, ICML 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from fpbench import (
    Access,
    Case,
    Classification,
    Fingerprint,
    Fingerprinter,
    NonNegativeFloat,
    Positive,
    PositiveFloat,
    TrialError,
    agreement,
    hookimpl,
)


@dataclass(frozen=True, kw_only=True)
class IBSF(Fingerprinter):
    """Move training points to where many classes meet, and count the labels that are unchanged.

    A control: it asks whether a deployed model is still the one that was handed over, and a rate
    below 1 says no. A stolen model has nearly always been changed, so it is to score no higher
    than a stranger: finding no theft is what this method is for, and where it does find some, the
    zoo holds copies that were hardly changed.

    Each point maximises the target's partial entropy, the sum of -p log p over the largest
    probabilities, by Adam within a ball about the input it started from; its best place counts.

    classes:   how many of the largest probabilities count, at most all; 10 in the public code.
               The more boundaries meet in a point, the more sensitive it is, says the paper.
    eps:       the ball's radius (L2), as a share of the input range; 1 in the public code, for
               images of 32 x 32 and of 224 x 224 alike. We too leave the number of inputs out of
               it: in L2, boundaries are no further away where there are more inputs.
    steps:     Adam steps. The public code takes 5000 of one size; ours shrink to nothing along a
               cosine and need fewer.
    lr:        the first step's length, as a share of the radius, at most; ours.
    certainty: the least gap between a point's two largest logits: nearer to the boundary,
               rounding alone could change the label of a model nobody touched. Ours.
    """

    name = "ibsf"
    supports = Classification
    accepts = frozenset({Access.LABEL})
    counts_agreement = True
    paper = (
        "Bai, He, Ma, Zhu and Jin, Intersecting-Boundary-Sensitive Fingerprinting for Tampering "
        "Detection of DNN Models, ICML 2024"
    )
    claim = (
        "detects tampering better than earlier sensitive fingerprints from top-1 labels, the more "
        "so the more classes meet; the abstract gives no figures"
    )
    quick = {"steps": 100}  # noqa: RUF012

    classes: Annotated[int, Field(ge=2)] = 10
    eps: PositiveFloat = 1.0
    steps: Positive = 300
    lr: PositiveFloat = 0.1
    certainty: NonNegativeFloat = 1e-4

    def construct(self, case: Case) -> Fingerprint:
        inputs = case.scenario.data("train").inputs
        if len(inputs) < self.n_queries:
            raise TrialError(
                f"expected {self.n_queries} training inputs to start from, got {len(inputs)}; "
                f"give {self.name} a smaller n_queries"
            )
        drawn = torch.randperm(len(inputs), generator=case.rng)[: self.n_queries]
        x = self._meet(case, inputs[drawn].to(case.device))
        with torch.no_grad():
            labels = case.target(x).argmax(1)
        return Fingerprint(x.cpu(), {"labels": labels.cpu()})

    def match(self, fingerprint: Fingerprint, replies: Tensor) -> float:
        return agreement(replies, fingerprint.evidence["labels"])

    def _meet(self, case: Case, start: Tensor) -> Tensor:
        """The place of highest partial entropy on each point's way, among those with a sure
        label."""
        low, high = case.scenario.input_range
        radius = self.eps * (high - low)
        top = min(self.classes, case.scenario.output_shape[0])
        x = start.clone().requires_grad_()
        # Adam moves each input by at most lr, hence a point by at most lr * sqrt(inputs).
        optimizer = torch.optim.Adam([x], lr=self.lr * radius / start[0].numel() ** 0.5)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        best, highest = start.clone(), start.new_full((len(start),), float("-inf"))
        for _ in range(self.steps):
            logs = case.target(x).log_softmax(1).topk(top).values
            # The logarithm of the entropy, which peaks where the entropy does: where the target
            # is all but sure, the entropy's own gradient is too small for Adam.
            entropy = (logs + (-logs).clamp_min(1e-30).log()).logsumexp(1)
            with torch.no_grad():
                better = (entropy > highest) & (logs[:, 0] - logs[:, 1] > self.certainty)
                highest = torch.where(better, entropy, highest)
                best = torch.where(better.view(-1, *[1] * (x.ndim - 1)), x, best)
            optimizer.zero_grad()
            (-entropy.sum()).backward()
            optimizer.step()
            case.progress(-entropy.detach().mean())
            schedule.step()
            with torch.no_grad():
                moved = (x - start).flatten(1).renorm(2, 0, radius)
                x.copy_((start + moved.view_as(x)).clamp(low, high))
        return best


@hookimpl
def fpbench_fingerprinters() -> list[type[Fingerprinter]]:
    return [IBSF]
