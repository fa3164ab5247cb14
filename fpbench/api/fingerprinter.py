"""A model fingerprinting method: how a fingerprint is constructed and matched."""

from __future__ import annotations

import functools
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..compute.stack import Stacks, parts
from .errors import TrialError
from .fields import Positive, changed, validate
from .oracle import Access, Oracle
from .scenario import Scenario

MOST = 100
"""Points that are kept of one construction."""

Point = tuple[int, float, float]
"""A step, counted from 0; seconds since construction began; the loss there."""


class Progress:
    """Told a loss at every step, keeps at most MOST of them, evenly spread over the steps.

    The loss stays where it is, on its device, until somebody asks for the points. On a GPU, whose
    work is queued, seconds are when the step was queued.
    """

    def __init__(self) -> None:
        self._every = 1
        self._steps = 0
        self._told: list[tuple[int, float, Tensor | float]] = []

    def __call__(self, loss: Tensor | float) -> None:
        """Tell the loss of the step that is done: one number. Raises TrialError for more."""
        if isinstance(loss, Tensor) and loss.numel() != 1:
            raise TrialError(
                f"expected one number as a step's loss, got {loss.numel()}; tell their mean"
            )
        if self._steps % self._every == 0 and len(self._told) == MOST:
            # Every second one goes, and from now on only every second one comes.
            self._told, self._every = self._told[::2], 2 * self._every
        if self._steps % self._every == 0:
            # A copy: the method may write its next loss into the same memory.
            kept = loss.detach().clone() if isinstance(loss, Tensor) else loss
            self._told.append((self._steps, time.perf_counter(), kept))
        self._steps += 1

    def points(self, began: float) -> list[Point]:
        """What was kept; `began` is what `time.perf_counter` said when construction began."""
        return [(step, when - began, float(loss)) for step, when, loss in self._told]


@dataclass(frozen=True)
class Ensemble:
    """Suspects the verifier made for itself; disjoint from those it is judged on.

    Models are in eval mode, their parameters frozen, on the case's device.

    positive_recipes, negative_recipes: the name of the recipe that made each, "distill", say.
    """

    positives: Sequence[nn.Module]
    negatives: Sequence[nn.Module]
    positive_recipes: Sequence[str] = ()
    negative_recipes: Sequence[str] = ()

    @functools.cached_property
    def _stacks(self) -> Stacks:
        return Stacks([*self.positives, *self.negatives])

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Every member's output on x (n, *input_shape): positives' and negatives',
        each (members, n, *output_shape).

        Differentiable in x. Members of one architecture answer as one where that is faster.
        """
        out = self._stacks(x)
        return out[: len(self.positives)], out[len(self.positives) :]


@dataclass(frozen=True)
class Case:
    """What a verifier is given when it constructs a fingerprint.

    scenario: the task, its data pools and architectures.
    target:   the owner's model, white-box: eval mode, parameters frozen, input gradients flow.
    access:   how suspects will reply later.
    rng:      a CPU generator, seeded by suite, method and repeat.
    device:   where the models are; move inputs there.
    ensemble: given if and only if the method says `needs_ensemble`.
    progress: `case.progress(loss)`, called once a step, makes the loss part of the results; a
              method that descends none leaves it alone.
    """

    scenario: Scenario
    target: nn.Module
    access: Access
    rng: torch.Generator
    device: torch.device
    ensemble: Ensemble | None = None
    progress: Progress = field(default_factory=Progress)

    def outputs(self, x: Tensor) -> Tensor:
        """The target's outputs on x (n, *input_shape), on the CPU: (n, *output_shape).

        Without gradient, in batches that memory holds.
        """
        with torch.no_grad():
            return torch.cat([self.target(part.to(self.device)).cpu() for part in parts(x)])


@dataclass(frozen=True)
class Fingerprint:
    """What to ask a suspect, and what to judge the replies by.

    queries:  (n, *input_shape), on the CPU, inside the scenario's input range.
    evidence: tensors on the CPU, by name.
    """

    queries: Tensor
    evidence: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Fingerprinter(ABC):
    """A fingerprinting method. Subclass it as a frozen dataclass, write `construct` and `match`.

    Fields are its hyperparameters: keys of the suite, rows of `fpbench describe`.

    n_queries: N, inputs put to each suspect.
    """

    name: ClassVar[str]

    supports: ClassVar[type[Scenario]] = Scenario  # type: ignore[type-abstract]
    """The task it applies to; `Classification`, say."""

    accepts: ClassVar[frozenset[Access]] = frozenset({Access.LABEL})
    """Access levels at which it can verify."""

    needs_ensemble: ClassVar[bool] = False
    """Whether it learns from suspects of its own (`case.ensemble`)."""

    counts_agreement: ClassVar[bool] = False
    """Whether the matching rate is the share of replies equal to expected labels, each query
    counting alike: a verdict then has a binomial p-value beside the empirical one."""

    judges_data: ClassVar[bool] = False
    """Whether it takes all who trained on the owner's data for thieves: it is then no fault to rate
    them as high as the target."""

    paper: ClassVar[str] = ""
    """Authors, title, venue and year of the method's source."""

    claim: ClassVar[str] = ""
    """What the paper claims, with its figures; empty where none could be looked up."""

    quick: ClassVar[Mapping[str, Any]] = {}
    """Fields that make `fpbench check` quick: fewer steps, say."""

    n_queries: Positive = 100

    def __post_init__(self) -> None:
        validate(self)

    def __str__(self) -> str:
        fields = ",".join(f"{k}={v}" for k, v in changed(self).items())
        return f"{self.name}({fields})" if fields else self.name

    def declines(self, scenario: Scenario) -> str | None:
        """Say why this method does not apply, or None. Default: checks `supports`."""
        if isinstance(scenario, self.supports):
            return None
        wanted = self.supports.task
        if wanted == scenario.task:  # `supports` is narrower than a task
            wanted = self.supports.__name__
        return f"{self.name} fingerprints {wanted} models; {scenario.name} is {scenario.task}"

    @abstractmethod
    def construct(self, case: Case) -> Fingerprint:
        """Extract the target's fingerprint. Timed."""

    @abstractmethod
    def match(self, fingerprint: Fingerprint, replies: Tensor) -> float:
        """The matching rate in [0, 1]; higher means more likely stolen.

        replies: the oracle's answers to `fingerprint.queries`, at its access level.
        """

    def verify(self, fingerprint: Fingerprint, oracle: Oracle) -> float:
        """Ask, then match. Timed. Override only to ask in several rounds."""
        return self.match(fingerprint, oracle(fingerprint.queries))


def agreement(replies: Tensor, labels: Tensor) -> float:
    """The share of replies equal to the expected labels.

    replies: labels (n,), or scores (n, n_classes) whose largest is the label.
    Raises TrialError when the two do not pair up.
    """
    answers = replies.argmax(-1) if replies.ndim > 1 else replies
    if answers.shape != labels.shape or not len(labels):
        raise TrialError(
            f"expected one reply for each of the {len(labels)} labels (at least one), "
            f"got replies of shape {tuple(replies.shape)}"
        )
    return float((answers == labels.to(answers.device)).double().mean())
