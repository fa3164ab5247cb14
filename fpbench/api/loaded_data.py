"""A scenario's pools in memory, so that no plugin's change of them outlives its work.

The numbers lie in a file in memory. Plugins get a private mapping of it: what they write stays in
their mapping, whichever way they write (in place, through `.numpy()` or `.data`). A second mapping
keeps the original, and as long as nobody writes, both are the same memory.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Mapping
from typing import IO, Any

import torch
from torch import Tensor

ALIGNMENT = 64
"""Bytes to which each tensor's place in the file is aligned."""


class LoadedData:
    """The pools of a scenario.

    pools: what plugins get.
    """

    def __init__(self, pools: Mapping[str, Any]) -> None:
        """Move the tensors of pools into a file. Anything else stays as it is, to be refused."""
        self._file = _memory_file()
        self._places: dict[tuple[str, int], tuple[int, torch.dtype, torch.Size]] = {}
        self._kinds: dict[str, Any] = {}
        todo = dict(pools)
        del pools
        for name in list(todo):
            pool = todo.pop(name)  # a pool is freed as soon as it is in the file
            parts = list(pool) if isinstance(pool, tuple) else []
            if len(parts) == 2 and all(map(_can_be_mapped, parts)):
                for i, tensor in enumerate(parts):
                    self._places[name, i] = self._write(tensor)
                pool = type(pool)
            self._kinds[name] = pool
        self._size = self._file.tell()
        self._file.flush()
        self._original = self._mapped()
        self.pools = self._mapped()

    def _write(self, tensor: Tensor) -> tuple[int, torch.dtype, torch.Size]:
        begin = -(-self._file.tell() // ALIGNMENT) * ALIGNMENT
        self._file.seek(begin)
        flat = tensor.detach().contiguous().flatten().view(torch.uint8)
        self._file.write(flat.numpy().data)
        return begin, tensor.dtype, tensor.shape

    def _mapped(self) -> dict[str, Any]:
        """Return the pools in a new private mapping of the file."""
        if not self._places:
            return dict(self._kinds)
        memory = mmap.mmap(self._file.fileno(), self._size, access=mmap.ACCESS_COPY)
        found = {}
        for name, pool in self._kinds.items():
            if (name, 0) in self._places:
                pool = pool(*(_tensor_at(memory, *self._places[name, i]) for i in (0, 1)))
            found[name] = pool
        return found

    def restore(self) -> bool:
        """Undo changes of `pools`, and return whether there were any."""
        if all(_same(self.pools.get(name), pool) for name, pool in self._original.items()):
            return False
        self.pools = self._mapped()
        return True


def _tensor_at(memory: mmap.mmap, begin: int, dtype: torch.dtype, shape: torch.Size) -> Tensor:
    flat = torch.frombuffer(memory, dtype=dtype, count=shape.numel(), offset=begin)
    return flat.view(shape)


def _same(pool: Any, original: Any) -> bool:
    if not isinstance(original, tuple):
        return pool is original
    return all(
        not t.requires_grad and torch.equal(t, o) for t, o in zip(pool, original, strict=True)
    )


def _can_be_mapped(part: object) -> bool:
    return (
        type(part) is Tensor and part.numel() > 0 and part.device.type == "cpu"
        and part.layout is torch.strided
    )  # fmt: skip


def _memory_file() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("fpbench-data"), "w+b")
    return tempfile.TemporaryFile()
