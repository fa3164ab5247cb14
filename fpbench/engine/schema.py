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
    """

    split: Share = 0.5
    stratify: bool = True
    seed: Count = 0
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


def validate(source: Source) -> Schema:
    """Return the keys of a suite file. Raises SuiteError at the first wrong key or value."""
    try:
        return Schema.model_validate(source.data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
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
    raise SuiteError(f"{path[-1]}: expected {reason}, got {first['input']!r}", where)
