"""Sessions of ONNX Runtime. A suspect's file runs in the sandbox, and onnx is imported only there.

A graph may loop without end or ask for any amount of memory: the sandbox's limits stop it. A graph
that needs operators of other libraries is refused before it runs. Tensors in other files are read
only by `embed`, from the file's own folder. The bytes that run are those that were checked: the
parsed model is serialised anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .tensor_layout import RefusedError

USUAL = "logits"
"""The output that is taken of several that fit."""

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
"""Operator sets of the standard. Others are code of third parties."""


NUMPY_TYPES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
}  # fmt: skip
"""The types of inputs that a graph may take."""

MAX_EXTERNAL = 2**31
"""Bytes of the tensors in other files. A graph with more than that cannot be one message."""


def answer(
    raw: bytes, queries: bytes, shape: tuple[int, ...], output_shape: tuple[int, ...],
    output: str | None = None, input_range: tuple[float, float] | None = None,
    notes: list[str] | None = None,
) -> bytes:  # fmt: skip
    """Return a file's answers to queries: float32 of shape (n, *output_shape).

    queries:     float32 of shape `shape`, which is (n, *input_shape).
    output:      the name of the output to take, if there are several.
    input_range: the range that 0 to 255 stands for, if the graph takes 8-bit pixels.
    notes:       sentences are added to it that say how the graph was asked.

    Raises RefusedError for answers of another shape, and as `open_session` and `run`.
    """
    import numpy as np

    x = np.frombuffer(queries, np.float32).reshape(shape)
    size = math.prod(output_shape)
    found = run(open_session(raw), x, size, output, input_range, notes)
    if found.shape[1:] != output_shape:
        raise RefusedError(
            f"expected answers of {output_shape} from the ONNX model, got {found.shape[1:]}"
        )
    values: bytes = found.tobytes()
    return values


def embed(raw: bytes, folder: str) -> bytes:
    """Return a model with the tensors of other files in it. They must be in its own folder.

    Raises RefusedError for a file that is elsewhere, is no ordinary file, or is too short.
    """
    model = _parsed(raw)
    total = 0
    for part in _parts(model):
        if type(part).__name__ != "TensorProto" or not _is_external(part):
            continue
        entry = {item.key: item.value for item in part.external_data}
        name = entry.get("location", "")
        path = Path(folder) / name
        plain = bool(name) and Path(name).name == name and name not in (".", "..")
        if not plain or path.is_symlink() or not path.is_file():
            raise RefusedError(
                f"expected the tensor {part.name[:60]!r} in a file beside the ONNX file, got "
                f"{name[:60]!r}; move it there, or {SAVE_WHOLE}"
            )
        try:
            offset = int(entry.get("offset", 0))
            length = int(entry.get("length", path.stat().st_size - offset))
        except ValueError:
            offset = length = -1
        total += max(length, 0)
        if offset < 0 or length < 0 or offset + length > path.stat().st_size:
            raise RefusedError(f"expected the tensor {part.name[:60]!r} inside {name[:60]!r}")
        if total > MAX_EXTERNAL:
            raise RefusedError(f"expected at most {MAX_EXTERNAL:,} bytes of tensors in other files")
        with path.open("rb") as file:
            file.seek(offset)
            part.raw_data = file.read(length)
        del part.external_data[:]
        part.data_location = part.DEFAULT
    _check(model)
    return _serialised(model)


SAVE_WHOLE = (
    "save it as one file: torch.onnx.export(..., external_data=False), or "
    "onnx.save(onnx.load('FILE.onnx'), 'NEW.onnx')"
)


def _is_external(tensor: Any) -> bool:
    return bool(tensor.external_data or tensor.data_location)


def _parsed(raw: bytes) -> Any:
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError:
        raise RefusedError(
            "an ONNX file needs onnx and onnxruntime: pip install 'fpbench-core[onnx]'"
        ) from None
    try:
        return onnx.load_model_from_string(raw)
    except MemoryError:
        raise
    except Exception as error:
        raise RefusedError(f"expected an ONNX model: {str(error)[:160]}") from None


def _serialised(model: Any) -> bytes:
    try:
        raw: bytes = model.SerializeToString()
    except MemoryError:
        raise
    except Exception as error:
        raise RefusedError(f"expected an ONNX model below 2 GiB: {str(error)[:160]}") from None
    return raw


def open_session(raw: bytes) -> Any:
    """Return an ONNX Runtime session of a file. Raises RefusedError if the checks fail."""
    model = _parsed(raw)
    _check(model)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with _refusing_errors():
        return onnxruntime.InferenceSession(
            _serialised(model), options, providers=["CPUExecutionProvider"]
        )


def run(
    session: Any, x: Any, size: int, output: str | None = None,
    input_range: tuple[float, float] | None = None, notes: list[str] | None = None,
) -> Any:  # fmt: skip
    """Return a session's answers to queries (n, *input_shape) as float32.

    size:        the number of elements of an answer, by which the output is found.
    output:      the name of the output to take instead.
    input_range: the range that 0 to 255 stands for, if the graph takes 8-bit pixels.
    notes:       sentences are added to it that say how the graph was asked.

    Raises RefusedError for a graph that takes other inputs, that has no such output or several, or
    that fails.
    """
    import numpy as np

    notes = [] if notes is None else notes
    name, batch, fixed, last = _input(session, x.shape)
    if last:
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
        notes.append("the graph was asked with the channels last, as its inputs' shape says")
    x = _typed(x, NUMPY_TYPES[session.get_inputs()[0].type], input_range, notes)
    names = [o.name for o in session.get_outputs()]
    if output is not None and output not in names:
        raise RefusedError(f"expected an output {output!r} of the ONNX model, got {_list(names)}")
    parts = []
    with _refusing_errors():
        for at in range(0, len(x), batch):
            part = x[at : at + batch]
            n = len(part)
            if fixed and n < batch:  # the graph takes batches of this size only
                part = np.concatenate([part, np.repeat(part[-1:], batch - n, 0)])
            if output is None:
                output = _output(names, session.run(None, {name: part}), size, len(part))
            answers = session.run([output], {name: part})[0]
            parts.append(_table(answers)[:n])
        found = np.concatenate(parts).astype(np.float32)
    if len(found) != len(x):
        raise RefusedError(f"expected {len(x)} answers of the ONNX model, got {len(found)}")
    if len(names) > 1:
        notes.append(f"the output {output!r} was taken of {_list(names)}")
    return found


def _list(names: list[str]) -> str:
    return ", ".join(name[:40] for name in names[:6])


def _output(names: list[str], answers: list[Any], size: int, n: int) -> str:
    """Return the name of the only output of floating-point numbers that has the right size.

    A graph with one output has no choice. Raises RefusedError if none fits, or several.
    """
    if len(names) == 1:
        return names[0]
    right, shapes = [], []
    for name, answer in zip(names, answers, strict=True):
        table = _table(answer)
        shape = tuple(getattr(table, "shape", ()))
        shapes.append(f"{name[:40]} {shape[1:]}")
        if shape[:1] == (n,) and math.prod(shape[1:]) == size and table.dtype.kind == "f":
            right.append(name)
    if len(right) > 1 and USUAL in right:
        return USUAL
    if len(right) != 1:
        found = f"{_list(right)} fit" if right else f"got {', '.join(shapes[:6])}"
        raise RefusedError(
            f"expected an ONNX model with one output of {size} numbers for each input, {found}; "
            "name the right one, as onnx@OUTPUT"
        )
    return right[0]


def _table(answer: Any) -> Any:
    """Return an output as an array. A list of mappings (ZipMap) has a column for each class."""
    import numpy as np

    if not (isinstance(answer, list) and answer and isinstance(answer[0], dict)):
        return answer
    classes = sorted(answer[0])
    if classes != list(range(len(classes))):
        raise RefusedError(
            "expected the classes 0, 1, 2, ... in the mappings that the ONNX model answers with, "
            f"got {_list([str(c) for c in classes])}; export it without ZipMap: zipmap=False"
        )
    return np.array([[row[c] for c in classes] for row in answer], np.float32)


def _typed(x: Any, dtype: str, input_range: tuple[float, float] | None, notes: list[str]) -> Any:
    """Return queries in the type that a graph takes. Pixels are rounded to 8 bits."""
    import numpy as np

    if dtype != "uint8":
        return x.astype(dtype)
    if input_range is None:
        raise RefusedError(
            "expected an ONNX model of float inputs, got one of uint8; put the conversion of "
            "pixels into the graph, so that it takes the scenario's inputs"
        )
    low, high = input_range
    notes.append(
        f"the graph takes 8-bit pixels: the input range {low:g} to {high:g} was sent as 0 to 255, "
        "rounded"
    )
    return np.clip(np.rint((x - low) / (high - low) * 255), 0, 255).astype(np.uint8)


@contextmanager
def _refusing_errors() -> Iterator[None]:
    """Turn any error of ONNX Runtime in the block into RefusedError, except MemoryError."""
    try:
        yield
    except (MemoryError, RefusedError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise RefusedError(f"expected an ONNX model that runs: {reason[:160]}") from None


def _input(session: Any, shape: tuple[int, ...]) -> tuple[str, int, bool, bool]:
    """Return the name of a graph's only input, its batch size, whether that size is fixed, and
    whether its channels come last.

    The channels are last if the shape of the input leaves no other reading.
    """
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type not in NUMPY_TYPES:
        found = ", ".join(f"{i.name}: {i.type}" for i in inputs)
        raise RefusedError(f"expected an ONNX model with one float32 input, got {found}")
    n, *rest = inputs[0].shape

    def fits(sizes: tuple[int, ...]) -> bool:
        return len(rest) == len(sizes) and all(
            not isinstance(size, int) or size == query_size
            for size, query_size in zip(rest, sizes, strict=True)
        )

    own = shape[1:]
    last = not fits(own) and len(own) == 3 and fits((*own[1:], own[0]))
    if not fits(own) and not last:
        raise RefusedError(f"expected an ONNX model of inputs {own}, got {tuple(rest)}")
    fixed = isinstance(n, int) and n > 0
    return inputs[0].name, n if fixed else 256, fixed, last


def _check(model: Any) -> None:
    """Raise RefusedError for operators or tensors outside the file, at any depth of the model."""
    for opset in [*model.opset_import, *(o for f in model.functions for o in f.opset_import)]:
        if opset.domain not in DOMAINS:
            raise RefusedError(
                f"expected operators of the ONNX standard, got some of {opset.domain!r}"
            )
    for part in _parts(model):
        kind = type(part).__name__
        if kind == "NodeProto" and part.domain not in DOMAINS:
            raise RefusedError(
                f"expected operators of the ONNX standard, got {part.op_type} of {part.domain!r}"
            )
        if kind == "TensorProto" and _is_external(part):
            raise RefusedError(
                f"expected an ONNX file that holds its tensors; {part.name[:60]!r} lies in another "
                f"file; {SAVE_WHOLE}"
            )


def _parts(message: Any) -> Iterator[Any]:
    """Yield a protobuf message and every message in it."""
    stack = [message]
    while stack:
        part = stack.pop()
        yield part
        for field, value in part.ListFields():
            if field.type == field.TYPE_MESSAGE:
                stack.extend([value] if hasattr(value, "ListFields") else value)
