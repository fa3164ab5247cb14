"""The errors that fpbench explains to users, and functions that make texts safe to print.

    FpbenchError
    ├── InputError       a file or an option that the user named     exit code 2
    │   └── SuiteError   the content of a suite
    ├── PluginError      a plugin is broken, missing or ambiguous    exit code 2
    ├── TrialError       a method broke its contract in a trial      exit code 1
    └── ResourceError    no data, no disk space, no memory           exit code 3

Each message is one sentence. It says what was expected, what was found and what to do.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any

LONGEST_MESSAGE = 500
"""The most characters of a message, because a message may quote any content of a file."""


class FpbenchError(Exception):
    """An error that fpbench explains to its user in one sentence, without a traceback."""

    exit_code = 1


class InputError(FpbenchError):
    """A file, a folder or an option that the user named cannot be used.

    `where` is "file:line:col", a path, or the command-line option that is at fault.
    """

    exit_code = 2

    def __init__(self, message: str, where: str | None = None) -> None:
        if len(message) > LONGEST_MESSAGE:
            message = f"{message[:LONGEST_MESSAGE]}..."
        super().__init__(f"{where}: {message}" if where else message)


class SuiteError(InputError):
    """The content of a suite is not valid."""


class PluginError(FpbenchError):
    """A needed plugin did not load, is unknown, or has the same name as another."""

    exit_code = 2


class TrialError(FpbenchError):
    """A method broke its contract. Its trial fails, and the other trials continue."""


class ResourceError(FpbenchError):
    """Data is missing, or disk space or memory is used up."""

    exit_code = 3


class FieldError(ValueError):
    """A field of a recipe, method or scenario has an invalid value."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a phrase that names the known words nearest to a misspelt one, or all known words."""
    from difflib import get_close_matches

    known = sorted(known)
    near = get_close_matches(word[:100], known, n=2, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"expected one of {', '.join(known)}" if known else "there are none"


LONGEST_TRACEBACK = 20_000
"""The most characters of a traceback. The last ones are kept, because they say what happened."""


def printable(text: str, also: str = "\n\t") -> str:
    """Return a text that cannot move a terminal's cursor, or change its colour or text direction.

    A character that is not printable is replaced by its escape sequence, such as `\\x1b`, unless it
    is in `also`.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in also else c.encode("unicode_escape").decode() for c in text
    )


def change_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return JSON values in which `change` was applied to every text and every key."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change_texts(k, change): change_texts(v, change) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [change_texts(v, change) for v in value]
    return value


def printable_json(value: Any) -> Any:
    """Return JSON values in which every text is printable."""
    return change_texts(value, printable)


def clipped(value: object, length: int = 200) -> str:
    """Return a value's repr on one line, cut to `length` characters.

    If its repr raises, return a text that says so.
    """
    try:
        text = printable(repr(value), also="")
    except Exception as error:
        text = f"a {type(value).__name__} whose repr raises {type(error).__name__}"
    return text if len(text) <= length else f"{text[:length]}..."


def traceback_of(error: BaseException) -> str:
    """Return an exception's traceback, or its last LONGEST_TRACEBACK characters. Never empty."""
    text = "".join(traceback.format_exception(error)).strip()
    return text if len(text) <= LONGEST_TRACEBACK else f"...\n{text[-LONGEST_TRACEBACK:]}"


def last_line(text: str) -> str:
    """Return the last line of a traceback, which names the error."""
    return (text.strip().splitlines() or ["no reason given"])[-1]
