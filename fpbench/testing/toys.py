"""Small scenarios, and a zoo for each that trains in about a second: for tests of any kind."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from ..api.fingerprinter import Case, Ensemble, Fingerprinter
from ..api.oracle import Access, Oracle, oracle_of
from ..api.scenario import Classification, Generation, Pool, Regression, Scenario


@dataclass(frozen=True)
class ToyClassification(Classification):
    """Five overlapping classes of 4 x 4 images: seconds to train, never perfect."""

    name = "toy-classification"
    input_shape = (1, 4, 4)
    output_shape = (5,)
    input_range = (0.0, 1.0)
    architectures = {  # noqa: RUF012
        "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))
    }

    def load(self) -> Mapping[str, Pool]:
        rng = torch.Generator().manual_seed(0)
        centres = torch.rand(self.n_classes, 1, 4, 4, generator=rng)

        def pool(n: int) -> Pool:
            y = torch.randint(self.n_classes, (n,), generator=rng)
            noise = 0.6 * torch.randn(n, 1, 4, 4, generator=rng)
            return Pool((centres[y] + noise).clamp(0, 1), y)

        return {name: pool(400) for name in ("train", "public", "irrelevant", "test")}


@dataclass(frozen=True)
class ToyTwoClasses(ToyClassification):
    """ToyClassification with two classes."""

    name = "toy-two-classes"
    output_shape = (2,)
    architectures = {  # noqa: RUF012
        "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 2))
    }


@dataclass(frozen=True)
class ToyRegression(Regression):
    """A wavy function of six numbers."""

    name = "toy-regression"
    input_shape = (6,)
    output_shape = (1,)
    input_range = (-1.0, 1.0)
    architectures = {  # noqa: RUF012
        "mlp": lambda: nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1))
    }

    def load(self) -> Mapping[str, Pool]:
        rng = torch.Generator().manual_seed(0)

        def pool(n: int) -> Pool:
            x = 2 * torch.rand(n, 6, generator=rng) - 1
            noise = 0.3 * torch.randn(n, 1, generator=rng)
            return Pool(x, (3 * x).sin().sum(1, keepdim=True) + noise)

        return {name: pool(400) for name in ("train", "public", "irrelevant", "test")}


@dataclass(frozen=True)
class ToyGeneration(Generation):
    """Images of 4 x 4 from latent codes of eight numbers."""

    name = "toy-generation"
    input_shape = (8,)
    output_shape = (1, 4, 4)
    input_range = (-1.0, 1.0)
    architectures = {  # noqa: RUF012
        "mlp": lambda: nn.Sequential(
            nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 16), nn.Tanh(), nn.Unflatten(1, (1, 4, 4))
        )
    }

    def load(self) -> Mapping[str, Pool]:
        rng = torch.Generator().manual_seed(0)
        mix = torch.randn(8, 16, generator=rng)

        def pool(n: int) -> Pool:
            z = 2 * torch.rand(n, 8, generator=rng) - 1
            noise = 0.3 * torch.randn(n, 16, generator=rng)
            return Pool(z, ((z @ mix).sin() + noise).clamp(-1, 1).view(n, 1, 4, 4))

        return {name: pool(400) for name in ("train", "public", "irrelevant", "test")}


@dataclass(frozen=True)
class ToyTokens(Classification):
    """Texts of eight tokens, of which three classes prefer some to others. Token 0 is padding."""

    name = "toy-tokens"
    input_shape = (8,)
    output_shape = (3,)
    input_range = (0, 19)
    input_kind = "categorical"
    architectures = {  # noqa: RUF012
        "mlp": lambda: nn.Sequential(
            nn.Embedding(20, 6), nn.Flatten(), nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 3)
        )
    }

    def load(self) -> Mapping[str, Pool]:
        rng = torch.Generator().manual_seed(0)
        preferred = torch.rand(self.n_classes, 19, generator=rng) ** 3

        def pool(n: int) -> Pool:
            y = torch.randint(self.n_classes, (n,), generator=rng)
            x = 1 + preferred[y].multinomial(8, replacement=True, generator=rng)
            padding = torch.arange(8) >= torch.randint(4, 9, (n, 1), generator=rng)
            return Pool(x.masked_fill(padding, 0), y)

        return {name: pool(400) for name in ("train", "public", "irrelevant", "test")}


TOYS: tuple[Scenario, ...] = (ToyClassification(), ToyRegression(), ToyGeneration())
TWO_CLASSES = ToyTwoClasses()
TOKENS = ToyTokens()
CHECKED = (*TOYS, TOKENS)
"""The scenarios on which a method keeps its whole contract."""


@dataclass(frozen=True)
class Zoo:
    """A small zoo in memory.

    positives: in turns a copy of the target with noise on its weights, and a distilled student.
    negatives: models that were trained independently.
    """

    scenario: Scenario
    target: nn.Module
    positives: list[nn.Module]
    negatives: list[nn.Module]

    def case(self, method: Fingerprinter, access: Access, seed: int = 0) -> Case:
        """Return what a method would get to construct a fingerprint."""
        half = slice(None, len(self.positives) // 2)
        ensemble = Ensemble(
            copy.deepcopy(self.positives[half]),
            copy.deepcopy(self.negatives[half]),
            positive_recipes=[("finetune", "distill")[k % 2] for k in range(len(self.positives))][
                half
            ],
            negative_recipes=["train"] * len(self.negatives[half]),
        )
        return Case(
            scenario=self.scenario,
            target=copy.deepcopy(self.target),
            access=access,
            rng=torch.Generator().manual_seed(seed),
            device=torch.device("cpu"),
            ensemble=ensemble if method.needs_ensemble else None,
        )

    def oracle(self, model: nn.Module, access: Access, batch_size: int = 1024) -> Oracle:
        """Put a model behind an oracle."""
        return oracle_of(
            model,
            access,
            input_shape=self.scenario.input_shape,
            input_range=self.scenario.input_range,
            input_dtype=self.scenario.input_dtype,
            device=torch.device("cpu"),
            batch_size=batch_size,
        )


@cache
def toy_zoo(scenario: Scenario, size: int = 6) -> Zoo:
    """Train a toy scenario's zoo: about a second."""

    def train(seed: int, pool: str, teacher: nn.Module | None = None) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = scenario.architectures["mlp"]()
            inputs, truth = scenario.data(pool)
            loss = scenario.distill_loss if teacher else scenario.loss
            answer = teacher(inputs) if teacher else truth
            optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
            for _ in range(150):
                optimizer.zero_grad()
                loss(model(inputs), answer).backward()
                optimizer.step()
        return model.eval().requires_grad_(False)

    def noisy(seed: int) -> nn.Module:
        model, rng = copy.deepcopy(target), torch.Generator().manual_seed(seed)
        for p in model.parameters():
            p.add_(0.05 * p.abs().mean() * torch.randn(p.shape, generator=rng))
        return model

    target = train(0, "train")
    return Zoo(
        scenario, target,
        [train(100 + k, "public", target) if k % 2 else noisy(k) for k in range(size)],
        [train(1 + k, ("train", "public")[k % 2]) for k in range(size)],
    )  # fmt: skip


def identical(model: nn.Module, seed: int = 0) -> nn.Module:
    """Return a toy model that computes the same with other weights.

    Hidden neurons are permuted; each ReLU's inputs are multiplied by some c > 0 and its outputs by
    1 / c.
    """
    twin, rng = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    layers = list(twin.children())
    for into, between, out in zip(layers, layers[1:], layers[2:], strict=False):
        if isinstance(into, nn.Linear) and isinstance(between, nn.ReLU):
            assert isinstance(out, nn.Linear), "a toy's ReLU stands between linear layers"
            order = torch.randperm(into.out_features, generator=rng)
            c = 0.1 + 10 * torch.rand(into.out_features, generator=rng)
            into.weight.copy_(c[:, None] * into.weight[order])
            into.bias.copy_(c * into.bias[order])
            out.weight.copy_(out.weight[:, order] / c)
    return twin
