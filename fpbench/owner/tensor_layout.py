"""The names, types and shapes of a model file's tensors, compared before any tensor is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping

from safetensors import SafetensorError, deserialize

MAX_HEADER = 16 * 2**20
"""Bytes of a safetensors header: 100,000 tensors fit."""

TORCH_NAMES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64",
    "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
}  # fmt: skip
"""torch's name of each type that is taken, by safetensors' name."""

FLOATS = frozenset({"F16", "BF16", "F32", "F64"})

Layout = Mapping[str, tuple[str, tuple[int, ...]]]
"""By tensor name: its type, in safetensors' words, and its shape."""


class RefusedError(ValueError):
    """A file is not what it must be; the message is one sentence, never a long one."""

    def __init__(self, message: str) -> None:
        super().__init__(message if len(message) <= 400 else f"{message[:399]}…")


def header(raw: bytes) -> tuple[Layout, dict[str, str]]:
    """Return the tensors that a safetensors file holds, and its metadata.

    The library checks the header: JSON, types, shapes, offsets without gaps or overlaps, the
    file's length. Raises RefusedError with what it found.
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


def require(found: Layout, wanted: Layout, what: str) -> None:
    """Raise RefusedError unless the tensors found are exactly those of the architecture `what`.

    A floating-point tensor may have any precision; it is converted.
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
