"""Train generators against a discriminator that learns to tell their samples from real ones.

Goodfellow et al., *Generative Adversarial Nets*, NeurIPS 2014, with the non-saturating loss, and
the setting of Radford, Metz and Chintala, *Unsupervised Representation Learning with Deep
Convolutional Generative Adversarial Networks* (DCGAN), ICLR 2016: two Adams with beta 0.5.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ..api.scenario import Generation
from ..compute.stack import Way
from .cohort import Cohort, Learner, together, widened

BETA = 0.5
"""Beta 1 of both Adams: DCGAN, section 4."""


class Adversarial(Learner):
    """Trains each member against a new discriminator of its own, which is thrown away at the end.

    A thief who fine-tunes a stolen generator has only the generator, so the discriminator starts
    from nothing, as the owner's does. Each step draws new latent codes.
    """

    def __init__(self, cohort: Cohort, way: Way) -> None:
        super().__init__(cohort, way)
        self.scenario = cast(Generation, cohort.lab.scenario)
        new = self.scenario.discriminators[cohort.recipes[0].arch]
        # Separate generators, so that the codes do not repeat the order of the batches.
        seeds = [int(torch.randint(2**62, (), generator=rng)) for rng in cohort.rngs()]
        self.rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
        rivals = []
        for seed in seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                rivals.append(new().to(cohort.lab.device).train())
        self.rival = together(rivals, way)
        judging = [p.requires_grad_() for p in self.rival.params.values()]
        self.descend, self.judge = self.descent(self.learned, BETA), self.descent(judging, BETA)

    def step(self, batch: Tensor) -> Tensor:
        real, count = self.cohort.pool.truth[batch], batch.shape[1]
        codes = torch.stack([self.scenario.latents(count, rng) for rng in self.rngs])
        with self.cohort.autocast():
            made = self.stack(codes.to(real.device), shared=False)
        # Each batch is normalised by itself, as in DCGAN; together, they would give it away.
        wrong = F.softplus(-self.logits(real)) + F.softplus(self.logits(made.detach()))
        self.judge(wrong.mean(1).sum())
        caught = F.softplus(-self.logits(made))
        self.descend(caught.mean(1).sum())
        self.mask()
        return (wrong + caught).detach().mean(1)

    def logits(self, samples: Tensor) -> Tensor:
        """Return each member's discriminator's logits of its samples (members, n)."""
        with self.cohort.autocast():
            out = self.rival(samples, shared=False)
        return widened(out).flatten(1)
