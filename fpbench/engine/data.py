"""Check the data of a scenario once, before it is used."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache

import torch
from torch import Tensor

from ..api.errors import FpbenchError, PluginError, clipped
from ..api.scenario import INPUT_KINDS, POOLS, Scenario

ONE_TENSOR = (
    "an input is one tensor: put several side by side in one, such as token ids and their mask as "
    "(2, length), and take them apart in the network"
)


@cache
def require_data(scenario: Scenario) -> None:
    """Load a scenario's pools. Raises PluginError unless each pool keeps the contract of `load`.

    A pool has inputs of shape (n, *input_shape), finite, inside the input range and of the type
    that the input kind says, and n right answers that fit the task.
    """

    def expect(holds: bool, message: str) -> None:
        if not holds:
            raise PluginError(f"scenario {scenario}: {message}")

    try:
        pools = {pool: scenario.data(pool) for pool in POOLS}
    except FpbenchError:
        raise
    except (Exception, SystemExit) as error:
        kind, reason = type(error).__name__, "".join(f": {t}" for t in str(error).splitlines()[:1])
        raise PluginError(
            f"scenario {scenario}: expected its data, but load raised {kind}{reason}"
        ) from error
    low, high = scenario.input_range
    expect(math.isfinite(low) and math.isfinite(high) and low < high,
           f"expected an input_range of two finite numbers, got ({low}, {high})")  # fmt: skip
    slack = 1e-6 * (high - low)
    for name, pool in pools.items():
        expect(isinstance(pool, tuple) and len(pool) == 2,
               f"expected a Pool of inputs and truth in {name!r}, got {clipped(pool)}")  # fmt: skip
        inputs, truth = pool
        for part, t in (("inputs", inputs), ("truth", truth)):
            kind = type(t).__name__
            several = f"; {ONE_TENSOR}" if isinstance(t, Mapping | Sequence) else ""
            expect(isinstance(t, Tensor),
                   f"expected a tensor of {part} in {name!r}, got {kind}{several}")  # fmt: skip
            expect(t.numel() > 0, f"expected {part} in {name!r}, got none")
            smallest, largest = _extremes(t)
            expect(math.isfinite(smallest) and math.isfinite(largest),
                   f"expected finite {part} in {name!r}")  # fmt: skip
            if part == "inputs":
                expect(low - slack <= smallest and largest <= high + slack,
                       f"expected inputs in [{low}, {high}] in {name!r}, "
                       f"got [{smallest:.9g}, {largest:.9g}]")  # fmt: skip
                expect(t.dtype == scenario.input_dtype,
                       f"expected inputs of {scenario.input_dtype} in {name!r}, got {t.dtype}"
                       f"{_conversion(scenario, t)}")  # fmt: skip
        size, got = ", ".join(map(str, scenario.input_shape)), tuple(inputs.shape)
        expect(got[1:] == tuple(scenario.input_shape),
               f"expected inputs of shape (n, {size}) in {name!r}, got {got}")  # fmt: skip
        expect(len(truth) == len(inputs),
               f"expected {len(inputs)} truths in {name!r}, got {len(truth)}")  # fmt: skip
        if (fault := scenario.fault_of_truth(truth)) is not None:
            expect(False, f"{fault} in {name!r}")


def require_inputs(scenario: Scenario) -> None:
    """Raise PluginError unless a scenario says what one input is. Loads no data."""
    kind, shape = scenario.input_kind, scenario.input_shape
    if kind not in INPUT_KINDS:
        raise PluginError(
            f"scenario {scenario}: expected an input_kind of {', '.join(sorted(INPUT_KINDS))}, got "
            f"{clipped(kind)}"
        )
    if not isinstance(shape, Sequence) or not all(type(size) is int and size > 0 for size in shape):
        several = isinstance(shape, Mapping) or (
            isinstance(shape, Sequence) and any(isinstance(part, Sequence) for part in shape)
        )
        raise PluginError(
            f"scenario {scenario}: expected input_shape, the size of one tensor, such as (3, 32, "
            f"32), got {clipped(shape)}" + (f"; {ONE_TENSOR}" if several else "")
        )


def _conversion(scenario: Scenario, t: Tensor) -> str:
    """Return what to do about inputs of another type."""
    if scenario.input_kind != "categorical" and not t.is_floating_point():
        return (
            '; if they are ids, such as tokens, set input_kind = "categorical" and make them '
            "torch.int64, else convert them to torch.float32"
        )
    return f", and the scenario's inputs are {scenario.input_kind}; convert them"


def _extremes(t: Tensor) -> tuple[float, float]:
    """Return the smallest and the largest element; nan if any element is nan.

    Needs no memory, unlike a mask of the elements.
    """
    smallest, largest = torch.aminmax(t)
    return float(smallest), float(largest)
