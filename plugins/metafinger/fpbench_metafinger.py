"""MetaFinger: inputs inside the target's decision area that its copies share, by meta-training.

Yang, Wang and Wang, *MetaFinger: Fingerprinting the Deep Neural Networks with Meta-training*,
IJCAI 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
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
    Probability,
    TrialError,
    agreement,
    hookimpl,
)

Split = tuple[list[int], list[int]]
"""The places of members to train with, and of those to validate with."""


@dataclass(frozen=True, kw_only=True)
class MetaFinger(Fingerprinter):
    """Train inputs until stolen models answer them alike and independent ones otherwise.

    Training points are moved by Adam. In each step, one positive of the ensemble is the anchor
    and the points are transformed at random; then

        mean KL(positive || anchor) - weight * mean KL(negative || anchor)

    over a few other positives and negatives is lowered, and the points are clamped to the input
    range. F is one of the positives. A third of the ensemble, of every recipe alike, takes no
    part in that: it validates. A point's label is the commonest answer of all positives, F
    included; its gap is the share of validating positives that give the label less the share of
    validating negatives that do. The paper keeps points whose gap is 1. Here the widest gaps are
    kept, so points of gap 1 come first and some that are less good fill up; none without a gap is
    kept, so there may be fewer than n_queries. The matching rate is the share of labels a
    suspect gives.

    Settings, and KL's direction, are those of the authors' code for CIFAR-10 where not marked as
    ours. Points are taken from the epoch with the largest sum of kept gaps; the authors' code takes
    the epoch whose points the validating negatives agree with least.

    epochs:     in each of them, every training positive is the anchor once.
    lr:         Adam's learning rate, as a share of the input range.
    sample:     positives and negatives compared with the anchor in one step.
    weight:     of the second term.
    pool:       points trained for each one kept, all at once; ours (there 70 at a time, until
                enough are kept).
    transform:  whether points are transformed in each step, as in the authors' code: unchanged,
                mirrored, sheared and moved and zoomed, blurred by a 3 x 3 mean, or under normal or
                uniform noise, by turns. Inputs that are not images get the noise only (ours).
    noise:      the noise's standard deviation or bound, as a share of the input range.
    shear:      at most, as a share of the image; the authors move and zoom apart from it.
    shift:      at most, as a share of the image; 5 of 32 pixels there.
    zoom:       at most; 24 to 40 of 32 pixels there.
    validation: the share of each recipe's members that is held out; a third in their ablation.
                A recipe of one member is for training. Where that leaves no positive or no
                negative to validate, those trained with do (ours).
    """

    name = "metafinger"
    supports = Classification
    accepts = frozenset({Access.LABEL})
    needs_ensemble = True
    counts_agreement = True
    paper = (
        "Yang, Wang and Wang, MetaFinger: Fingerprinting the Deep Neural Networks with "
        "Meta-training, IJCAI 2022"
    )
    claim = "99.34 % and 97.69 % query accuracy on average on CIFAR-10 and Tiny-ImageNet"
    quick = {"epochs": 10}  # noqa: RUF012

    epochs: Positive = 10
    lr: PositiveFloat = 0.01
    sample: Positive = 3
    weight: NonNegativeFloat = 1.0
    pool: Positive = 4
    transform: bool = False
    noise: NonNegativeFloat = 0.05
    shear: NonNegativeFloat = 0.1
    shift: NonNegativeFloat = 0.15
    zoom: Probability = 0.25
    validation: Probability = 1 / 3

    def construct(self, case: Case) -> Fingerprint:
        assert case.ensemble is not None
        ensemble, rng = case.ensemble, case.rng
        if not ensemble.positives or not ensemble.negatives:
            raise TrialError(
                "expected positives and negatives in the ensemble, got "
                f"{len(ensemble.positives)} and {len(ensemble.negatives)}; give the zoo more"
            )
        positives = split(len(ensemble.positives), ensemble.positive_recipes, self.validation, rng)
        negatives = split(len(ensemble.negatives), ensemble.negative_recipes, self.validation, rng)
        epochs = self._epochs(
            case,
            [case.target, *(ensemble.positives[i] for i in positives[0])],
            [ensemble.negatives[i] for i in negatives[0]],
        )
        found = (self._widest(case, x, positives, negatives) for x in epochs)
        best = max(found, key=lambda kept: float(kept.evidence["gap"].sum()))
        if not len(best.queries):
            raise TrialError(
                "expected inputs that validating positives answer alike and negatives otherwise, "
                "got none; give metafinger more epochs or a larger pool"
            )
        return best

    @torch.no_grad()
    def _widest(self, case: Case, x: Tensor, positives: Split, negatives: Split) -> Fingerprint:
        """Return the fingerprint of the points with the widest gaps above 0."""
        assert case.ensemble is not None
        own, other = (z.argmax(-1) for z in case.ensemble.outputs(x))
        labels = torch.cat([case.target(x).argmax(-1)[None], own]).mode(0).values
        shares = [
            (answers[held or used] == labels).double().mean(0)
            for answers, (used, held) in ((own, positives), (other, negatives))
        ]
        gap = shares[0] - shares[1]
        best = gap.topk(min(self.n_queries, int((gap > 0).sum())))
        evidence = {"labels": labels[best.indices], "gap": best.values}
        return Fingerprint(x[best.indices].cpu(), {name: t.cpu() for name, t in evidence.items()})

    def match(self, fingerprint: Fingerprint, replies: Tensor) -> float:
        return agreement(replies, fingerprint.evidence["labels"])

    def _epochs(
        self, case: Case, positives: Sequence[nn.Module], negatives: Sequence[nn.Module]
    ) -> Iterator[Tensor]:
        """Meta-train points; yield them, on the case's device, after each epoch."""
        low, high = case.scenario.input_range
        inputs, rng = case.scenario.data("train").inputs, case.rng
        drawn = torch.randperm(len(inputs), generator=rng)[: self.pool * self.n_queries]
        x = inputs[drawn].to(case.device).requires_grad_()
        optimizer = torch.optim.Adam([x], lr=self.lr * (high - low))
        for _ in range(self.epochs):
            for anchor in torch.randperm(len(positives), generator=rng).tolist():
                seen = self._transformed(x, low, high, rng)
                z = positives[anchor](seen)
                others = [model for i, model in enumerate(positives) if i != anchor]
                alike = _divergence(_draw(others, self.sample, rng), seen, z)
                apart = _divergence(_draw(negatives, self.sample, rng), seen, z)
                loss = alike - self.weight * apart
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                case.progress(loss)
                with torch.no_grad():
                    x.clamp_(low, high)
            yield x.detach().clone()

    def _transformed(self, x: Tensor, low: float, high: float, rng: torch.Generator) -> Tensor:
        """The points under one random transformation."""
        if not self.transform:
            return x
        amount = self.noise * (high - low)
        turns: list[Callable[[Tensor], Tensor]] = [
            lambda x: x,
            lambda x: x + amount * torch.randn(x.shape, generator=rng).to(x),
            lambda x: x + amount * (2 * torch.rand(x.shape, generator=rng) - 1).to(x),
        ]
        if x.ndim == 4:
            turns += [
                lambda x: x.flip(-1),
                lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
                lambda x: self._moved(x - low, rng) + low,  # what moves in is of the lowest value
            ]
        return turns[int(torch.randint(len(turns), (), generator=rng))](x).clamp(low, high)

    def _moved(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Images zoomed, sheared and shifted, each axis on its own."""
        drawn = 2 * torch.rand(3, 2, generator=rng) - 1
        theta = torch.diag_embed(1 + self.zoom * drawn[0])
        theta = theta + self.shear * drawn[1].diag().flip(0)
        theta = torch.cat([theta, 2 * self.shift * drawn[2][:, None]], 1)  # the image is 2 wide
        grid = F.affine_grid(theta.to(x).expand(len(x), 2, 3), list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, align_corners=False)


def _divergence(models: Sequence[nn.Module], x: Tensor, anchor: Tensor) -> Tensor:
    """Mean KL(model || anchor), as the authors' code has it; summed over points."""
    given = anchor.log_softmax(-1)
    logs = [model(x).log_softmax(-1) for model in models]
    return torch.stack([(p.exp() * (p - given)).sum() for p in logs]).mean()


def _draw(models: Sequence[nn.Module], count: int, rng: torch.Generator) -> list[nn.Module]:
    """A few of the models, none twice."""
    return [models[i] for i in torch.randperm(len(models), generator=rng)[:count].tolist()]


def split(
    count: int, recipes: Sequence[str], share: float, rng: torch.Generator
) -> tuple[list[int], list[int]]:
    """Members' places, to train with and to validate with: `share` of each recipe's, rounded,
    but never all."""
    groups: dict[str, list[int]] = {}
    for i in torch.randperm(count, generator=rng).tolist():
        groups.setdefault(recipes[i] if recipes else "", []).append(i)
    used, held = [], []
    for members in groups.values():
        cut = min(round(share * len(members)), len(members) - 1)
        held += members[:cut]
        used += members[cut:]
    return used, held


@hookimpl
def fpbench_fingerprinters() -> list[type[Fingerprinter]]:
    return [MetaFinger]
