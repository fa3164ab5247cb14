"""A scenario's network with the weights of a file."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..api.scenario import Scenario

SMALL = 2**20
"""Bytes of weights up to which it is faster to read a file than to map it into memory, and to fill
a network with random numbers than to have torch's meta device find out that it need not be."""


def network(
    scenario: Scenario, arch: str, state: Mapping[str, Tensor], device: torch.device
) -> nn.Module | None:
    """A network with these weights, in eval mode and frozen; None if they are another network's.

    Draws nothing from torch's generator.
    """
    large = sum(t.nbytes for t in state.values()) > SMALL
    model = _made(scenario, arch, filled=not large)
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError:  # other names, or other shapes
        return None
    if large and _hollow(model):
        model = _made(scenario, arch, filled=True)
        model.load_state_dict(state, assign=True)
    return model.to(device).eval().requires_grad_(False)


def _made(scenario: Scenario, arch: str, *, filled: bool) -> nn.Module:
    with torch.random.fork_rng(devices=[]) if filled else torch.device("meta"):
        return scenario.architecture(arch)()


def _hollow(model: nn.Module) -> bool:
    """It has tensors that are nobody's weights, which no file brings."""
    return any(
        isinstance(t, Tensor) and t.is_meta
        for module in model.modules()
        for t in (*module.buffers(recurse=False), *vars(module).values())
    )
