"""The process that computes: the versions and devices that results name, and its settings."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from threadpoolctl import threadpool_limits


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a model's weights depend on most."""
    names = ("torch", "numpy", "scikit-learn", "safetensors")
    packages = {name: importlib.metadata.version(name) for name in names}
    own = importlib.metadata.version("fpbench-core")
    return {"python": platform.python_version(), "fpbench": own, **packages}


@cache
def installed_versions() -> dict[str, str]:
    """Return the version of every distribution in this environment."""
    # Each access to a distribution's name or version would read its file again.
    metadata = [dist.metadata for dist in importlib.metadata.distributions()]
    packages = {each["Name"]: each["Version"] for each in metadata}
    packages["fpbench"] = packages.pop("fpbench-core")  # the name that results have for it
    return dict(sorted(packages.items(), key=lambda item: item[0].lower()))


@cache
def device_name(device: str) -> str:
    """Return the name of a device in results: "cpu", or the name of the GPU."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return device


KEPT_BYTES = 256 * 2**20
"""Bytes of freed memory that the process keeps."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables that numerical libraries read when they are loaded."""


def tune() -> threadpool_limits:
    """Prepare this process for jobs: one thread, no denormals, freed memory kept.

    Every job runs on one thread. Its numbers then depend neither on the number of cores nor on the
    other work on them; workers use the cores. Denormals are off because Adam's moments of a dead
    unit decay into denormals, which slow CPUs down many times over. Freed memory is kept because
    glibc would return it to the system and request it again in the next step, which takes up to a
    quarter of the time of a stack of small networks. The settings of malloc stay until the process
    ends.

    Returns the limits of the numerical libraries' threads, which `tuned` lifts again.
    """
    for name in THREAD_VARIABLES:
        os.environ[name] = "1"
    torch.set_num_threads(1)
    limits = threadpool_limits(limits=1)
    torch.set_flush_denormal(True)
    if platform.libc_ver()[0] == "glibc":
        trim_threshold, mmap_threshold = -1, -3  # mallopt(3)
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 32 * 2**20)  # the largest value that mallopt(3) allows
        libc.mallopt(trim_threshold, KEPT_BYTES)
    return limits


@contextmanager
def tuned() -> Iterator[None]:
    """Tune this process inside the block, and restore its settings at the end."""
    threads = torch.get_num_threads()
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    limits = tune()
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        limits.restore_original_limits()
        torch.set_num_threads(threads)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
