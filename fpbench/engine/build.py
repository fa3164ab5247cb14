"""Make a cohort of models. Workers do this before they attempt trials."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import torch
from torch import nn

from ..api.errors import InputError, ResourceError, TrialError, clipped, traceback_of
from ..api.networks import for_shapes
from ..api.recipe import Recipe
from ..api.scenario import Scenario, restore_data
from ..api.work import Built
from ..compute.stack import Stacks, parts, signature
from ..store.store import Store
from .code import code_of
from .data import require_data
from .environment import device_name, versions
from .isolation import isolated
from .plan import derived_seed
from .resources import shortage

RatedModel = tuple[Recipe, nn.Module, dict[str, float]]
"""A model that was made, with its recipe and its utility."""


class StoreLab:
    """The lab that recipes get: parents come from the store, seeds are derived from digests.

    failures: by digest, why a model could not be made.
    """

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
    """Make one cohort and put it into the store. Models that another run just made are reused."""
    began = time.perf_counter()
    with store.locked(recipes):
        todo = [recipe for recipe in recipes if not store.mend(recipe, scenario)]
        lab = StoreLab(scenario, store, torch.device(device))
        if todo:
            require_data(scenario)
            rated: list[RatedModel] = []
            try:
                with isolated():
                    made = list(zip(todo, _make(todo, lab), strict=True))
                with isolated():
                    rated = _rate([(r, m) for r, m in made if r.digest not in lab.failures], lab)
            except (KeyboardInterrupt, ResourceError, InputError):
                raise
            except BaseException as error:  # SystemExit too: a plugin may raise anything
                if shortage(error):
                    # The machine is at fault, not the recipe. A zoo without these models would be
                    # another zoo.
                    raise
                for recipe in todo:
                    lab.failed(recipe, traceback_of(error))
            seconds = time.perf_counter() - began
            scenario_code = code_of(type(scenario)).source
            recipe_code = {cls: code_of(cls).source for cls in {type(r) for r in todo}}
            shared = {
                "seconds": seconds / len(todo),
                "cohort": len(todo),
                "device": device_name(device),
                "made": datetime.now(UTC).isoformat(timespec="seconds"),
                "versions": versions(),
            }

            def describe(recipe: Recipe, utility: dict[str, float]) -> dict[str, Any]:
                code = {"recipe": recipe_code[type(recipe)], "scenario": scenario_code}
                return {"arch": recipe.arch, "utility": utility, "code": code, **shared}

            store.save([(r, model, describe(r, utility)) for r, model, utility in rated], scenario)
    return Built(
        recipes=tuple(recipes),
        seconds=time.perf_counter() - began,
        device=device,
        reused=len(recipes) - len(todo),
        failures=lab.failures,
    )


def _make(recipes: Sequence[Recipe], lab: StoreLab) -> list[nn.Module]:
    """Make a cohort under a seed of its own.

    A model of another architecture, or with weights that are not finite, is reported as failed.
    """
    torch.manual_seed(derived_seed("cohort", *(r.digest for r in recipes)))
    try:
        models = type(recipes[0]).make_many(recipes, lab)
    finally:
        data_changed = restore_data(lab.scenario)
    if data_changed:
        raise TrialError(
            f"expected {recipes[0].name} not to change the scenario's data, found it changed; work "
            "on a clone"
        )
    for recipe, model in zip(recipes, models, strict=True):
        if not isinstance(model, nn.Module):
            raise TypeError(f"expected a network from {recipe.name}, got {clipped(model)}")
        expected = for_shapes(lab.scenario.architecture(recipe.arch))
        if signature(model)[2] != signature(expected)[2]:
            lab.failed(recipe, f"expected a network of architecture {recipe.arch}, got another")
        elif not all(bool(t.isfinite().all()) for t in model.state_dict().values()):
            lab.failed(recipe, "its weights are not finite")
    return models


def _rate(made: Sequence[tuple[Recipe, nn.Module]], lab: StoreLab) -> list[RatedModel]:
    """Return each model with its utility on the test pool.

    Models of one architecture are evaluated in one pass. A utility that a recipe knows is taken.
    """
    known = [(recipe, model, recipe.known_utility(lab)) for recipe, model in made]
    rated: list[RatedModel] = [(r, m, _check_utility(u)) for r, m, u in known if u is not None]
    made = [(recipe, model) for recipe, model, utility in known if utility is None]
    if not made:
        return rated
    inputs, truth = lab.scenario.data("test")
    answer = Stacks([model.to(lab.device).eval() for _, model in made])
    with torch.no_grad():
        outputs = [answer(x.to(lab.device)).cpu() for x in parts(inputs, len(made))]
    for (recipe, model), output in zip(made, torch.cat(outputs, dim=1), strict=True):
        try:
            rated.append((recipe, model, _check_utility(lab.scenario.utility(output, truth))))
        except Exception as error:
            lab.failed(recipe, traceback_of(error))
    return rated


def _check_utility(utility: Any) -> dict[str, float]:
    """Return a model's utility as numbers by name. Raises ValueError unless all are finite."""
    numbers = {str(name): float(value) for name, value in dict(utility).items()}
    if not numbers or not all(map(math.isfinite, numbers.values())):
        raise ValueError(f"expected a utility of finite numbers by name, got {clipped(utility)}")
    return numbers
