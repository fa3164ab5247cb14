"""A finished run's folder: what it holds, and where its results go in MLflow."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from fpbench import SuiteError
from fpbench.api.text import readable

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


@dataclass(frozen=True)
class Tracker:
    """Where results go: MLFLOW_TRACKING_URI, or else a database beside the runs.

    uri:       what MLflow is given; it may hold a password.
    artifacts: where files go; None if the server decides.
    """

    uri: str
    artifacts: str | None

    @classmethod
    def of(cls, runs: Path) -> Tracker:
        """The tracker for the results below `runs`."""
        runs = runs.resolve()
        uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip() or f"sqlite:///{runs / 'mlflow.db'}"
        served = uri.startswith(("http:", "https:", "databricks"))
        return cls(uri.rstrip("/"), None if served else (runs / "mlflow-artifacts").as_uri())

    @property
    def is_web(self) -> bool:
        """True if a browser can open it as it is."""
        return self.uri.startswith(("http:", "https:"))

    @property
    def is_local(self) -> bool:
        """True if no other machine is asked."""
        return self.uri.startswith("sqlite:")

    @property
    def shown(self) -> str:
        """The URI without user name and password."""
        parts = urlsplit(self.uri)
        if "@" not in parts.netloc:
            return self.uri
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    def mark(self, folder: Path) -> Path:
        """A file in a run's folder while the run is being sent here: locked by whoever does.

        One that nobody holds was left by an upload that did not come to its end.
        """
        return folder / f".mlflow-{hashlib.sha256(self.shown.encode()).hexdigest()[:12]}.lock"

    def scrub(self, text: str) -> str:
        """A text without the password, on one line and not endless."""
        return " ".join(text.replace(self.uri, self.shown).split())[:300]
