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
"""torch's name of each accepted type, by safetensors' name."""

FLOATS = frozenset({"F16", "BF16", "F32", "F64"})

Layout = Mapping[str, tuple[str, tuple[int, ...]]]
"""Type and shape by tensor name; the type is safetensors' name of it."""


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
