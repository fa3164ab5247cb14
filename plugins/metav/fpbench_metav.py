"""MetaV: queries and a meta-verifier of the replies are learned together, for any task.

Pan, Yan, Zhang and Yang, *MetaV: A Meta-Verifier Approach to Task-Agnostic Model
Fingerprinting*, KDD 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fpbench import (
    INPUT_KINDS,
    Access,
    Case,
    Classification,
    Fingerprint,
    Fingerprinter,
    NonNegativeFloat,
    Positive,
    PositiveFloat,
    Probability,
    Scenario,
    folded,
    hookimpl,
    log_probabilities,
    reply,
)

Alone = tuple[nn.Module, list[nn.Module], list[nn.Module]]

SCALED = ("standardized", "distances")
"""Ways to read a reply for which the ensemble's answers give the scale."""

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
    query_lr:    learning rate of the queries, if it differs from `lr`. 0 freezes the queries where
                 they start, and each model is then asked only once; not in the paper. Texts and
                 rows with categories need it, with data_share 1: their queries are public inputs.
    objective:   "sampled" draws one positive and one negative each step (Algorithm 1);
                 "full" averages over the whole ensemble (equation 1).
    hidden:      widths of the meta-verifier's hidden layers. "Three-layer, hidden layer size of
                 100" is read as the paper reads its own 31-100-1 network: one hidden layer.
    init_std:    w is drawn from N(0, init_std^2); not given in the paper.
    data_share:  the share of queries that start from inputs of the public pool instead, drawn
                 to 0.9 of their distance from the range's middle. The paper's setting is 0;
                 docs/methods.md has the rule that chose the default.
    reads:       what the meta-verifier is shown of a reply y: "replies", y itself, as in the
                 paper; "log_probs", a classifier's log-probabilities, which both levels of access
                 give; "standardized", y less the ensemble's mean, by its spread; "distances",
                 log(1 + 10 |y - F(x)| / s) - 1 with s the ensemble's median |y - F(x)|, so that
                 it sees how far from the target a reply is. Only the first is in the paper.
    dropout:     on the meta-verifier's hidden layers while it is trained; not in the paper.
    """

    name = "metav"
    input_kinds = INPUT_KINDS
    accepts = frozenset({Access.PROBS, Access.OUTPUT})
    needs_ensemble = True
    paper = (
        "Pan, Yan, Zhang and Yang, MetaV: A Meta-Verifier Approach to Task-Agnostic Model "
        "Fingerprinting, KDD 2022"
    )
    claim = (
        "ARUC 0.86 on Skin with all positives found at full uniqueness, over 0.98 on Warfarin "
        "and Fashion, where the best baseline has 0.27 on Skin"
    )
    quick = {"steps": 200}  # noqa: RUF012

    steps: Positive = 1000
    lr: PositiveFloat = 1e-3
    query_lr: NonNegativeFloat | None = None
    objective: Literal["sampled", "full"] = "sampled"
    hidden: tuple[Positive, ...] = (100,)
    init_std: NonNegativeFloat = 1.0
    data_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    reads: Literal["replies", "log_probs", "standardized", "distances"] = "replies"
    dropout: Probability = 0.0

    def declines(self, scenario: Scenario) -> str | None:
        if self.reads == "log_probs" and not isinstance(scenario, Classification):
            return f"reads: log_probs needs a classifier; {scenario.name} is {scenario.task}"
        if scenario.input_kind != "continuous" and (self.query_lr != 0 or self.data_share < 1):
            return (
                f"metav moves its queries by gradients; the inputs of {scenario.name} are "
                f"{scenario.input_kind}: give it query_lr: 0 and data_share: 1, which takes public "
                "inputs as they are"
            )
        return super().declines(scenario)

    def construct(self, case: Case) -> Fingerprint:
        w = self._start(case).to(case.device)
        judge = verifier(self.n_queries * case.target(_queries(w[:1], case)).numel(), self.hidden,
                         self.dropout).to(case.device)  # fmt: skip
        optimizers = [torch.optim.Adam(judge.parameters(), lr=self.lr, fused=True)]
        known: Tensor | None = None
        alone: Alone | None = None
        if self.query_lr == 0:
            known = self._everyone(w.detach(), case)
        else:
            w.requires_grad_()
            query_lr = self.lr if self.query_lr is None else self.query_lr
            optimizers.append(torch.optim.Adam([w], lr=query_lr, fused=True))
            alone = None if self.objective == "full" else _alone(case, _queries(w.detach(), case))

        def everyone() -> Tensor:
            return self._everyone(w, case) if known is None else known

        scale = torch.zeros(()), torch.ones(())
        for step in range(self.steps):
            if known is None:
                answers, negatives = self._answers(_queries(w, case), case, alone)
            else:
                answers, negatives = self._drawn(known, case)
            if self.reads in SCALED:
                if self.objective == "full":
                    scale = self._scale(answers)
                elif step % REFRESH == 0:
                    scale = self._scale(everyone())
                if self.reads == "distances":
                    scale = answers[:1], scale[1]
            # -(log p+(F) + E log p+(M+) + E log p-(M-)): equation 1, or one draw of it.
            verdicts = judge(self._read(answers, *scale)).log_softmax(-1)
            first = len(verdicts) - negatives
            loss = -(verdicts[0, 1] + verdicts[1:first, 1].mean() + verdicts[first:, 0].mean())
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            case.progress(loss)

        if self.reads in SCALED:
            scale = self._scale(everyone())
        evidence = {
            "centre": scale[0],
            "spread": scale[1],
            "access": torch.tensor(int(case.access)),
            **judge.state_dict(),
        }
        return Fingerprint(
            _queries(w, case).detach().cpu(),
            {name: t.detach().cpu() for name, t in evidence.items()},
        )

    def match(self, fingerprint: Fingerprint, replies: Tensor) -> float:
        weights = dict(fingerprint.evidence)
        centre, spread = weights.pop("centre"), weights.pop("spread")
        access = Access(int(weights.pop("access")))
        if self.reads == "log_probs":
            replies = log_probabilities(replies, access)
        judge = verifier(replies.numel(), self.hidden, self.dropout).eval()
        judge.load_state_dict(weights)
        with torch.no_grad():
            # A broken model answers NaN: no evidence of theft, and no matching rate either.
            row = replies.nan_to_num().flatten()[None]
            verdict = judge(self._read(row, centre, spread))
            return float(verdict.softmax(-1)[0, 1])

    def _start(self, case: Case) -> Tensor:
        """The first w, (n_queries, *input_shape); public inputs as they are if none can move."""
        inputs = case.scenario.data("public").inputs
        if case.scenario.input_kind != "continuous":
            return inputs[torch.randint(len(inputs), (self.n_queries,), generator=case.rng)]
        w = self.init_std * torch.randn(
            self.n_queries, *case.scenario.input_shape, generator=case.rng
        )
        count = round(self.data_share * self.n_queries)
        drawn = inputs[torch.randint(len(inputs), (count,), generator=case.rng)]
        low, high = case.scenario.input_range
        # Inside the box: on its border atanh is infinite, and near it tanh has no gradient.
        w[:count] = (0.9 * (2 * (drawn - low) / (high - low) - 1)).atanh()
        return w

    def _answers(self, x: Tensor, case: Case, alone: Alone | None) -> tuple[Tensor, int]:
        """What F, this step's positives and its negatives reply, a row each; how many of the
        last. `alone`: who of them is drawn from; None if all are asked."""
        assert case.ensemble is not None, "the harness gives an ensemble to who needs one"
        if alone is None:
            target, (positives, negatives) = case.target(x)[None], case.ensemble.outputs(x)
        else:
            target = alone[0](x)[None]
            positives, negatives = (
                side[int(torch.randint(len(side), (), generator=case.rng))](x)[None]
                for side in alone[1:]
            )
        return self._seen(torch.cat([target, positives, negatives]), case), len(negatives)

    def _drawn(self, known: Tensor, case: Case) -> tuple[Tensor, int]:
        """Like `_answers`, from what all models have answered already: F, positives, negatives."""
        assert case.ensemble is not None
        sides = len(case.ensemble.positives), len(case.ensemble.negatives)
        if self.objective == "full":
            return known, sides[1]
        i, j = (int(torch.randint(size, (), generator=case.rng)) for size in sides)
        return known[[0, 1 + i, 1 + sides[0] + j]], 1

    @torch.no_grad()
    def _everyone(self, w: Tensor, case: Case) -> Tensor:
        """What F and the whole ensemble reply, F first."""
        assert case.ensemble is not None
        x = _queries(w, case)
        return self._seen(torch.cat([case.target(x)[None], *case.ensemble.outputs(x)]), case)

    def _seen(self, outputs: Tensor, case: Case) -> Tensor:
        """Outputs (models, N, ...) as the meta-verifier reads them, one row per model."""
        if self.reads == "log_probs":
            return log_probabilities(outputs, Access.OUTPUT).flatten(1)
        return reply(outputs, case.access).flatten(1)

    def _scale(self, answers: Tensor) -> tuple[Tensor, Tensor]:
        """Centre and spread of every reply over F (the first row) and the ensemble."""
        answers = answers.detach()
        if self.reads == "distances":
            return answers[0], (answers - answers[0]).abs().median(0).values + 1e-3
        return answers.mean(0), answers.std(0) + 1e-3

    def _read(self, answers: Tensor, centre: Tensor, spread: Tensor) -> Tensor:
        """Replies (models, N * d_out) as the meta-verifier is shown them."""
        if self.reads == "distances":
            return (10 * (answers - centre).abs() / spread).log1p() - 1
        return (answers - centre) / spread


def verifier(inputs: int, hidden: tuple[int, ...], dropout: float) -> nn.Sequential:
    """The meta-verifier: inputs - hidden - 2, ReLU; softmax is left to who reads it."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise((inputs, *hidden)):
        layers += [nn.Linear(n_in, n_out), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear((inputs, *hidden)[-1], 2))


def _queries(w: Tensor, case: Case) -> Tensor:
    """x = tanh(w), from [-1, 1] to the scenario's input range; w itself if no input can move."""
    if case.scenario.input_kind != "continuous":
        return w
    low, high = case.scenario.input_range
    return low + (high - low) * (w.tanh() + 1) / 2


def _alone(case: Case, x: Tensor) -> Alone:
    """F, the positives and the negatives, to be asked one by one on the like of x."""
    assert case.ensemble is not None
    positives, negatives = (
        [folded(model, x) for model in side]
        for side in (case.ensemble.positives, case.ensemble.negatives)
    )
    return folded(case.target, x), positives, negatives


@hookimpl
def fpbench_fingerprinters() -> list[type[Fingerprinter]]:
    return [MetaV]
