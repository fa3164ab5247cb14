"""The jobs of the separate process that `sandbox.run_in_sandbox` starts.

The process sets its limits before it reads anything: memory, seconds, and no file may be written.
It imports no plugin, runs no code from the bytes, and answers with bytes or with one sentence.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Mapping
from typing import Any

from .tensor_layout import TORCH_NAMES, RefusedError, match


def main() -> None:
    """Read an order (one line of JSON) and its bytes; write the answer to stdout."""
    order = json.loads(sys.stdin.buffer.readline())
    limit(order["memory"], order["seconds"])
    raw = sys.stdin.buffer.read(order["bytes"])
    rest = sys.stdin.buffer.read()
    try:
        answer = JOBS[order["job"]](order, raw, rest)
    except RefusedError as error:
        sys.stderr.write(f"refused: {error}\n")
        sys.exit(2)
    sys.stdout.buffer.write(answer)


def limit(memory: int, seconds: int) -> None:
    """Limit this process. On Windows this does nothing, so only the checks of sizes protect."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


SAVE_ANEW = (
    "where you trust the file, load it and save the weights alone: "
    "torch.save(model.state_dict(), 'weights.pth')"
)


def read_state_dict(order: Mapping[str, Any], raw: bytes, _: bytes) -> bytes:
    """Return the tensors of a `torch.save` file as safetensors, by the architecture's names.

    A mapping that holds the tensors together with other things is opened. The metadata of the
    answer has notes on that.

    order: the `layout` and `ties` of the architecture, and `what`, its name.

    Raises RefusedError unless the file has exactly the architecture's tensors once.
    """
    import torch
    from safetensors.torch import save

    try:
        loaded = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        imported = re.search(r"GLOBAL (\S+)", reason)
        raise RefusedError(
            "expected a state dict of tensors only, got one that imports "
            f"{imported[1][:60]}; {SAVE_ANEW}"
            if imported
            else f"expected a state dict of tensors only: {reason[:160]}"
        ) from None
    states = _state_dicts(loaded) if isinstance(loaded, dict) else {}
    if not states:
        raise RefusedError("expected a state dict, a mapping of names to tensors")
    expected = {name: (dtype, tuple(shape)) for name, (dtype, shape) in order["layout"].items()}
    fits, errors = [], []
    for key, state in states.items():
        try:
            fits.append((key, match(_layout(state), expected, order["what"], order["ties"])))
        except RefusedError as error:
            errors.append(error)
    if not fits:
        raise errors[0]
    if len(fits) > 1:
        keys = " and ".join(repr(key[:40]) for key, _ in fits[:3])
        raise RefusedError(
            f"expected one network's weights, found several, {keys}; save those that are meant "
            "alone"
        )
    ((key, found),) = fits
    notes = list(found.notes)
    others = [str(name)[:40] for name in loaded if name != key and name not in states[key]]
    if key or others:
        place = f"from {key[:40]!r} in the file" if key else "from the file"
        notes.insert(0, f"the weights were taken {place}, without its {', '.join(others[:4])}")
    # The tensors are copied only after their shapes were checked.
    tensors = {
        name: torch.zeros((), dtype=torch.int64) if n is None else states[key][n].detach().clone()
        for name, n in found.names.items()
    }
    return save({n: t.contiguous() for n, t in tensors.items()}, {"notes": json.dumps(notes)})


def _state_dicts(loaded: Mapping[Any, Any]) -> dict[str, dict[str, Any]]:
    """Return the mappings of names to tensors in a file by key; the file's own has an empty one.

    Raises RefusedError for quantised tensors.
    """
    import torch

    def tensors(mapping: Mapping[Any, Any]) -> dict[str, Any]:
        return {
            name: value for name, value in mapping.items()
            if isinstance(name, str) and isinstance(value, torch.Tensor)
        }  # fmt: skip

    inner = {str(key): value for key, value in loaded.items() if isinstance(value, dict)}
    for mapping in (loaded, *inner.values()):
        for value in mapping.values():
            for part in value if isinstance(value, tuple) else (value,):
                if isinstance(part, torch.Tensor) and part.is_quantized:
                    raise RefusedError(
                        f"expected floating-point weights, got quantised ones ({part.dtype}); save "
                        "the weights as they were before quantisation, or export the quantised "
                        "network to ONNX"
                    )
    states = {"": tensors(loaded), **{key: tensors(mapping) for key, mapping in inner.items()}}
    # The mapping with most tensors first: an error is about it.
    return {key: states[key] for key in sorted(states, key=lambda k: -len(states[k]))
            if states[key]}  # fmt: skip


def _layout(state: Mapping[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the layout of a state dict. Raises RefusedError for tensors that are not numbers."""
    import torch

    codes = {getattr(torch, name): code for code, name in TORCH_NAMES.items()}
    found = {}
    for name, tensor in state.items():
        if tensor.layout is not torch.strided:
            raise RefusedError(f"expected a dense tensor as {name[:60]}")
        if tensor.dtype not in codes:
            raise RefusedError(f"expected a tensor of numbers as {name[:60]}, got {tensor.dtype}")
        found[name] = codes[tensor.dtype], tuple(tensor.shape)
    return found


def answer_queries(order: Mapping[str, Any], raw: bytes, rest: bytes) -> bytes:
    """Return an ONNX model's answers to queries, after a line of JSON: notes on how."""
    from .onnx_session import answer

    notes: list[str] = []
    answers = answer(
        raw, rest, tuple(order["shape"]), tuple(order["output_shape"]), order.get("output"),
        order.get("input_range"), notes,
    )  # fmt: skip
    return json.dumps(notes).encode() + b"\n" + answers


def embed_tensors(order: Mapping[str, Any], raw: bytes, _: bytes) -> bytes:
    """Return an ONNX model with the tensors of other files in the order's `folder`."""
    from .onnx_session import embed

    return embed(raw, order["folder"])


JOBS = {
    "read_state_dict": read_state_dict, "answer_queries": answer_queries,
    "embed_tensors": embed_tensors,
}  # fmt: skip


if __name__ == "__main__":
    main()
