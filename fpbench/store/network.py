"""Make a scenario's network with the weights of a file."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..api.scenario import Scenario

SMALL_WEIGHTS = 2**20
"""Bytes. For weights up to this size, reading the file is faster than mapping it into memory, and
initialising the network is faster than making it on torch's meta device."""


def make_network(
    scenario: Scenario, arch: str, state: Mapping[str, Tensor], device: torch.device
) -> nn.Module | None:
    """Return a network with these weights, in eval mode and frozen; None if they do not fit.

    Draws nothing from torch's generator.
    """
    large = sum(t.nbytes for t in state.values()) > SMALL_WEIGHTS
    model = _make_uninitialised(scenario, arch) if large else _make_initialised(scenario, arch)
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError:  # other names, or other shapes
        return None
    if large and _has_meta_tensors(model):
        model = _make_initialised(scenario, arch)
        model.load_state_dict(state, assign=True)
    return model.to(device).eval().requires_grad_(False)


def _make_initialised(scenario: Scenario, arch: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        return scenario.architecture(arch)()


def _make_uninitialised(scenario: Scenario, arch: str) -> nn.Module:
    with torch.device("meta"):
        return scenario.architecture(arch)()


def _has_meta_tensors(model: nn.Module) -> bool:
    """Return whether a model has tensors without values, which no file of weights contains."""
    return any(
        isinstance(t, Tensor) and t.is_meta
        for module in model.modules()
        for t in (*module.buffers(recurse=False), *vars(module).values())
    )
