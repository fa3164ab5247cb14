"""A learning task whose models may be stolen: its data, architectures, loss and utility."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architectures import Builder, builder
from .fields import changed, validate
from .oracle import Access

POOLS = ("train", "public", "irrelevant", "test")


class Pool(NamedTuple):
    """Some data: inputs (n, *input_shape) and what a model should answer (n, ...)."""

    inputs: Tensor
    truth: Tensor


@dataclass(frozen=True)
class Scenario(ABC):
    """What a benchmark is about. Its fields are the keys a suite may set.

    Subclass `Classification`, `Regression` or `Generation`, which bring the loss, the
    distillation loss and the utility of their task, and write `load`.

    precision: what training computes its forward passes in; "bfloat16" is torch's autocast, on
               some devices several times as fast. It makes other models: another zoo.
    """

    name: ClassVar[str]

    task: ClassVar[str] = "another task"
    """The kind of learning, in results and messages; set it in a scenario of a new task."""

    version: ClassVar[int] = 1
    """Raise it when `load` or an architecture starts to mean something else."""

    output_shape: ClassVar[tuple[int, ...]]
    input_range: ClassVar[tuple[float, float]]
    """The problem space X: the smallest and largest value an input's element can have."""

    offers: ClassVar[frozenset[Access]] = frozenset({Access.OUTPUT})
    """The access levels that make sense for this task."""

    precision: Literal["float32", "bfloat16"] = field(default="float32", kw_only=True)

    # What follows is a class attribute where it is one for all, `input_shape = (3, 32, 32)`, and a
    # property where it depends on the scenario's fields.

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""

    @property
    @abstractmethod
    def architectures(self) -> Mapping[str, Callable[[], nn.Module]]:
        """Each maps a batch (n, *input_shape) to (n, *output_shape), raw (logits, not softmax)."""

    def architecture(self, name: str) -> Builder:
        """What makes a new network: by a name in `architectures`, a `torchvision:NAME`, which gets
        as many outputs as the scenario has, or a `FILE.py:CALLABLE`.

        Raises FieldError for a name that stands for none.
        """
        return builder(self.architectures, name, math.prod(self.output_shape), self.name)

    @property
    def summary(self) -> str:
        """The data's name and origin, for reports."""
        return ""

    @property
    def pool_sizes(self) -> Mapping[str, int]:
        """How many inputs each pool has, without loading it: for estimates. Empty if unknown."""
        return {}

    @property
    def files(self) -> Mapping[str, Sequence[Path]]:
        """The files it reads and where each is looked for, in this order: for `fpbench doctor`.
        Empty if it needs none."""
        return {}

    def __post_init__(self) -> None:
        validate(self)

    def __str__(self) -> str:
        fields = ",".join(f"{k}={v}" for k, v in changed(self).items())
        return f"{self.name}({fields})" if fields else self.name

    @abstractmethod
    def load(self) -> Mapping[str, Pool]:
        """Return every pool: "train" (the owner's), "public" (same domain, the attacker's),
        "irrelevant" (another domain, same shapes) and "test".

        Raises ResourceError when the data cannot be had.
        """

    def data(self, pool: str) -> Pool:
        """One pool, on the CPU; loaded once per process."""
        return _pools(self)[pool]

    @abstractmethod
    def loss(self, output: Tensor, truth: Tensor) -> Tensor:
        """The training loss of a batch (n, *output_shape), a scalar."""

    @abstractmethod
    def distill_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of a student against its teacher's outputs, both (n, *output_shape)."""

    @abstractmethod
    def utility(self, output: Tensor, truth: Tensor) -> dict[str, float]:
        """How good a model's outputs on the test pool are, by the task's measures.

        The first entry is the headline. Logged for every model of the zoo, so that an
        obfuscation that ruins the model shows.
        """

    def training_step(self, arch: str, inputs: Tensor) -> None:
        """Run all forward and backward passes of one training step on new networks.

        Estimates count its floating-point operations. Override it for a task whose training
        takes more than one pass through the architecture.
        """
        self.architecture(arch)()(inputs).sum().backward()

    def pictures(self, output: Tensor) -> Tensor | None:
        """Return outputs (n, *output_shape) as images in [0, 1] of (n, height, width) or, in
        colour, (n, height, width, 3). The default is None: outputs that are no images."""
        del output
        return None


