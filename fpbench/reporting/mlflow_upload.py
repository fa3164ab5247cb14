"""Sending entries to MLflow, so that a second upload adds only what the first one left out."""

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
"""What fpbench sets for MLflow unless the user did."""

NOISY = ("mlflow", "alembic", "urllib3.connectionpool")

AT_ONCE = 8
"""Entries that are sent to a server side by side: most of an answer's time is the way there."""

DONE = ("FINISHED", "FAILED")
"""What a run's status is when all of it is there. Before that it is KILLED: whatever becomes of
the upload, and of the process, no run is left that seems to be running."""


class StoppedError(Exception):
    """Nobody waits for this upload any more."""


class Watch:
    """Counts the calls to a tracker and the seconds in which at least one was under way.

    stopped: nobody waits any more; no further call gets through.
    """

    def __init__(self) -> None:
        self.calls, self.stopped = 0, False
        self._lock = Lock()
        self._under_way, self._seconds, self._since = 0, 0.0, 0.0

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call the tracker; from any thread."""
        if self.stopped:
            raise StoppedError
        with self._lock:
            if not self._under_way:
                self._since = monotonic()
            self._under_way += 1
        try:
            return function(*args, **kwargs)
        finally:
            with self._lock:
                self.calls, self._under_way = self.calls + 1, self._under_way - 1
                if not self._under_way:
                    self._seconds += monotonic() - self._since

    @property
    def elapsed(self) -> float:
        """Seconds spent in the tracker, the calls that are under way included."""
        with self._lock:
            return self._seconds + (monotonic() - self._since if self._under_way else 0)


class Sender:
    """Sends the entries of one suite run to one experiment.

    at_once: how many of them side by side.
    """

    def __init__(self, client: Any, watch: Watch, at_once: int = 1) -> None:
        self.client, self.watch, self.at_once = client, watch, at_once

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

        def send(entry: Entry) -> None:
            run = known.get(entry.key)
            if run is None:
                parent = ids["method", entry.method, ""] if entry.kind == "repeat" else None
                run = self.watch.call(self._create, experiment, entry, parent)
            elif run.info.status == "RUNNING":  # killed before it had its first status
                self._call("set_terminated", run.info.run_id, status="KILLED", end_time=entry.end)
            ids[entry.key] = run.info.run_id
            # The status is sent last: a run that has one of these is complete.
            if run.info.status not in DONE:
                self._fill(run.info.run_id, entry)

        entries = list(entries)
        # Repeats lie below their methods, and are what is missed least if time runs out.
        self._together(send, [entry for entry in entries if entry.kind != "repeat"])
        self._together(send, [entry for entry in entries if entry.kind == "repeat"])
        return {entry.key: ids[entry.key] for entry in entries}

    def _together(self, send: Callable[[Entry], None], entries: Sequence[Entry]) -> None:
        """Do several at once; what the first one that fails raises is raised, when all have ended.

        In daemons: a tracker that does not answer must not keep the process from its end.
        """
        todo, errors = iter(entries), list[BaseException]()

        def work() -> None:
            try:
                for entry in todo:
                    send(entry)
            except BaseException as error:
                errors.append(error)
                self.watch.stopped = True

        crew = [Thread(target=work, daemon=True) for _ in range(min(self.at_once, len(entries)))]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
        if errors:
            raise errors[0]

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
        run = self.client.create_run(
            experiment, start_time=entry.start, tags=tags, run_name=entry.name
        )
        # In the same breath: this process may be killed, or told to stop, at any moment.
        self.client.set_terminated(run.info.run_id, status="KILLED", end_time=entry.end)
        return run

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
        self._call("set_terminated", run_id, status=entry.status, end_time=entry.end)


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
