"""The process that computes: its versions and devices, which results name, and its settings."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from threadpoolctl import ThreadpoolController, threadpool_limits


@cache
def versions() -> dict[str, str]:
    """Of what a model's bits depend on most."""
    names = ("fpbench", "torch", "numpy", "scikit-learn", "safetensors")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), **found}


@cache
def everything_installed() -> dict[str, str]:
    """Every distribution of this environment and its version."""
    # Each look at a distribution's name or version would read its file anew.
    about = [dist.metadata for dist in importlib.metadata.distributions()]
    found = {each["Name"]: each["Version"] for each in about}
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


@cache
def device_name(device: str) -> str:
    """What a device is called in results: "cpu", or the GPU's name."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return device


KEPT = 256 * 2**20
"""Bytes of freed memory that the process keeps."""

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables that numerical libraries read when they are loaded."""


def tune() -> None:
    """Make this process fit for jobs: one thread, no denormals, freed memory kept.

    A job runs on one thread wherever it runs, so that its numbers depend neither on the number of
    cores nor on who else uses them; cores are used by workers. Adam's moments of a dead unit decay
    into denormals, which slow CPUs down many times over. And glibc gives freed memory back, only
    to ask for it again in the next step: a stack of small networks loses up to a quarter of its
    time to pages that come and go. What malloc is told stays for as long as the process lives.
    """
    for name in THREADS:
        os.environ[name] = "1"
    torch.set_num_threads(1)
    threadpool_limits(limits=1)
    torch.set_flush_denormal(True)
    if platform.libc_ver()[0] == "glibc":
        trim_threshold, mmap_threshold = -1, -3  # mallopt(3)
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 32 * 2**20)  # the largest that its page names
        libc.mallopt(trim_threshold, KEPT)


@contextmanager
def tuned() -> Iterator[None]:
    """Tune this process for a while; afterwards it computes as its owner had it."""
    threads, pools = torch.get_num_threads(), ThreadpoolController()
    before = {name: os.environ.get(name) for name in THREADS}
    # Restores the limits of the libraries that are loaded now.
    with pools.limit(limits=1):
        tune()
        try:
            yield
        finally:
            torch.set_flush_denormal(False)
    torch.set_num_threads(threads)
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
