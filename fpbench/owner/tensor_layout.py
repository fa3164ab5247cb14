"""What tensors a model file claims to hold, read from its header and compared before any is loaded.

safetensors: eight bytes with the header's length, little-endian; the header, a JSON object of
name -> {dtype, shape, data_offsets}; the tensors' bytes, one after another without gaps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

MAX_HEADER = 16 * 2**20
"""Bytes of a header: 100,000 tensors fit ten times over."""

SIZES = {
    "BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "I32": 4, "I64": 8,
    "F16": 2, "BF16": 2, "F32": 4, "F64": 8,
}  # fmt: skip
"""Bytes per element of the types that are taken."""

FLOATS = frozenset({"F16", "BF16", "F32", "F64"})

Layout = Mapping[str, tuple[str, tuple[int, ...]]]
"""By tensor name: its type, a key of `SIZES`, and its shape."""


class RefusedError(ValueError):
    """A file is not what it must be; the message is one sentence, never a long one."""

    def __init__(self, message: str) -> None:
        super().__init__(message if len(message) <= 400 else f"{message[:399]}…")


def header(raw: bytes) -> tuple[Layout, dict[str, str]]:
    """The tensors a safetensors file claims and its metadata, every claim checked.

    Raises RefusedError: for a header that is too long or no JSON, names that come twice, types or
    shapes that are none, offsets that overlap, leave gaps or point outside the file.
    """
    length = int.from_bytes(raw[:8], "little")
    if length > min(len(raw) - 8, MAX_HEADER):
        raise RefusedError(
            f"expected a safetensors header of at most {MAX_HEADER:,} bytes that ends inside the "
            f"file, got one that claims {length:,} in a file of {len(raw):,}"
        )
    try:
        entries: Any = json.loads(raw[8 : 8 + length], object_pairs_hook=_once)
    except RefusedError:
        raise
    except (ValueError, RecursionError) as error:
        reason = str(error).split("\n")[0][:100]
        raise RefusedError(f"expected JSON in the safetensors header, got {reason}") from None
    if not isinstance(entries, dict):
        raise RefusedError("expected a JSON object as safetensors header")
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise RefusedError("expected texts in the safetensors header's metadata")
    layout = {name: _claim(name, entry) for name, entry in entries.items()}
    at = 0
    for name, (begin, end) in sorted(
        ((name, entry["data_offsets"]) for name, entry in entries.items()), key=lambda e: e[1]
    ):
        if begin != at or end - begin != bytes_of(*layout[name]):
            raise RefusedError(
                f"expected tensors one after another, each as long as its shape says; {name!r} is "
                f"said to lie at {begin:,} to {end:,}"
            )
        at = end
    if at != len(raw) - 8 - length:
        raise RefusedError(
            f"expected {at:,} bytes of tensors as the header says, got {len(raw) - 8 - length:,}"
        )
    return layout, metadata


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys come once each."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise RefusedError(f"expected every name once in the safetensors header, got {twice!r}")
    return found


def _claim(name: str, entry: Any) -> tuple[str, tuple[int, ...]]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise RefusedError(f"expected dtype, shape and data_offsets for {name!r}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in SIZES:
        raise RefusedError(f"expected one of the types {', '.join(SIZES)}, got {dtype!r}")
    for numbers, what in ((shape, "a shape"), (offsets, "offsets")):
        if not isinstance(numbers, list) or not all(type(n) is int and n >= 0 for n in numbers):
            raise RefusedError(
                f"expected {what} of whole numbers for {name!r}, got {str(numbers)[:60]}"
            )
    if len(offsets) != 2:
        raise RefusedError(f"expected two data_offsets for {name!r}, got {len(offsets)}")
    return dtype, tuple(shape)


def bytes_of(dtype: str, shape: tuple[int, ...]) -> int:
    """How long a tensor is."""
    n = SIZES[dtype]
    for size in shape:
        n *= size
    return n


def require(found: Layout, wanted: Layout, what: str) -> None:
    """Raise RefusedError unless the tensors are exactly those of `what`.

    A floating-point tensor may be of any precision; it is converted.
    """
    lacks, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if lacks or extra:
        parts = [f"{w} {_some(names)}" for w, names in (("lacks", lacks), ("has", extra)) if names]
        raise RefusedError(
            f"expected the {len(wanted)} tensors of {what}; the file {' and '.join(parts)}"
        )
    for name, (dtype, shape) in wanted.items():
        kind, size = found[name]
        if size != shape:
            raise RefusedError(f"expected {name} of shape {shape} for {what}, got {size}")
        if kind != dtype and not {kind, dtype} <= FLOATS:
            raise RefusedError(f"expected {name} of type {dtype} for {what}, got {kind}")


def _some(names: list[str]) -> str:
    shown = ", ".join(name[:60] for name in names[:2])
    return f"{shown} and {len(names) - 2} more" if len(names) > 2 else shown
