"""Recognise errors of a machine that has run out of disk, memory or file handles."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from ..api.errors import TrialError

NO_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG})
NO_HANDLES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOLCK})

NO_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory",
    "CUDA out of memory", "CUDA error: out of memory", "ALLOC_FAILED", "std::bad_alloc",
)  # fmt: skip
"""Parts of the messages of torch's RuntimeErrors when an allocator has no memory left."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the processor or a GPU has no memory left.

    Errors of torch are recognised by their messages and names, because torch may not be loaded.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)


def shortage(error: BaseException) -> str | None:
    """Return in words what the machine has run out of; None if the error has another reason."""
    if is_out_of_memory(error):
        first_line = " ".join(str(error).split("\n")[0].split())
        return f"out of memory ({first_line[:200]})" if first_line else "out of memory"
    if isinstance(error, OSError) and error.errno in NO_DISK | NO_HANDLES:
        return " ".join(str(error).split())
    return None


@contextmanager
def memory_errors_fail_trial(label: str) -> Iterator[None]:
    """Turn errors of too little memory into a TrialError, so that only this trial fails.

    For calls of a method, because a method decides how much memory it requests.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrialError(f"{label} ran {shortage(error)}; the other trials go on") from None
