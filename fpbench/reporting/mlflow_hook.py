"""Sending results to MLflow at the end of a run and by `fpbench sync`."""

from __future__ import annotations

import json
import logging
import math
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock, Timeout

from ..api.errors import FpbenchError, InputError, ResourceError
from ..api.hooks import hookimpl
from ..api.results import Report
from ..results.folder import read
from .mlflow_entries import make_entries
from .mlflow_tracker import Tracker
from .mlflow_upload import AT_ONCE, Sender, StoppedError, Watch, connect

PATIENCE = 4.0
"""After so many seconds of waiting for a server, a run starts no further call to it."""

LEAVE = 4.8
"""After so many seconds of waiting for a server, a run no longer waits for any answer. Between
PATIENCE and LEAVE, calls that were started can end."""

HANDSHAKE = 3.0
"""Seconds within which a server must give its first answer."""


INCOMPLETE = "not all results are in MLflow: %s; to send the rest later: fpbench sync %s"

log = logging.getLogger("fpbench")


@hookimpl
def fpbench_finishing(folder: Path) -> None:
    """Mark the run as one that MLflow lacks, so that `complete` finds it after a kill."""
    Tracker.of(folder.resolve().parents[1]).lock_file(folder).touch()


@hookimpl(trylast=True)
def fpbench_reported(report: Report) -> None:
    """Send the results to MLflow. If that fails, log a warning: the results are on disk already."""
    reason = _send_in_time(report)
    if reason is not None:
        log.warning(INCOMPLETE, reason, report.folder)


def send(folder: Path, watch: Watch | None = None, wait: float = 15) -> dict[str, Any]:
    """Read a finished run and send it to MLflow, as `send_report` does.

    Raises InputError too, if `folder` is not the folder of a finished run.
    """
    return send_report(Report(folder, read(folder)), watch, wait)


def send_report(report: Report, watch: Watch | None = None, wait: float = 15) -> dict[str, Any]:
    """Send a run to MLflow, except the parts that MLflow has already.

    Return where the results are in MLflow: the content of mlflow.json. Raises ResourceError if the
    tracker cannot be reached or refuses, or if another process has been sending this run for
    `wait` seconds.
    """
    folder, watch = report.folder, watch or Watch()
    tracker = Tracker.of(folder.resolve().parents[1])
    if tracker.is_web:
        watch.call(require_server, tracker)
    lock_file = tracker.lock_file(folder)
    try:
        with FileLock(lock_file, timeout=wait):
            sent = _send(report, tracker, watch)
            lock_file.unlink()
    except Timeout:
        raise ResourceError(
            f"expected to be the only process that sends {folder} to MLflow, found another; try "
            "again when it has ended"
        ) from None
    return sent


def complete(runs: Path, watch: Watch | None = None) -> None:
    """Send the rest of the uploads from `runs` that were killed, even before they began, or took
    too long.

    An upload that fails again is left for the next call.
    """
    name = Tracker.of(runs).lock_file(Path()).name
    with suppress(ResourceError, StoppedError):
        for lock_file in sorted(runs.glob(f"*/*/{name}")):
            with suppress(InputError):  # the results were damaged after the upload began
                send(lock_file.parent, watch, wait=0)


def _send(report: Report, tracker: Tracker, watch: Watch) -> dict[str, Any]:
    folder, record = report.folder, report.record
    entries = make_entries(record, folder)
    lock = folder.resolve().parents[1] / ".mlflow.lock" if tracker.is_local else None
    name = f"fpbench/{record.suite.name}"
    try:
        with connect(tracker.uri, lock, watch) as client:
            sender = Sender(client, watch, at_once=1 if tracker.is_local else AT_ONCE)
            experiment = sender.experiment(name, tracker.artifacts)
            ids = sender.send(experiment, record.run.id, entries)
    except StoppedError:
        raise
    except Exception as error:
        # MLflow, its database driver and the network raise errors of many types.
        raise ResourceError(
            f"expected MLflow at {tracker.shown} to take the results, got "
            f"{type(error).__name__}: {tracker.without_password(str(error))}"
        ) from None
    methods = {method: run for (kind, method, _), run in ids.items() if kind == "method"}
    curves = [methods[method.method] for method, _ in record.finished]
    chart = charts_link(experiment, record.run.id)
    sent = {
        "tracking_uri": tracker.shown,
        "experiment": name,
        "experiment_id": experiment,
        "suite": ids["suite", "", ""],
        "methods": methods,
        "chart": chart,
        "overlay": overlay_link(experiment, curves),
        "url": tracker.shown + chart if tracker.is_web else tracker.shown,
    }
    (folder / "mlflow.json").write_text(json.dumps(sent, indent=1), encoding="utf-8")
    return sent


