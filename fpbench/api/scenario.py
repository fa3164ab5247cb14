"""Scenarios: a learning task, with its data, architectures, losses and measures of utility."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architectures import Builder, find_builder
from .fields import changed_fields, validate
from .loaded_data import LoadedData
from .networks import Shapes
from .oracle import Access

POOLS = ("train", "public", "irrelevant", "test")

InputKind = Literal["continuous", "categorical", "mixed"]

INPUT_KINDS: frozenset[InputKind] = frozenset(("continuous", "categorical", "mixed"))
"""The kinds of inputs; see `Scenario.input_kind`."""


class Pool(NamedTuple):
    """A part of the data: inputs (n, *input_shape) and the right answers to them (n, ...)."""

    inputs: Tensor
    truth: Tensor


@dataclass(frozen=True)
class Scenario(ABC):
    """A learning task and its data. Its fields are keys that a suite may set.

    Subclass `Classification`, `Regression` or `Generation`, which have the loss, the distillation
    loss and the utility of their task, and write `load`.

    precision: the number format of forward passes in training. "bfloat16" uses torch's autocast,
               which is several times as fast on some devices. It gives other models, so another
               zoo.
    """

    name: ClassVar[str]

    task: ClassVar[str] = "another task"
    """The kind of learning, for results and messages. Set it in a scenario of a new task."""

    version: ClassVar[int] = 1
    """Raise it when `load` returns other data or an architecture becomes another network."""

    output_shape: ClassVar[tuple[int, ...]]
    input_range: ClassVar[tuple[float, float]]
    """The problem space X: the smallest and the largest value of an input's elements. For ids, the
    smallest and the largest id."""

    places: ClassVar[frozenset[str]] = frozenset()
    """Fields that say where something is, such as a path. They do not identify the scenario."""

    recorded: ClassVar[bool] = False
    """Whether models are tables of recorded answers. They answer the inputs of the pools,
    unchanged, and nothing else, and have neither weights nor gradients."""

    offers: ClassVar[frozenset[Access]] = frozenset({Access.OUTPUT})
    """The access levels that make sense for this task."""

    table3: ClassVar[Mapping[str, float]] = {}
    """The number of suspects of each kind in the MetaV paper's Table 3, for `weigh: table3`. Kinds
    that the paper does not have count for nothing."""

    precision: Literal["float32", "bfloat16"] = field(default="float32", kw_only=True)

    # A scenario may set the following as class attributes, such as `input_shape = (3, 32, 32)`, or
    # as properties if they depend on its fields.

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""

    @property
    def input_kind(self) -> InputKind:
        """Whether a small change of an input is an input too. Methods read it to decide if they
        apply.

        "continuous" (default): it is, as for images and measurements. Inputs are float32.
        "categorical": inputs are ids, such as the tokens of a text, torch.int64. The smallest id of
        `input_range` stands for no token (padding).
        "mixed": rows of a table, float32, in which some elements are the numbers of categories.
        """
        return "continuous"

    @property
    def input_dtype(self) -> torch.dtype:
        """The type of inputs: torch.int64 for ids, else torch.float32."""
        return torch.int64 if self.input_kind == "categorical" else torch.float32

    def blank(self, n: int) -> Tensor:
        """Return n inputs (n, *input_shape) of the smallest value, to try a network on."""
        return self._shapes.blank(n)

    @property
    def _shapes(self) -> Shapes:
        low = self.input_range[0]
        return Shapes(self.input_shape, self.output_shape, low, self.input_dtype)

    @property
    @abstractmethod
    def architectures(self) -> Mapping[str, Callable[[], nn.Module]]:
        """The functions that make a new network, by name.

        A network maps a batch (n, *input_shape) to raw outputs (n, *output_shape): a classifier
        returns logits, not probabilities.
        """

    def architecture(self, name: str) -> Builder:
        """Return the function that makes a new network of an architecture.

        name: a key of `architectures`; `torchvision:NAME`, `timm:NAME` or `transformers:NAME`,
              which get as many outputs as the scenario has; or `FILE.py:CALLABLE`. `@OUTPUT` at
              its end names one output of a network that has several.

        Raises FieldError for an unknown name.
        """
        return find_builder(self.architectures, name, self._shapes, self.name)

    @property
    def summary(self) -> str:
        """The data's name and origin, for reports."""
        return ""

    @property
    def pool_sizes(self) -> Mapping[str, int]:
        """The number of inputs in each pool, known before loading; for estimates. Empty if
        unknown."""
        return {}

    @property
    def files(self) -> Mapping[str, Sequence[Path]]:
        """The paths where each data file is looked for, in this order; for `fpbench doctor`.
        Empty if the scenario reads no files."""
        return {}

    def __post_init__(self) -> None:
        validate(self)

    def __str__(self) -> str:
        fields = ",".join(f"{k}={v}" for k, v in changed_fields(self, skip=self.places).items())
        return f"{self.name}({fields})" if fields else self.name

    @abstractmethod
    def load(self) -> Mapping[str, Pool]:
        """Return all pools by name.

        They are "train" (the owner's), "public" (the attacker's, of the same domain), "irrelevant"
        (of another domain, with the same shapes) and "test".

        Raises ResourceError if the data is not available.
        """

    def data(self, pool: str) -> Pool:
        """Return a pool, on the CPU. A process loads the data once.

        What a recipe or a method writes into a pool fails it, and reaches nobody else.
        """
        found: Pool = _loaded(self).pools[pool]
        return found

    @abstractmethod
    def loss(self, output: Tensor, truth: Tensor) -> Tensor:
        """Return the training loss, a scalar, of a batch of outputs (n, *output_shape)."""

    @abstractmethod
    def distill_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss of a student against its teacher, outputs (n, *output_shape) of both."""

    @abstractmethod
    def utility(self, output: Tensor, truth: Tensor) -> dict[str, float]:
        """Return the task's measures of a model's outputs on the test pool, by name.

        The first one is the main measure. Results contain the utility of every model of the zoo,
        so they show when an obfuscation has ruined a model.
        """

    def fault_of_truth(self, truth: Tensor) -> str | None:
        """Return the fault of a pool's right answers as a phrase, "expected ..., got ..."; None if
        they are right.

        It is asked before anything is trained. Default: nothing is wrong.
        """
        del truth
        return None

    def training_step(self, arch: str, inputs: Tensor) -> None:
        """Run all forward and backward passes of one training step on new networks.

        Estimates count its floating-point operations. Override it for a task in which a training
        step takes more than one pass through the architecture.
        """
        self.architecture(arch)()(inputs).sum().backward()

    def pictures(self, output: Tensor) -> Tensor | None:
        """Return outputs (n, *output_shape) as images in [0, 1], or None if they are no images.

        Images are (n, height, width), or (n, height, width, 3) in colour. Default: None.
        """
        del output
        return None


def forget_data() -> None:
    """Make every scenario load its data again, for example after its files have changed."""
    _loaded.cache_clear()


def restore_data(scenario: Scenario) -> bool:
    """Undo changes of a scenario's pools, and return whether there were any."""
    return _loaded(scenario).restore()


