"""A suite file as values: names become classes, `each:` and `copies:` become models."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..api.errors import FieldError, SuiteError
from ..api.fingerprinter import Fingerprinter
from ..api.oracle import Access
from ..api.recipe import Recipe
from ..api.scenario import Scenario
from ..api.text import clipped
from .entry import MAX_MODELS, Entries
from .override import addition, listed, override
from .registry import Registry
from .schema import Schema, validated
from .source import Path_, Source

SEEDS_PER_ZOO = 1000
MAX_LABEL = 200


@dataclass(frozen=True)
class Variant:
    """A method as the suite wants it.

    label:    its name in results.
    ensemble: how many models it may learn from, half of them positive; None for all.
    place:    where the suite says so.
    """

    label: str
    method: Fingerprinter
    ensemble: int | None
    place: str
    source: str


@dataclass(frozen=True)
class Suite:
    """A benchmark, ready to be planned. `places` tells where each recipe stands, by digest."""

    name: str
    source: Source
    overrides: tuple[str, ...]
    scenario: Scenario
    api: Access
    seed: int
    repeats: int
    split: float
    stratify: bool
    quantised: bool
    target: Recipe
    positives: tuple[Recipe, ...]
    negatives: tuple[Recipe, ...]
    methods: tuple[Variant, ...]
    smaller: tuple[str, ...]
    places: Mapping[str, str]

    @classmethod
    def load(
        cls, path: Path, registry: Registry, *, overrides: Sequence[str] = (),
        only: Sequence[str] = (),
    ) -> Suite:  # fmt: skip
        """Read a suite file; raises SuiteError that says what, where, and what to do.

        overrides: `dotted.path=value`, applied in their order.
        only:      labels or names of the methods to keep; all if empty. A method that is installed
                   and not in the suite is added to it, with its defaults.
        """
        source = Source.read(path)
        there = {*listed(source), *(setting.partition("=")[2] for setting in overrides)}
        new = [
            name for name in dict.fromkeys(only) if name in registry.methods and name not in there
        ]
        overrides = [*map(addition, new), *overrides]
        for setting in overrides:
            override(source, setting)
        suite = _Reader(source, registry).suite(tuple(overrides))
        if only:
            names = {v.label: v.method.name for v in suite.methods}
            for name in only:
                if name not in names and name not in names.values():
                    known = {*names, *names.values(), *registry.methods}
                    raise SuiteError(registry.missing("method", name, known), f"--only {name}")
            kept = [v for v in suite.methods if v.label in only or v.method.name in only]
            suite = dataclasses.replace(suite, methods=tuple(kept))
        return suite


class _Reader(Entries):
    """Reads a whole suite."""

    def __init__(self, source: Source, registry: Registry) -> None:
        super().__init__(source, registry)
        self.places: dict[str, str] = {}

    def suite(self, overrides: tuple[str, ...]) -> Suite:
        file = validated(self.source)
        scenario = self._scenario(file.scenario)
        api = Access[file.api.upper()]
        if api not in scenario.offers:
            levels = " or ".join(str(a) for a in sorted(scenario.offers))
            raise SuiteError(
                f"expected api: {levels} for {scenario}, got {file.api}",
                self.source.where(("api",)),
            )
        self._check_defaults(file.recipes)
        base = file.zoo.seed * SEEDS_PER_ZOO
        target = self._target(file, scenario, base)
        sides = {
            side: tuple(self._recipes(entries, ("zoo", side), file.recipes, scenario, parent, base))
            for side, entries, parent in (
                ("positives", file.zoo.positives, target),
                ("negatives", file.zoo.negatives, None),
            )
        }
        return Suite(
            name=file.name, source=self.source, overrides=overrides, scenario=scenario, api=api,
            seed=file.seed, repeats=file.repeats, split=file.zoo.split,
            stratify=file.zoo.stratify, quantised=file.quantised, target=target,
            methods=tuple(self._methods(file.methods)), smaller=tuple(file.smaller),
            places=self.places, **sides,
        )  # fmt: skip

    def _scenario(self, entry: str | dict[str, Any]) -> Scenario:
        named = {"scenario": entry} if isinstance(entry, str) else entry
        path: Path_ = ("scenario",)
        cls = self.named("scenario", "scenario", named, path, self.registry.scenarios).cls
        fields = {key: value for key, value in named.items() if key != "scenario"}
        self.check_keys(cls, fields, path)
        scenario: Scenario = self.build(cls, fields, path)
        return scenario

    def _check_defaults(self, defaults: Mapping[str, Mapping[str, Any]]) -> None:
        for name, fields in defaults.items():
            path = ("recipes", name)
            if name not in self.registry.recipes:
                text = self.registry.missing("recipe", name, self.registry.recipes)
                raise SuiteError(text, self.source.where(path))
            self.check_keys(self.registry.recipes[name].cls, fields, path)

    def _target(self, file: Schema, scenario: Scenario, base: int) -> Recipe:
        path: Path_ = ("target",)
        cls = self.named("recipe", "recipe", file.target, path, self.registry.recipes).cls
        if cls.needs_parent:
            raise SuiteError(
                f"expected a recipe that starts from nothing, got {cls.name}",
                self.source.where(path),
            )
        target, *others = self._recipes([file.target], path, file.recipes, scenario, None, base)
        if others:
            raise SuiteError(f"expected one target, got {1 + len(others)}", self.source.where(path))
        return target

    def _recipes(
        self, entries: Sequence[Mapping[str, Any]], path: Path_,
        defaults: Mapping[str, Mapping[str, Any]], scenario: Scenario, parent: Recipe | None,
        base: int,
    ) -> Iterator[Recipe]:  # fmt: skip
        for i, entry in enumerate(entries):
            at: Path_ = path if path == ("target",) else (*path, i)
            cls = self.named("recipe", "recipe", entry, at, self.registry.recipes).cls
            if path != ("target",) and cls.needs_parent is (parent is None):
                expected = "is made from the target" if parent else "starts from nothing"
                raise SuiteError(
                    f"expected a recipe that {expected} among the {path[-1]}, got {cls.name}",
                    self.source.where(at),
                )
            copies = self.whole("copies", entry, at, SEEDS_PER_ZOO - 1)
            seeds = [base] if copies is None else [base + k for k in range(1, copies + 1)]
            for fields, _ in self.each(entry, at, cls, {"recipe", "copies"}, copies=len(seeds)):
                for seed in seeds:
                    merged = {"seed": seed, **defaults.get(cls.name, {}), **fields}
                    recipe: Recipe = self.build(
                        cls, merged, at, scenario=str(scenario), parent=parent
                    )
                    self._place(recipe, scenario, at)
                    yield recipe

    def _place(self, recipe: Recipe, scenario: Scenario, path: Path_) -> None:
        where = self.source.where(path)
        if recipe.arch.startswith("onnx:") and recipe.parent is not None:
            raise SuiteError(
                f"expected a recipe that only asks the target, such as distill, got {recipe.name}: "
                "an ONNX file has no weights to change",
                where,
            )
        try:
            scenario.architecture(recipe.arch)
        except FieldError as error:
            inside = [
                p for p in ((*path, "model"), (*path, "each", "model")) if p in self.source.places
            ]
            raise SuiteError(
                error.message, self.source.where(inside[0]) if inside else where
            ) from None
        if recipe.digest in self.places:
            raise SuiteError(
                f"expected every model once, got {recipe} twice (also at "
                f"{self.places[recipe.digest]}); `copies:` makes models that differ by seed",
                where,
            )
        if len(self.places) >= MAX_MODELS:
            raise SuiteError(f"expected at most {MAX_MODELS:,} models", where)
        self.places[recipe.digest] = where

    def _methods(self, entries: Sequence[Mapping[str, Any]]) -> Iterator[Variant]:
        labels: dict[str, str] = {}
        for i, entry in enumerate(entries):
            at: Path_ = ("methods", i)
            offer = self.named("method", "method", entry, at, self.registry.methods)
            words = {"method", "label", "ensemble"}
            for fields, swept in self.each(entry, at, offer.cls, words, extra={"ensemble"}):
                ensemble = fields.pop("ensemble", entry.get("ensemble"))
                if ensemble is not None and (
                    not isinstance(ensemble, int) or ensemble < 2 or ensemble % 2
                ):
                    raise SuiteError(
                        "ensemble: expected an even number of models, 2 or more, half of them "
                        f"positive, got {ensemble!r}",
                        self.source.where((*at, "ensemble")),
                    )
                label = str(entry.get("label", entry["method"]))
                if swept:
                    label += "(" + ",".join(f"{k}={v}" for k, v in swept.items()) + ")"
                where = self.source.where(at)
                if not 0 < len(label) <= MAX_LABEL or not label.isprintable():
                    raise SuiteError(
                        f"label: expected 1 to {MAX_LABEL} printable characters, got "
                        f"{clipped(label)}; give it a `label:`",
                        self.source.where((*at, "label")),
                    )
                if label in labels:
                    raise SuiteError(
                        f"expected every label once, got {label!r} twice (also at "
                        f"{labels[label]}); give one a `label:`",
                        where,
                    )
                labels[label] = where
                method = self.build(offer.cls, fields, at)
                yield Variant(label, method, ensemble, where, offer.source)
