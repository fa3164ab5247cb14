"""What a worker does first: make a cohort of models."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime

import torch
from torch import nn

from ..api.errors import FpbenchError
from ..api.recipe import Recipe
from ..api.result import Built
from ..api.scenario import Scenario
from ..api.stack import Stacks, parts, signature
from .facts import device_name, versions
from .plan import derived_seed
from .store import Store


class Bench:
    """The lab that recipes work in: parents from the store, seeds from digests."""

    def __init__(self, scenario: Scenario, store: Store, device: torch.device) -> None:
        self.scenario = scenario
        self.device = device
        self.failures: dict[str, str] = {}
        self._store = store

    def parent(self, recipe: Recipe) -> nn.Module:
        assert recipe.parent is not None, f"{recipe} has no parent"
        return self._store.load(recipe.parent, self.scenario, self.device).requires_grad_()

    def new(self, recipe: Recipe, model: str) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed("init", recipe.digest))
            return self.scenario.architecture(model)().to(self.device)

    def rng(self, recipe: Recipe) -> torch.Generator:
        return torch.Generator().manual_seed(derived_seed("rng", recipe.digest))

    def failed(self, recipe: Recipe, reason: str) -> None:
        self.failures.setdefault(recipe.digest, f"{recipe}: {reason}")


def build(recipes: Sequence[Recipe], *, scenario: Scenario, store: Store, device: str) -> Built:
    """Make one cohort and put it into the store; what another run made meanwhile is reused."""
    began = time.perf_counter()
    with store.locked(recipes):
        todo = [recipe for recipe in recipes if not store.intact(recipe, scenario)]
        lab = Bench(scenario, store, torch.device(device))
        if todo:
            try:
                models = _made(todo, lab)
            except FpbenchError:
                raise
            except (Exception, SystemExit):
                reason = traceback.format_exc()
                models = []
                for recipe in todo:
                    lab.failed(recipe, reason)
            seconds = time.perf_counter() - began
            good = [
                (recipe, model)
                for recipe, model in zip(todo, models, strict=False)
                if recipe.digest not in lab.failures
            ]
            for (recipe, model), utility in zip(
                good, _utilities([m for _, m in good], lab), strict=True
            ):
                facts = {
                    "arch": recipe.arch,
                    "utility": utility,
                    "seconds": seconds / len(todo),
                    "cohort": len(todo),
                    "device": device_name(device),
                    "made": datetime.now(UTC).isoformat(timespec="seconds"),
                    "versions": versions(),
                }
                store.save(recipe, scenario, model, facts)
    return Built(
        recipes=tuple(recipes),
        seconds=time.perf_counter() - began,
        device=device,
        reused=len(recipes) - len(todo),
        failures=lab.failures,
    )


def _made(recipes: Sequence[Recipe], lab: Bench) -> list[nn.Module]:
    """Make a cohort under a seed of its own; what is not finite counts as failed."""
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed("cohort", *(r.digest for r in recipes)))
        models = type(recipes[0]).make_many(recipes, lab)
    for recipe, model in zip(recipes, models, strict=True):
        with torch.device("meta"):
            expected = lab.scenario.architecture(recipe.arch)()
        if signature(model)[2] != signature(expected)[2]:
            lab.failed(recipe, f"expected a network of architecture {recipe.arch}, got another")
        elif not all(bool(t.isfinite().all()) for t in model.state_dict().values()):
            lab.failed(recipe, "its weights are not finite")
    return models


def _utilities(models: Sequence[nn.Module], lab: Bench) -> list[dict[str, float]]:
    """Every model's utility on the test pool, a whole architecture in one pass."""
    if not models:
        return []
    inputs, truth = lab.scenario.data("test")
    answer = Stacks([model.to(lab.device).eval() for model in models])
    with torch.no_grad():
        outputs = [answer(x.to(lab.device)).cpu() for x in parts(inputs, len(models))]
    return [lab.scenario.utility(output, truth) for output in torch.cat(outputs, dim=1)]
