"""Text of others, on its way to a screen, a page or a log."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any

LONGEST = 20_000
"""Characters kept of a traceback: the last ones tell what happened."""


def printable(text: str, also: str = "\n\t") -> str:
    """A text that moves no cursor, changes no colour and turns no direction: characters that are
    not printable are written as Python would write them, `\\x1b`; those in `also` stay."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in also else c.encode("unicode_escape").decode() for c in text
    )


def every(value: Any, change: Callable[[str], str]) -> Any:
    """JSON values with every text in them changed, keys too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {every(k, change): every(v, change) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [every(v, change) for v in value]
    return value


def readable(value: Any) -> Any:
    """JSON values with every text in them printable."""
    return every(value, printable)


def clipped(value: object, length: int = 200) -> str:
    """A value as Python writes it, on one line and not endless; also one whose repr raises."""
    try:
        text = printable(repr(value), also="")
    except Exception as error:
        text = f"a {type(value).__name__} whose repr raises {type(error).__name__}"
    return text if len(text) <= length else f"{text[:length]}..."


def told(error: BaseException) -> str:
    """An exception's traceback, the end of it if it is endless; never empty."""
    text = "".join(traceback.format_exception(error)).strip()
    return text if len(text) <= LONGEST else f"...\n{text[-LONGEST:]}"


def last_line(text: str) -> str:
    """What a traceback comes down to."""
    return (text.strip().splitlines() or ["no reason given"])[-1]
