"""What a plugin does to the whole process ends with the plugin's turn."""

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

Setting = tuple[Callable[[], Any], Callable[[Any], object]]


def _flags(of: Any, *names: str) -> list[Setting]:
    return [(lambda n=n: getattr(of, n), lambda v, n=n: setattr(of, n, v)) for n in names]  # type: ignore[misc]


def _stream(name: str) -> Setting:
    def put_back(old: Any) -> None:
        # One that works is left: progress bars put one of their own there, and take it away.
        if getattr(getattr(sys, name), "closed", True):
            setattr(sys, name, old)

    return lambda: getattr(sys, name), put_back


def _deterministic() -> tuple[bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )


def _set_environment(before: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(before)


SETTINGS: tuple[Setting, ...] = (
    (random.getstate, random.setstate),
    (np.random.get_state, np.random.set_state),
    (torch.get_default_dtype, torch.set_default_dtype),
    # The CPU is what torch takes when it is told nothing; to be told costs each call a little.
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
"""How each is read before a plugin's turn, and put back after it where it has become another."""


@contextmanager
def contained() -> Iterator[None]:
    """Whatever the block does to global state is undone: random states (torch's too), torch's
    defaults, flags and threads, the environment, the working directory, the filters of warnings,
    the standard streams. Not undone: patched modules, changed files, threads that were started.
    """
    before = [read() for read, _ in SETTINGS]
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with warnings.catch_warnings(), torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            for (read, put_back), old in zip(SETTINGS, before, strict=True):
                # One that cannot be put back, a folder that is gone, must not keep the others.
                with suppress(Exception):
                    if not _same(read(), old):
                        put_back(old)


def _same(new: Any, old: Any) -> bool:
    if isinstance(old, tuple):  # numpy's state holds an array
        return len(new) == len(old) and all(map(np.array_equal, new, old))
    return bool(new == old)
