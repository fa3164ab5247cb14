"""The names, types and shapes of a model file's tensors, compared before any tensor is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from safetensors import SafetensorError, deserialize

MAX_HEADER = 16 * 2**20
"""Bytes of a safetensors header: 100,000 tensors fit."""

TORCH_NAMES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64",
    "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
}  # fmt: skip
"""torch's name of each accepted type, by safetensors' name."""

FLOATS = frozenset({"F16", "BF16", "F32", "F64"})

Layout = Mapping[str, tuple[str, tuple[int, ...]]]
"""Type and shape by tensor name; the type is safetensors' name of it."""


Ties = Mapping[str, Sequence[str]]
"""The other names of each tensor that has several, as tied weights do."""

MOST_PARTS = 8
"""Parts of a common prefix that are tried."""


class RefusedError(ValueError):
    """A file is refused. The message is one sentence of at most 400 characters."""

    def __init__(self, message: str) -> None:
        super().__init__(message if len(message) <= 400 else f"{message[:399]}…")


def header(raw: bytes) -> tuple[Layout, dict[str, str]]:
    """Return the layout of a safetensors file's tensors, and its metadata.

    The library checks the header: JSON, types, shapes, offsets without gaps or overlaps, the
    file's length. Raises RefusedError with its message.
    """
    length = int.from_bytes(raw[:8], "little")
    if length > MAX_HEADER:
        raise RefusedError(
            f"expected a safetensors header of at most {MAX_HEADER:,} bytes, got one that claims "
            f"{length:,} in a file of {len(raw):,}"
        )
    try:
        layout = {name: (view["dtype"], tuple(view["shape"])) for name, view in deserialize(raw)}
        metadata = json.loads(raw[8 : 8 + length]).get("__metadata__") or {}
    except (SafetensorError, ValueError) as error:
        reason = str(error).removeprefix("Error while deserializing: ")
        raise RefusedError(f"expected safetensors, got {reason}") from None
    return layout, metadata


COUNTERS = ("total_ops", "total_params")
"""Numbers that tools which count operations add to a network's tensors."""

BATCHES = "num_batches_tracked"
"""A counter of batch normalisation. Evaluation does not use it, and old files do not have it."""


@dataclass(frozen=True)
class Match:
    """Which of a file's tensors are an architecture's.

    names: the name in the file of each tensor of the architecture; None for a counter that the
           file lacks.
    notes: sentences that say how the file differs.
    """

    names: Mapping[str, str | None]
    notes: tuple[str, ...] = ()


def match(found: Layout, expected: Layout, what: str, ties: Ties | None = None) -> Match:
    """Return which of a file's tensors are those of an architecture.

    A prefix that all names have is taken off or exchanged, or one is put before them, if the names
    are the architecture's then. Counters may be missing or extra.

    what: the architecture's name, for messages.
    ties: the other names of each tensor that has several. A file may have only one of them.

    Raises RefusedError if the file has other tensors, or tensors of another shape or type.
    """
    ties = ties or {}
    counters = {n for n in found if n.rpartition(".")[2] in COUNTERS and n not in expected}
    notes = ["the file's counters of operations are left out"] if counters else []
    own = {name: name for name in found if name not in counters}
    if _differ(own, expected, ties):
        for words, renamed in _renamings([*own], [*expected]):
            if not _differ(renamed, expected, ties):
                notes.append(words)
                own = renamed
                break
    names: dict[str, str | None] = {}
    for name in expected:
        other = next((n for n in (name, *ties.get(name, ())) if n in own), None)
        if other is not None:
            names[name] = own[other]
        elif _is_counter(name):
            names[name] = None
    if None in names.values():
        notes.append(f"the file has no {BATCHES}, which counts batches in training; it is set to 0")
    layout = {name: found[n] if n is not None else expected[name] for name, n in names.items()}
    layout |= {name: found[n] for name, n in own.items() if name not in expected}
    require(layout, expected, what)
    return Match(names, tuple(notes))


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] == BATCHES


def _differ(own: Mapping[str, str], expected: Layout, ties: Ties) -> bool:
    """Return whether names are others than the expected ones, apart from ties and counters."""
    missing = any(
        not _is_counter(name) and own.keys().isdisjoint((name, *ties.get(name, ())))
        for name in expected
    )
    return missing or not own.keys() <= expected.keys()


def _renamings(found: list[str], expected: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each way to take a common prefix off names, to put one before them, or both, with a
    note."""
    for prefix in _prefixes(found):
        words = f"the prefix {prefix[:60]!r} was taken off the names of the file's tensors"
        yield words, {name.removeprefix(prefix): name for name in found}
    for prefix in _prefixes(expected):
        words = f"the prefix {prefix[:60]!r} was put before the names of the file's tensors"
        yield words, {prefix + name: name for name in found}
    for old in _prefixes(found):
        for new in _prefixes(expected):
            words = f"the prefix {old[:60]!r} of the file's tensors was read as {new[:60]!r}"
            yield words, {new + name.removeprefix(old): name for name in found}


def _prefixes(names: list[str]) -> list[str]:
    """Return the prefixes that all names have, such as `module.`, the shortest first."""
    parts: list[str] = []
    for column in zip(*(name.split(".")[:-1] for name in names), strict=False):
        if len(set(column)) > 1:
            break
        parts.append(column[0])
    return [".".join(parts[: i + 1]) + "." for i in range(min(len(parts), MOST_PARTS))]


def require(found: Layout, expected: Layout, what: str) -> None:
    """Raise RefusedError unless the tensors found are exactly the expected ones.

    A floating-point tensor may have any precision, because it is converted.

    what: the name of the architecture that has the expected tensors.
    """
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    if missing or extra:
        lists = (("lacks", missing), ("has", extra))
        parts = [f"{verb} {_first_names(names)}" for verb, names in lists if names]
        raise RefusedError(
            f"expected the {len(expected)} tensors of {what}; the file {' and '.join(parts)}"
        )
    for name, (dtype, shape) in expected.items():
        found_dtype, found_shape = found[name]
        if found_shape != shape:
            raise RefusedError(f"expected {name} of shape {shape} for {what}, got {found_shape}")
        if found_dtype != dtype and not {found_dtype, dtype} <= FLOATS:
            raise RefusedError(f"expected {name} of type {dtype} for {what}, got {found_dtype}")


def _first_names(names: list[str]) -> str:
    shown = ", ".join(name[:60] for name in names[:2])
    return f"{shown} and {len(names) - 2} more" if len(names) > 2 else shown
