"""Fields of scenarios, recipes and methods: their types, their checks, their values as JSON.

A field's annotation is its only definition. It checks a value from a suite, from `-o` and from
Python, and `fpbench describe` prints it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from .errors import FieldError

T = TypeVar("T")

Count = Annotated[int, Field(ge=0)]
"""A whole number, zero or more."""

Positive = Annotated[int, Field(ge=1)]
"""A whole number, one or more."""

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A finite number above zero."""

NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A finite number, zero or more."""

Share = Annotated[float, Field(gt=0, lt=1)]
"""A share between 0 and 1; not 0, not 1."""

Probability = Annotated[float, Field(ge=0, lt=1)]
"""A probability from 0 to 1; 0 is allowed, 1 is not."""


@functools.cache
def field_types(cls: Any) -> dict[str, Any]:
    """Return the resolved annotation of every field of a dataclass, by name."""
    resolved = get_type_hints(cls, include_extras=True)
    return {f.name: resolved[f.name] for f in dataclasses.fields(cls)}


@functools.cache
def _adapter(cls: Any, name: str) -> TypeAdapter[Any]:
    return TypeAdapter(field_types(cls)[name])


def validate(instance: object, skip: frozenset[str] = frozenset()) -> None:
    """Check and convert every field of a frozen dataclass in place.

    Raises FieldError for the first field with an invalid value.
    """
    cls: Any = type(instance)
    for name in field_types(cls):
        if name not in skip:
            object.__setattr__(instance, name, check_field(cls, name, getattr(instance, name)))


def check_field(cls: Any, name: str, value: Any) -> Any:
    """Return a field's value, converted to the field's type. Raises FieldError."""
    if isinstance(value, bool) and field_types(cls)[name] is not bool:
        # pydantic would take True for 1, but in a suite it is a mistake.
        raise FieldError(name, f"expected {type_in_words(cls, name)}, got {value!r}")
    try:
        return _adapter(cls, name).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        is_no_path = first["type"] == "path_type"
        reason = "a path" if is_no_path else first["msg"].removeprefix("Input should be ")
        raise FieldError(name, f"expected {reason}, got {value!r}") from None


def type_in_words(cls: Any, name: str) -> str:
    """Return a field's type in words, for example "a whole number >= 1"."""
    return _in_words(_adapter(cls, name).json_schema())


def _in_words(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join(str(choice) for choice in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(map(_in_words, schema["anyOf"]))
    if schema.get("format") in ("path", "file-path", "directory-path"):
        return "a path"
    words = {
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
        "string": "a word",
        "array": "a list",
        "null": "null",
    }
    kind = words.get(schema.get("type", ""), "a value")
    bounds = [
        f"{sign} {schema[key]}"
        for key, sign in (
            ("minimum", ">="),
            ("exclusiveMinimum", ">"),
            ("maximum", "<="),
            ("exclusiveMaximum", "<"),
        )
        if key in schema
    ]
    return " ".join([kind, " and ".join(bounds)]).strip()


def fields_as_json(instance: object, skip: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return a dataclass's fields as JSON values, in their order. A path becomes a text."""
    from pydantic_core import to_jsonable_python

    return {
        f.name: to_jsonable_python(getattr(instance, f.name))
        for f in dataclasses.fields(instance)  # type: ignore[arg-type]
        if f.name not in skip
    }


def changed_fields(instance: object, skip: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return the fields that differ from their defaults, as JSON values."""
    from pydantic_core import to_jsonable_python

    return {
        f.name: to_jsonable_python(value)
        for f in dataclasses.fields(instance)  # type: ignore[arg-type]
        if f.name not in skip and (value := getattr(instance, f.name)) != f.default
    }
