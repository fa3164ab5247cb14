"""Uploads of entries to MLflow. A second upload adds only what the first one left out."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any

from .mlflow_entries import Entry, Key

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
"""Environment variables that fpbench sets for MLflow unless the user has set them."""

NOISY = ("mlflow", "alembic", "urllib3.connectionpool")

AT_ONCE = 8
"""Entries that are sent to a server at the same time, because most of a call is waiting."""

DONE = ("FINISHED", "FAILED")
"""Statuses of complete runs. Until a run is complete its status is KILLED, so that an upload that
does not end leaves no run that seems to be running."""


class StoppedError(Exception):
    """The caller no longer waits for this upload."""


class Watch:
    """Counts the calls to a tracker, and the seconds in which at least one call was running.

    stopped: set it to True to let no further call through.
    """

    def __init__(self) -> None:
        self.calls, self.stopped = 0, False
        self._lock = Lock()
        self._running, self._seconds, self._since = 0, 0.0, 0.0

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call the tracker, from any thread. Raises StoppedError if the watch is stopped."""
        if self.stopped:
            raise StoppedError
        with self._lock:
            if not self._running:
                self._since = monotonic()
            self._running += 1
        try:
            return function(*args, **kwargs)
        finally:
            with self._lock:
                self.calls, self._running = self.calls + 1, self._running - 1
                if not self._running:
                    self._seconds += monotonic() - self._since

    @property
    def elapsed(self) -> float:
        """Seconds spent in calls to the tracker, including calls that are still running."""
        with self._lock:
            return self._seconds + (monotonic() - self._since if self._running else 0)


class Sender:
    """Sends the entries of one suite run to one experiment.

    at_once: the number of entries that are sent at the same time.
    """

    def __init__(self, client: Any, watch: Watch, at_once: int = 1) -> None:
        self.client, self.watch, self.at_once = client, watch, at_once

    def experiment(self, name: str, artifacts: str | None) -> str:
        """Return the id of the experiment with a name; make it if there is none."""
        from mlflow.exceptions import MlflowException

        found = self._call("get_experiment_by_name", name)
        if found is None:
            try:
                return str(self._call("create_experiment", name, artifact_location=artifacts))
            except MlflowException:
                # Another process may have made it a moment ago; if not, raise MLflow's error.
                found = self._call("get_experiment_by_name", name)
                if found is None:
                    raise
        return str(found.experiment_id)

    def send(self, experiment: str, suite_run: str, entries: Iterable[Entry]) -> dict[Key, str]:
        """Send what MLflow does not have yet; return the ids of all MLflow runs by entry key."""
        existing = {
            tuple(run.data.tags.get(f"fpbench.{t}", "") for t in ("kind", "method", "repeat")): run
            for run in self._find_runs(experiment, f"tags.`fpbench.suite_run` = '{suite_run}'")
        }
        ids: dict[Key, str] = {}

        def send(entry: Entry) -> None:
            run = existing.get(entry.key)
            if run is None:
                parent = ids["method", entry.method, ""] if entry.kind == "repeat" else None
                run = self.watch.call(self._create, experiment, entry, parent)
            elif run.info.status == "RUNNING":  # its upload was killed before `set_terminated`
                self._call("set_terminated", run.info.run_id, status="KILLED", end_time=entry.end)
            ids[entry.key] = run.info.run_id
            # The status is sent last, so a run with one of these is complete.
            if run.info.status not in DONE:
                self._fill(run.info.run_id, entry)

        entries = list(entries)
        # Repeats need the ids of their methods, and matter least if time runs out.
        self._send_at_once(send, [entry for entry in entries if entry.kind != "repeat"])
        self._send_at_once(send, [entry for entry in entries if entry.kind == "repeat"])
        return {entry.key: ids[entry.key] for entry in entries}

    def _send_at_once(self, send: Callable[[Entry], None], entries: Sequence[Entry]) -> None:
        """Send several entries at the same time; raise the first error when all threads have ended.

        The threads are daemons: a tracker that does not answer must not keep the process running.
        """
        todo, errors = iter(entries), list[BaseException]()

        def work() -> None:
            try:
                for entry in todo:
                    send(entry)
            except BaseException as error:
                errors.append(error)
                self.watch.stopped = True

        count = min(self.at_once, len(entries))
        threads = [Thread(target=work, daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self.watch.call(getattr(self.client, name), *args, **kwargs)

    def _find_runs(self, experiment: str, condition: str) -> Iterator[Any]:
        token = None
        while True:
            page = self._call(
                "search_runs",
                [experiment],
                filter_string=condition,
                max_results=1000,
                page_token=token,
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
            # This tag tells MLflow that a JSON file is a table. MLflow's log_table does not serve:
            # it would add the rows to those that an interrupted upload left.
            tables = [{"path": name, "type": "table"} for name in entry.tables]
            tags["mlflow.loggedArtifacts"] = json.dumps(tables)
        run = self.client.create_run(
            experiment, start_time=entry.start, tags=tags, run_name=entry.name
        )
        # The status is set at once, because the process may be killed at any moment. Both calls
        # are inside one call of the watch, so a stop cannot come between them.
        self.client.set_terminated(run.info.run_id, status="KILLED", end_time=entry.end)
        return run

    def _fill(self, run_id: str, entry: Entry) -> None:
        """Send an entry's content and then its status.

        All of it can be sent twice: MLflow ignores points, parameters and inputs that it has, and
        replaces files.
        """
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
                            profile=json.dumps(description)),
                    [InputTag("mlflow.data.context", context)],
                )
                for name, digest, description, context in entry.datasets
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
        self._call("set_terminated", run_id, status=entry.status, end_time=entry.end)


@contextmanager
def connect(uri: str, lock: Path | None, watch: Watch) -> Iterator[Any]:
    """Yield an MLflow client; in the block MLflow logs errors only.

    lock: a file that is locked while a new local database is set up, because two processes that
          set one up at once break each other's tables. None for a server.
    """
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
