"""A finished run's folder: what it holds, and where its results go in MLflow."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fpbench import SuiteError

from ..api.errors import readable

SCHEMA = "fpbench.results/1"
PARTS = {
    "run", "suite", "scenario", "target", "models", "methods", "comparisons", "trials", "failures",
}  # fmt: skip


def read(folder: Path) -> dict[str, Any]:
    """What results.json in a run's folder holds; texts in it are printable.

    Raises SuiteError when this is not the folder of a finished run, or not as the run left it.
    """
    file = folder / "results.json"
    if not file.is_file():
        raise SuiteError(
            f"expected the folder of a finished run, found no results.json in {folder}"
        )
    _check(folder)
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise SuiteError(f"expected JSON in {file}, got something else: {error}") from None
    schema = data.get("schema") if isinstance(data, dict) else None
    if not isinstance(data, dict) or schema != SCHEMA:
        later = re.fullmatch(r"fpbench\.results/([2-9]|[1-9]\d+)", str(schema))
        what = ", which a later fpbench wrote; update fpbench to read it" if later else ""
        raise SuiteError(f"expected schema {SCHEMA} in {file}, got {schema!r}{what}")
    if absent := PARTS - data.keys():
        raise SuiteError(f"expected all parts of {SCHEMA} in {file}, missing {sorted(absent)}")
    found: dict[str, Any] = readable(data)
    return found


def _check(folder: Path) -> None:
    """Raise SuiteError unless every file is as the run left it; the first had no checksums."""
    try:
        sums = (folder / "SHA256SUMS").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    listed = dict(line.split("  ", 1)[::-1] for line in sums.splitlines() if "  " in line)
    for name in ("results.json", "suite.yaml", "suspects.csv"):
        file = folder / name
        found = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
        if found is None or found != listed.get(name):
            raise SuiteError(
                f"expected {file} as the run left it, found it damaged or changed since (see "
                "SHA256SUMS beside it); the same suite over the same store gives the results again"
            )


@contextmanager
def whole(*folders: Path) -> Iterator[list[dict[str, Any]]]:
    """What `read` finds, for those who stumble over what is damaged and no checksum told: it
    becomes a SuiteError."""
    found = [read(folder) for folder in folders]
    try:
        yield found
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        files = " and ".join(str(folder / "results.json") for folder in folders)
        raise SuiteError(
            f"expected whole results in {files}, found them damaged: {error!r}"
        ) from None


def finished(runs: Path) -> Iterator[Path]:
    """The folders of finished runs, the newest first: their names begin with the time."""
    folders = (file.parent for file in runs.glob("*/*/results.json"))
    yield from sorted(folders, key=lambda folder: folder.name, reverse=True)
