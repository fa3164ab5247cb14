"""The place in MLflow that a run's results go to."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit


def uri_of_database(runs: Path) -> str:
    """Return the URI of the database in a folder, in which some characters have a meaning."""
    path = str(runs / "mlflow.db")
    for character in "%?":  # the percent sign first, because the other becomes one
        path = path.replace(character, f"%{ord(character):02X}")
    return f"sqlite:///{path}"


@dataclass(frozen=True)
class Tracker:
    """The place for results: MLFLOW_TRACKING_URI, or by default a database beside the runs.

    uri:       the URI for MLflow; it may contain a password.
    artifacts: the URI of the folder for files; None if the server decides.
    """

    uri: str
    artifacts: str | None

    @classmethod
    def of(cls, runs: Path) -> Tracker:
        """Return the tracker for the results in `runs`."""
        runs = runs.resolve()
        uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip() or uri_of_database(runs)
        served = uri.startswith(("http:", "https:", "databricks"))
        return cls(uri.rstrip("/"), None if served else (runs / "mlflow-artifacts").as_uri())

    @property
    def database(self) -> Path:
        """The file of a SQLite database."""
        return Path(unquote(self.uri.removeprefix("sqlite:///")))

    @property
    def is_web(self) -> bool:
        """True if a browser can open the URI."""
        return self.uri.startswith(("http:", "https:"))

    @property
    def is_local(self) -> bool:
        """True if the results go into a SQLite database of this machine."""
        return self.uri.startswith("sqlite:")

    @property
    def shown(self) -> str:
        """The URI without user name and password."""
        parts = urlsplit(self.uri)
        if "@" not in parts.netloc:
            return self.uri
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    def lock_file(self, folder: Path) -> Path:
        """Return the file in a run's folder that a process locks while it sends the run here.

        If the file exists without a lock, an upload did not end.
        """
        return folder / f".mlflow-{hashlib.sha256(self.shown.encode()).hexdigest()[:12]}.lock"

    def without_password(self, text: str) -> str:
        """Return a text without the password, on one line of at most 300 characters."""
        return " ".join(text.replace(self.uri, self.shown).split())[:300]
