"""A frozen network that computes the same in less time."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.fx.experimental.optimization import fuse
from torch.nn.modules.batchnorm import _BatchNorm

from .fused import graph_of


def folded(model: nn.Module) -> nn.Module:
    """What an attack may ask at each of its steps instead: same outputs, but for rounding.

    In eval mode batch normalisation is affine, so it is folded into the weights of the convolution
    or linear layer before it: w' = w gamma / sqrt(var + eps), b' = beta + (b - mean) gamma /
    sqrt(var + eps). On a CPU the weights of convolutions lie channels last in memory. `model` stays
    as it is; it is returned itself where there is nothing to gain, and in training mode.
    """
    if any(module.training for module in model.modules()):
        return model
    found = model
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        found = _folded(model)
    if any(p.ndim == 4 and p.device.type == "cpu" for p in found.parameters()):
        found = copy.deepcopy(found).to(memory_format=torch.channels_last)
    return found


def _folded(model: nn.Module) -> nn.Module:
    """Without normalisation; the model itself if torch.fx can't read it."""
    graph = graph_of(model)
    if graph is None:
        return model
    used = [
        node.target if node.op == "call_module" else node.target.rpartition(".")[0]
        for node in graph.graph.nodes
        if node.op in ("call_module", "get_attr")
    ]
    layers = [name for name in used if [*graph.get_submodule(name).parameters(recurse=False)]]
    if len(set(layers)) < len(layers):
        return model  # a layer in two places would have the normalisations of both folded into it
    return fuse(graph, no_trace=True)