def forget() -> None:
    """Load data anew when it is next asked for: somebody changed it in place."""
    _pools.cache_clear()


@functools.cache
def _pools(scenario: Scenario) -> Mapping[str, Pool]:
    return scenario.load()


@dataclass(frozen=True)
class Classification(Scenario):
    """Outputs are logits (n, n_classes); truth is a class index (n,)."""

    task = "classification"

    offers: ClassVar[frozenset[Access]] = frozenset(Access)

    temperature: ClassVar[float] = 4.0
    """T of `distill_loss`; the MetaV paper gives none, so this one is ours."""

    @property
    def n_classes(self) -> int:
        """The number of classes."""
        return self.output_shape[0]

    def loss(self, output: Tensor, truth: Tensor) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(output, truth)

    def distill_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """T^2 KL(softmax(teacher / T) || softmax(student / T)).

        Hinton, Vinyals and Dean, *Distilling the Knowledge in a Neural Network*, 2015,
        section 2, on soft targets alone: an attacker has the API's answers, not the labels.
        """
        t = self.temperature
        wanted, given = (teacher / t).log_softmax(-1), (student / t).log_softmax(-1)
        # Written out: F.kl_div has no batching rule, and cohorts train under vmap.
        return t**2 * (wanted.exp() * (wanted - given)).sum(-1).mean()

    def utility(self, output: Tensor, truth: Tensor) -> dict[str, float]:
        """accuracy: the share of right answers, in [0, 1]."""
        return {"accuracy": float((output.argmax(-1) == truth).double().mean())}


@dataclass(frozen=True)
class Regression(Scenario):
    """Outputs and truth are real (n, *output_shape)."""

    task = "regression"

    def loss(self, output: Tensor, truth: Tensor) -> Tensor:
        """Mean squared error."""
        return F.mse_loss(output, truth)

    def distill_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Mean squared error to the teacher's predictions."""
        return F.mse_loss(student, teacher)

    def utility(self, output: Tensor, truth: Tensor) -> dict[str, float]:
        """mean_absolute_error, in the outputs' unit; lower is better."""
        return {"mean_absolute_error": float((output - truth).abs().double().mean())}


@dataclass(frozen=True)
class Generation(Scenario):
    """The target is a generator: inputs are latent codes (n, *input_shape), outputs are samples
    (n, *output_shape).

    In a pool, `inputs` are latent codes and `truth` is samples. They are pairs where there are no
    `discriminators`; with them, the samples are real ones that belong to no code.
    """

    task = "generation"

    discriminators: ClassVar[Mapping[str, Callable[[], nn.Module]]] = {}
    """By architecture, the network its generators are trained against (Goodfellow et al., 2014):
    samples (n, *output_shape) to logits (n, 1), high for real ones. An architecture without one
    learns by `loss`."""

    def latents(self, n: int, rng: torch.Generator) -> Tensor:
        """Codes (n, *input_shape) drawn from what generators are trained on: uniform in the input
        range, as in DCGAN (Radford, Metz and Chintala, ICLR 2016)."""
        low, high = self.input_range
        return low + (high - low) * torch.rand(n, *self.input_shape, generator=rng)

    def training_step(self, arch: str, inputs: Tensor) -> None:
        """Run the generator's pass and, if it has a discriminator, the three passes of that one."""
        if arch not in self.discriminators:
            super().training_step(arch, inputs)
            return
        samples, judge = self.architecture(arch)()(inputs), self.discriminators[arch]()
        for judged in (samples, torch.empty_like(samples), torch.empty_like(samples)):
            judge(judged).sum().backward()

    def loss(self, output: Tensor, truth: Tensor) -> Tensor:
        """Mean squared error to the samples that belong to the latent codes."""
        return F.mse_loss(output, truth)

    def distill_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Mean squared error to the teacher's sample for each latent code.

        Aguinaldo et al., *Compressing GANs using Knowledge Distillation*, 2019.
        """
        return F.mse_loss(student, teacher)

    def utility(self, output: Tensor, truth: Tensor) -> dict[str, float]:
        """pixel_error, the root mean squared difference to the truth; lower is better."""
        return {"pixel_error": float((output - truth).square().double().mean().sqrt())}
