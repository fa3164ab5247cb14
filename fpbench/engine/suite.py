"""Read a suite: its target, suspects and methods.

The first key of an entry names a class, and the other keys are fields of this class. The grammar
has two words of its own: `each:` sweeps fields, and `copies:` makes models that differ by seed.
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
from .schema import Schema, validate
from .source import KeyPath, Source, addition, method_names, override
from .zoo_files import ModelFiles, expand_files, refuse_shared_kinds

MAX_MODELS = 200_000
"""Models of a suite, and combinations of an entry: twice the largest number that planning was
measured with."""


class Entries:
    """Reads the entries of a source. The registry knows the classes that they name."""

    def __init__(self, source: Source, registry: Registry) -> None:
        self.source = source
        self.registry = registry

    def find_offer(
        self, kind: str, entry: Mapping[str, Any], path: KeyPath, offers: Mapping[str, Offer[Any]]
    ) -> Offer[Any]:
        """Return the offer that the entry names under the key `kind`. Raises SuiteError."""
        if kind not in entry:
            raise SuiteError(
                f"expected a key {kind!r} that names a {kind}", self.source.where(path)
            )
        name = entry[kind]
        if not isinstance(name, str) or name not in offers:
            raise SuiteError(
                self.registry.missing(kind, str(name), offers), self.source.where((*path, kind))
            )
        return offers[name]

    def read_copies(self, entry: Mapping[str, Any], path: KeyPath) -> int | None:
        """Return the number at `copies:`; None if the entry has no such key. Raises SuiteError."""
        copies, most = entry.get("copies"), SEEDS_PER_ZOO - 1
        if copies is None:
            return None
        if not isinstance(copies, int) or isinstance(copies, bool) or not 0 < copies <= most:
            raise SuiteError(
                f"copies: expected a whole number from 1 to {most}, got {copies!r}",
                self.source.where((*path, "copies")),
            )
        return copies

    def expand(
        self, entry: Mapping[str, Any], path: KeyPath, cls: type, words: set[str],
        sweepable_words: set[str] = frozenset(),  # type: ignore[assignment]
        copies: int = 1,
    ) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:  # fmt: skip
        """Yield the entry's fields once per combination of `each:`, and those that are swept.

        Raises SuiteError for too many combinations before the first is made.

        words:           keys of the entry that are words of the grammar, not fields.
        sweepable_words: words that `each:` may sweep like fields.
        copies:          models that each combination stands for.
        """
        fixed = {k: _parse_fraction(v) for k, v in entry.items() if k not in words | {"each"}}
        self.check_keys(cls, fixed, path, words | {"each"})
        each = entry.get("each", {})
        each_path: KeyPath = (*path, "each")
        if not isinstance(each, dict):
            raise SuiteError(
                f"each: expected keys with lists of values, got {each!r}",
                self.source.where(each_path),
            )
        self.check_keys(cls, each, each_path, sweepable_words)
        for key in each:
            if key in fixed:
                raise SuiteError(
                    f"expected {key!r} once, got it in `each:` too",
                    self.source.where((*each_path, key)),
                )
        values = [self._read_values(value, (*each_path, key)) for key, value in each.items()]
        if (count := copies * math.prod(map(len, values))) > MAX_MODELS:
            raise SuiteError(
                f"each: expected at most {MAX_MODELS:,} combinations, got {clipped(count, 30)}",
                self.source.where(each_path),
            )
        for combination in itertools.product(*values):
            swept = dict(zip(each, combination, strict=True))
            yield {**fixed, **swept}, swept

    def _read_values(self, value: Any, path: KeyPath) -> list[Any]:
        """Return the values of a list, or the numbers of a `range:`. Raises SuiteError."""
        where = self.source.where(path)
        if isinstance(value, list) and value:
            return [_parse_fraction(v) for v in value]
        if not isinstance(value, dict) or list(value) != ["range"]:
            raise SuiteError(
                f"expected a list of values or {{range: [first, last, step]}}, got {value!r}", where
            )
        try:
            first, last, step = map(_parse_exactly, value["range"])
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
            raise SuiteError(
                f"range: expected at most 10,000 values, got {clipped(count, 30)}", where
            )
        numbers = [first + i * step for i in range(count)]
        are_integers = all(n.denominator == 1 for n in numbers)
        return [int(n) if are_integers else float(n) for n in numbers]

    def check_keys(
        self,
        cls: type,
        fields: Mapping[str, Any],
        path: KeyPath,
        words: set[str] = frozenset(),  # type: ignore[assignment]
    ) -> None:
        """Raise SuiteError for a key that is neither a field of a class nor one of the words."""
        known = [name for name in field_types(cls) if name not in ("scenario", "parent")]
        for key in fields:
            if key not in known and key not in words:
                raise SuiteError(
                    f"no key {key!r} in {cls.name}; {did_you_mean(key, {*known, *words})}",  # type: ignore[attr-defined]
                    self.source.where((*path, key)),
                )

    def build(self, cls: type, fields: Mapping[str, Any], path: KeyPath, **fixed: Any) -> Any:
        """Return an instance of a class.

        Raises SuiteError, with the place, for a value that the class does not accept.

        fixed: values of fields that a suite does not set.
        """

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
            if name not in fields and name not in fixed:
                raise SuiteError(
                    f"expected a key {name!r} for {cls.name}, found none",  # type: ignore[attr-defined]
                    self.source.where(path),
                )
        try:
            checked_fields = {name: check_field(cls, name, value) for name, value in fields.items()}
            return cls(**checked_fields, **fixed)
        except FieldError as error:
            raise SuiteError(f"{error.field}: {error.message}", where(error.field)) from None
        except Exception as error:
            prefix = (
                "" if isinstance(error, ValueError | TypeError) else f"{type(error).__name__}: "
            )
            raise SuiteError(f"{cls.name}: {prefix}{error}", self.source.where(path)) from None  # type: ignore[attr-defined]


def _parse_exactly(value: Any) -> Fraction:
    """Return a number or a text such as 1/16 as a fraction: 0.1 is one tenth. Raises ValueError.

    Other texts are refused, because Python would compute 1e999999999 for ever.
    """
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]{1,9}/[0-9]{1,9}", value):
        raise ValueError
    return Fraction(str(value))


def _parse_fraction(value: Any) -> Any:
    """Return a text such as 1/16 as a number, and any other value unchanged."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}/0*[1-9][0-9]{,8}", value):
        return float(Fraction(value))
    return value


