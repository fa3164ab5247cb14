"""DeepJudge, black-box: models are compared by their answers to the target's adversarial inputs.

Chen, Wang, Peng, Sun, Cheng, Ji, Ma, Li and Song, *Copy, Right? A Testing Framework for
Copyright Protection of Deep Learning Models*, IEEE S&P 2022.
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
    TrialError,
    agreement,
    folded,
    hookimpl,
    pgd,
)


@dataclass(frozen=True, kw_only=True)
class DeepJudge(Fingerprinter):
    """Attack the inputs that the target is surest of; compare answers to what comes out.

    Seeds are the training points that the target labels rightly with the largest sum of squared
    probabilities. All N queries are adversarial inputs, and both of the paper's black-box
    metrics read the same replies. JSD is the mean Jensen-Shannon divergence, in nats, of the
    suspect's probabilities from the target's; the matching rate is 1 - JSD / ln 2. RobD is
    |Rob(suspect) - Rob(target)|, Rob being the share of queries that keep their true label; the
    matching rate is 1 - RobD. The paper then judges by thresholds from independent models and a
    vote over metrics; the maps are ours, for a rate may not be learned from those it judges.

    metric:  "jsd" (needs probabilities), "robd", or "auto": JSD where the suite's API answers
             probabilities, RobD where it answers labels.
    seeds:   how many are attacked, surest first; 1000 as in the public code, or all there are.
             Those whose label changes come first into the fingerprint, surest first, as there;
             if they are fewer than N, those that came nearest to a change fill it up: ours.
    eps:     how far an element may move, as a share of the input range. The public code has 0.03,
             and its points may leave that ball because they start at random inside it.
    steps:   of projected gradient descent, each eps / steps long; 10, ibid.
    """

    name = "deepjudge"
    supports = Classification
    accepts = frozenset({Access.LABEL, Access.PROBS})
    paper = (
        "Chen, Wang, Peng, Sun, Cheng, Ji, Ma, Li and Song, Copy, Right? A Testing Framework for "
        "Copyright Protection of Deep Learning Models, IEEE S&P 2022"
    )

    metric: Literal["auto", "jsd", "robd"] = "auto"
    seeds: Positive = 1000
    eps: PositiveFloat = 0.06
    steps: Positive = 10

    def construct(self, case: Case) -> Fingerprint:
        if self.metric == "jsd" and case.access is Access.LABEL:
            raise TrialError(
                "expected an API that answers probabilities for JSD, got one that answers labels; "
                "give deepjudge metric robd or auto"
            )
        start, truth = self._surest(case)
        low, high = case.scenario.input_range
        eps = self.eps * (high - low)
        target = folded(case.target, start)
        x = pgd(
            lambda x: F.cross_entropy(target(x), truth, reduction="none"), start, (low, high),
            eps=eps, step=eps / self.steps, steps=self.steps, rng=case.rng,
        )  # fmt: skip
        with torch.no_grad():
            probs = case.target(x).softmax(-1)
        true = F.one_hot(truth, probs.shape[1]).bool()
        lead = (probs[true] - probs.masked_fill(true, 0).amax(1)).clamp_min(0)
        if bool((lead > 0).all()):
            raise TrialError(
                f"expected some of {len(x)} attacked points to change their label, none did; give "
                "deepjudge a larger eps or more steps"
            )
        # Stable, so that points of equal lead, as are all that changed, stay surest first.
        kept = lead.argsort(stable=True)[: self.n_queries]
        evidence = {"probs": probs[kept].cpu(), "truth": truth[kept].cpu()}
        return Fingerprint(x[kept].cpu(), evidence)

    def match(self, fingerprint: Fingerprint, replies: Tensor) -> float:
        wanted, truth = fingerprint.evidence["probs"], fingerprint.evidence["truth"]
        if self.metric == "robd" or not replies.is_floating_point():
            return 1 - abs(agreement(replies, truth) - agreement(wanted, truth))
        if replies.shape != wanted.shape:
            raise TrialError(
                f"expected replies of shape {tuple(wanted.shape)}, got {tuple(replies.shape)}; "
                "JSD needs the target's classes"
            )
        # A broken model's answers are no probabilities: they match nothing.
        rate = 1 - float(_jsd(replies.double(), wanted.double()).mean()) / math.log(2)
        return min(max(rate, 0.0), 1.0) if rate == rate else 0.0

    def _surest(self, case: Case) -> tuple[Tensor, Tensor]:
        """Training points that the target labels rightly, surest first, and their labels."""
        inputs, truth = case.scenario.data("train")
        probs = case.outputs(inputs).softmax(-1).to(case.device)
        truth = truth.to(case.device)
        right = (probs.argmax(1) == truth).nonzero().squeeze(1)
        if len(right) < self.n_queries:
            raise TrialError(
                f"expected {self.n_queries} training points that the target labels rightly, got "
                f"{len(right)}; give deepjudge a smaller n_queries"
            )
        sure = probs[right].square().sum(1).argsort(descending=True, stable=True)
        kept = right[sure[: max(self.seeds, self.n_queries)]]
        return inputs.to(case.device)[kept], truth[kept]


def _jsd(p: Tensor, q: Tensor) -> Tensor:
    """The Jensen-Shannon divergence of each row, in nats: from 0 to ln 2."""
    middle = (p + q) / 2
    return (torch.xlogy(p, p) + torch.xlogy(q, q)).sum(1) / 2 - torch.xlogy(middle, middle).sum(1)


@hookimpl
def fpbench_fingerprinters() -> list[type[Fingerprinter]]:
    return [DeepJudge]
