"""The ways to run members of one architecture, and which of them is the fastest one here.

"fused" is one network that has all members' channels (see `fused`), "stacked" one vmapped pass over
all members' weights, "looped" one member after another, and "looped_last" the same with channels
last in memory. Which is fastest depends on the network, the batch and the device: on CPUs small
networks gain several times by being one, and large convolutions lose. So each is timed once, and
what was found is remembered: for this process, and beyond it inside `remembered`.
"""

from __future__ import annotations

import hashlib
import statistics
import time
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, Protocol, cast

import torch

Way = Literal["fused", "stacked", "looped", "looped_last"]

TOGETHER = ("fused", "stacked")
"""All members in one pass."""

MANY, FEW = 16, 4
ELEMENTS = 2**22
"""Members of a timed stack: many, for a stack of few is slower than one of many; few where the
many would read more numbers than this at once, for large networks take much memory."""

MARGIN = 0.9
"""Another way is taken below this share of the time of the plainer one: near a tie the choice must
not depend on who else uses the machine, and nothing is to be slower than it is without a choice."""

LEAST, MOST = 3, 100
SECONDS = 0.05
"""For how long a way's steps are timed, but how many at least and at most. Their median counts, for
the shortest of many would favour the way with short steps, of which there are more."""


class Memory(Protocol):
    """Remembers choices from one process to the next, by a name of 64 hex digits."""

    def way(self, name: str) -> Mapping[str, Any] | None:
        """What was kept under a name."""

    def save_way(self, name: str, facts: Mapping[str, Any]) -> None:
        """Keep {"what": for people, "device": its name, "way": a Way, "seconds": by way}."""


_chosen: dict[Hashable, Way] = {}
_measured: dict[str, dict[str, Any]] = {}
_forced: list[Way] = []
_memories: list[Memory] = []


@contextmanager
def using(way: Way) -> Iterator[None]:
    """Take one way for everything inside, whatever is faster."""
    _forced.append(way)
    try:
        yield
    finally:
        _forced.pop()


@contextmanager
def remembered(memory: Memory) -> Iterator[None]:
    """Choose inside as `memory` says, and tell it what is measured."""
    _memories.append(memory)
    _chosen.clear()
    try:
        yield
    finally:
        _memories.pop()
        _chosen.clear()


def enough(members: int, elements: int) -> int:
    """How many of some members to time in a stack, each of which reads so many numbers."""
    return min(members, MANY if MANY * elements <= ELEMENTS else FEW)


def forget() -> None:
    """Measure anew when it is next asked."""
    _chosen.clear()
    _measured.clear()


def faster(
    key: Hashable, trials: Mapping[Way, Callable[[], tuple[Callable[[], object], int]]],
    device: torch.device, what: str = "",
) -> Way:  # fmt: skip
    """The way with the shortest step per member; remembered under `key` and the device's name.

    A trial sets up one way and returns its step and how many members that moves on. Steps may
    draw from torch's global generators, which are put back afterwards. A way that runs out of
    memory has lost, and so has one that the network's code refuses: a `view` that needs channels
    first, under vmap a choice by numbers. If all have, the plainest is taken.

    key:  equal, and equally printed, in every process for the same work.
    what: the same in words, for people.
    """
    if _forced:
        return _forced[-1]
    if len(trials) == 1:
        return next(iter(trials))
    asked = (key, tuple(trials), str(device))
    if asked not in _chosen:  # at every step of a method's, for one
        _chosen[asked] = _choice(key, trials, device, what)
    return _chosen[asked]


def _choice(
    key: Hashable, trials: Mapping[Way, Callable[[], tuple[Callable[[], object], int]]],
    device: torch.device, what: str,
) -> Way:  # fmt: skip
    """What is remembered, or else measured."""
    memory = _memories[-1] if _memories else None
    named = "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)
    name = hashlib.sha256(repr((key, tuple(trials), named)).encode()).hexdigest()
    facts = memory.way(name) if memory else None
    if facts is None:
        if name not in _measured:
            devices = [device] if device.type == "cuda" else []
            # A way that is not taken must not warn of itself.
            with torch.random.fork_rng(devices=devices), warnings.catch_warnings(action="ignore"):
                seconds = {way: _seconds(trial, device) for way, trial in trials.items()}
            way = _shortest(seconds)
            finite = {way: took for way, took in seconds.items() if took < float("inf")}
            if not finite:  # what is wrong may be mended where no key tells
                return way
            _measured[name] = {"what": what, "device": named, "way": way, "seconds": finite}
        facts = _measured[name]
        if memory:
            memory.save_way(name, facts)
    return cast(Way, facts["way"])


def _shortest(seconds: Mapping[Way, float]) -> Way:
    best, *others = seconds
    for way in others:
        if seconds[way] < MARGIN * seconds[best]:
            best = way
    return best


def _seconds(trial: Callable[[], tuple[Callable[[], object], int]], device: torch.device) -> float:
    """The median of some steps, per member; the first one does not count, for it also loads
    libraries and sets things up."""
    try:
        step, members = trial()
        repeats = max(LEAST, min(MOST, round(SECONDS / max(1e-6, _timed(step, device)))))
        took = statistics.median(_timed(step, device) for _ in range(repeats))
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return float("inf")
    except Exception:  # what is wrong with all ways is told when the plainest is taken
        return float("inf")
    return took / members


def _timed(step: Callable[[], object], device: torch.device) -> float:
    # A thread's own seconds: those in which others had its core are nothing of the way's.
    clock = time.thread_time if device.type == "cpu" else time.perf_counter
    began = clock()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - began
