"""The reader of a finished run's folder, for reports, comparisons, MLflow and Python."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from ..api.errors import InputError
from ..api.results import RunRecord


def read(folder: Path) -> RunRecord:
    """Return the results in a finished run's folder, of this schema or an earlier one.

    Raises InputError if `folder` is not the folder of a finished run, or if a file in it was
    damaged or changed since the run wrote it.
    """
    file = folder / "results.json"
    if not file.is_file():
        raise InputError(
            f"expected the folder of a finished run, found no results.json in {folder}"
        )
    _check_sums(folder)
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"expected JSON in {file}, got something else: {error}") from None
    return RunRecord.of(data, file)


def _check_sums(folder: Path) -> None:
    """Raise InputError unless every file has the checksum in SHA256SUMS.

    The first runs had no checksums; their folders are not checked.
    """
    try:
        sums = (folder / "SHA256SUMS").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    written = dict(line.split("  ", 1)[::-1] for line in sums.splitlines() if "  " in line)
    for name in ("results.json", "suite.yaml", "suspects.csv"):
        file = folder / name
        found = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
        if found is None or found != written.get(name):
            raise InputError(
                f"expected {file} as the run left it, found it damaged or changed since (see "
                "SHA256SUMS beside it); run the same suite with the same store to get the results "
                "again"
            )


def finished(runs: Path) -> Iterator[Path]:
    """Yield the folders of finished runs, newest first. Their names begin with the time."""
    folders = (file.parent for file in runs.glob("*/*/results.json"))
    yield from sorted(folders, key=lambda folder: folder.name, reverse=True)
