"""One entry of a suite: its first key names a class, the other keys are that class's fields.

Two words are the grammar's own: `each:` sweeps fields, `copies:` counts seeds.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from ..api.errors import FieldError, SuiteError, did_you_mean
from ..api.fields import checked, hints
from ..api.text import clipped
from .registry import Offer, Registry
from .source import Path_, Source

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
        known = [name for name in hints(cls) if name not in ("scenario", "parent")]
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
            checked_fields = {name: checked(cls, name, value) for name, value in fields.items()}
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
