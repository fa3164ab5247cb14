"""Where a run's results go in MLflow."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit


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
