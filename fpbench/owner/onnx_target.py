"""The owner's ONNX file as a network that answers queries but has no weights and no gradients."""

from __future__ import annotations

import functools
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..api.architectures import SCHEMES, Builder
from ..api.errors import TrialError
from .model_file import kind_of
from .onnx_session import open_session, run
from .tensor_layout import RefusedError


class OnnxNetwork(nn.Module):
    """An ONNX file that answers inputs (n, *input_shape).

    Its only tensor is the file's bytes, so a store keeps and compares them like weights.
    """

    file: Tensor

    def __init__(self, length: int, n_outputs: int, output: str | None) -> None:
        super().__init__()
        self.n_outputs, self.output = n_outputs, output
        self.register_buffer("file", torch.empty(length, dtype=torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        answers: Tensor = _Answer.apply(x, self.file, self.n_outputs, self.output)
        return answers


class _Answer(torch.autograd.Function):
    """The computation of ONNX Runtime; asking for its gradient raises TrialError."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, file: Tensor, n_outputs: int, output: str | None) -> Tensor:
        session = _session(file.cpu().numpy().tobytes())
        queries = x.detach().cpu().numpy().astype(np.float32)
        scores = torch.from_numpy(run(session, queries, n_outputs, output))
        return as_logits(scores).to(x.device)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise TrialError(
            "expected a method that only queries the target, got one that needs its gradients; an "
            "ONNX file has none"
        )


@functools.lru_cache(maxsize=4)
def _session(raw: bytes) -> Any:
    return open_session(raw)


def load_onnx(model: nn.Module, raw: bytes) -> nn.Module:
    """Put a file's bytes into an `OnnxNetwork`. Raises RefusedError if they are not ONNX."""
    if (kind := kind_of(raw)) != "onnx":
        raise RefusedError(f"expected an ONNX file, got {kind}")
    model.file = torch.from_numpy(np.frombuffer(raw, np.uint8).copy())
    return model.eval()


ROUNDED = 0.1
"""How far from one the sum of rounded probabilities may be."""


def as_logits(scores: Tensor) -> Tensor:
    """Return the logarithms of probabilities, and other scores unchanged.

    Scores (n, n_classes) are probabilities if none is negative and every row sums to one, give or
    take what rounding does. Rows are normalised.
    """
    if scores.ndim == 2 and scores.shape[1] > 1 and bool((scores >= 0).all()):
        sums = scores.sum(-1, keepdim=True)
        if bool(((sums - 1).abs() <= ROUNDED).all()):
            return (scores / sums).clamp_min(1e-12).log()
    return scores


def _builder(length: str, n_outputs: int) -> Builder:
    length, _, output = length.partition("@")
    return partial(OnnxNetwork, int(length), n_outputs, output or None)


SCHEMES["onnx"] = _builder
