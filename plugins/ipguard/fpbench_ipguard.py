"""IPGuard: a classifier is fingerprinted by points beside its decision boundary.

Cao, Jia and Gong, *IPGuard: Protecting Intellectual Property of Deep Neural Networks via
Fingerprinting the Classification Boundary*, ASIA CCS 2021.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

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
    PositiveFloat,
    Scenario,
    TrialError,
    agreement,
    descend,
    folded,
    hookimpl,
)


@dataclass(frozen=True, kw_only=True)
class IPGuard(Fingerprinter):
    """Move training points across the decision boundary and store the labels found there.

    All points move in one batch, each until its own loss is zero. Of the points that get their new
    label from the target, those with the smallest loss are the fingerprint. The matching rate is
    the share of them that a suspect labels as the target does.

    margin:  k, how far the logit of the new label must be above that of the old one, in standard
             deviations of the target's gap between its two largest logits. Public implementations
             use fixed values of 0.01, 5 and 10, which suit the logits of their own networks only.
             A small margin keeps points that any change of the model relabels.
    goal:    the new label: "random", or the "least_likely" one at the start.
    steps:   the most Adam steps; 1000 as in public implementations.
    lr:      Adam's step size, as a share of the input range; public ones use 0.001 and 0.01.
    pool:    points that are moved for each one that is kept.
    """

    name = "ipguard"
    supports = Classification
    accepts = frozenset({Access.LABEL})
    counts_agreement = True
    paper = (
        "Cao, Jia and Gong, IPGuard: Protecting Intellectual Property of Deep Neural Networks via "
        "Fingerprinting the Classification Boundary, ASIA CCS 2021"
    )
    # The toys' classes lie far apart, so all models label points alike that are as deep as usual.
    quick = {"steps": 300, "margin": 1.0}  # noqa: RUF012

    margin: NonNegativeFloat = 5.0
    goal: Literal["random", "least_likely"] = "random"
    steps: Positive = 1000
    lr: PositiveFloat = 0.01
    pool: Positive = 4

    def declines(self, scenario: Scenario) -> str | None:
        if reason := super().declines(scenario):
            return reason
        assert isinstance(scenario, Classification)
        if scenario.n_classes < 3:
            return f"{self.name} weighs a third class; {scenario.name} has {scenario.n_classes}"
        return None

    def construct(self, case: Case) -> Fingerprint:
        inputs = case.scenario.data("train").inputs
        drawn = torch.randperm(len(inputs), generator=case.rng)[: self.pool * self.n_queries]
        x = inputs[drawn].to(case.device)
        start, goal = self._ends(case.target, x, case.rng)
        loss = self._loss(case, x, start, goal)
        x = descend(
            loss, x, case.scenario.input_range, lr=self.lr, steps=self.steps, enough=0.0,
            progress=case.progress,
        )  # fmt: skip

        with torch.no_grad():
            crossed = (case.target(x).argmax(1) == goal).nonzero().squeeze(1)
            left = loss(x, torch.arange(len(x), device=x.device))
        if len(crossed) < self.n_queries:
            raise TrialError(
                f"expected {self.n_queries} points to cross the boundary, {len(crossed)} of "
                f"{len(x)} did in {self.steps} steps; give ipguard a larger pool, more steps or "
                "a larger lr"
            )
        kept = crossed[left[crossed].argsort(stable=True)[: self.n_queries]]
        return Fingerprint(x[kept].cpu(), {"labels": goal[kept].cpu()})

    def match(self, fingerprint: Fingerprint, replies: Tensor) -> float:
        return agreement(replies, fingerprint.evidence["labels"])

    def _ends(self, target: nn.Module, x: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Each point's own label i, and the other label j it walks to."""
        with torch.no_grad():
            logits = target(x)
        start, n_classes = logits.argmax(1), logits.shape[1]
        if self.goal == "least_likely":
            return start, logits.argmin(1)
        shift = torch.randint(1, n_classes, start.shape, generator=rng).to(start)
        return start, (start + shift) % n_classes

    def _loss(
        self, case: Case, x: Tensor, start: Tensor, goal: Tensor
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the loss of points: relu(z_i - z_j + k) + relu(max_t z_t - z_i) (section 4.2)."""
        with torch.no_grad():
            top = case.target(x).topk(2).values
        k = self.margin * float((top[:, 0] - top[:, 1]).std())
        ends, target = torch.stack([start, goal], 1), folded(case.target, x)

        def loss(x: Tensor, which: Tensor) -> Tensor:
            logits = target(x)
            z_i, z_j = logits.gather(1, ends[which]).unbind(1)
            z_t = logits.scatter(1, ends[which], float("-inf")).amax(1)
            total: Tensor = (z_i - z_j + k).relu() + (z_t - z_i).relu()
            return total

        return loss


@hookimpl
def fpbench_fingerprinters() -> list[type[Fingerprinter]]:
    return [IPGuard]
