"""Check that a scenario's inputs fit into memory before they are loaded."""

from __future__ import annotations

import math

from fpbench import ResourceError, Scenario


def require_memory(scenario: Scenario, advice: str) -> None:
    """Raise ResourceError unless all pools fit into the free memory, as numbers of 4 bytes.

    advice: what else the user can do than end other programs.
    """
    import psutil

    needed = 4 * sum(scenario.pool_sizes.values()) * math.prod(scenario.input_shape)
    free = psutil.virtual_memory().available
    if needed > free:
        raise ResourceError(
            f"expected {needed / 1e9:.1f} GB of free memory for the inputs of {scenario}, found "
            f"{free / 1e9:.1f} GB; end other programs, or {advice}"
        )
