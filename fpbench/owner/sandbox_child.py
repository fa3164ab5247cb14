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
    """Limit this process; on a system that cannot, only the checks of sizes protect."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def read_state_dict(order: Mapping[str, Any], raw: bytes, _: bytes) -> bytes:
    """Return a `torch.save` file's tensors as safetensors; they must be those of `layout`."""
    import torch
    from safetensors.torch import save

    try:
        loaded = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        asked = re.search(r"GLOBAL (\S+)", reason)
        raise RefusedError(
            f"expected a state dict of tensors and nothing else, got one that asks for {asked[1]}"
            if asked
            else f"expected a state dict of tensors and nothing else: {reason[:160]}"
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
    wanted = {name: (dtype, tuple(shape)) for name, (dtype, shape) in order["layout"].items()}
    require(found, wanted, order["what"])
    # Copied one by one only now: the shapes are known to be those of the architecture.
    return save({name: t.detach().clone().contiguous() for name, t in loaded.items()})


def answer_queries(order: Mapping[str, Any], raw: bytes, rest: bytes) -> bytes:
    """Return an ONNX model's answers to queries."""
    from .onnx_session import answer

    return answer(raw, rest, tuple(order["shape"]), tuple(order["wanted"]))


JOBS = {"read_state_dict": read_state_dict, "answer_queries": answer_queries}


if __name__ == "__main__":
    main()
