"""One entry of a suite: its first key names a class, the other keys are that class's fields.

Two words are the grammar's own: `each:` sweeps fields, `copies:` counts seeds.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..api.errors import FieldError, PluginError, SuiteError, clipped, did_you_mean
from ..api.fields import check_field, field_types
from ..api.fingerprinter import Fingerprinter
from ..api.oracle import Access
from ..api.recipe import Recipe
from ..api.scenario import Scenario
from .registry import Offer, Registry
from .schema import Schema, validated
from .source import Path_, Source, addition, listed, override

MAX_MODELS = 200_000
"""In a suite, and variants of a method: twice what planning was measured with."""


class Entries:
    """Reads the entries of one source against one registry."""

    def __init__(self, source: Source, registry: Registry) -> None:
        self.source = source
        self.registry = registry

    def named(
        self, word: str, what: str, entry: Mapping[str, Any], path: Path_,
        offers: Mapping[str, Offer[Any]],
    ) -> Offer[Any]:  # fmt: skip
        """What the entry's first key names."""
        if word not in entry:
            raise SuiteError(
                f"expected a key {word!r} that names a {what}", self.source.where(path)
            )
        name = entry[word]
        if not isinstance(name, str) or name not in offers:
            raise SuiteError(
                self.registry.missing(what, str(name), offers), self.source.where((*path, word))
            )
        return offers[name]

    def whole(self, word: str, entry: Mapping[str, Any], path: Path_, most: int) -> int | None:
        """A word of the grammar that counts: 1 to `most`, or None where it is not given."""
        value = entry.get(word)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
            raise SuiteError(
                f"{word}: expected a whole number from 1 to {most}, got {value!r}",
                self.source.where((*path, word)),
            )
        return value

    def each(
        self, entry: Mapping[str, Any], path: Path_, cls: type, words: set[str],
        extra: set[str] = frozenset(),  # type: ignore[assignment]
        copies: int = 1,
    ) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:  # fmt: skip
        """The entry's fields, once per element of the product of `each:`, and the swept ones.

        Each of them stands for `copies`; too many in all are refused before one is made.
        """
        fixed = {k: _fraction(v) for k, v in entry.items() if k not in words | {"each"}}
        self.check_keys(cls, fixed, path, words | {"each"})
        each = entry.get("each", {})
        at: Path_ = (*path, "each")
        if not isinstance(each, dict):
            raise SuiteError(
                f"each: expected keys with lists of values, got {each!r}", self.source.where(at)
            )
        self.check_keys(cls, each, at, extra)
        for key in each:
            if key in fixed:
                raise SuiteError(
                    f"expected {key!r} once, got it in `each:` too", self.source.where((*at, key))
                )
        values = [self._values(value, (*at, key)) for key, value in each.items()]
        if (count := copies * math.prod(map(len, values))) > MAX_MODELS:
            raise SuiteError(
                f"each: expected at most {MAX_MODELS:,} combinations, got {clipped(count, 30)}",
                self.source.where(at),
            )
        for combination in itertools.product(*values):
            swept = dict(zip(each, combination, strict=True))
            yield {**fixed, **swept}, swept

    def _values(self, value: Any, path: Path_) -> list[Any]:
        where = self.source.where(path)
        if isinstance(value, list) and value:
            return [_fraction(v) for v in value]
        if not isinstance(value, dict) or list(value) != ["range"]:
            raise SuiteError(
                f"expected a list of values or {{range: [first, last, step]}}, got {value!r}", where
            )
        try:
            first, last, step = map(_exact, value["range"])
            count = (last - first) // step + 1
            if count < 1:
                raise ValueError
        except (ValueError, TypeError, ZeroDivisionError):
            raise SuiteError(
                "range: expected [first, last, step] that reaches its last value, such as "
                f"[0.1, 0.9, 0.1] or [1/16, 15/16, 1/16], got {value['range']!r}",
                where,
            ) from None
        if count > 10_000:
            found = clipped(count, 30)
            raise SuiteError(f"range: expected at most 10,000 values, got {found}", where)
        numbers = [first + i * step for i in range(count)]
        whole = all(n.denominator == 1 for n in numbers)
        return [int(n) if whole else float(n) for n in numbers]

    def check_keys(
        self,
        cls: type,
        fields: Mapping[str, Any],
        path: Path_,
        words: set[str] = frozenset(),  # type: ignore[assignment]
    ) -> None:
        known = [name for name in field_types(cls) if name not in ("scenario", "parent")]
        for key in fields:
            if key not in known and key not in words:
                raise SuiteError(
                    f"no key {key!r} in {cls.name}; {did_you_mean(key, {*known, *words})}",  # type: ignore[attr-defined]
                    self.source.where((*path, key)),
                )

    def build(self, cls: type, fields: Mapping[str, Any], path: Path_, **given: Any) -> Any:
        """Make an instance; what its fields or its own check refuse is told at its place."""

        def where(field: str) -> str:
            shared = ("recipes", getattr(cls, "name", ""), field)
            for place in ((*path, field), (*path, "each", field), shared):
                if place in self.source.places:
                    return self.source.places[place]
            return self.source.where(path)

        required = [
            f.name
            for f in dataclasses.fields(cls)
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        ]
        for name in required:
            if name not in fields and name not in given:
                raise SuiteError(
                    f"expected a key {name!r} for {cls.name}, found none",  # type: ignore[attr-defined]
                    self.source.where(path),
                )
        try:
            checked_fields = {name: check_field(cls, name, value) for name, value in fields.items()}
            return cls(**checked_fields, **given)
        except FieldError as error:
            raise SuiteError(f"{error.field}: {error.message}", where(error.field)) from None
        except Exception as error:
            kind = "" if isinstance(error, ValueError | TypeError) else f"{type(error).__name__}: "
            raise SuiteError(f"{cls.name}: {kind}{error}", self.source.where(path)) from None  # type: ignore[attr-defined]


def _exact(value: Any) -> Fraction:
    """0.1 as one tenth; text only if it is a fraction, for 1e999999999 would never end."""
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]{1,9}/[0-9]{1,9}", value):
        raise ValueError
    return Fraction(str(value))


def _fraction(value: Any) -> Any:
    """1/16 as a number; anything else as it is."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}/0*[1-9][0-9]{,8}", value):
        return float(Fraction(value))
    return value


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
        # Plugins come first: what the other keys name may be theirs.
        for setting in (setting for setting in overrides if _is_of_plugins(setting)):
            override(source, setting)
        _load_plugins(source, registry)
        there = {*listed(source), *(setting.partition("=")[2] for setting in overrides)}
        new = [
            name for name in dict.fromkeys(only) if name in registry.methods and name not in there
        ]
        overrides = [*map(addition, new), *overrides]
        for setting in overrides:
            if not _is_of_plugins(setting):
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


def _is_of_plugins(setting: str) -> bool:
    """Return whether an override sets the key `plugins` or an item of it."""
    return setting.partition("=")[0].split(".")[0] == "plugins"


def _load_plugins(source: Source, registry: Registry) -> None:
    """Load a suite's plugin files. Raises SuiteError for one that cannot be loaded."""
    files = source.data.get("plugins", [])
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise SuiteError(
            f"plugins: expected a list of Python files, such as [mine.py], got {clipped(files)}",
            source.where(("plugins",)),
        )
    for i, file in enumerate(files):
        try:
            registry.add([Path(source.file).parent / file])
        except (PluginError, OSError, ValueError) as error:
            raise SuiteError(f"plugins: {error}", source.where(("plugins", i))) from None


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
