"""Answers in the replies of an API: found, checked, and read as scores."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..api.errors import InputError
from .adapter import Adapter

Columns = list[int | None]
"""The target's class of each column of scores; None for a class that the target does not have."""

NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


class _UnknownError(InputError):
    """An answer that is null, or that names a class which the adapter does not know."""


def find(path: str, data: Any) -> Any:
    """Return what a JMESPath finds in JSON values. Raises InputError for a wrong path."""
    import jmespath

    try:
        return jmespath.search(path, data)
    except jmespath.exceptions.JMESPathError as error:
        raise InputError(f"expected a JMESPath, got {path!r}: {error}") from None


def as_json(body: bytes) -> Any:
    """Return a reply's body as JSON values. Raises InputError."""
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"expected JSON from the API, got {beginning(body)!r} ({str(error)[:100]})"
        ) from None


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text}, which is not a finite number")


def beginning(body: bytes, most: int = 200) -> str:
    """Return the first characters of a reply, those that can be printed, on one line."""
    text = body[: 4 * most].decode(errors="replace")
    return "".join(c if c.isprintable() else " " for c in text)[:most]


class Reader:
    """Reads answers of a model with outputs (n, *output_shape).

    adapter: the places of answers in a reply.
    classes: whether the outputs are scores of classes.
    """

    def __init__(self, adapter: Adapter, output_shape: tuple[int, ...], *, classes: bool) -> None:
        self.adapter, self.shape, self.has_classes = adapter, output_shape, classes
        n, given = output_shape[0], adapter.classes
        self.names: dict[str, int] = {}
        """The column of each name."""
        self.columns: Columns = list(range(n))
        if isinstance(given, dict):
            self.names = {name: at for at, name in enumerate(given)}
            self.columns = list(given.values())
        elif given is not None:
            self.names = {x: at for at, x in enumerate(given) if isinstance(x, str)}
            if len(self.names) != len(given):
                self.columns = [x for x in given if not isinstance(x, str)]
        if classes and given is not None:
            self._check_classes(n)

    def _check_classes(self, n: int) -> None:
        known = {k for k in self.columns if k is not None}
        if isinstance(self.adapter.classes, list) and self.names and len(self.names) != n:
            raise InputError(
                f"classes: expected {n} different names, got {len(self.names)}", "--adapter"
            )
        if not known or max(known) >= n:
            raise InputError(
                f"classes: expected classes 0 to {n - 1}, got {sorted(known)}", "--adapter"
            )

    # ── Reading a reply ──────────────────────────────────────────────────────────

    def answers(self, body: bytes, n: int) -> list[Any]:
        """Return the answers in a reply to n inputs, as they are kept.

        An answer is a number, a name, numbers, or pairs of name and number; None if it is missing.
        Raises InputError if the reply does not have the adapter's form.
        """
        adapter = self.adapter
        path = adapter.scores or adapter.labels or ""
        found = find(path, as_json(body))
        if adapter.has_no_list and (found is not None or adapter.skip):
            found = [found]
        if not isinstance(found, list) or len(found) != n:
            size = len(found) if isinstance(found, list) else type(found).__name__
            raise InputError(
                f"expected {n} answers at {path!r} of the API's reply, got {size}; it begins with "
                f"{beginning(body)}"
            )
        return [self._kept(answer) for answer in found]

    def _kept(self, answer: Any) -> Any:
        if self.adapter.top is not None:
            answer = self._pairs(answer)
        try:
            self._row(answer)
        except _UnknownError:
            if not self.adapter.skip:
                raise
            return None
        return answer

    def _pairs(self, answer: Any) -> Any:
        """Return the pairs [name, score] of a list of the likeliest classes."""
        name, score = self.adapter.top or (0, 1)
        if answer is None:
            return None
        try:
            return [[entry[name], entry[score]] for entry in answer]
        except (LookupError, TypeError):
            raise InputError(
                f"expected entries with {name!r} and {score!r} at {self.adapter.scores!r}, got "
                f"{str(answer)[:60]!r}"
            ) from None

    # ── Reading answers ──────────────────────────────────────────────────────────

    def rows(self, answers: Sequence[Any]) -> Tensor:
        """Return kept answers as scores (n, columns), or as outputs (n, *output_shape).

        NaN stands for a class that an answer leaves out; a missing answer is a row of NaN.
        """
        n = len(self.columns) if self.has_classes else math.prod(self.shape)
        missing = [math.nan] * n
        rows = [missing if answer is None else self._row(answer) for answer in answers]
        out = torch.tensor(rows, dtype=torch.float64)
        return out if self.has_classes else out.reshape(len(rows), *self.shape)

    def _row(self, answer: Any) -> list[float]:
        if answer is None:
            raise _UnknownError("expected an answer to each input, got null; see the key `skip`")
        if not self.has_classes:
            return self._outputs(answer)
        if self.adapter.scores is None:
            row = [0.0] * len(self.columns)
            row[self._column(answer)] = 1.0
            return row
        if isinstance(answer, dict):
            return self._named(list(answer.items()))
        if self.adapter.top is not None:
            return self._named(answer)
        if not isinstance(answer, list):
            raise self._no_numbers(answer)
        if len(answer) != len(self.columns):
            raise InputError(
                f"expected {len(self.columns)} scores for each input, got {len(answer)}"
            )
        return [self._number(a, answer) for a in answer]

    def _outputs(self, answer: Any) -> list[float]:
        flat: list[float] = []
        stack = [answer]
        while stack:
            part = stack.pop()
            if isinstance(part, list):
                stack.extend(reversed(part))
            else:
                flat.append(self._number(part, answer))
        if len(flat) != math.prod(self.shape):
            raise InputError(
                f"expected outputs of shape {self.shape} for each input, got {len(flat)} numbers"
            )
        return flat

    def _named(self, pairs: Any) -> list[float]:
        row = [math.nan] * len(self.columns)
        for name, score in pairs:
            row[self._column(name)] = self._number(score, pairs)
        if all(map(math.isnan, row)):
            raise _UnknownError("expected at least one class for each input, got none")
        return row

    def _column(self, label: Any) -> int:
        """Return the column of a class, given as a name or as an index."""
        if isinstance(label, str) and label in self.names:
            return self.names[label]
        if isinstance(label, float) and label.is_integer():
            label = int(label)
        if isinstance(self.adapter.classes, dict):
            if type(label) is int and str(label) in self.names:
                return self.names[str(label)]
        elif type(label) is int or (
            isinstance(label, str) and not self.names and label.isascii() and label.isdecimal()
        ):
            if 0 <= int(label) < len(self.columns):
                return int(label)
            raise InputError(
                f"expected classes 0 to {len(self.columns) - 1} from the API, got {label}; "
                "`classes:` in the adapter says which class of the model each one is"
            )
        names = list(self.names)
        form = f"one of {', '.join(names[:5])} ..." if names else "a class's index"
        path = self.adapter.labels or self.adapter.scores
        raise _UnknownError(
            f"expected {form} at {path!r}, got {str(label)[:60]!r}; see the key `classes`"
        )

    def _number(self, value: Any, answer: Any) -> float:
        if isinstance(value, str) and NUMBER.fullmatch(value):
            value = float(value)
        try:
            if type(value) not in (int, float) or not math.isfinite(number := float(value)):
                raise self._no_numbers(answer)
        except OverflowError:
            raise self._no_numbers(answer) from None
        return number

    def _no_numbers(self, answer: Any) -> InputError:
        hint = ""
        if isinstance(answer, list) and answer and isinstance(answer[0], dict | list):
            hint = "; `top` in the adapter describes lists of names and scores"
        elif not isinstance(answer, list | dict):
            hint = "; for classes, name their place by `labels` in the adapter"
        return InputError(
            f"expected a list of finite numbers at {self.adapter.scores!r}, got "
            f"{str(answer)[:60]!r}{hint}"
        )