def require_server(tracker: Tracker) -> None:
    """Raise ResourceError unless a server answers within HANDSHAKE seconds.

    A separate thread asks, because a socket's timeout limits neither the resolution of a name nor
    an answer that arrives slowly.
    """
    answer: list[str | None] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(f"{tracker.shown}/health", timeout=HANDSHAKE):  # noqa: S310
                answer.append(None)
        except urllib.error.HTTPError as error:
            # The server is there. MLflow's client finds out whether it lets us in.
            answer.append(f"HTTP {error.code}" if error.code >= 500 else None)
        except Exception as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                return  # no answer in time
            # The server is there too if only MLflow's client knows its certificate.
            answer.append(None if isinstance(reason, ssl.SSLError) else str(reason))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HANDSHAKE)
    found = answer[0] if answer else f"no answer within {HANDSHAKE:.0f} s"
    if found is not None:
        raise ResourceError(f"expected an MLflow server at {tracker.shown}, got {found}")


def _send_in_time(report: Report) -> str | None:
    """Send a run, but wait for a server at most LEAVE seconds; return why it is not complete.

    The thread that sends is a daemon. If it is left behind, it stops at its next call.
    """
    runs, watch, outcome = report.folder.resolve().parents[1], Watch(), list[str | None]()
    # To set up a new local database takes longer, but only once.
    patience, leave = (math.inf, math.inf) if Tracker.of(runs).is_local else (PATIENCE, LEAVE)

    def body() -> None:
        try:
            send_report(report, watch)
            outcome.append(None)
            complete(runs, watch)
        except StoppedError:
            pass
        except FpbenchError as error:
            outcome.append(str(error))
        except BaseException as error:
            outcome.append(f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=body, name="fpbench-mlflow", daemon=True)
    thread.start()
    try:
        while thread.is_alive() and watch.elapsed < leave:
            thread.join(0.05)
            watch.stopped = watch.stopped or watch.elapsed > patience
    except KeyboardInterrupt:
        log.warning(INCOMPLETE, "stopped", report.folder)
        watch.stopped = True
        thread.join(LEAVE - PATIENCE)
        raise
    watch.stopped = True
    slow = f"the tracker took {watch.elapsed:.1f} s for {watch.calls} answers"
    return outcome[0] if outcome else slow


CURVES = ("curve/robustness", "curve/uniqueness")


def charts_link(experiment: str, suite_run: str) -> str:
    """Return the link to the charts of one suite run, with every method's curves."""
    condition = f"tags.`fpbench.suite_run` = '{suite_run}' and tags.`fpbench.kind` = 'method'"
    query = f"compareRunsMode=CHART&searchFilter={quote(condition, '')}"
    return f"/#/experiments/{experiment}/runs?{query}"


def overlay_link(experiment: str, runs: Sequence[str]) -> str:
    """Return the link to the page that draws both curves of all these runs on one axis."""
    query = {
        "runs": json.dumps(list(runs)),
        "metric": json.dumps(CURVES[0]),
        "experiments": json.dumps([experiment]),
        "plot_metric_keys": json.dumps(CURVES),
        "x_axis": "step",  # MLflow expects this value without quotes, unlike the others
        "plot_layout": "{}",
        "deselected_curves": "[]",
    }
    return "/#/metric?" + "&".join(f"{key}={quote(value, '')}" for key, value in query.items())
