"""Two controls that any method must beat: agreement on ordinary inputs, and on mistakes.

Godinot et al., *Queries, Representation & Detection: The Next 100 Model Fingerprinting
Schemes* (AAAI 2025), name them Random and AKH and find the second on par with the state of the
art.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fpbench import Access, Case, Classification, Fingerprint, Fingerprinter, TrialError, agreement


@dataclass(frozen=True, kw_only=True)
class Random(Fingerprinter):
    """Ask random test inputs and count the answers equal to the target's.

    Construction is free: what this control detects, good accuracy alone explains.
    """

    name = "random"
    supports = Classification
    accepts = frozenset({Access.LABEL})
    counts_agreement = True
    paper = (
        "Godinot, Le Merrer, Penzo, Taiani and Tredan, Queries, Representation & Detection: The "
        "Next 100 Model Fingerprinting Schemes, AAAI 2025"
    )

    def construct(self, case: Case) -> Fingerprint:
        inputs = case.scenario.data("test").inputs
        drawn = torch.randperm(len(inputs), generator=case.rng)[: self.n_queries]
        return _labelled(case, inputs[drawn])

    def match(self, fingerprint: Fingerprint, replies: Tensor) -> float:
        return agreement(replies, fingerprint.evidence["labels"])


@dataclass(frozen=True, kw_only=True)
class Akh(Random):
    """Ask inputs that the target gets wrong and count the suspects that err alike.

    The target's mistakes on the test pool come first; too few of them are topped up by mixtures
    that it gets wrong: a rectangle of one test image pasted into another, whose label should
    stay (CutMix, Yun et al., ICCV 2019). QuRD tops up with CutMix too.
    """

    name = "akh"

    def construct(self, case: Case) -> Fingerprint:
        inputs, truth = case.scenario.data("test")
        found = [self._mistakes(case, inputs, truth)]
        images = inputs.ndim >= 3  # there is no rectangle to cut out of a row of a table
        while images and sum(map(len, found)) < self.n_queries and len(found) < 200:
            found.append(self._mistakes(case, *_cutmix(inputs, truth, case.rng)))
        # Real mistakes stand first; mixtures only fill what is missing.
        queries = torch.cat(found)[: self.n_queries]
        if not len(queries):
            raise TrialError(
                f"expected test inputs that the target gets wrong, {self.name} found none among "
                f"{len(inputs)}; take another method"
            )
        return _labelled(case, queries)

    @staticmethod
    def _mistakes(case: Case, inputs: Tensor, truth: Tensor) -> Tensor:
        order = torch.randperm(len(inputs), generator=case.rng)
        inputs, truth = inputs[order], truth[order]
        return inputs[case.outputs(inputs).argmax(-1) != truth]


def _cutmix(inputs: Tensor, truth: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Paste into each image a rectangle of another, at most a quarter of its area."""
    height, width = inputs.shape[-2:]
    mixed = inputs.clone()
    h, w = height // 2, width // 2
    top = int(torch.randint(0, height - h + 1, (), generator=rng))
    left = int(torch.randint(0, width - w + 1, (), generator=rng))
    other = inputs[torch.randperm(len(inputs), generator=rng)]
    area = (..., slice(top, top + h), slice(left, left + w))
    mixed[area] = other[area]
    return mixed, truth


def _labelled(case: Case, queries: Tensor) -> Fingerprint:
    return Fingerprint(queries=queries, evidence={"labels": case.outputs(queries).argmax(-1)})
