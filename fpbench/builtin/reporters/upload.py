"""Sending entries to MLflow, so that a second upload adds only what the first one left out."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from .entries import Entry, Key

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # DO_NOT_TRACK=1 does not switch it off
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout belongs to --json
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # seven, the default, take four minutes
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
}
"""What fpbench sets for MLflow unless the user did."""

NOISY = ("mlflow", "alembic", "urllib3.connectionpool")


PER_CALL = 0.1
"""Seconds that an answer takes anyway, of a healthy server on a machine that is not overloaded."""

DONE = ("FINISHED", "FAILED")
"""What a run's status is when all of it is there. Before that it is KILLED: whatever becomes of
the upload, and of the process, no run is left that seems to be running."""


class StoppedError(Exception):
    """Nobody waits for this upload any more."""


class Watch:
    """Counts the calls to a tracker and the seconds they take.

    patience: seconds that may be lost to it in all, beyond PER_CALL for each of its answers.
    stopped:  nobody waits any more; no further call gets through.
    """

    def __init__(self, patience: float = math.inf) -> None:
        self.patience, self.stopped = patience, False
        self.calls, self.seconds = 0, 0.0
        self._began: float | None = None

    @property
    def too_slow(self) -> bool:
        """True once the patience is used up."""
        return self.elapsed > self.patience + PER_CALL * self.calls

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call the tracker."""
        if self.stopped:
            raise StoppedError
        self._began = monotonic()
        try:
            return function(*args, **kwargs)
        finally:
            self.calls, self.seconds = self.calls + 1, self.elapsed
            self._began = None

    @property
    def elapsed(self) -> float:
        """Seconds spent in the tracker, the call that is under way included."""
        began = self._began
        return self.seconds + (monotonic() - began if began is not None else 0)


class Sender:
    """Sends the entries of one suite run to one experiment."""

    def __init__(self, client: Any, watch: Watch) -> None:
        self.client, self.watch = client, watch

    def experiment(self, name: str, artifacts: str | None) -> str:
        """The id of the experiment of that name; made if there is none."""
        from mlflow.exceptions import MlflowException

        found = self._call("get_experiment_by_name", name)
        if found is None:
            try:
                return str(self._call("create_experiment", name, artifact_location=artifacts))
            except MlflowException:
                # Somebody else may have made it a moment ago; if not, this tells why.
                found = self._call("get_experiment_by_name", name)
                if found is None:
                    raise
        return str(found.experiment_id)

    def send(self, experiment: str, suite_run: str, entries: Iterable[Entry]) -> dict[Key, str]:
        """Send what is not there yet; return the ids of all MLflow runs, by the entry's key."""
        known = {
            tuple(run.data.tags.get(f"fpbench.{t}", "") for t in ("kind", "method", "repeat")): run
            for run in self._runs(experiment, f"tags.`fpbench.suite_run` = '{suite_run}'")
        }
        ids: dict[Key, str] = {}
        for entry in entries:
            run = known.get(entry.key)
            if run is None:
                parent = ids["method", entry.method, ""] if entry.kind == "repeat" else None
                run = self._create(experiment, entry, parent)
                # As the first thing: this process may be killed at any moment from here on.
                self._end(run.info.run_id, "KILLED", entry)
            ids[entry.key] = run.info.run_id
            # The status is sent last: a run that has one of these is complete.
            if run.info.status not in DONE:
                self._fill(run.info.run_id, entry)
        return ids

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self.watch.call(getattr(self.client, name), *args, **kwargs)

    def _runs(self, experiment: str, only: str) -> Iterator[Any]:
        token = None
        while True:
            page = self._call(
                "search_runs", [experiment], filter_string=only, max_results=1000, page_token=token
            )
            yield from page
            if not (token := page.token):
                return

    def _create(self, experiment: str, entry: Entry, parent: str | None) -> Any:
        tags = {
            **{key: value[:5000] for key, value in entry.tags.items()},
            "fpbench.kind": entry.kind,
            **({"fpbench.method": entry.method} if entry.method else {}),
            **({"fpbench.repeat": entry.repeat} if entry.repeat else {}),
            **({"mlflow.parentRunId": parent} if parent else {}),
        }
        if entry.tables:
            # How MLflow knows a JSON file for a table. Its own log_table adds the rows to those
            # an interrupted upload left behind.
            tables = [{"path": name, "type": "table"} for name in entry.tables]
            tags["mlflow.loggedArtifacts"] = json.dumps(tables)
        return self._call(
            "create_run", experiment, start_time=entry.start, tags=tags, run_name=entry.name
        )

    def _fill(self, run_id: str, entry: Entry) -> None:
        """Everything here can be sent twice: MLflow ignores points, parameters and inputs that
        it has, and replaces files."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

        if entry.metrics or entry.params:
            points = [Metric(key, value, entry.start, step) for key, value, step in entry.metrics]
            points += [
                Metric("loss", loss, entry.start + round(1000 * at), step)
                for step, at, loss in entry.losses
            ]
            params = [Param(key, value) for key, value in entry.params.items()]
            self._call("log_batch", run_id, metrics=points, params=params)
        if entry.datasets:
            inputs = [
                DatasetInput(
                    Dataset(name, digest, "fpbench", json.dumps({"name": name}),
                            profile=json.dumps(what)),
                    [InputTag("mlflow.data.context", context)],
                )
                for name, digest, what, context in entry.datasets
            ]  # fmt: skip
            self._call("log_inputs", run_id, datasets=inputs)
        texts = dict(entry.texts)
        for name, rows in entry.tables.items():
            columns = list(rows[0]) if rows else []
            table = {"columns": columns, "data": [[row.get(c) for c in columns] for row in rows]}
            texts[name] = json.dumps(table)
        for name, text in texts.items():
            self._call("log_text", run_id, text, name)
        for path, to in entry.files:
            log = "log_artifacts" if path.is_dir() else "log_artifact"
            self._call(log, run_id, str(path), to)
        self._end(run_id, entry.status, entry)

    def _end(self, run_id: str, status: str, entry: Entry) -> None:
        self._call("set_terminated", run_id, status=status, end_time=entry.end)


@contextmanager
def connect(uri: str, lock: Path | None, watch: Watch) -> Iterator[Any]:
    """An MLflow client whose loggers are quiet. Below `lock` a new database is set up by one
    process at a time: two at once break each other's tables."""
    from filelock import FileLock

    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    loggers = [logging.getLogger(name) for name in NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        if lock is None:
            yield watch.call(MlflowClient, tracking_uri=uri)
        else:
            with FileLock(lock, timeout=60):
                client = watch.call(MlflowClient, tracking_uri=uri)
            yield client
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
