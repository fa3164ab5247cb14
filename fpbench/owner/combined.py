"""Several methods as one: a plan, whose rate follows from the rates of its parts by a fixed rule.

The combined rate is one number per model, so one threshold is set on it as on any method's rate,
and no correction for several tests is needed. A test per method with Holm's correction could not
reach 5 % here: with K makings, no p-value is below 1 / (K + 1).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ..api.fingerprinter import Case, Fingerprint, Fingerprinter
from ..api.oracle import Access, Oracle

Rule = Literal["mean", "least"]

RULES: dict[Rule, Callable[[Sequence[float]], float]] = {"mean": statistics.fmean, "least": min}
"""The ways to combine rates. By "least", a suspect is rated high only if every method does so."""


@dataclass(frozen=True, kw_only=True)
class Combined(Fingerprinter):
    """Asks the queries of several methods, and takes the mean, or the least, of their rates.

    parts:  the methods, in the order in which they ask.
    levels: the access level of each.
    rule:   "mean" or "least".
    """

    name = "combined"
    accepts = frozenset(Access)

    parts: tuple[Fingerprinter, ...]
    levels: tuple[Access, ...]
    rule: Rule

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_queries", sum(part.n_queries for part in self.parts))

    @property
    def access(self) -> Access:
        """The highest level that a part needs."""
        return max(self.levels)

    def construct(self, case: Case) -> Fingerprint:
        return joined([part.construct(case) for part in self.parts])

    def match(self, fingerprint: Fingerprint, replies: Tensor) -> float:
        """Return the combined rate of replies to the queries of all parts, in their order."""
        rates = []
        given = replies.split(fingerprint.evidence["counts"].tolist())
        for (part, level, own), reply in zip(self._parts(fingerprint), given, strict=True):
            lowered = Oracle(partial(_replay, reply), self.access)(own.queries, level)
            rates.append(part.match(own, lowered))
        return RULES[self.rule](rates)

    def verify(self, fingerprint: Fingerprint, oracle: Oracle) -> float:
        return RULES[self.rule](
            [
                part.verify(own, Oracle(partial(oracle, access=level), level))
                for part, level, own in self._parts(fingerprint)
            ]
        )

    def _parts(
        self, fingerprint: Fingerprint
    ) -> Iterator[tuple[Fingerprinter, Access, Fingerprint]]:
        yield from zip(self.parts, self.levels, split(fingerprint), strict=True)


def _replay(replies: Tensor, _: Tensor) -> Tensor:
    return replies


def joined(fingerprints: Sequence[Fingerprint]) -> Fingerprint:
    """Return several fingerprints as one; `split` takes it apart again."""
    evidence = {
        f"{i}/{name}": tensor
        for i, fingerprint in enumerate(fingerprints)
        for name, tensor in fingerprint.evidence.items()
    }
    counts = torch.tensor([len(fingerprint.queries) for fingerprint in fingerprints])
    queries = torch.cat([fingerprint.queries for fingerprint in fingerprints])
    return Fingerprint(queries, {"counts": counts, **evidence})


def split(fingerprint: Fingerprint) -> list[Fingerprint]:
    """Return the fingerprints that `joined` made one of."""
    queries = fingerprint.queries.split(fingerprint.evidence["counts"].tolist())
    return [
        Fingerprint(
            own,
            {
                name.removeprefix(f"{i}/"): tensor
                for name, tensor in fingerprint.evidence.items()
                if name.startswith(f"{i}/")
            },
        )
        for i, own in enumerate(queries)
    ]
