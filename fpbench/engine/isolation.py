"""Undo the changes that a plugin makes to the global state of the process."""

from __future__ import annotations

import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch

State = tuple[Callable[[], Any], Callable[[Any], object]]
"""A function that reads a part of the global state, and one that restores it."""


def _flags(module: Any, *names: str) -> list[State]:
    return [(lambda n=n: getattr(module, n), lambda v, n=n: setattr(module, n, v)) for n in names]  # type: ignore[misc]


def _stream(name: str) -> State:
    def restore(old: Any) -> None:
        # An open stream stays: a progress bar puts its own stream there and removes it later.
        if getattr(getattr(sys, name), "closed", True):
            setattr(sys, name, old)

    return lambda: getattr(sys, name), restore


def _deterministic() -> tuple[bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )


def _set_environment(old: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(old)


STATES: tuple[State, ...] = (
    (random.getstate, random.setstate),
    (np.random.get_state, np.random.set_state),
    (torch.get_default_dtype, torch.set_default_dtype),
    # None stands for the CPU. An explicit default device makes every call of torch a little slower.
    (lambda: str(torch.get_default_device()),
     lambda old: torch.set_default_device(None if old == "cpu" else old)),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (_deterministic, lambda old: torch.use_deterministic_algorithms(old[0], warn_only=old[1])),
    *_flags(torch.backends.cudnn, "enabled", "benchmark", "deterministic"),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (lambda: dict(os.environ), _set_environment),
    (os.getcwd, os.chdir),
    _stream("stdout"),
    _stream("stderr"),
)  # fmt: skip
"""The parts of the global state that are restored if they have changed."""


@contextmanager
def isolated() -> Iterator[None]:
    """Undo, at the end of the block, the changes that it made to the global state.

    Undone are changes of random states (torch's too), torch's defaults, flags and threads, the
    environment, the working directory, the warning filters and the standard streams. Not undone:
    patched modules, changed files, started threads.
    """
    before = [read() for read, _ in STATES]
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with warnings.catch_warnings(), torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            for (read, restore), old in zip(STATES, before, strict=True):
                # A state that cannot be restored, such as a folder that was removed, must not keep
                # the others from being restored.
                with suppress(Exception):
                    if not _same(read(), old):
                        restore(old)


def _same(new: Any, old: Any) -> bool:
    if isinstance(old, tuple):  # numpy's random state contains an array
        return len(new) == len(old) and all(map(np.array_equal, new, old))
    return bool(new == old)
