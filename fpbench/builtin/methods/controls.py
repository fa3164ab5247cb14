"""Two controls that every method must outperform: agreement on random test inputs (Random), and
agreement on inputs that the target gets wrong (AKH).

Godinot et al., *Queries, Representation & Detection: The Next 100 Model Fingerprinting Schemes*,
AAAI 2025, give them these names, and find AKH as good as the state of the art.
"""

from __future__ import annotations

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
    TrialError,
    agreement,
)


@dataclass(frozen=True, kw_only=True)
class Random(Fingerprinter):
    """Query random test inputs and count the labels equal to the target's.

    Construction costs nothing. A suspect may agree with the target only because both are accurate.
    """

    name = "random"
    supports = Classification
    input_kinds = INPUT_KINDS
    accepts = frozenset({Access.LABEL})
    counts_agreement = True
    queries_pool = True
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
    """Query inputs that the target gets wrong and count the labels equal to the target's.

    The queries are test inputs that the target gets wrong. If there are too few, mixtures that it
    gets wrong are added, as in QuRD: a rectangle of another test image is pasted into a test image,
    which keeps its label (CutMix, Yun et al., ICCV 2019).
    """

    name = "akh"

    def construct(self, case: Case) -> Fingerprint:
        inputs, truth = case.scenario.data("test")
        mistakes = [self._mistakes(case, inputs, truth)]
        images = inputs.ndim >= 3  # a row of a table has no rectangle to cut
        while images and sum(map(len, mistakes)) < self.n_queries and len(mistakes) < 200:
            mistakes.append(self._mistakes(case, *_cutmix(inputs, truth, case.rng)))
        # Test inputs come first; mixtures only fill the rest.
        queries = torch.cat(mistakes)[: self.n_queries]
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
    """Paste a rectangle of another image, at most a quarter of the area, into each image."""
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
