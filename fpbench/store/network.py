"""Make a scenario's network with the weights of a file."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..api.networks import with_state
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
    try:
        model = with_state(scenario.architecture(arch), state, large=large)
    except RuntimeError:  # other names, or other shapes
        return None
    return model.to(device).eval().requires_grad_(False)
