"""Fold a frozen network's batch normalisation into its weights, so that it answers faster."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from .fused import graph_of

LARGE = 2**24
"""Bytes of weights from which on folding gains little and copies much."""


def folded(model: nn.Module, x: Tensor) -> nn.Module:
    """Return a faster network with the same outputs, up to rounding, for attacks to ask.

    In eval mode batch normalisation is affine, so it is folded into the weights of the convolution
    or linear layer before it: w' = w gamma / sqrt(var + eps), b' = beta + (b - mean) gamma /
    sqrt(var + eps). On a CPU the weights of convolutions get channels last in memory. `model` is
    not changed. It is returned itself in training mode, where nothing can be gained, and where the
    folded copy answers differently.

    x: one or more inputs (n, *input_shape), on which both networks are compared.
    """
    tensors = list(model.parameters())
    norms = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
    normalised = any(isinstance(module, norms) for module in model.modules())
    last = any(p.ndim == 4 and p.device.type == "cpu" for p in tensors)
    large = sum(p.nbytes for p in tensors) >= LARGE
    if large or not (normalised or last) or any(module.training for module in model.modules()):
        return model
    try:
        graph = graph_of(model) if normalised else None
        found = copy.deepcopy(model) if graph is None else fuse(graph, no_trace=True)
        if last:
            found = found.to(memory_format=torch.channels_last)
        with torch.no_grad():
            # forward: when a graph is called and fails, torch.fx prints where.
            answers = found.forward(x[:2])
            torch.testing.assert_close(answers, model(x[:2]), rtol=1e-3, atol=1e-4)
    except Exception:  # other answers, a `view` that needs channels first, no copy possible
        return model
    return found
