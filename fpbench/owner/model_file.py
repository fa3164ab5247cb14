"""Model files that are not trusted: read completely, or refused in one sentence; no code runs.

A file's kind follows from its content, never from its name. A file that is longer than its
architecture can need is not read. The names, types and shapes of the tensors are compared with
those of the architecture before any tensor is loaded. Files that tools write are understood: a
mapping around the tensors, a common prefix of their names, counters that are missing or extra.
"""

from __future__ import annotations

import io
import json
import stat
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor, nn

from ..api.errors import FpbenchError, InputError
from ..api.networks import load_state, place_of, tied
from ..api.scenario import Scenario
from .sandbox import run_in_sandbox
from .sandbox_child import SAVE_ANEW
from .tensor_layout import TORCH_NAMES, Layout, RefusedError, header, match

SLACK = 64 * 2**20
"""Bytes by which a file may be longer than its tensors."""

SAVE_PROGRAM = (
    "save the weights of the network that it was made from, torch.save(model.state_dict(), "
    "'weights.pth'), or export that to ONNX"
)

MAX_PICKLE = 16 * 2**20
MAX_ENTRIES = 200_000

LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
"""The start of files of torch.save before PyTorch 1.6: a pickle of a number."""

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
    """Return the greatest length of a model's file.

    It is four times its tensors plus SLACK: float64 has twice the bytes, and a checkpoint may hold
    an optimizer's two averages.
    """
    tensors: list[Tensor] = [*model.state_dict().values()]
    return 4 * sum(t.numel() * t.element_size() for t in tensors) + SLACK


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


def fill(model: nn.Module, raw: bytes, what: str, notes: list[str] | None = None) -> nn.Module:
    """Load a file's tensors into a model; return it in eval mode with frozen parameters.

    model: a network of the architecture, on the meta device or another one.
    what:  the architecture's name, for messages.
    notes: sentences are added to it that say how the file was read.

    Raises RefusedError unless the file holds exactly the architecture's tensors, with finite
    values; ResourceError if the process that reads a `torch.save` file dies.
    """
    expected, ties = layout_of(model), tied(model)
    kind = kind_of(raw)
    notes = [] if notes is None else notes
    if kind == "zip":
        _check_zip(raw)
        plain = {name: [dtype, list(shape)] for name, (dtype, shape) in expected.items()}
        raw = run_in_sandbox(
            "read_state_dict", raw, memory=6 * len(raw), layout=plain, ties=ties, what=what
        )
        notes += json.loads(header(raw)[1]["notes"])
    elif kind != "safetensors":
        got = f"a pickle file; {SAVE_ANEW}" if kind == "pickle" else kind
        if raw[: len(LEGACY)] == LEGACY:
            got = f"torch.save's older form; {SAVE_ANEW}"
        raise RefusedError(
            "expected safetensors, or a state dict as torch.save writes it since PyTorch 1.6; "
            f"got {got}"
        )
    found = match(header(raw)[0], expected, what, ties)
    notes += found.notes
    tensors, state = load(raw), {}
    for name, own in model.state_dict().items():
        n = found.names[name]
        if n is None:
            state[name] = torch.zeros(own.shape, dtype=own.dtype)
        else:
            state[name] = _finite(name, tensors[n]).to(own.dtype)
    for name, others in ties.items():
        for other in others:
            if name in state and other in state and not torch.equal(state[name], state[other]):
                raise RefusedError(
                    f"expected equal tensors as {name} and {other}, which {what} ties, got others"
                )
    load_state(model, state)
    return model.eval().requires_grad_(False)


def require_answers(model: nn.Module, scenario: Scenario, what: str, device: torch.device) -> None:
    """Raise RefusedError unless a network answers a batch of two, and of one, as a scenario says.

    what: the architecture's name, for messages.
    """
    shape = scenario.input_shape
    for n in (2, 1):
        try:
            with torch.no_grad():
                answer = model(scenario.blank(n).to(device))
        except (FpbenchError, RefusedError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            reason, where = str(error).split("\n")[0][:200], place_of(error)
            place = f", at {where}" if where else ""
            raise RefusedError(f"{what} does not take inputs of {shape}: {reason}{place}") from None
        found, expected = tuple(answer.shape), (n, *scenario.output_shape)
        if found[:1] == (n,) and found != expected:
            raise RefusedError(f"expected {what} to answer with {expected[1:]}, got {found[1:]}")
        if found != expected:
            raise RefusedError(
                f"expected {what} to answer a batch of {n} with {expected}, got {found}"
            )


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
        raise RefusedError(
            f"expected a state dict, got a TorchScript archive, which is a program; {SAVE_PROGRAM}"
        )
    if any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in names):
        raise RefusedError(
            f"expected a state dict, got a torch.export archive, which is a program; {SAVE_PROGRAM}"
        )
    pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
    if len(pickles) != 1 or len(entries) > MAX_ENTRIES or pickles[0].file_size > MAX_PICKLE:
        raise RefusedError("expected a zip file of torch.save, with one data.pkl of at most 16 MiB")
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if packed or sum(entry.file_size for entry in entries) > len(raw):
        raise RefusedError(
            "expected entries stored as torch.save does, got compressed or overlapping ones, "
            "which may unpack to any size"
        )
