"""ConferAE: adversarial examples that stolen models inherit and independent ones do not.

Lukas, Zhang and Kerschbaum, *Deep Neural Network Fingerprinting by Conferrable Adversarial
Examples*, ICLR 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fpbench import (
    Access,
    Case,
    Classification,
    Count,
    Ensemble,
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

FLOOR = 1e-7
"""The least probability a logarithm sees: without it the beta term has no bound."""


@dataclass(frozen=True, kw_only=True)
class ConferAE(Fingerprinter):
    """Look for adversarial examples that transfer to surrogates of the target alone.

    Surrogates are stolen models, references independent ones. Surr and Ref are the mean
    probabilities of either group, and E = Surr (1 - Ref) is how conferrable a label is. From a
    training point x that the target F labels rightly, as y, Adam lowers

        -alpha log E_t(x') - beta CE(y, F(x')) + gamma CE(F(x'), Surr(x'))

    inside an L-infinity ball around x and the input range; t is F's likeliest label but y, and
    each step leaves out some members. Ours: a public re-implementation has F's likeliest label
    for t, so that two of three terms hold on to y for as long as F says y; and CE(F(x), F(x')),
    which has no slope at x and sends half of the starts to where F is only surer of y.

    A point is kept if F does not say y and E_t over everybody, t being what F says, is at least
    tau. Where too few are, tau is lowered to what the last one needed has, which is to keep the
    most conferrable; the evidence tells it. Where too few are adversarial at all, fresh points
    are tried. The matching rate is the share of F's labels that a suspect gives too.

    surrogates:  which positives of the ensemble are surrogates: "distill", those extracted
                 from the target's replies, as the paper's are; "all", as a mean over recipes of
                 the mean over members, for pruned copies hardly differ from F and would
                 outvote the rest (ours).
    eps:         the ball's radius as a share of the input range; 0.15 as in that
                 re-implementation.
    steps, lr:   of Adam, lr as a share of the input range. The public re-implementation has 100
                 steps with 0.0005, which are too few to cross the ball.
    dropout:     the probability with which a step leaves out a member, for each point anew;
                 0.3, ibid. No group is ever left empty.
    alpha, beta, gamma: weights of the three terms; 1, ibid.
    tau:         the least conferrability asked for; 0.95 in that re-implementation's report.
    noise:       how far from x a point starts at most, as a share of the input range; ours.
    pool:        points pushed for each one kept; ours.
    refills:     how many fresh pools may be tried; ours.
    batch_size:  points pushed at once through all members; fewer need less memory. Ours.
    """

    name = "conferae"
    supports = Classification
    accepts = frozenset({Access.LABEL})
    needs_ensemble = True
    counts_agreement = True
    paper = (
        "Lukas, Zhang and Kerschbaum, Deep Neural Network Fingerprinting by Conferrable "
        "Adversarial Examples, ICLR 2021"
    )
    claim = (
        "ROC AUC 1.0 in verifying surrogates, where previous fingerprints have 0.63; robust "
        "against distillation and other extraction"
    )
    quick = {"steps": 30}  # noqa: RUF012

    surrogates: Literal["distill", "all"] = "distill"
    eps: PositiveFloat = 0.15
    steps: Positive = 100
    lr: PositiveFloat = 0.01
    dropout: Probability = 0.3
    alpha: NonNegativeFloat = 1.0
    beta: NonNegativeFloat = 1.0
    gamma: NonNegativeFloat = 1.0
    tau: Probability = 0.95
    noise: NonNegativeFloat = 0.01
    pool: Positive = 2
    refills: Count = 3
    batch_size: Positive = 1024

    def construct(self, case: Case) -> Fingerprint:
        judges = _judges(case, self.surrogates)
        inputs, truth = case.scenario.data("train")
        order = torch.randperm(len(inputs), generator=case.rng)
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        tried = 0
        for pool in order.split(self.pool * self.n_queries)[: 1 + self.refills]:
            tried += len(pool)
            for part in pool.split(self.batch_size):
                found.append(self._adversarial(case, judges, inputs[part], truth[part]))
            x, labels, score = map(torch.cat, zip(*found, strict=True))
            if len(x) >= self.n_queries:
                break
        else:
            raise TrialError(
                f"expected {self.n_queries} adversarial examples, got {len(x)} from {tried} "
                "training points; give conferae more refills or steps, or a larger eps"
            )
        best = score.topk(self.n_queries)
        kept = best.indices
        tau = best.values[-1].clamp(max=self.tau)
        evidence = {"labels": labels[kept], "conferrability": best.values, "tau": tau}
        return Fingerprint(x[kept].cpu(), {name: t.cpu() for name, t in evidence.items()})

    def match(self, fingerprint: Fingerprint, replies: Tensor) -> float:
        return agreement(replies, fingerprint.evidence["labels"])

    def _adversarial(
        self, case: Case, judges: Judges, inputs: Tensor, truth: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What comes of some points and is adversarial: inputs, F's labels, conferrability."""
        inputs, truth = inputs.to(case.device), truth.to(case.device)
        with torch.no_grad():
            right = case.target(inputs).argmax(1) == truth
        inputs, truth = inputs[right], truth[right]
        x = self._pushed(case, judges, inputs, truth)
        with torch.no_grad():
            p, surrogate, reference = judges(x, 0.0, case.rng)
        labels = p.argmax(1)
        score = _at(surrogate * (1 - reference), labels)
        fooled = labels != truth
        return x[fooled], labels[fooled], score[fooled]

    def _pushed(self, case: Case, judges: Judges, start: Tensor, truth: Tensor) -> Tensor:
        """Points moved from where F labels them rightly, (n, *input_shape)."""
        low, high = case.scenario.input_range
        span = high - low
        floor = (start - self.eps * span).clamp_min(low)
        ceiling = (start + self.eps * span).clamp_max(high)
        noise = 2 * torch.rand(start.shape, generator=case.rng) - 1
        x = (start + self.noise * span * noise.to(start)).clamp(floor, ceiling).requires_grad_()
        optimizer = torch.optim.Adam([x], lr=self.lr * span)
        for _ in range(self.steps):
            p, surrogate, reference = judges(x, self.dropout, case.rng)
            wrong = p.detach().scatter(1, truth[:, None], -1).argmax(1)
            loss = (
                -self.alpha * _log(_at(surrogate * (1 - reference), wrong))
                + self.beta * _log(_at(p, truth))
                - self.gamma * (p * _log(surrogate)).sum(1)
            )
            optimizer.zero_grad()
            loss.sum().backward()
            optimizer.step()
            case.progress(loss.detach().mean())
            with torch.no_grad():
                x.clamp_(floor, ceiling)
        return x.detach()


@dataclass(frozen=True)
class Judges:
    """Who is asked while a point moves.

    everyone: F and the surrogates as its positives, the references as its negatives.
    groups:   the surrogates' places among the positives, by recipe or all in one.
    """

    everyone: Ensemble
    groups: list[list[int]]

    def __call__(
        self, x: Tensor, dropout: float, rng: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """F's probabilities and the surrogates' and references' means, each (n, n_classes)."""
        positives, references = (z.softmax(-1) for z in self.everyone.outputs(x))
        groups = [_mean(positives[members], dropout, rng) for members in self.groups]
        return positives[0], torch.stack(groups).mean(0), _mean(references, dropout, rng)


def _judges(case: Case, surrogates: str) -> Judges:
    assert case.ensemble is not None
    recipes = case.ensemble.positive_recipes
    chosen = [i for i, recipe in enumerate(recipes) if surrogates in ("all", recipe)]
    if not chosen or not len(case.ensemble.negatives):
        raise TrialError(
            f"expected surrogates of the recipe {surrogates!r} and independent models in the "
            f"ensemble, got {len(chosen)} and {len(case.ensemble.negatives)} of them; give the "
            "zoo more positives made by distill and more negatives, or conferae surrogates: all"
        )
    groups: dict[str, list[int]] = {}
    for place, i in enumerate(chosen, start=1):  # F stands first
        groups.setdefault(recipes[i], []).append(place)
    positives = [case.target, *(case.ensemble.positives[i] for i in chosen)]
    return Judges(Ensemble(positives, case.ensemble.negatives), list(groups.values()))


def present(members: int, n: int, dropout: float, rng: torch.Generator) -> Tensor:
    """Who is asked about which point (members, n): each left out by chance, never all."""
    drawn = torch.rand(members, n, generator=rng)
    return (drawn >= dropout) | (drawn == drawn.amax(0))


def _mean(probs: Tensor, dropout: float, rng: torch.Generator) -> Tensor:
    """The mean over the members present of probabilities (members, n, n_classes)."""
    asked = present(probs.shape[0], probs.shape[1], dropout, rng).to(probs)
    return torch.einsum("mn,mnc->nc", asked / asked.sum(0), probs)


def _at(probs: Tensor, labels: Tensor) -> Tensor:
    return probs.gather(1, labels[:, None]).squeeze(1)


def _log(probs: Tensor) -> Tensor:
    return probs.clamp_min(FLOOR).log()


@hookimpl
def fpbench_fingerprinters() -> list[type[Fingerprinter]]:
    return [ConferAE]
