"""Write files that are never there in part, and JSON with a checksum of its content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ..api.errors import InputError


class NewerError(InputError):
    """A file of a later fpbench. It is not damaged, so it is neither used nor set aside."""


def sha256(data: bytes) -> str:
    """Return the sha256 of some bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


_digests: dict[tuple[Path, int, int, int], str] = {}
"""By path, inode, size and time of last change: the sha256 of files that this process has read."""


def sha256_of(path: Path, *, reread: bool = True) -> str | None:
    """Return the sha256 of a file; None if there is nothing to read. Raises PermissionError.

    The file is read in parts, so it may be larger than the memory.

    reread: whether to read a file again that this process has read and that has not changed since.
    """
    try:
        with path.open("rb") as file:
            stat = os.fstat(file.fileno())
            key = path, stat.st_ino, stat.st_size, stat.st_ctime_ns
            if reread or key not in _digests:
                _digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
            return _digests[key]
    except PermissionError:
        raise
    except OSError:
        return None


def read(path: Path) -> bytes | None:
    """Return the content of a file; None if there is nothing to read.

    Raises PermissionError, because a file that we may not read is not damaged.
    """
    try:
        return path.read_bytes()
    except PermissionError:
        raise
    except OSError:
        return None


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that replaces the file at `path` when all of its content is on disk.

    If the block raises, the old file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unfinished(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def unfinished(path: Path) -> Path:
    """Return a new name beside a file or folder, for its content until that is complete.

    Create it without `tempfile`, which gives the file to one user only: the umask decides who may
    read a store.
    """
    return path.with_name(f".tmp-{path.name}-{os.urandom(6).hex()}")


def sync_folder(folder: Path) -> None:
    """See to it that the names in a folder are on disk, where the system can do so."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write(path: Path, data: bytes) -> None:
    """Write a file. Even after a power cut it is there in full or not at all."""
    with replacing(path) as file:
        file.write(data)


def sealed(data: Mapping[str, Any]) -> bytes:
    """Return JSON with a seal, which is the checksum of its other keys."""
    return json.dumps({**data, "seal": _checksum(data)}, indent=1).encode()


def unsealed(raw: bytes) -> dict[str, Any] | None:
    """Return the data that `sealed` wrote, or None if the JSON has changed since."""
    try:
        data: dict[str, Any] = json.loads(raw)
        return data if data.pop("seal") == _checksum(data) else None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None


def _checksum(data: Mapping[str, Any]) -> str:
    return sha256(json.dumps(data, sort_keys=True).encode())


def opened(raw: bytes, schema: str, place: Path) -> dict[str, Any] | None:
    """Return sealed data of a schema, or None if it is damaged. Raises NewerError.

    Every version of a schema has the seal. A file of a later version therefore differs from a
    damaged one.
    """
    data = unsealed(raw)
    if data is None:
        return None
    written_schema = data.pop("schema", schema)
    if written_schema != schema:
        refuse_newer(written_schema, schema, place)
        return None
    return data


def refuse_newer(written_schema: object, schema: str, place: Path) -> None:
    """Raise NewerError if `written_schema`, such as fpbench.model/2, is later than `schema`."""
    family, _, version = schema.rpartition("/")
    name, _, number = str(written_schema).rpartition("/")
    if name == family and number.isdecimal() and len(number) < 9 and int(number) > int(version):
        raise NewerError(
            f"expected {schema} in {place}, found {written_schema}, which a later fpbench wrote; "
            "update fpbench, or give --store another folder"
        )
