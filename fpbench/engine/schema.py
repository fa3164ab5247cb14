"""The keys of a suite file, and the messages about wrong ones."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..api.errors import SuiteError, did_you_mean
from ..api.fields import Count, Share
from .source import Source


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Zoo(_Part):
    """The suspects.

    split:    the share of the suspects that methods may learn from; the rest is judged.
    stratify: whether the share holds for each kind of suspect; if false, only for all positives
              and for all negatives.
    seed:     another seed gives another zoo of the same recipes.
    seeds:    the seeds of several zoos; either this key or `seed`.
    """

    split: Share = 0.5
    stratify: bool = True
    seed: Count = 0
    seeds: list[Count] = []
    positives: Annotated[list[dict[str, Any]], Field(min_length=1)]
    negatives: Annotated[list[dict[str, Any]], Field(min_length=1)]


class Schema(_Part):
    """The keys of a suite file.

    plugins: files of plugins that the suite needs; paths are relative to the suite's folder.
    quantised: whether queries are rounded to the values that an 8-bit image file can store.
    fpr: the false positive rate at which suspects are called stolen. If it is not set, it is 0.05
             or, with few negatives to learn from, the smallest rate that they support.
    weigh: the weight of each kind of suspect in ARUC, or "table3" for the paper's counts.
    smaller: similar suites that take less time; a plan that would take long names them.
    expects: measures of the target's utility with the values that its owner knows, such as
             {accuracy: 0.81}.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    plugins: list[str] = []
    scenario: str | dict[str, Any]
    api: Literal["label", "probs", "output"]
    quantised: bool = False
    seed: Count = 0
    repeats: Annotated[int, Field(ge=1, le=1000)] = 5
    recipes: dict[str, dict[str, Any]] = {}
    target: dict[str, Any]
    zoo: _Zoo
    methods: Annotated[list[dict[str, Any]], Field(min_length=1)]
    fpr: Annotated[float, Field(gt=0, lt=1)] | None = None
    weigh: str | dict[str, Any] = {}
    smaller: list[str] = []
    expects: dict[str, float] = {}


def validate(source: Source) -> Schema:
    """Return the keys of a suite file. Raises SuiteError at the first wrong key or value."""
    try:
        schema = Schema.model_validate(source.data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    else:
        _check_seeds(schema.zoo, source)
        return schema
    path = tuple(p for p in first["loc"] if p not in ("str", "dict[str,any]"))
    where = source.where(path)
    if first["type"] == "missing":
        raise SuiteError(f"expected a key {path[-1]!r}, found none", where)
    if first["type"] == "extra_forbidden":
        known = (_Zoo if path[0] == "zoo" else Schema).model_fields
        raise SuiteError(
            f"no key {path[-1]!r} in a suite; {did_you_mean(str(path[-1]), known)}", where
        )
    if first["type"] == "too_short":
        items = {"negatives": "negative suspect", "positives": "positive suspect"}
        raise SuiteError(
            f"expected at least one {items.get(str(path[-1]), 'method')}, got none", where
        )
    reason = first["msg"].removeprefix("Input should be ")
    key = next(part for part in reversed(path) if isinstance(part, str))
    raise SuiteError(f"{key}: expected {reason}, got {first['input']!r}", where)


def _check_seeds(zoo: _Zoo, source: Source) -> None:
    """Raise SuiteError if `seeds` is there and is not a list of at least two different seeds, or if
    `seed` is there too."""
    if "seeds" not in zoo.model_fields_set:
        return
    where = source.where(("zoo", "seeds"))
    if "seed" in zoo.model_fields_set:
        raise SuiteError("expected `seed` or `seeds` for the zoo, got both; remove one", where)
    if len(zoo.seeds) < 2:
        raise SuiteError(
            f"seeds: expected two seeds or more, such as [0, 1, 2], got {zoo.seeds}; for one zoo "
            f"write `seed: {zoo.seeds[0] if zoo.seeds else 0}`",
            where,
        )
    found: set[int] = set()
    for i, seed in enumerate(zoo.seeds):
        if seed in found:
            raise SuiteError(
                f"seeds: expected every seed once, got {seed} twice; remove one",
                source.where(("zoo", "seeds", i)),
            )
        found.add(seed)
