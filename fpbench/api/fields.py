"""Fields of scenarios, recipes and methods: typed once, by the annotation.

The same annotation checks a value from a suite, from `-o` and from Python, and is what
`fpbench describe` prints.
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
"""A share strictly between 0 and 1."""

Probability = Annotated[float, Field(ge=0, lt=1)]
"""A probability from 0 up to, not including, 1."""


@functools.cache
def hints(cls: Any) -> dict[str, Any]:
    """The annotation of every field of a dataclass, resolved."""
    resolved = get_type_hints(cls, include_extras=True)
    return {f.name: resolved[f.name] for f in dataclasses.fields(cls)}


@functools.cache
def _adapter(cls: Any, name: str) -> TypeAdapter[Any]:
    return TypeAdapter(hints(cls)[name])


def validate(instance: object, skip: frozenset[str] = frozenset()) -> None:
    """Check and convert every field of a frozen dataclass in place.

    Raises FieldError, naming the field, what was expected and what was found.
    """
    cls: Any = type(instance)
    for name in hints(cls):
        if name not in skip:
            object.__setattr__(instance, name, checked(cls, name, getattr(instance, name)))


def checked(cls: Any, name: str, value: Any) -> Any:
    """One field's value, converted to its type; raises FieldError."""
    if isinstance(value, bool) and hints(cls)[name] is not bool:
        # pydantic would take True for 1; in a suite that is a slip of the pen.
        raise FieldError(name, f"expected {spelled(cls, name)}, got {value!r}")
    try:
        return _adapter(cls, name).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        is_no_path = first["type"] == "path_type"
        reason = "a path" if is_no_path else first["msg"].removeprefix("Input should be ")
        raise FieldError(name, f"expected {reason}, got {value!r}") from None


def spelled(cls: Any, name: str) -> str:
    """Return a field's type, as a person would write it in a suite."""
    return _spelled(_adapter(cls, name).json_schema())


def _spelled(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join(str(choice) for choice in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(map(_spelled, schema["anyOf"]))
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


def plain(instance: object, skip: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return a dataclass's fields as JSON values, in their order; a path is a text."""
    from pydantic_core import to_jsonable_python

    return {
        f.name: to_jsonable_python(getattr(instance, f.name))
        for f in dataclasses.fields(instance)  # type: ignore[arg-type]
        if f.name not in skip
    }


def changed(instance: object, skip: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The fields whose values are not their defaults."""
    from pydantic_core import to_jsonable_python

    return {
        f.name: to_jsonable_python(value)
        for f in dataclasses.fields(instance)  # type: ignore[arg-type]
        if f.name not in skip and (value := getattr(instance, f.name)) != f.default
    }