SEEDS_PER_ZOO = 1000
"""Seeds of recipes that belong to one seed of a zoo."""

MAX_LABEL = 200
"""Characters of a method's label."""


@dataclass(frozen=True)
class Variant:
    """A method with the fields that the suite sets.

    label:    its name in results.
    ensemble: the number of models that it may learn from, half of them positive; None for all.
    place:    the place of its entry in the suite.
    source:   the distribution or the plugin file that the method comes from.
    """

    label: str
    method: Fingerprinter
    ensemble: int | None
    place: str
    source: str


@dataclass(frozen=True)
class Zoo:
    """A target with its suspects, in the order of the suite.

    seed: the zoo's own seed. Zoos of other seeds have other models of the same recipes.
    """

    seed: int
    target: Recipe
    positives: tuple[Recipe, ...]
    negatives: tuple[Recipe, ...]

    @property
    def models(self) -> tuple[Recipe, ...]:
        """The target, the positives and the negatives."""
        return (self.target, *self.positives, *self.negatives)


@dataclass(frozen=True)
class Suite:
    """A benchmark, ready to be planned.

    zoos:   at least one; their sizes are equal.
    places: by digest, the place of each recipe in the suite.
    """

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
    fpr: float | None
    weigh: Mapping[str, float]
    zoos: tuple[Zoo, ...]
    methods: tuple[Variant, ...]
    smaller: tuple[str, ...]
    expects: Mapping[str, float]
    places: Mapping[str, str]

    @classmethod
    def load(
        cls, path: Path, registry: Registry, *, overrides: Sequence[str] = (),
        only: Sequence[str] = (),
    ) -> Suite:  # fmt: skip
        """Read a suite file. Raises SuiteError.

        overrides: texts `dotted.path=value`, applied in this order.
        only:      labels or names of the methods to keep; all if empty. An installed method that
                   the suite does not name is added to it, with its defaults.
        """
        source = Source.read(path)
        # Plugins come first, because the other keys may name their classes.
        for assignment in overrides:
            if _sets_plugins(assignment):
                override(source, assignment)
        _load_plugins(source, registry)
        present = {*method_names(source), *(each.partition("=")[2] for each in overrides)}
        new = [
            name for name in dict.fromkeys(only) if name in registry.methods and name not in present
        ]
        overrides = [*map(addition, new), *overrides]
        for assignment in overrides:
            if not _sets_plugins(assignment):
                override(source, assignment)
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


