"""Two ways to run members of one architecture, and which of them is the faster one here.

"stacked" is one vmapped pass over all members' weights, "looped" one member after another. Which
is faster depends on the network, the batch and the device: on CPUs a stack of small networks wins
several times over, and large convolutions lose by it. So both are timed, once per process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch

Way = Literal["stacked", "looped"]

TRIAL = 4
"""Members of a timed stack: enough to tell, and little memory when networks are large."""

MARGIN = 0.9
"""Looped is taken below this share of stacked's time: near a tie the choice must not depend on
who else uses the machine."""

REPEATS = 3
LONG = 1.0
"""Seconds of a first step after which a second is evidence enough."""

_measured: dict[Hashable, Way] = {}
_forced: list[Way] = []


@contextmanager
def using(way: Way) -> Iterator[None]:
    """Take one way for everything inside, whatever is faster."""
    _forced.append(way)
    try:
        yield
    finally:
        _forced.pop()


def forget() -> None:
    """Measure anew when it is next asked."""
    _measured.clear()


def faster(
    key: Hashable, trials: Mapping[Way, Callable[[], tuple[Callable[[], object], int]]],
    device: torch.device,
) -> Way:  # fmt: skip
    """The way with the shorter step per member; remembered under `key` for this process.

    A trial sets up one way and returns its step and how many members that moves on. Steps may
    draw from torch's global generators, which are put back afterwards. A way that runs out of
    memory has lost.
    """
    if _forced:
        return _forced[-1]
    if key not in _measured:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            seconds = {way: _seconds(trial, device) for way, trial in trials.items()}
        looped = seconds["looped"] < MARGIN * seconds["stacked"]
        _measured[key] = "looped" if looped else "stacked"
    return _measured[key]


def _seconds(trial: Callable[[], tuple[Callable[[], object], int]], device: torch.device) -> float:
    """The fastest of some steps, per member; the first one does not count, for it also loads
    libraries and sets things up."""
    try:
        step, members = trial()
        repeats = REPEATS if _timed(step, device) < LONG else 1
        took = min(_timed(step, device) for _ in range(repeats))
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return float("inf")
    return took / members


def _timed(step: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
