"""ModelDiff: two models are compared by how far each one's answers move on the same pairs.

Li, Zhang, Liu, Yang and Liu, *ModelDiff: Testing-based DNN Similarity Comparison for Model
Reuse Detection*, ISSTA 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fpbench import (
    Access,
    Case,
    Classification,
    FieldError,
    Fingerprint,
    Fingerprinter,
    Positive,
    PositiveFloat,
    TrialError,
    folded,
    hookimpl,
    log_probabilities,
    pgd,
    reply,
)


@dataclass(frozen=True, kw_only=True)
class ModelDiff(Fingerprinter):
    """Pair natural inputs with adversarial ones; compare how far replies move within each pair.

    A model's decision distance vector (DDV) has an entry for each pair: the cosine distance of the
    two replies or, if replies are labels, whether the label changed. The matching rate is the
    cosine of the DDVs of target and suspect; a DDV of zeros matches nothing. Only replies of the
    same model are compared, so a suspect may have other classes than the target. In regression and
    generation an entry is the Euclidean distance of the two replies, which is our extension.

    n_queries: a pair is two queries, so N queries are N/2 pairs. The paper's artefact has 100
               pairs.
    seeds:     the pool of the natural inputs; "train" as in the artefact.
    goal:      where an adversarial input drives the target's output z. "diverse": towards m - z,
               with the mean output m. "artefact": as the artefact's notebook does, away from
               m - z, nearly on the first output only; see the README. "untargeted": away from the
               label or, in other tasks, from the reply itself, as in the benchmark QuRD. "auto",
               ours: untargeted for classifiers, diverse in other tasks.
    eps:       how far an element may move, as a share of the input range. 0.06 is the artefact's
               number, but in units of its normalised images, about 0.014 of their range; QuRD has
               0.03.
    steps:     steps of projected gradient descent; 50 as in the artefact.
    step:      the length of a step, as a share of eps; the artefact's is 0.01 to 0.06.
    centred:   subtract the mean from both DDVs (Pearson's correlation, 0 if negative), which
               removes what any two models share. Not in the paper.
    reads:     what the cosine distance of a classifier's replies compares, the same from
               probabilities and from outputs: "probs", or "logits", which are log-probabilities
               less their mean over the classes. The artefact compares raw logits.
    """

    name = "modeldiff"
    accepts = frozenset(Access)
    paper = (
        "Li, Zhang, Liu, Yang and Liu, ModelDiff: Testing-based DNN Similarity Comparison for "
        "Model Reuse Detection, ISSTA 2021"
    )
    claim = "91.7 % correct on 144 pairs of models: transferred, compressed, stolen"

    seeds: Literal["train", "test"] = "train"
    goal: Literal["auto", "diverse", "artefact", "untargeted"] = "auto"
    eps: PositiveFloat = 0.06
    steps: Positive = 50
    step: PositiveFloat = 1 / 6
    centred: bool = False
    reads: Literal["probs", "logits"] = "probs"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_queries < 2:
            raise FieldError("n_queries", "expected 2 or more, for a pair is two queries, got 1")

    def construct(self, case: Case) -> Fingerprint:
        inputs = case.scenario.data(self.seeds).inputs
        drawn = torch.randperm(len(inputs), generator=case.rng)[: self.n_queries // 2]
        start = inputs[drawn].to(case.device)
        queries = torch.cat([start, self._counterparts(case, start)])
        with torch.no_grad():
            replies = reply(case.target(queries), case.access)
        evidence = {"access": torch.tensor(case.access),
                    "classes": torch.tensor(isinstance(case.scenario, Classification))}  # fmt: skip
        ddv = self._ddv(replies.cpu(), evidence)
        if not ddv.any():
            raise TrialError(
                f"expected the target's answer to change within some of {len(start)} pairs, it "
                "did in none; give modeldiff a larger eps or more steps"
            )
        return Fingerprint(queries.cpu(), {"ddv": ddv, **evidence})

    def match(self, fingerprint: Fingerprint, replies: Tensor) -> float:
        evidence = fingerprint.evidence
        return similarity(evidence["ddv"], self._ddv(replies, evidence), self.centred)

    def _ddv(self, replies: Tensor, evidence: Mapping[str, Tensor]) -> Tensor:
        """Return how far the replies to the second half of the queries are from the first's."""
        one, other = replies.chunk(2)
        access = Access(int(evidence["access"]))
        if access is Access.LABEL:
            return (one != other).double()
        if not evidence["classes"]:
            distance: Tensor = (one - other).flatten(1).double().norm(dim=1)
            return distance
        logs = log_probabilities(replies, access).double()
        read = logs.exp() if self.reads == "probs" else logs - logs.mean(1, keepdim=True)
        # 1 - cos = |u - v|^2 / 2 of unit vectors; in this form equal replies are exactly 0 apart.
        one, other = F.normalize(read).chunk(2)
        return (one - other).square().sum(1) / 2

    def _counterparts(self, case: Case, start: Tensor) -> Tensor:
        """The inputs' adversarial counterparts on the target."""
        with torch.no_grad():
            z: Tensor = case.target(start)
        own, target = z.flatten(1), folded(case.target, start)
        classes = isinstance(case.scenario, Classification)
        goal = ("untargeted" if classes else "diverse") if self.goal == "auto" else self.goal

        def loss(x: Tensor) -> Tensor:
            out: Tensor = target(x)
            if goal != "untargeted":
                return (out.flatten(1) * direction).sum(1)
            if classes:
                return F.cross_entropy(out, z.argmax(1), reduction="none")
            return (out.flatten(1) - own).square().sum(1)

        # The squared distance to 1000 (m - z) is, so far off, linear in the output: only the
        # way there counts.
        direction = own.mean(0) - own
        if goal == "artefact":
            weights = torch.full_like(direction[0], 0.1 / max(1, own.shape[1] - 1))
            weights[0] = 1
            direction = -weights * direction
        low, high = case.scenario.input_range
        eps = self.eps * (high - low)
        return pgd(
            loss, start, (low, high), eps=eps, step=self.step * eps, steps=self.steps, rng=case.rng
        )


def similarity(one: Tensor, other: Tensor, centred: bool) -> float:
    """The cosine of two vectors without negative entries, in [0, 1]; 0 if it has none.

    centred: of the vectors less their means, and 0 if negative.
    """
    if centred:
        one, other = one - one.mean(), other - other.mean()
    cosine = float(one @ other / (one.norm() * other.norm()))
    # Vectors of zeros, and the answers of a broken model, have no direction: 0 / 0.
    return min(max(cosine, 0.0), 1.0) if cosine == cosine else 0.0


@hookimpl
def fpbench_fingerprinters() -> list[type[Fingerprinter]]:
    return [ModelDiff]
