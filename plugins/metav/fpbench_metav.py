"""MetaV: queries and a meta-verifier of the replies are learned together, for any task.

Pan, Yan, Zhang and Yang, *MetaV: A Meta-Verifier Approach to Task-Agnostic Model
Fingerprinting*, KDD 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from fpbench import (
    Access,
    Case,
    Fingerprint,
    Fingerprinter,
    NonNegativeFloat,
    Positive,
    PositiveFloat,
    Probability,
    hookimpl,
    reply,
)

REFRESH = 25
"""Steps between two looks at the ensemble's mean and spread when only samples are seen."""


@dataclass(frozen=True, kw_only=True)
class MetaV(Fingerprinter):
    """Learn inputs on which stolen and independent models answer apart, and who judges that.

    A query is x = tanh(w), brought to the input range. The meta-verifier, a fully connected
    network with a softmax, reads a model's replies to all N queries, one after another. Both are
    trained by Adam on the ensemble: positives and the target are to be called positive,
    negatives negative. The matching rate is the meta-verifier's p+.

    Defaults are the paper's (section 5.5); what the paper leaves open says so.

    steps:       Adam steps (the paper's 1000 iterations).
    lr:          learning rate of both optimisers.
    objective:   "sampled" draws one positive and one negative each step (Algorithm 1);
                 "full" averages over the whole ensemble (equation 1).
    hidden:      widths of the meta-verifier's hidden layers. "Three-layer, hidden layer size of
                 100" is read as the paper reads its own 31-100-1 network: one hidden layer.
    init:        where queries start: w from N(0, init_std^2), or "data", inputs of the public
                 pool. The paper does not say.
    init_std:    standard deviation of w when `init` is "normal"; not given in the paper.
    standardize: before the meta-verifier, subtract from every output the ensemble's mean and
                 divide by its spread; not in the paper, off by default.
    dropout:     on the meta-verifier's hidden layers while it is trained; not in the paper.
    """

    name = "metav"
    accepts = frozenset({Access.PROBS, Access.OUTPUT})
    needs_ensemble = True
    quick = {"steps": 200}  # noqa: RUF012

    steps: Positive = 1000
    lr: PositiveFloat = 1e-3
    objective: Literal["sampled", "full"] = "sampled"
    hidden: tuple[Positive, ...] = (100,)
    init: Literal["normal", "data"] = "normal"
    init_std: NonNegativeFloat = 1.0
    standardize: bool = False
    dropout: Probability = 0.0

    def construct(self, case: Case) -> Fingerprint:
        w = self._start(case).to(case.device).requires_grad_()
        judge = verifier(self.n_queries * case.target(_queries(w[:1], case)).numel(), self.hidden,
                         self.dropout).to(case.device)  # fmt: skip
        optimizers = [torch.optim.Adam(p, lr=self.lr) for p in ([w], judge.parameters())]
        scale = torch.zeros(()), torch.ones(())
        for step in range(self.steps):
            x = _queries(w, case)
            target, positives, negatives = self._answers(x, case)
            if self.standardize and (self.objective == "full" or step % REFRESH == 0):
                scale = _scale(x, case)
            # -(log p+(F) + E log p+(M+) + E log p-(M-)): equation 1, or one draw of it.
            loss = -sum(
                judge((answers - scale[0]) / scale[1]).log_softmax(-1)[:, side].mean()
                for answers, side in ((target, 1), (positives, 1), (negatives, 0))
            )
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()

        x = _queries(w, case).detach()
        if self.standardize:
            scale = _scale(x, case)
        evidence = {"mean": scale[0], "spread": scale[1], **judge.state_dict()}
        return Fingerprint(x.cpu(), {name: t.detach().cpu() for name, t in evidence.items()})

    def match(self, fingerprint: Fingerprint, replies: Tensor) -> float:
        weights = dict(fingerprint.evidence)
        mean, spread = weights.pop("mean"), weights.pop("spread")
        judge = verifier(replies.numel(), self.hidden, self.dropout).eval()
        judge.load_state_dict(weights)
        with torch.no_grad():
            return float(judge((replies.flatten()[None] - mean) / spread).softmax(-1)[0, 1])

    def _start(self, case: Case) -> Tensor:
        """The first w, (n_queries, *input_shape)."""
        if self.init == "normal":
            return self.init_std * torch.randn(
                self.n_queries, *case.scenario.input_shape, generator=case.rng
            )
        inputs = case.scenario.data("public").inputs
        drawn = inputs[torch.randint(len(inputs), (self.n_queries,), generator=case.rng)]
        low, high = case.scenario.input_range
        # Just inside the box: atanh of its border is infinite.
        return (0.999 * (2 * (drawn - low) / (high - low) - 1)).atanh()

    def _answers(self, x: Tensor, case: Case) -> tuple[Tensor, Tensor, Tensor]:
        """What F, the positives and the negatives of this step reply: (models, N * d_out)."""
        ensemble = case.ensemble
        assert ensemble is not None, "the harness gives an ensemble to who needs one"
        target = _seen(case.target(x)[None], case)
        if self.objective == "full":
            positives, negatives = ensemble.outputs(x)
            return target, _seen(positives, case), _seen(negatives, case)
        drawn = [
            side[int(torch.randint(len(side), (), generator=case.rng))]
            for side in (ensemble.positives, ensemble.negatives)
        ]
        return target, *(_seen(model(x)[None], case) for model in drawn)  # type: ignore[return-value]


def verifier(inputs: int, hidden: tuple[int, ...], dropout: float) -> nn.Sequential:
    """The meta-verifier: inputs - hidden - 2, ReLU; softmax is left to who reads it."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise((inputs, *hidden)):
        layers += [nn.Linear(n_in, n_out), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear((inputs, *hidden)[-1], 2))


def _queries(w: Tensor, case: Case) -> Tensor:
    """x = tanh(w), from [-1, 1] to the scenario's input range."""
    low, high = case.scenario.input_range
    return low + (high - low) * (w.tanh() + 1) / 2


def _seen(outputs: Tensor, case: Case) -> Tensor:
    """Outputs (models, N, ...) as the suspects' API will show them, one row per model."""
    return reply(outputs, case.access).flatten(1)


@torch.no_grad()
def _scale(x: Tensor, case: Case) -> tuple[Tensor, Tensor]:
    """Mean and spread of every output over the ensemble and the target: (N * d_out,) each."""
    assert case.ensemble is not None
    answers = _seen(torch.cat([case.target(x)[None], *case.ensemble.outputs(x)]), case)
    return answers.mean(0), answers.std(0) + 1e-3


@hookimpl
def fpbench_fingerprinters() -> list[type[Fingerprinter]]:
    return [MetaV]
