"""The base class of fingerprinting methods, and what `construct` and `match` get and return."""

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
from .fields import Positive, changed_fields, validate
from .oracle import Access, Oracle
from .scenario import InputKind, Scenario

MOST_POINTS = 100
"""The most points that are kept of one construction."""

Point = tuple[int, float, float]
"""A step, counted from 0; the seconds since construction began; the loss at that step."""


class Progress:
    """Receives a loss at every step, and keeps at most MOST_POINTS, evenly spread over the steps.

    A loss stays on its device until `points` is called. A GPU queues its work, so on a GPU the
    seconds of a point are those at which its step was queued.
    """

    def __init__(self) -> None:
        self._every = 1
        self._steps = 0
        self._kept: list[tuple[int, float, Tensor | float]] = []

    def __call__(self, loss: Tensor | float) -> None:
        """Record the loss of a finished step, one number. Raises TrialError for several."""
        if isinstance(loss, Tensor) and loss.numel() != 1:
            raise TrialError(
                f"expected one number as a step's loss, got {loss.numel()}; pass their mean"
            )
        if self._steps % self._every == 0 and len(self._kept) == MOST_POINTS:
            # Drop every second point, and keep half as many of the following steps.
            self._kept, self._every = self._kept[::2], 2 * self._every
        if self._steps % self._every == 0:
            # A copy, because the method may write its next loss into the same memory.
            copied = loss.detach().clone() if isinstance(loss, Tensor) else loss
            self._kept.append((self._steps, time.perf_counter(), copied))
        self._steps += 1

    def points(self, began: float) -> list[Point]:
        """Return the kept points; `began` is `time.perf_counter()` at the start of construction."""
        return [(step, seconds - began, float(loss)) for step, seconds, loss in self._kept]


