"""Files that are whole or not there, and JSON that knows when it was changed."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ..api.errors import InputError


class NewerError(InputError):
    """A later fpbench wrote this: it is whole, and not for us to use or to set aside."""


def sha256(data: bytes) -> str:
    """A content's name."""
    return hashlib.sha256(data).hexdigest()


_read: dict[tuple[Path, int, int, int], str] = {}
"""By path, inode, size and time of last change: the sha256 of files that this process has read."""


def sha256_of(path: Path, *, again: bool = True) -> str | None:
    """A file's content's name, read in parts; None if there is nothing to read.

    again: False if a file need not be read that this process has read, and nobody changed since.
    """
    try:
        with path.open("rb") as file:
            stat = os.fstat(file.fileno())
            key = path, stat.st_ino, stat.st_size, stat.st_ctime_ns
            if again or key not in _read:
                _read[key] = hashlib.file_digest(file, "sha256").hexdigest()
            return _read[key]
    except PermissionError:
        raise
    except OSError:
        return None


def read(path: Path) -> bytes | None:
    """A file's content; None if there is nothing to read. Raises PermissionError: what others
    keep from us is not damaged."""
    try:
        return path.read_bytes()
    except PermissionError:
        raise
    except OSError:
        return None


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` once its content is on disk, and never before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".tmp-{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all, even after a power cut."""
    with replacing(path) as file:
        file.write(data)


def sealed(data: Mapping[str, Any]) -> bytes:
    """JSON that carries the checksum of its own content."""
    return json.dumps({**data, "seal": _seal(data)}, indent=1).encode()


def unsealed(raw: bytes) -> dict[str, Any] | None:
    """What `sealed` wrote, or None if it is not that any more."""
    try:
        data: dict[str, Any] = json.loads(raw)
        return data if data.pop("seal") == _seal(data) else None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None


def _seal(data: Mapping[str, Any]) -> str:
    return sha256(json.dumps(data, sort_keys=True).encode())


def opened(raw: bytes, schema: str, place: Path) -> dict[str, Any] | None:
    """What was sealed under a schema, or None if it is damaged.

    Every schema keeps the seal: so what a later one wrote is told from damage. Raises NewerError.
    """
    data = unsealed(raw)
    if data is None:
        return None
    found = data.pop("schema", schema)
    if found != schema:
        refuse_newer(found, schema, place)
        return None
    return data


def refuse_newer(found: object, schema: str, place: Path) -> None:
    """Raise NewerError if `found` is a later version of a schema, such as fpbench.model/2."""
    family, _, version = schema.rpartition("/")
    name, _, number = str(found).rpartition("/")
    if name == family and number.isdecimal() and len(number) < 9 and int(number) > int(version):
        raise NewerError(
            f"expected {schema} in {place}, found {found}, which a later fpbench wrote; "
            "update fpbench, or give --store another folder"
        )
