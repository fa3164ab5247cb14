"""What a process of its own does with bytes that nobody vouches for. Started by `cell.inside`.

Its limits are set before anything is read: memory, seconds, and no file may be written. It imports
no plugin, runs no code from the bytes and answers with bytes, or with one sentence.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Mapping
from typing import Any

from .tensor_layout import SIZES, RefusedError, require


def main() -> None:
    """Read an order (one line of JSON) and its bytes; write the answer to stdout."""
    order = json.loads(sys.stdin.buffer.readline())
    limit(order["memory"], order["seconds"])
    raw = sys.stdin.buffer.read(order["bytes"])
    rest = sys.stdin.buffer.read()
    try:
        answer = {"unpickled": unpickled, "answered": answered}[order["job"]](order, raw, rest)
    except RefusedError as error:
        sys.stderr.write(f"refused: {error}\n")
        sys.exit(2)
    sys.stdout.buffer.write(answer)


def limit(memory: int, seconds: int) -> None:
    """Bound what this process may take; where the system cannot, the checks of sizes remain."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def unpickled(order: Mapping[str, Any], raw: bytes, _: bytes) -> bytes:
    """A `torch.save` file's tensors as safetensors, if they are those of `order["layout"]`."""
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


_TORCH = "bool uint8 int8 int16 int32 int64 float16 bfloat16 float32 float64"

TORCH_NAMES = dict(zip(SIZES, _TORCH.split(), strict=True))
"""By safetensors' name of a type, torch's."""


def answered(order: Mapping[str, Any], raw: bytes, rest: bytes) -> bytes:
    """An ONNX model's answers to queries."""
    from .onnx_session import answers

    return answers(raw, rest, tuple(order["shape"]), tuple(order["wanted"]))


if __name__ == "__main__":
    main()
