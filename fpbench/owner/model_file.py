"""Model files that are not trusted: read completely, or refused in one sentence; no code runs.

A file's kind follows from its content, never from its name. A file that is longer than its
architecture can need is not read. The names, types and shapes of the tensors are compared with
those of the architecture before any tensor is loaded.
"""

from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor, nn

from ..api.errors import InputError
from .sandbox import run_in_sandbox
from .tensor_layout import TORCH_NAMES, Layout, RefusedError, header, require

SLACK = 64 * 2**20
"""Bytes by which a file may be longer than its tensors."""

MAX_PICKLE = 16 * 2**20
MAX_ENTRIES = 200_000

OTHER_KINDS = {b"\x1f\x8b": "a gzip file", b"\x89HDF": "an HDF5 file", b"7z\xbc\xaf": "a 7z file"}


def read(path: Path, most: int, what: str = "model") -> bytes:
    """Return the bytes of a file.

    Raises InputError for more than `most` bytes, and for anything but a regular file.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise InputError("expected a file, found something else", str(path))
        if found.st_size > most:
            raise InputError(
                f"expected at most {most:,} bytes, more than this {what} needs, "
                f"got {found.st_size:,}",
                str(path),
            )
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise InputError(
            f"expected a {what} file, could not read it: {error.strerror}", str(path)
        ) from None


def most_bytes(model: nn.Module) -> int:
    """Return the greatest length of a model's file: twice its tensors, for float64, plus SLACK."""
    tensors: list[Tensor] = [*model.state_dict().values()]
    return 2 * sum(t.numel() * t.element_size() for t in tensors) + SLACK


def layout_of(model: nn.Module) -> Layout:
    """Return the names, types and shapes of an architecture's tensors."""
    codes = {getattr(torch, name): code for code, name in TORCH_NAMES.items()}
    return {name: (codes[t.dtype], tuple(t.shape)) for name, t in model.state_dict().items()}


def kind_of(raw: bytes) -> str:
    """Return a file's kind by its content: safetensors, zip, onnx, pickle, or a description."""
    if raw[:2] == b"PK":
        return "zip"
    if raw[8:9] == b"{" and raw[6:8] == b"\0\0":
        return "safetensors"
    if raw[:1] == b"\x80" and raw[1:2] <= b"\x05":
        return "pickle"
    if raw[:1] == b"\x08" and b"\x01" <= raw[1:2] <= b"\x20":  # the field ir_version
        return "onnx"
    return next(
        (words for start, words in OTHER_KINDS.items() if raw.startswith(start)), "another file"
    )


def fill(model: nn.Module, raw: bytes, what: str) -> nn.Module:
    """Load a file's tensors into a model; return it in eval mode with frozen parameters.

    model: a network of the architecture, on the meta device or another one.
    what:  the architecture's name, for messages.

    Raises RefusedError unless the file holds exactly the architecture's tensors, with finite
    values; ResourceError if the process that reads a `torch.save` file dies.
    """
    expected = layout_of(model)
    kind = kind_of(raw)
    if kind == "zip":
        _check_zip(raw)
        plain = {name: [dtype, list(shape)] for name, (dtype, shape) in expected.items()}
        raw = run_in_sandbox("read_state_dict", raw, memory=6 * len(raw), layout=plain, what=what)
    elif kind != "safetensors":
        got = "a pickle file" if kind == "pickle" else kind
        raise RefusedError(
            "expected safetensors, or a state dict as torch.save writes it since PyTorch 1.6; "
            f"got {got}"
        )
    require(header(raw)[0], expected, what)
    types = {name: t.dtype for name, t in model.state_dict().items()}
    state = {name: _finite(name, t).to(types[name]) for name, t in load(raw).items()}
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


def _finite(name: str, tensor: Tensor) -> Tensor:
    if not bool(tensor.isfinite().all()):
        raise RefusedError(f"expected finite numbers, got others in {name}")
    return tensor


def _check_zip(raw: bytes) -> None:
    """Raise RefusedError for a zip file that is no state dict, or that unpacks to more bytes."""
    try:
        entries = zipfile.ZipFile(io.BytesIO(raw)).infolist()
    except Exception as error:  # hostile bytes can raise many types of error in the parser
        raise RefusedError(f"expected a zip file of torch.save, got {error}") from None
    names = [entry.filename for entry in entries]
    if any("/code/" in name or name.endswith("constants.pkl") for name in names):
        raise RefusedError("expected a state dict, got a TorchScript archive, which is a program")
    if any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in names):
        raise RefusedError("expected a state dict, got a torch.export archive, which is a program")
    pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
    if len(pickles) != 1 or len(entries) > MAX_ENTRIES or pickles[0].file_size > MAX_PICKLE:
        raise RefusedError("expected a zip file of torch.save, with one data.pkl of at most 16 MiB")
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if packed or sum(entry.file_size for entry in entries) > len(raw):
        raise RefusedError(
            "expected entries stored as torch.save does, got compressed or overlapping ones, "
            "which may unpack to any size"
        )
