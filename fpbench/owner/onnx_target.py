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
from .scores import LEAST, SLACK
from .tensor_layout import RefusedError


class OnnxNetwork(nn.Module):
    """An ONNX file that answers inputs (n, *input_shape).

    Its only tensor is the file's bytes, so a store keeps and compares them like weights.

    values: what its scores are: "probs", "sigmoid" or "logits"; "auto" to take each row that sums
            to one as probabilities. Logits come out of it in any case.
    """

    file: Tensor
    values: str = "auto"

    def __init__(self, length: int, n_outputs: int, output: str | None) -> None:
        super().__init__()
        self.n_outputs, self.output = n_outputs, output
        self.register_buffer("file", torch.empty(length, dtype=torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        scores = self.scores(x)
        if self.values != "auto":
            return as_logits(scores, self.values)
        if scores.ndim != 2 or scores.shape[1] == 1:
            return scores
        return torch.where(look_like_probabilities(scores), as_logits(scores, "probs"), scores)

    def scores(self, x: Tensor) -> Tensor:
        """Answer inputs with the scores in the file's own form."""
        answers: Tensor = _Answer.apply(x, self.file, self.n_outputs, self.output)
        return answers


def look_like_probabilities(scores: Tensor) -> Tensor:
    """Return (n, 1): which rows of scores (n, classes) are nonnegative and sum to one."""
    sums = scores.sum(-1, keepdim=True)
    return ((sums - 1).abs() <= SLACK) & (scores >= 0).all(-1, keepdim=True)


class _Answer(torch.autograd.Function):
    """The computation of ONNX Runtime; asking for its gradient raises TrialError."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, file: Tensor, n_outputs: int, output: str | None) -> Tensor:
        session = _session(file.cpu().numpy().tobytes())
        queries = x.detach().cpu().numpy().astype(np.float32)
        return torch.from_numpy(run(session, queries, n_outputs, output)).to(x.device)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise TrialError(
            "expected a method that only queries the target, got one that needs its gradients; an "
            "ONNX file has none"
        )


@functools.lru_cache(maxsize=4)
def _session(raw: bytes) -> Any:
    return open_session(raw)


def as_logits(scores: Tensor, values: str) -> Tensor:
    """Return scores as logits, row by row. It is differentiable.

    values: "probs" (or percent, because the softmax of a row normalises it), "sigmoid" or "logits".
    """
    if values == "probs":
        return scores.clamp_min(LEAST).log()
    if values == "sigmoid":
        return scores.clamp(LEAST, 1 - torch.finfo(scores.dtype).eps).logit()
    return scores


def load_onnx(model: nn.Module, raw: bytes) -> nn.Module:
    """Put a file's bytes into an `OnnxNetwork`. Raises RefusedError if they are not ONNX."""
    if (kind := kind_of(raw)) != "onnx":
        raise RefusedError(f"expected an ONNX file, got {kind}")
    model.file = torch.from_numpy(np.frombuffer(raw, np.uint8).copy())
    return model.eval()


def _builder(length: str, n_outputs: int) -> Builder:
    length, _, output = length.partition("@")
    return partial(OnnxNetwork, int(length), n_outputs, output or None)


SCHEMES["onnx"] = _builder
