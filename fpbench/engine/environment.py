"""What a result depends on besides the suite: versions, devices."""

from __future__ import annotations

import ctypes
import importlib.metadata
import platform
from functools import cache

import torch


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


def tune() -> None:
    """Make this process fit for many small steps on a CPU.

    Adam's moments of a dead unit decay into denormals, which slow CPUs down many times over. And
    glibc gives freed memory back, only to ask for it again in the next step: a stack of small
    networks loses up to a quarter of its time to pages that come and go. What malloc is told stays
    for as long as the process lives.
    """
    torch.set_flush_denormal(True)
    if platform.libc_ver()[0] == "glibc":
        trim_threshold, mmap_threshold = -1, -3  # mallopt(3)
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 32 * 2**20)  # the largest that its page names
        libc.mallopt(trim_threshold, KEPT)
