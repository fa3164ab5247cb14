"""Sessions of ONNX Runtime. A suspect's file runs in the sandbox, and onnx is imported only there.

A graph may loop without end or ask for any amount of memory: the sandbox's limits stop it. A graph
that needs anything outside its file is refused before it runs: tensors in other files, operators
of other libraries.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .tensor_layout import RefusedError

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
"""Operator sets of the standard. Others are code of third parties."""


def answer(
    raw: bytes, queries: bytes, shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> bytes:
    """Return a file's answers to queries: float32 of shape (n, *output_shape).

    queries: float32 of shape `shape`, which is (n, *input_shape).

    Raises RefusedError for answers of another shape, and as `open_session` and `run`.
    """
    import numpy as np

    found = run(open_session(raw), np.frombuffer(queries, np.float32).reshape(shape))
    if found.shape[1:] != output_shape:
        raise RefusedError(
            f"expected answers of {output_shape} from the ONNX model, got {found.shape[1:]}"
        )
    values: bytes = found.tobytes()
    return values


def open_session(raw: bytes) -> Any:
    """Return an ONNX Runtime session of a file. Raises RefusedError if the checks fail."""
    try:
        import onnx
        import onnxruntime
    except ImportError:
        raise RefusedError(
            "an ONNX file needs onnx and onnxruntime: pip install 'fpbench-core[onnx]'"
        ) from None
    try:
        model = onnx.load_model_from_string(raw)
    except MemoryError:
        raise
    except Exception as error:
        raise RefusedError(f"expected an ONNX model: {str(error)[:160]}") from None
    _check(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with _refusing_errors():
        return onnxruntime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])


def run(session: Any, x: Any) -> Any:
    """Return a session's answers to queries (n, *input_shape): its first output, as float32.

    Raises RefusedError for a graph that takes other inputs, or that fails.
    """
    import numpy as np

    name, batch, fixed = _input(session, x.shape)
    parts = []
    with _refusing_errors():
        for at in range(0, len(x), batch):
            part = x[at : at + batch]
            if fixed:  # the graph takes batches of this size only
                full = np.concatenate([part, np.repeat(part[-1:], batch - len(part), 0)])
                parts.append(session.run(None, {name: full})[0][: len(part)])
            else:
                parts.append(session.run(None, {name: part})[0])
        answers = np.concatenate(parts).astype(np.float32)
    if len(answers) != len(x):
        raise RefusedError(f"expected {len(x)} answers of the ONNX model, got {len(answers)}")
    return answers


@contextmanager
def _refusing_errors() -> Iterator[None]:
    """Turn any error of ONNX Runtime in the block into RefusedError, except MemoryError."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise RefusedError(f"expected an ONNX model that runs: {reason[:160]}") from None


def _input(session: Any, shape: tuple[int, ...]) -> tuple[str, int, bool]:
    """Return the name of a graph's only input, its batch size, and whether that size is fixed."""
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type != "tensor(float)":
        found = ", ".join(f"{i.name}: {i.type}" for i in inputs)
        raise RefusedError(f"expected an ONNX model with one float32 input, got {found}")
    n, *rest = inputs[0].shape
    fits = len(rest) == len(shape) - 1 and all(
        not isinstance(size, int) or size == query_size
        for size, query_size in zip(rest, shape[1:], strict=False)
    )
    if not fits:
        raise RefusedError(f"expected an ONNX model of inputs {shape[1:]}, got {tuple(rest)}")
    fixed = isinstance(n, int) and n > 0
    return inputs[0].name, n if fixed else 256, fixed


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
        if kind == "TensorProto" and (part.external_data or part.data_location):
            raise RefusedError(
                f"expected an ONNX file that holds its tensors; {part.name!r} lies in another file"
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
