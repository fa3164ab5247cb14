"""Dataset Inference: a model, and what descends from it, is surer of its training data.

Maini, Yaghini and Papernot, *Dataset Inference: Ownership Resolution in Machine Learning*, ICLR
2021: the blind walk, which needs labels alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
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
    hookimpl,
)

KINDS = (("uniform", 0.005, float("inf")), ("normal", 0.005, 2.0), ("laplace", 0.01, 1.0))
"""A walk's noise, the size of its first step for inputs in [0, 1] and the norm that measures its
length, as in the paper's code for CIFAR."""


@dataclass(frozen=True, kw_only=True)
class DatasetInference(Fingerprinter):
    """Measure how far training points are from a suspect's boundary, against unseen points.

    From a point, walk in a random direction until the label is not the true one; the lengths of a
    point's walks are its embedding. On the target, a small regressor learns to tell embeddings of
    training points (-1) from those of points of the test pool (+1): the public pool would not do,
    for suspects may be trained on it. On a suspect, other points of both pools are embedded, and
    Welch's one-sided t-test gives the probability p of such a gap between the regressor's means
    by chance. The matching rate is 1 - p: the paper's verdict is at 0.99, and a model that knows
    neither of two like pools has any rate alike often.

    All steps of all walks are queried at once, for n_queries // (2 * walks * steps) points of each
    pool: 100 with these defaults. The paper has 10 to 50 points, with 30 walks of up to 50 steps
    each.

    n_queries: 1000, because 100 would allow 10 points of each pool, too few for the test.
    walks:     per point; their noise is uniform, normal and Laplacian in turn. 30 in the paper.
    steps:     queries of a walk, evenly spaced; 50 in the paper's code.
    reach:     the length of a walk, in first steps of the paper's code; 50 there, for CIFAR. A
               first step has the size 0.005 (Laplacian: 0.01) of the input range.
    examples:  points of each pool the regressor learns from, at most; 500 in the paper's code.
    hidden:    its hidden units; 100 in the paper's code, as all of:
    epochs:    1000 steps of gradient descent on all examples,
    lr:        with learning rate 0.1.
    """

    name = "datasetinference"
    supports = Classification
    accepts = frozenset({Access.LABEL})
    judges_data = True
    paper = (
        "Maini, Yaghini and Papernot, Dataset Inference: Ownership Resolution in Machine "
        "Learning, ICLR 2021"
    )
    claim = (
        "over 99 % confidence that a model was stolen on CIFAR-10, CIFAR-100, SVHN and ImageNet, "
        "with 50 training points exposed"
    )
    # 300 points a side: with fewer the gap is not always significant, even on the target itself.
    quick = {"n_queries": 3000, "epochs": 200}  # noqa: RUF012

    n_queries: Positive = 1000
    walks: Positive = 1
    steps: Positive = 5
    reach: PositiveFloat = 100.0
    examples: Positive = 500
    hidden: Positive = 100
    epochs: Positive = 1000
    lr: PositiveFloat = 0.1

    def construct(self, case: Case) -> Fingerprint:
        asked = self.n_queries // (2 * self.walks * self.steps)
        walks, truths, learned = [], [], []
        for pool in ("train", "test"):
            inputs, truth = case.scenario.data(pool)
            if asked < 2 or len(inputs) < asked + 2:
                raise TrialError(
                    "expected at least 2 points to ask and 2 to learn from in each pool, got "
                    f"{asked} to ask of the {len(inputs)} in {pool!r}; change n_queries, or "
                    "walks and steps, of which each point takes as many queries as their product"
                )
            drawn = torch.randperm(len(inputs), generator=case.rng)[: asked + self.examples]
            x, y = inputs[drawn], truth[drawn]
            walks.append(self._walk(x[:asked], case))
            truths.append(y[:asked])
            learned.append(self._embed(x[asked:], y[asked:], case))
        queries, lengths = (torch.cat(part) for part in zip(*walks, strict=True))
        known = torch.cat(learned)
        mean, std = known.mean(0), known.std(0).clamp_min(1e-12)
        seen, unseen = ((part - mean) / std for part in learned)
        weights = self._regress(seen, unseen, case.rng)
        return Fingerprint(
            queries.flatten(0, 2),
            {"lengths": lengths, "truth": torch.cat(truths), "mean": mean, "std": std}
            | dict(zip(("w1", "b1", "w2", "b2"), weights, strict=True)),
        )

    def match(self, fingerprint: Fingerprint, replies: Tensor) -> float:
        from scipy.stats import ttest_ind_from_stats  # slow to import

        e = fingerprint.evidence
        embedding = (walked(replies, e["truth"], e["lengths"]) - e["mean"]) / e["std"]
        scores = score(embedding, [e[name] for name in ("w1", "b1", "w2", "b2")]).double()
        seen, unseen = (
            (float(side.mean()), float(side.std()), len(side)) for side in scores.chunk(2)
        )
        test = ttest_ind_from_stats(*unseen, *seen, equal_var=False, alternative="greater")
        if math.isnan(test.pvalue):  # every point has the same score: there is no gap to test
            return 0.0
        return 1 - float(test.pvalue)

    def _walk(self, x: Tensor, case: Case) -> tuple[Tensor, Tensor]:
        """Every step of every walk from x (n, ...): inputs (n, walks, steps, ...) and how far
        each is from its start (n, walks, steps)."""
        low, high = case.scenario.input_range
        far = torch.arange(1, self.steps + 1) * (self.reach / self.steps)
        steps, lengths = [], []
        for walk in range(self.walks):
            kind, size, order = KINDS[walk % len(KINDS)]
            step = (high - low) * size * _noise(kind, x, case.rng)
            there = x[:, None] + step[:, None] * far.view(-1, *[1] * (x.ndim - 1))
            steps.append(there.clamp(low, high))
            lengths.append((steps[-1] - x[:, None]).flatten(2).norm(p=order, dim=2))
        return torch.stack(steps, 1), torch.stack(lengths, 1)

    @torch.no_grad()
    def _embed(self, x: Tensor, truth: Tensor, case: Case) -> Tensor:
        """How far walks from x (n, ...) come on the target: (n, walks)."""
        parts = []
        for points, right in zip(x.split(100), truth.split(100), strict=True):
            queries, lengths = self._walk(points, case)
            labels = case.target(queries.flatten(0, 2).to(case.device)).argmax(1).cpu()
            parts.append(walked(labels, right, lengths))
        return torch.cat(parts)

    def _regress(self, seen: Tensor, unseen: Tensor, rng: torch.Generator) -> list[Tensor]:
        """Weights that make `score` small for seen and large for unseen embeddings."""
        shapes = (seen.shape[1], self.hidden), (self.hidden,), (self.hidden, 1), (1,)
        fans = seen.shape[1], seen.shape[1], self.hidden, self.hidden
        weights = [
            ((2 * torch.rand(shape, generator=rng) - 1) / fan**0.5).requires_grad_()
            for shape, fan in zip(shapes, fans, strict=True)
        ]
        known = torch.cat([seen, unseen])
        # Each pool counts as a whole, however many of its points are left to learn from.
        share = torch.cat([seen.new_full((len(part),), 1 / len(part)) for part in (seen, unseen)])
        share[len(seen) :] *= -1
        for _ in range(self.epochs):
            loss = score(known, weights) @ share
            slopes = torch.autograd.grad(loss, weights)
            # Written out: the first use of torch.optim imports seconds' worth of torch's compiler.
            with torch.no_grad():
                for w, slope in zip(weights, slopes, strict=True):
                    w -= self.lr * slope
        return [w.detach() for w in weights]


def score(embedding: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """The regressor, a hidden layer with ReLU and a tanh: one score in (-1, 1) per point."""
    w1, b1, w2, b2 = weights
    return ((embedding @ w1 + b1).relu() @ w2 + b2).tanh().squeeze(1)


def walked(labels: Tensor, truth: Tensor, lengths: Tensor) -> Tensor:
    """The length (n, walks) of each walk where the label is first not the true one, or at its
    end; labels are those of all steps, in the order of `lengths` (n, walks, steps)."""
    wrong = labels.view(lengths.shape) != truth[:, None, None]
    wrong[..., -1] = True
    return lengths.gather(2, wrong.int().argmax(2, keepdim=True)).squeeze(2)


def _noise(kind: str, like: Tensor, rng: torch.Generator) -> Tensor:
    if kind == "uniform":
        return 2 * torch.rand(like.shape, generator=rng) - 1
    if kind == "normal":
        return torch.randn(like.shape, generator=rng)
    # The difference of two exponentials is Laplacian.
    one, two = (torch.empty(like.shape).exponential_(generator=rng) for _ in range(2))
    return one - two


@hookimpl
def fpbench_fingerprinters() -> list[type[Fingerprinter]]:
    return [DatasetInference]