@functools.cache
def _loaded(scenario: Scenario) -> LoadedData:
    return LoadedData(scenario.load())


@dataclass(frozen=True)
class Classification(Scenario):
    """A task with classes: outputs are logits (n, n_classes), truth is class indices (n,)."""

    task = "classification"

    offers: ClassVar[frozenset[Access]] = frozenset(Access)

    temperature: ClassVar[float] = 4.0
    """T of `distill_loss`. The value is ours, because the MetaV paper gives none."""

    @property
    def n_classes(self) -> int:
        """The number of classes."""
        return self.output_shape[0]

    def loss(self, output: Tensor, truth: Tensor) -> Tensor:
        """Return the mean cross-entropy."""
        return F.cross_entropy(output, truth)

    def distill_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return T^2 KL(softmax(teacher / T) || softmax(student / T)).

        Hinton, Vinyals and Dean, *Distilling the Knowledge in a Neural Network*, 2015, section 2,
        with soft targets only, because an attacker has the API's replies and no labels.
        """
        t = self.temperature
        log_teacher, log_student = (teacher / t).log_softmax(-1), (student / t).log_softmax(-1)
        # Not F.kl_div: it has no batching rule, and cohorts train under vmap.
        return t**2 * (log_teacher.exp() * (log_teacher - log_student)).sum(-1).mean()

    def fault_of_truth(self, truth: Tensor) -> str | None:
        """Return the fault of class indices, which are torch.int64 (n,), 0 to n_classes - 1."""
        low, high = (int(end) for end in torch.aminmax(truth))
        if truth.dim() == 1 and truth.dtype == torch.int64 and 0 <= low <= high < self.n_classes:
            return None
        return (
            f"expected classes of shape (n,) and torch.int64, from 0 to {self.n_classes - 1}, got "
            f"{tuple(truth.shape)} and {truth.dtype}, from {low} to {high}"
        )

    def utility(self, output: Tensor, truth: Tensor) -> dict[str, float]:
        """Return accuracy, the share of right answers, in [0, 1]."""
        return {"accuracy": float((output.argmax(-1) == truth).double().mean())}


@dataclass(frozen=True)
class Regression(Scenario):
    """A task with real numbers: outputs and truth are (n, *output_shape)."""

    task = "regression"

    def loss(self, output: Tensor, truth: Tensor) -> Tensor:
        """Return the mean squared error."""
        return F.mse_loss(output, truth)

    def distill_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean squared error to the teacher's predictions."""
        return F.mse_loss(student, teacher)

    def fault_of_truth(self, truth: Tensor) -> str | None:
        """Return the fault of values, which are floating-point numbers (n, *output_shape)."""
        if truth.shape[1:] == torch.Size(self.output_shape) and truth.is_floating_point():
            return None
        shape = ", ".join(map(str, self.output_shape))
        return (
            f"expected values of shape (n, {shape}) as floating-point numbers, got "
            f"{tuple(truth.shape)} and {truth.dtype}"
        )

    def utility(self, output: Tensor, truth: Tensor) -> dict[str, float]:
        """Return mean_absolute_error, in the unit of the outputs; lower is better."""
        return {"mean_absolute_error": float((output - truth).abs().double().mean())}


