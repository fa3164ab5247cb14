"""When the machine has no more to give: no disk, no memory, no file handles."""

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
"""What torch says in a plain RuntimeError when an allocator has nothing left."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that a processor or a GPU has no memory left.

    torch is recognised by its words and names, for it may not be loaded.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)


def shortage(error: BaseException) -> str | None:
    """What a machine has run out of, in words; None if the error is another."""
    if out_of_memory(error):
        told = " ".join(str(error).split("\n")[0].split())
        return f"out of memory ({told[:200]})" if told else "out of memory"
    if isinstance(error, OSError) and error.errno in NO_DISK | NO_HANDLES:
        return " ".join(str(error).split())
    return None


@contextmanager
def own_memory(label: str) -> Iterator[None]:
    """How much a method asks for is its own doing: where it is too much, its trial fails alone."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise TrialError(f"{label} ran {shortage(error)}; the other trials go on") from None
