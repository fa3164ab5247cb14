"""FBI: a classifier is fingerprinted by ordinary inputs, through what its labels tell of another's.

Maho, Furon and Le Merrer, *FBI: Fingerprinting models with Benign Inputs*, 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fpbench import (
    INPUT_KINDS,
    Access,
    Case,
    Classification,
    Fingerprint,
    Fingerprinter,
    Scenario,
    TrialError,
    hookimpl,
)


@dataclass(frozen=True, kw_only=True)
class FBI(Fingerprinter):
    """Ask test inputs and measure the mutual information of the suspect's and the target's labels.

    D = 1 - I(c_F; c_G) / min(H(c_F), H(c_G)); the matching rate is 1 - D. It does not matter what
    a suspect calls its classes, nor how many it has: only which inputs it puts together. A
    suspect that always gives one label tells nothing and is rated 0.

    selection:  the test inputs with the largest "entropy" of the target's probabilities, or
                "random" ones. The paper ranks inputs by how much known models disagree on them,
                which takes an ensemble; the target's own doubt stands in for it, which is ours.
    reads:      what is compared: "mistakes", whether each label is correct, as in public code for
                top-1 labels, or "labels". Mistakes need far fewer queries for a good estimate, but
                a suspect with renamed classes makes only mistakes; "labels" suits such suspects.
    correction: N queries make labels of independent models look related, the more so the more
                classes there are. "miller-madow" (1955) adds (m - 1) / 2N to each entropy, m the
                values seen; "chance" takes the mean of I over all reorderings of the labels off
                both I and the smallest entropy; "none" is the public code's. A correction is
                ours. Both leave 1 for equal labels; the first is cheap and falls short when N
                is less than the number of pairs of classes.
    """

    name = "fbi"
    supports = Classification
    input_kinds = INPUT_KINDS
    accepts = frozenset({Access.LABEL})
    queries_pool = True
    paper = "Maho, Furon and Le Merrer, FBI: Fingerprinting models with Benign Inputs, 2022"
    claim = "a success rate of 95.2 % over more than 1,000 networks"

    selection: Literal["entropy", "random"] = "entropy"
    reads: Literal["labels", "mistakes"] = "mistakes"
    correction: Literal["miller-madow", "chance", "none"] = "miller-madow"

    def declines(self, scenario: Scenario) -> str | None:
        if reason := super().declines(scenario):
            return reason
        labels_only = scenario.recorded and Access.PROBS not in scenario.offers
        if labels_only and self.selection == "entropy":
            return (
                f"{self.name} with selection=entropy reads the target's probabilities; "
                f"{scenario.name} has labels only; give {self.name} selection: random"
            )
        return None

    def construct(self, case: Case) -> Fingerprint:
        inputs, truth = case.scenario.data("test")
        order = torch.randperm(len(inputs), generator=case.rng)
        if self.selection == "entropy":
            log = case.outputs(inputs).log_softmax(1)
            order = (log.exp() * log).sum(1).argsort()
        drawn = order[: self.n_queries]
        labels = case.outputs(inputs[drawn]).argmax(1)
        if self.reads == "mistakes" and len((labels == truth[drawn]).unique()) < 2:
            raise TrialError(
                f"expected correct and wrong labels from the target, got one kind for all "
                f"{len(drawn)} queries; give fbi reads: labels"
            )
        return Fingerprint(inputs[drawn], {"labels": labels, "truth": truth[drawn]})

    def match(self, fingerprint: Fingerprint, replies: Tensor) -> float:
        ours, truth = fingerprint.evidence["labels"], fingerprint.evidence["truth"]
        if replies.shape != ours.shape:
            raise TrialError(
                f"expected a label for each of {len(ours)} queries, got replies of shape "
                f"{tuple(replies.shape)}"
            )
        if self.reads == "mistakes":
            ours, replies = ours != truth, replies != truth
        return self._related(ours, replies)

    def _related(self, one: Tensor, other: Tensor) -> float:
        """I / min(H, H) of two rows of labels (n,), corrected, in [0, 1]."""
        table = torch.zeros(len(one.unique()), len(other.unique()))
        pair = one.unique(return_inverse=True)[1], other.unique(return_inverse=True)[1]
        table.index_put_(pair, torch.ones(()), accumulate=True)
        if min(table.shape) < 2:
            return 0.0
        h_one, h_other, h_both = map(self._entropy, (table.sum(1), table.sum(0), table.flatten()))
        shared, most = h_one + h_other - h_both, min(h_one, h_other)
        if self.correction == "chance":
            chance = _by_chance(table.sum(1), table.sum(0))
            shared, most = shared - chance, most - chance
        return min(1.0, max(0.0, shared / most)) if most > 1e-9 else 0.0

    def _entropy(self, counts: Tensor) -> float:
        """In nats, of how often each value was seen."""
        counts = counts[counts > 0].double()
        p = counts / counts.sum()
        bias = (len(p) - 1) / (2 * float(counts.sum()))
        return -float((p * p.log()).sum()) + (bias if self.correction == "miller-madow" else 0)


def _by_chance(rows: Tensor, columns: Tensor) -> float:
    """The mean of I over all tables with these sums: a cell's count k is hypergeometric.

    E = sum over cells (a, b) and k of P(k) k/n log(n k / a b).
    """

    def choose(n: Tensor, k: Tensor) -> Tensor:
        """The logarithm of n over k, -inf where there is no way."""
        ways = (n + 1).lgamma() - (k + 1).lgamma() - (n - k + 1).lgamma()
        return ways.masked_fill((k < 0) | (k > n), -torch.inf)

    n = rows.sum().double()
    k = torch.arange(1, int(n) + 1).double()
    a, b = rows.double()[:, None, None], columns.double()[None, :, None]
    p = (choose(a, k) + choose(n - a, b - k) - choose(n, b)).exp()
    return float((p * k / n * (n * k / (a * b)).log()).sum())


@hookimpl
def fpbench_fingerprinters() -> list[type[Fingerprinter]]:
    return [FBI]
