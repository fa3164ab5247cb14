"""DeepCore: a classifier is fingerprinted by points far from every decision boundary.

Sun, Zhang and Li, *DeepCore: Simple Fingerprint Construction for Differentiating Homologous and
Piracy Models*, ECML-PKDD 2025. We had its abstract alone and know of no public code: this is a
reconstruction, and what it scores says nothing about the paper's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fpbench import (
    Access,
    Case,
    Classification,
    Fingerprint,
    Fingerprinter,
    Positive,
    PositiveFloat,
    Share,
    TrialError,
    descend,
    folded,
    hookimpl,
    log_probabilities,
    reply,
)


@dataclass(frozen=True, kw_only=True)
class CorePoints(Fingerprinter):
    """What DeepCore's identifications share: points that the target is surest of."""

    supports = Classification
    accepts = frozenset({Access.PROBS})
    paper = (
        "Sun, Zhang and Li, DeepCore: Simple Fingerprint Construction for Differentiating "
        "Homologous and Piracy Models, ECML-PKDD 2025 (reconstructed from its abstract)"
    )
    claim = (
        "fewer missed and fewer false identifications than the state of the art, independent "
        "models of like structure or data included; the abstract gives no figures"
    )
    quick = {"steps": 100}  # noqa: RUF012

    start: Literal["noise", "data"] = "data"
    confidence: Share = 0.9999
    steps: Positive = 500
    lr: PositiveFloat = 0.01
    pool: Positive = 1

    def core_points(self, case: Case) -> Tensor:
        """n_queries points, on the case's device, as even over the classes as can be."""
        x, goal = self._begin(case)
        x = self._climb(case, x, goal)
        with torch.no_grad():
            logits = case.target(x)
        # Every class's surest point comes before any class's second surest.
        doubt = F.cross_entropy(logits, goal, reduction="none").view(-1, logits.shape[1])
        order = doubt.argsort(0) * logits.shape[1] + goal.view_as(doubt)
        kept = order.flatten()[: self.n_queries]
        reached = int((logits.argmax(1) == goal)[kept].sum())
        if reached < self.n_queries:
            raise TrialError(
                f"expected {self.n_queries} points to reach the class they were moved to, "
                f"{reached} did in {self.steps} steps; give {self.name} more steps, a larger lr "
                "or a larger pool"
            )
        return x[kept]

    def _begin(self, case: Case) -> tuple[Tensor, Tensor]:
        """Where points start, and the class each is moved to: 0, 1, 2, ..., again and again."""
        low, high = case.scenario.input_range
        (n_classes,) = case.scenario.output_shape
        rounds = self.pool * math.ceil(self.n_queries / n_classes)
        goal = torch.arange(n_classes).repeat(rounds)
        if self.start == "noise":
            x = torch.rand(len(goal), *case.scenario.input_shape, generator=case.rng)
            x = low + (high - low) * x
        else:
            inputs, truth = case.scenario.data("train")
            members = (truth == torch.arange(n_classes)[:, None]).double()
            if not members.any(1).all():
                raise TrialError(
                    f"expected training inputs of all {n_classes} classes, got none of some; "
                    f'give {self.name} start: "noise"'
                )
            drawn = members.multinomial(rounds, replacement=True, generator=case.rng)
            x = inputs[drawn.T.flatten()]
        return x.to(case.device), goal.to(case.device)

    def _climb(self, case: Case, x: Tensor, goal: Tensor) -> Tensor:
        """Maximise log p_goal(x) for every point, each until the target is sure."""
        target = folded(case.target, x)
        return descend(
            lambda x, which: F.cross_entropy(target(x), goal[which], reduction="none"), x,
            case.scenario.input_range, lr=self.lr, steps=self.steps,
            enough=-math.log(self.confidence), progress=case.progress,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DeepCore(CorePoints):
    """Query points of which the target is surest and compare whole replies. A reconstruction.

    Inputs, equally many for each class, are optimised until the target is almost certain of the
    class. Such a core point is far from every boundary. The matching rate is the mean similarity
    of the suspect's replies to the target's. Labels do not suffice, because independent models may
    give such points the same labels. The abstract has the idea and no settings: all settings and
    both similarities are ours.

    identify:    "cosine" compares log-probabilities less their mean over the classes, because
                 probabilities of a sure model are nearly one-hot. A cosine below 0 counts as 0.
                 "divergence" is 1 - JSD / ln 2 with the Jensen-Shannon divergence of the
                 probabilities.
    start:       where points start: "data", at training inputs of the class, or "noise", uniform
                 over the input range.
    confidence:  a point stops when the target's probability of its class is this high.
    steps:       the most Adam steps.
    lr:          Adam's step size, as a share of the input range.
    pool:        points that are optimised for each one that is kept; the surest are kept.
    temperature: "divergence" divides both models' logits by it; above 1, small probabilities count
                 more.
    """

    name = "deepcore"

    identify: Literal["cosine", "divergence"] = "cosine"
    temperature: PositiveFloat = 1.0

    def construct(self, case: Case) -> Fingerprint:
        x = self.core_points(case)
        with torch.no_grad():
            replies = reply(case.target(x), case.access)
        return Fingerprint(x.cpu(), {"replies": replies.cpu()})

    def match(self, fingerprint: Fingerprint, replies: Tensor) -> float:
        expected = fingerprint.evidence["replies"]
        if self.identify == "cosine":
            alike = (_directions(expected) * _directions(replies)).sum(-1)
        else:
            p, q = ((_logs(r) / self.temperature).log_softmax(-1) for r in (expected, replies))
            m = torch.logaddexp(p, q) - math.log(2)
            alike = 1 - (p.exp() * (p - m) + q.exp() * (q - m)).sum(-1) / (2 * math.log(2))
        return float(alike.mean().clamp(0, 1))


@dataclass(frozen=True, kw_only=True)
class DeepCoreCluster(CorePoints):
    """Query DeepCore's points and find out which of two clusters of models a suspect is nearer to.

    The clusters are the target with the ensemble's positives, and the ensemble's negatives. A model
    is a point: its replies to all core points, compared as by deepcore's "cosine". The matching
    rate is how far a suspect is on the way from the centre of the negatives (0) to the centre of
    the target's cluster (1). A reconstruction: the abstract only says that clustering is one of its
    three identifications.

    start, confidence, steps, lr, pool: as in deepcore.
    """

    name = "deepcore_cluster"
    needs_ensemble = True

    confidence: Share = 0.99

    def construct(self, case: Case) -> Fingerprint:
        assert case.ensemble is not None, "the harness gives an ensemble to who needs one"
        x = self.core_points(case)
        with torch.no_grad():
            positives, negatives = case.ensemble.outputs(x)
            own = torch.cat([case.target(x)[None], positives])
            centres = [_directions(reply(z, case.access)).mean(0) for z in (own, negatives)]
        return Fingerprint(x.cpu(), {"own": centres[0].cpu(), "other": centres[1].cpu()})

    def match(self, fingerprint: Fingerprint, replies: Tensor) -> float:
        own, other = fingerprint.evidence["own"], fingerprint.evidence["other"]
        # The share of the way rather than of the distances: what a suspect has of its own lies
        # across the way, and would make it about as far from either centre.
        way = own - other
        share = ((_directions(replies) - other) * way).sum() / way.square().sum().clamp_min(1e-12)
        return float(share.clamp(0, 1))


def _logs(p: Tensor) -> Tensor:
    """Log-probabilities, finite for a broken model's replies too."""
    return log_probabilities(p.nan_to_num(0), Access.PROBS)


def _directions(p: Tensor) -> Tensor:
    """Log-probabilities (..., classes) about their mean, of length 1; of length 0 if all equal."""
    logs = _logs(p)
    return F.normalize(logs - logs.mean(-1, keepdim=True), dim=-1)


@hookimpl
def fpbench_fingerprinters() -> list[type[Fingerprinter]]:
    return [DeepCore, DeepCoreCluster]
