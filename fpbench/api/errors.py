"""What can go wrong, by whose fault it is.

    FpbenchError
    ├── InputError       what the user named: a file, an option      exit code 2
    │   └── SuiteError   a suite, as it is written
    ├── PluginError      a plugin is broken, missing or ambiguous    exit code 2
    ├── TrialError       a method broke its contract in a trial      exit code 1
    └── ResourceError    no data, no disk, no memory                 exit code 3

Each message is one sentence: what was expected, what was found, what to do.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any

LONGEST = 500
"""Characters of a message: it stays readable whatever stands in a file."""


class FpbenchError(Exception):
    """Anything fpbench explains to its user in one sentence; shown without a traceback."""

    exit_code = 1


class InputError(FpbenchError):
    """A file, a folder or an option that the user named cannot be used.

    `where` is "file:line:col", a path, or the command-line option that is at fault.
    """

    exit_code = 2

    def __init__(self, message: str, where: str | None = None) -> None:
        if len(message) > LONGEST:
            message = f"{message[:LONGEST]}..."
        super().__init__(f"{where}: {message}" if where else message)


class SuiteError(InputError):
    """A suite cannot be run as it is written."""


class PluginError(FpbenchError):
    """A plugin that is needed did not load, is unknown, or shares its name with another."""

    exit_code = 2


class TrialError(FpbenchError):
    """A method did not keep its contract; its trial fails and the others go on."""


class ResourceError(FpbenchError):
    """Something outside fpbench is missing or used up: data, disk, memory."""

    exit_code = 3


class FieldError(ValueError):
    """A field of a recipe, method or scenario has a value that it cannot have."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Say which known words are nearest to a misspelt one, or list them all."""
    from difflib import get_close_matches

    known = sorted(known)
    near = get_close_matches(word[:100], known, n=2, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"expected one of {', '.join(known)}" if known else "there are none"


LONGEST_TRACEBACK = 20_000
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
    return text if len(text) <= LONGEST_TRACEBACK else f"...\n{text[-LONGEST_TRACEBACK:]}"


def last_line(text: str) -> str:
    """What a traceback comes down to."""
    return (text.strip().splitlines() or ["no reason given"])[-1]
