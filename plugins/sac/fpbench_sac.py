"""SAC: a model is fingerprinted by which of its outputs resemble each other.

Guan, Liang and He, *Are You Stealing My Model? Sample Correlation for Fingerprinting Deep Neural
Networks*, NeurIPS 2022.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from fpbench import (
    INPUT_KINDS,
    Access,
    Case,
    Classification,
    Fingerprint,
    Fingerprinter,
    PositiveFloat,
    Scenario,
    Share,
    TrialError,
    hookimpl,
    log_probabilities,
    reply,
)


@dataclass(frozen=True, kw_only=True)
class SAC(Fingerprinter):
    """Correlate a model's outputs pair by pair and compare the correlations with the target's.

    C_ij = (1 - cos(y_i, y_j)) / 2 of the replies to queries i and j; d is the mean over all pairs
    of |C_ij - C_ij of the target|. A query's pair with itself, which every model gets right, is
    left out. The matching rate is 1 - d/d0, no less than 0. Only queries are compared with each
    other, never classes: a suspect may have other classes than the target, or more of them.

    Of labels alone, C_ij is 0 for two equal ones and 1/2 for others, so that the rate is the
    share of pairs on which two models agree whether they are of one class (the Rand index). The
    floor of 0.01 under the one-hot vectors of public code would scale d and nothing else.

    n_queries: N; 100 and 50 in public code.
    samples: "wrong", inputs of the test pool that the target gets wrong (SAC-w; the paper's are
             wrong for surrogates too, which we do without); "cutmix", a small box of one test
             input pasted into another (SAC-m); "plain", test inputs as they are (SAC-normal).
             Rows of a table and latent codes have no boxes: "cutmix" leaves them as they are.
    cut:     a box's sides, as a share of the image's; 0.2 as in public code.
    place:   a box's centre: in a "corner", within a sixth of both borders as in public code, or
             "anywhere". Each image has a box of its own, which is ours.
    reads:   what is correlated of a classifier's replies, the same from probabilities and from
             outputs. "logits": log-probabilities less their mean over the classes. Public code
             correlates logits as they are; their mean, which probabilities do not have, only
             adds noise. "probs": probabilities, which are close to labels where a model is sure.
    d0:      the distance rated 0; the paper compares d with a threshold, the map is ours. 0.5 is
             how far the C of orthogonal outputs is from that of equal ones.
    """

    name = "sac"
    input_kinds = INPUT_KINDS
    accepts = frozenset({Access.LABEL, Access.PROBS, Access.OUTPUT})
    queries_pool = True
    paper = (
        "Guan, Liang and He, Are You Stealing My Model? Sample Correlation for Fingerprinting Deep "
        "Neural Networks, NeurIPS 2022"
    )
    claim = "the best AUC across data sets, architectures and attacks, transfer learning among them"

    n_queries: Annotated[int, Field(ge=2)] = 100
    samples: Literal["wrong", "cutmix", "plain"] = "plain"
    cut: Share = 0.2
    place: Literal["corner", "anywhere"] = "corner"
    reads: Literal["logits", "probs"] = "logits"
    d0: PositiveFloat = 0.5

    def declines(self, scenario: Scenario) -> str | None:
        if reason := super().declines(scenario):
            return reason
        if scenario.recorded and self.samples == "cutmix":
            return (
                f"{self.name} with samples=cutmix makes inputs of its own; {scenario.name} has "
                "answers to the inputs of the pool only"
            )
        if math.prod(scenario.output_shape) < 2:
            return (
                f"{self.name} correlates outputs of two elements or more; "
                f"{scenario.name} has outputs of one"
            )
        if self.samples == "wrong" and not isinstance(scenario, Classification):
            return (
                f"{self.name} with samples=wrong asks what a classifier gets wrong; "
                f"{scenario.name} has no classes"
            )
        return None

    def construct(self, case: Case) -> Fingerprint:
        x = self._samples(case)
        replies = reply(case.outputs(x), case.access)
        evidence = {"access": torch.tensor(case.access),
                    "classes": torch.tensor(isinstance(case.scenario, Classification))}  # fmt: skip
        correlations = correlated(self._read(replies, evidence))
        return Fingerprint(x, {"correlations": correlations, **evidence})

    def match(self, fingerprint: Fingerprint, replies: Tensor) -> float:
        expected = fingerprint.evidence["correlations"]
        gap = (correlated(self._read(replies, fingerprint.evidence)) - expected).abs()
        n = len(gap)
        distance = float((gap.sum() - gap.trace()) / (n * (n - 1)))
        return max(0.0, 1 - distance / self.d0)

    def _samples(self, case: Case) -> Tensor:
        """The queries, from the test pool."""
        inputs, truth = case.scenario.data("test")
        order = torch.randperm(len(inputs), generator=case.rng)
        if self.samples == "wrong":
            order = order[(case.outputs(inputs).argmax(1) != truth)[order]]
            if len(order) < self.n_queries:
                raise TrialError(
                    f"expected {self.n_queries} test inputs that the target gets wrong, got "
                    f"{len(order)}; give sac n_queries of no more, or samples=cutmix"
                )
        drawn = inputs[order[: self.n_queries]]
        if self.samples == "cutmix" and drawn.ndim >= 3:
            return self._cutmix(drawn, case.rng)
        return drawn

    def _cutmix(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Paste into each image (n, ..., height, width) a box of another, border clipping it."""
        inside = []
        for side in x.shape[-2:]:
            reach = side // 6 + 1 if self.place == "corner" else side
            centre = torch.randint(reach, (len(x), 1), generator=rng)
            far = torch.rand(centre.shape, generator=rng) < 0.5
            start = torch.where(far, side - 1 - centre, centre)
            length = max(1, round(self.cut * side))
            start -= length // 2
            at = torch.arange(side)
            inside.append((at >= start) & (at < start + length))
        box = inside[0][:, :, None] & inside[1][:, None, :]
        box = box.view(len(x), *[1] * (x.ndim - 3), *x.shape[-2:])
        # They were drawn in random order: the next one is a random other.
        return torch.where(box, x.roll(1, 0), x)

    def _read(self, replies: Tensor, evidence: Mapping[str, Tensor]) -> Tensor:
        """Return the numbers that are correlated, computed from a suspect's replies."""
        access = Access(int(evidence["access"]))
        if access is Access.LABEL or not evidence["classes"]:
            return replies
        logs = log_probabilities(replies, access).double()
        return logs.exp() if self.reads == "probs" else logs - logs.mean(1, keepdim=True)


def correlated(y: Tensor) -> Tensor:
    """Return C_ij (n, n) of labels (n,) or of outputs (n, ...)."""
    if y.ndim == 1:
        return (y[:, None] != y) / 2
    # A broken model's reply is like no other: the zero vector is orthogonal to all.
    y = normalize(y.flatten(1).double().nan_to_num(0, 0, 0), dim=1)
    return (1 - y @ y.T) / 2


@hookimpl
def fpbench_fingerprinters() -> list[type[Fingerprinter]]:
    return [SAC]
