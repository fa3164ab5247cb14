"""What a process is told before it computes: what torch and the C library leave off by default."""

from __future__ import annotations

import ctypes
import platform

import torch

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
