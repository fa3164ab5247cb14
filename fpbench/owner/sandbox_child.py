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

from .tensor_layout import TORCH_NAMES, RefusedError, require


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


def read_state_dict(order: Mapping[str, Any], raw: bytes, _: bytes) -> bytes:
    """Return the tensors of a `torch.save` file as safetensors.

    Raises RefusedError unless they are exactly those of the order's `layout`.
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
            f"expected a state dict of tensors only, got one that imports {imported[1]}"
            if imported
            else f"expected a state dict of tensors only: {reason[:160]}"
        ) from None
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(isinstance(name, str) for name in loaded):
        raise RefusedError("expected a state dict, a mapping of names to tensors")
    codes = {getattr(torch, name): code for code, name in TORCH_NAMES.items()}
    found = {}
    for name, tensor in loaded.items():
        if not isinstance(tensor, torch.Tensor) or tensor.layout is not torch.strided:
            raise RefusedError(f"expected a dense tensor as {name[:60]}")
        if tensor.dtype not in codes:
            raise RefusedError(f"expected a tensor of numbers as {name[:60]}, got {tensor.dtype}")
        found[name] = codes[tensor.dtype], tuple(tensor.shape)
    expected = {name: (dtype, tuple(shape)) for name, (dtype, shape) in order["layout"].items()}
    require(found, expected, order["what"])
    # The tensors are copied only after their shapes were checked.
    return save({name: t.detach().clone().contiguous() for name, t in loaded.items()})


def answer_queries(order: Mapping[str, Any], raw: bytes, rest: bytes) -> bytes:
    """Return an ONNX model's answers to queries."""
    from .onnx_session import answer

    return answer(raw, rest, tuple(order["shape"]), tuple(order["output_shape"]))


JOBS = {"read_state_dict": read_state_dict, "answer_queries": answer_queries}


if __name__ == "__main__":
    main()