@dataclass(frozen=True)
class Ensemble:
    """Suspects that the verifier made to learn from; disjoint from those that it is judged on.

    Models are on the case's device, in eval mode, with frozen parameters.

    positive_recipes, negative_recipes: the name of each model's recipe, for example "distill".
    """

    positives: Sequence[nn.Module]
    negatives: Sequence[nn.Module]
    positive_recipes: Sequence[str] = ()
    negative_recipes: Sequence[str] = ()

    @functools.cached_property
    def _stacks(self) -> Stacks:
        return Stacks([*self.positives, *self.negatives])

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs of the positives and of the negatives on x (n, *input_shape).

        Each of the two is (members, n, *output_shape), and differentiable in x. Members of one
        architecture run as one network where that is faster.
        """
        out = self._stacks(x)
        return out[: len(self.positives)], out[len(self.positives) :]


@dataclass(frozen=True)
class Case:
    """The argument of `construct`: the target, the data and a random generator.

    scenario: the task, with its data pools and architectures.
    target:   the owner's model, white-box: in eval mode, with frozen parameters; gradients reach
              its inputs.
    access:   the access level of the suspects' replies.
    rng:      a CPU generator, seeded by suite, method and repeat.
    device:   the device of the models; move inputs there.
    ensemble: suspects to learn from if the method has `needs_ensemble`, else None.
    progress: `case.progress(loss)`, called once per step, makes the loss part of the results. It
              is optional.
    """

    scenario: Scenario
    target: nn.Module
    access: Access
    rng: torch.Generator
    device: torch.device
    ensemble: Ensemble | None = None
    progress: Progress = field(default_factory=Progress)

    def outputs(self, x: Tensor) -> Tensor:
        """Return the target's outputs on x (n, *input_shape): (n, *output_shape), on the CPU.

        It computes no gradients, and splits x into batches that fit into memory.
        """
        with torch.no_grad():
            return torch.cat([self.target(part.to(self.device)).cpu() for part in parts(x)])


@dataclass(frozen=True)
class Fingerprint:
    """The queries to a suspect, and the evidence to judge its replies by.

    queries:  inputs (n, *input_shape), on the CPU, inside the scenario's input range.
    evidence: tensors on the CPU, by name.
    """

    queries: Tensor
    evidence: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Fingerprinter(ABC):
    """A fingerprinting method. Subclass it as a frozen dataclass; write `construct` and `match`.

    The fields are the method's hyperparameters: keys of a suite, rows of `fpbench describe`.

    n_queries: N, the number of inputs that each suspect answers.
    """

    name: ClassVar[str]

    supports: ClassVar[type[Scenario]] = Scenario  # type: ignore[type-abstract]
    """The class of scenarios that the method applies to, for example `Classification`."""

    input_kinds: ClassVar[frozenset[InputKind]] = frozenset(("continuous",))
    """The kinds of inputs that the method applies to. A method that only takes inputs from the
    pools applies to all: `input_kinds = INPUT_KINDS`. One that moves inputs in small steps applies
    to continuous ones only."""

    accepts: ClassVar[frozenset[Access]] = frozenset({Access.LABEL})
    """The access levels at which the method can verify."""

    needs_ensemble: ClassVar[bool] = False
    """Whether the method learns from other suspects (`case.ensemble`)."""

    queries_pool: ClassVar[bool] = False
    """Whether all queries are inputs of the scenario's pools, unchanged, and the target is only
    asked. The method then also applies to models that are recorded answers."""

    counts_agreement: ClassVar[bool] = False
    """Whether the matching rate is the share of replies equal to the expected labels, with equal
    weight for each query. A verdict then has a binomial p-value besides the empirical one."""

    judges_data: ClassVar[bool] = False
    """Whether the method takes every model trained on the owner's data for a copy. `fpbench check`
    then lets it rate such models as high as the target."""

    paper: ClassVar[str] = ""
    """Authors, title, venue and year of the method's source."""

    claim: ClassVar[str] = ""
    """The paper's claim, with its figures; empty if it is not known."""

    quick: ClassVar[Mapping[str, Any]] = {}
    """Values of fields that make `fpbench check` quick, such as fewer steps."""

    n_queries: Positive = 100

    def __post_init__(self) -> None:
        validate(self)

    def __str__(self) -> str:
        fields = ",".join(f"{k}={v}" for k, v in changed_fields(self).items())
        return f"{self.name}({fields})" if fields else self.name

    def declines(self, scenario: Scenario) -> str | None:
        """Return why this method does not apply to a scenario, or None if it does.

        Default: it applies to the scenarios of class `supports` with inputs of `input_kinds`, and
        to recorded answers if all its queries come from the pools.
        """
        if scenario.recorded and not self.queries_pool:
            return (
                f"{self.name} makes inputs of its own or reads more of models than answers; "
                f"{scenario.name} has answers to the inputs of the pool only"
            )
        if not isinstance(scenario, self.supports):
            task = self.supports.task
            if task == scenario.task:  # `supports` is narrower than a task
                task = self.supports.__name__
            return f"{self.name} fingerprints {task} models; {scenario.name} is {scenario.task}"
        if scenario.input_kind not in self.input_kinds:
            return (
                f"{self.name} needs {' or '.join(sorted(self.input_kinds))} inputs; those of "
                f"{scenario.name} are {scenario.input_kind}"
            )
        return None

    @abstractmethod
    def construct(self, case: Case) -> Fingerprint:
        """Extract the target's fingerprint. The harness measures its time."""

    @abstractmethod
    def match(self, fingerprint: Fingerprint, replies: Tensor) -> float:
        """Return the matching rate in [0, 1]; higher means more likely stolen.

        replies: the oracle's replies to `fingerprint.queries`, at its access level.
        """

    def verify(self, fingerprint: Fingerprint, oracle: Oracle) -> float:
        """Query a suspect and return its matching rate. The harness measures its time.

        Override it only to query in several rounds.
        """
        return self.match(fingerprint, oracle(fingerprint.queries))


def agreement(replies: Tensor, labels: Tensor) -> float:
    """Return the share of replies equal to the expected labels (n,).

    replies: labels (n,), or scores (n, n_classes); the largest score gives the label.

    Raises TrialError if there are no labels, or not one reply for each label.
    """
    replied = replies.argmax(-1) if replies.ndim > 1 else replies
    if replied.shape != labels.shape or not len(labels):
        raise TrialError(
            f"expected one reply for each of the {len(labels)} labels (at least one), "
            f"got replies of shape {tuple(replies.shape)}"
        )
    return float((replied == labels.to(replied.device)).double().mean())