@dataclass(frozen=True)
class Generation(Scenario):
    """A task of generators: inputs are latent codes (n, *input_shape), outputs are samples
    (n, *output_shape).

    In a pool, `inputs` are latent codes and `truth` is samples. Without `discriminators`, a code
    and a sample are a pair. With them, the samples are real ones and belong to no code.
    """

    task = "generation"

    discriminators: ClassVar[Mapping[str, Callable[[], nn.Module]]] = {}
    """Functions that make the discriminator of an architecture, by the architecture's name.

    Generators are trained against it (Goodfellow et al., 2014). It maps samples (n, *output_shape)
    to logits (n, 1), which are high for real samples. An architecture without one learns by
    `loss`."""

    def latents(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw n latent codes (n, *input_shape) from the distribution of training.

        It is uniform in the input range, as in DCGAN (Radford, Metz and Chintala, ICLR 2016).
        """
        low, high = self.input_range
        return low + (high - low) * torch.rand(n, *self.input_shape, generator=rng)

    def training_step(self, arch: str, inputs: Tensor) -> None:
        """Run the pass of the generator and, if it has a discriminator, the three passes of it."""
        if arch not in self.discriminators:
            super().training_step(arch, inputs)
            return
        samples, discriminator = self.architecture(arch)()(inputs), self.discriminators[arch]()
        for batch in (samples, torch.empty_like(samples), torch.empty_like(samples)):
            discriminator(batch).sum().backward()

    def loss(self, output: Tensor, truth: Tensor) -> Tensor:
        """Return the mean squared error to the samples that belong to the latent codes."""
        return F.mse_loss(output, truth)

    def distill_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean squared error to the teacher's sample for each latent code.

        Aguinaldo et al., *Compressing GANs using Knowledge Distillation*, 2019.
        """
        return F.mse_loss(student, teacher)

    def utility(self, output: Tensor, truth: Tensor) -> dict[str, float]:
        """Return pixel_error, the root mean squared difference to the truth; lower is better."""
        return {"pixel_error": float((output - truth).square().double().mean().sqrt())}
