"""Zest: models are compared by linear models of what they reply when parts of inputs are hidden.

Jia, Chen, Guan, Shamsabadi and Papernot, *A Zest of LIME: Towards Architecture-Independent Model
Distances*, ICLR 2022.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fpbench import (
    INPUT_KINDS,
    Access,
    Case,
    Classification,
    Fingerprint,
    Fingerprinter,
    Positive,
    Scenario,
    TrialError,
    hookimpl,
    log_probabilities,
    reply,
)


@dataclass(frozen=True, kw_only=True)
class Zest(Fingerprinter):
    """Hide parts of training inputs and compare how much each part matters to two models.

    An input is cut into segments. Each random mask hides about half of them: it puts the training
    pool's mean there. Least squares fit a model's replies by the segments that are left, with one
    weight per segment and output and no constant, as in the paper's code. The weights of all inputs
    together are the model's signature. The matching rate is max(0, cos) of the signatures of target
    and suspect: 1 for parallel ones, 0 for orthogonal ones. The paper divides the distance 1 - cos
    by its mean over pairs of unrelated models instead; here no other models are needed.

    A hidden part of a text or of other ids becomes the id that stands for no token. In rows with
    categories it becomes each column's most frequent value. Both are ours.

    Of a classifier, log-probabilities less their mean over the classes are fitted. Probabilities
    and logits give the same ones. The paper's code fits the replies as they are; probabilities are
    a poor choice, because they hardly change with the mask where a model is sure.

    There are n_queries // masks inputs with `masks` queries each; the paper's code has 128 inputs.

    masks:    masks per input; the first hides nothing. 1000 in the paper's code.
    segments: the most segments per input, fewer than masks. A fit with about as many unknowns as
              replies magnifies what is not linear in them, so ours is half of `masks`. Images are
              cut by a square grid, other inputs into runs of neighbouring values. The paper's
              code cuts by colour and place (quickshift), which needs larger, natural images.
    """

    name = "zest"
    input_kinds = INPUT_KINDS
    accepts = frozenset({Access.PROBS, Access.OUTPUT})
    paper = (
        "Jia, Chen, Guan, Shamsabadi and Papernot, A Zest of LIME: Towards "
        "Architecture-Independent Model Distances, ICLR 2022"
    )
    claim = (
        "helps to detect model stealing, knowledge distillation and transfer learning, whatever "
        "the architectures"
    )
    quick = {"masks": 6, "segments": 4}  # noqa: RUF012

    masks: Positive = 33
    segments: Positive = 16

    def construct(self, case: Case) -> Fingerprint:
        segment = segmented(case.scenario.input_shape, self.segments)
        count = int(segment.max()) + 1
        if not self.n_queries >= self.masks > count:
            raise TrialError(
                f"expected more masks than an input has segments and no more than queries, got "
                f"{self.masks} masks for {count} segments and {self.n_queries} queries; change "
                "masks or segments of zest"
            )
        inputs = case.scenario.data("train").inputs
        drawn = torch.randperm(len(inputs), generator=case.rng)[: self.n_queries // self.masks]
        kept = torch.rand(len(drawn), self.masks, count, generator=case.rng) < 0.5
        kept[:, 0] = True
        # One mask value per element of an input: (inputs, masks, *input_shape).
        queries = torch.where(kept[..., segment], inputs[drawn][:, None], hidden(case.scenario))
        queries = queries.flatten(0, 1)
        replies = reply(case.outputs(queries), case.access)
        evidence = {
            # Least squares is a product with the masks' pseudo-inverse, the same for every model.
            "fit": torch.linalg.pinv(kept.double()),
            "access": torch.tensor(case.access),
            "classes": torch.tensor(isinstance(case.scenario, Classification)),
        }
        return Fingerprint(queries, {"signature": signature(evidence, replies), **evidence})

    def match(self, fingerprint: Fingerprint, replies: Tensor) -> float:
        target = fingerprint.evidence["signature"]
        suspect = signature(fingerprint.evidence, replies)
        cosine = torch.cosine_similarity(target, suspect, dim=0)
        # A model that replies NaN has no signature.
        return float(cosine.nan_to_num(0).clamp(0, 1))


def hidden(scenario: Scenario) -> Tensor:
    """Return what a hidden element is replaced by: one input (*input_shape)."""
    inputs = scenario.data("train").inputs
    if scenario.input_kind == "categorical":
        return scenario.blank(1)[0]
    if scenario.input_kind == "mixed":
        return inputs.mode(0).values
    return inputs.mean(0)


def segmented(shape: tuple[int, ...], most: int) -> Tensor:
    """The segment of every element of an input, counted from 0.

    (..., height, width) is cut by a square grid, anything else into runs of neighbours.
    """
    if len(shape) < 3:
        size = math.prod(shape)
        return (torch.arange(size) * min(most, size) // size).view(shape)
    side = min(math.isqrt(most), *shape[-2:])
    row, column = (torch.arange(size) * side // size for size in shape[-2:])
    return (side * row[:, None] + column).expand(shape)


def signature(evidence: Mapping[str, Tensor], replies: Tensor) -> Tensor:
    """Return every input's weights, one per segment and output, in one row.

    evidence: "fit", the masks' pseudo-inverses (inputs, segments, masks); the access level; and
              whether the replies are those of a classifier.
    replies:  (inputs * masks, ...).
    """
    y, fit = replies, evidence["fit"]
    if evidence["classes"]:
        y = log_probabilities(y, Access(int(evidence["access"])))
        y = y - y.mean(1, keepdim=True)
    inputs, _, masks = fit.shape
    return (fit @ y.double().view(inputs, masks, -1)).flatten()


@hookimpl
def fpbench_fingerprinters() -> list[type[Fingerprinter]]:
    return [Zest]