def _sets_plugins(assignment: str) -> bool:
    """Return whether an override sets the key `plugins` or an item of it."""
    return assignment.partition("=")[0].split(".")[0] == "plugins"


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
        self.without_seed: dict[str, Recipe] = {}
        self.files = ModelFiles()

    def suite(self, overrides: tuple[str, ...]) -> Suite:
        expand_files(self.source, self.registry.recipes)
        self._add_default_zoo()
        file = validate(self.source)
        scenario = self._scenario(file.scenario)
        api = Access[file.api.upper()]
        if api not in scenario.offers:
            levels = " or ".join(str(a) for a in sorted(scenario.offers))
            raise SuiteError(
                f"expected api: {levels} for {scenario}, got {file.api}",
                self.source.where(("api",)),
            )
        if file.quantised and scenario.recorded:
            raise SuiteError(
                f"expected quantised: false for {scenario}: its queries are positions in the pool, "
                "not images",
                self.source.where(("quantised",)),
            )
        self._check_defaults(file.recipes)
        seeds = file.zoo.seeds or [file.zoo.seed]
        zoos = tuple(self._zoo(file, scenario, seed) for seed in seeds)
        return Suite(
            name=file.name, source=self.source, overrides=overrides, scenario=scenario, api=api,
            seed=file.seed, repeats=file.repeats, split=file.zoo.split,
            stratify=file.zoo.stratify, quantised=file.quantised, fpr=file.fpr,
            weigh=self._weights(file.weigh, scenario, zoos[0]), zoos=zoos,
            methods=tuple(self._methods(file.methods)), smaller=tuple(file.smaller),
            expects=file.expects, places=self.places,
        )  # fmt: skip

    def _add_default_zoo(self) -> None:
        """Add suspects to a suite that names none, if the target's recipe offers some."""
        data = self.source.data
        target, zoo, scenario = (data.get(key, {}) for key in ("target", "zoo", "scenario"))
        if not isinstance(target, dict) or not isinstance(zoo, dict):
            return
        offer = self.registry.recipes.get(str(target.get("recipe")))
        named = {"positives", "negatives"} & {*zoo}
        if offer is None or named or not scenario or not isinstance(scenario, str | dict):
            return
        recipes = data.get("recipes", {})
        given = recipes.get("train", {}) if isinstance(recipes, dict) else {}
        fields = dataclasses.fields(self.registry.recipes["train"].cls)
        train = {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}
        train |= given if isinstance(given, dict) else {}
        try:
            made = offer.cls.default_zoo(self._scenario(scenario), target, train)
        except FieldError as error:
            place = self.source.where(("target", error.field))
            raise SuiteError(f"{error.field}: {error.message}", place) from None
        if made:
            data["zoo"] = {**made, **zoo}

    def _zoo(self, file: Schema, scenario: Scenario, seed: int) -> Zoo:
        base_seed = seed * SEEDS_PER_ZOO
        self.without_seed.clear()  # each zoo may contain the same model, for example from a file
        self.files = ModelFiles()
        target = self._target(file, scenario, base_seed)
        positives, negatives = (
            tuple(self._recipes(entries, ("zoo", side), file.recipes, scenario, parent, base_seed))
            for side, entries, parent in (
                ("positives", file.zoo.positives, target),
                ("negatives", file.zoo.negatives, None),
            )
        )
        refuse_shared_kinds(positives, negatives, self.places)
        return Zoo(seed, target, positives, negatives)

    def _weights(
        self, weigh: str | Mapping[str, Any], scenario: Scenario, zoo: Zoo
    ) -> Mapping[str, float]:
        """Return the weight of each kind of suspect; empty if every suspect counts the same.

        Raises SuiteError for weights that this zoo cannot have.
        """
        path: KeyPath = ("weigh",)
        kinds = {
            "positives": {recipe.kind for recipe in zoo.positives},
            "negatives": {recipe.kind for recipe in zoo.negatives},
        }
        if isinstance(weigh, str):
            if weigh != "table3":
                raise SuiteError(
                    f"weigh: expected table3 or kinds with their weights, got {clipped(weigh)}",
                    self.source.where(path),
                )
            if not scenario.table3:
                raise SuiteError(
                    f"expected weights for {scenario}, got {weigh}, which has counts for skin, "
                    "warfarin and fashion only; name kinds and weights, such as {WP: 2}",
                    self.source.where(path),
                )
            in_zoo = set().union(*kinds.values())
            weigh = {kind: n for kind, n in scenario.table3.items() if kind in in_zoo}
        elif not weigh:
            return {}
        for kind, weight in weigh.items():
            if not isinstance(weight, int | float) or not 0 <= weight < math.inf:
                raise SuiteError(
                    f"weigh: expected a number that is 0 or more for {kind}, got {clipped(weight)}",
                    self.source.where((*path, kind)),
                )
            if not any(kind in of_side for of_side in kinds.values()):
                known = sorted(set().union(*kinds.values()))
                raise SuiteError(
                    f"weigh: no kind {clipped(kind)} in this zoo, which has {', '.join(known)}; "
                    f"{did_you_mean(kind, known)}",
                    self.source.where((*path, kind)),
                )
        for side, of_side in kinds.items():
            if not any(weigh.get(kind, 0) > 0 for kind in of_side):
                raise SuiteError(
                    f"weigh: expected a weight above 0 for at least one kind of the {side}, got "
                    "none; a kind without a weight does not count",
                    self.source.where(path),
                )
        return dict(weigh)

    def _scenario(self, entry: str | dict[str, Any]) -> Scenario:
        keys = {"scenario": entry} if isinstance(entry, str) else entry
        path: KeyPath = ("scenario",)
        cls = self.find_offer("scenario", keys, path, self.registry.scenarios).cls
        fields = {key: value for key, value in keys.items() if key != "scenario"}
        self.check_keys(cls, fields, path)
        scenario: Scenario = self.build(cls, fields, path)
        return scenario

    def _check_defaults(self, defaults: Mapping[str, Mapping[str, Any]]) -> None:
        """Raise SuiteError for unknown recipes and fields under the key `recipes`."""
        for name, fields in defaults.items():
            path = ("recipes", name)
            if name not in self.registry.recipes:
                text = self.registry.missing("recipe", name, self.registry.recipes)
                raise SuiteError(text, self.source.where(path))
            self.check_keys(self.registry.recipes[name].cls, fields, path)

    def _target(self, file: Schema, scenario: Scenario, base_seed: int) -> Recipe:
        path: KeyPath = ("target",)
        cls = self.find_offer("recipe", file.target, path, self.registry.recipes).cls
        if cls.needs_parent:
            raise SuiteError(
                f"expected a recipe that starts from nothing, got {cls.name}",
                self.source.where(path),
            )
        targets = [*self._recipes([file.target], path, file.recipes, scenario, None, base_seed)]
        if len(targets) > 1:
            raise SuiteError(f"expected one target, got {len(targets)}", self.source.where(path))
        return targets[0]

    def _recipes(
        self, entries: Sequence[Mapping[str, Any]], path: KeyPath,
        defaults: Mapping[str, Mapping[str, Any]], scenario: Scenario, parent: Recipe | None,
        base_seed: int,
    ) -> Iterator[Recipe]:  # fmt: skip
        """Yield the recipes of entries: every combination of `each:` with every copy."""
        for i, entry in enumerate(entries):
            entry_path: KeyPath = path if path == ("target",) else (*path, i)
            cls = self.find_offer("recipe", entry, entry_path, self.registry.recipes).cls
            if path != ("target",) and cls.needs_parent is (parent is None):
                expected = "is made from the target" if parent else "starts from nothing"
                raise SuiteError(
                    f"expected a recipe that {expected} among the {path[-1]}, got {cls.name}",
                    self.source.where(entry_path),
                )
            if cls.recorded is not scenario.recorded:
                expected = "recorded" if scenario.recorded else "one that makes a model"
                raise SuiteError(
                    f"expected the recipe of a model in {scenario} to be {expected}, got "
                    f"{cls.name}; recorded answers have no weights, and only the scenario recorded "
                    "has them",
                    self.source.where(entry_path),
                )
            copies = self.read_copies(entry, entry_path)
            seeds = [base_seed] if copies is None else [base_seed + 1 + k for k in range(copies)]
            words = {"recipe", "copies", *self.files.words(cls)}
            of = self.files.parent(cls, entry, parent, self.source.where((*entry_path, "parent")))
            for fields, _ in self.expand(entry, entry_path, cls, words, copies=len(seeds)):
                for seed in seeds:
                    merged = {"seed": seed, **defaults.get(cls.name, {}), **fields}
                    recipe: Recipe = self.build(
                        cls, merged, entry_path, scenario=str(scenario), parent=of
                    )
                    self._add_place(recipe, scenario, entry_path)
                    self.files.add(recipe)
                    yield recipe

    def _add_place(self, recipe: Recipe, scenario: Scenario, path: KeyPath) -> None:
        """Note the place of a recipe. Raises SuiteError for one that this zoo cannot contain."""
        where = self.source.where(path)
        try:
            scenario.architecture(recipe.arch)
        except FieldError as error:
            paths = [(*path, error.field), (*path, "each", error.field), path]
            place = next(p for p in paths if p in self.source.places or p == path)
            raise SuiteError(error.message, self.source.where(place)) from None
        if recipe.arch.startswith("onnx:") and recipe.needs_parent:
            raise SuiteError(
                f"expected a recipe that only queries the target, such as distill, got "
                f"{recipe.name}: an ONNX file has no weights to change",
                where,
            )
        if recipe.digest in self.places:
            several = "seeds" in self.source.data["zoo"]
            hint = "; `copies:` makes models that differ by seed" if recipe.uses_seed else ""
            hint += ", and an entry with a `seed:` makes one model for all zoos" if several else ""
            raise SuiteError(
                f"expected every model once, got {recipe} twice (also at "
                f"{self.places[recipe.digest]}){hint}",
                where,
            )
        if not recipe.uses_seed:
            same = dataclasses.replace(recipe, seed=0).digest
            first = self.without_seed.setdefault(same, recipe)
            if first is not recipe:
                raise SuiteError(
                    f"expected models that differ, got {first} and {recipe}, which differ only in "
                    f"a seed that has no effect (also at {self.places[first.digest]}); keep one of "
                    "them",
                    where,
                )
        if len(self.places) >= MAX_MODELS:
            raise SuiteError(f"expected at most {MAX_MODELS:,} models", where)
        self.places[recipe.digest] = where

    def _methods(self, entries: Sequence[Mapping[str, Any]]) -> Iterator[Variant]:
        """Yield the variants of methods: every combination of `each:` of every entry."""
        labels: dict[str, str] = {}
        for i, entry in enumerate(entries):
            path: KeyPath = ("methods", i)
            offer = self.find_offer("method", entry, path, self.registry.methods)
            words = {"method", "label", "ensemble"}
            for fields, swept in self.expand(entry, path, offer.cls, words, {"ensemble"}):
                ensemble = fields.pop("ensemble", entry.get("ensemble"))
                if ensemble is not None and (
                    not isinstance(ensemble, int) or ensemble < 2 or ensemble % 2
                ):
                    raise SuiteError(
                        "ensemble: expected an even number of models, 2 or more, half of them "
                        f"positive, got {ensemble!r}",
                        self.source.where((*path, "ensemble")),
                    )
                label = str(entry.get("label", entry["method"]))
                if swept:
                    label += "(" + ",".join(f"{k}={v}" for k, v in swept.items()) + ")"
                where = self.source.where(path)
                if not 0 < len(label) <= MAX_LABEL or not label.isprintable():
                    raise SuiteError(
                        f"label: expected 1 to {MAX_LABEL} printable characters, got "
                        f"{clipped(label)}; give it a `label:`",
                        self.source.where((*path, "label")),
                    )
                if label in labels:
                    raise SuiteError(
                        f"expected every label once, got {label!r} twice (also at "
                        f"{labels[label]}); give one a `label:`",
                        where,
                    )
                labels[label] = where
                method = self.build(offer.cls, fields, path)
                yield Variant(label, method, ensemble, where, offer.source)
