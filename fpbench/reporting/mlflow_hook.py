"""Results in MLflow: curves as metrics, so that its pages draw and overlay them by themselves."""

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
from .mlflow_entries import entries
from .mlflow_tracker import Tracker
from .mlflow_upload import AT_ONCE, Sender, StoppedError, Watch, connect

PATIENCE = 4.0
"""Seconds in a server after which a run begins no further call to it."""

LEAVE = 4.8
"""Seconds in a server after which a run waits for no answer any more. In between, what was begun
gets its status."""

HANDSHAKE = 3.0
"""Seconds within which a server must give a first sign of life."""


LEFT = "not all of it in MLflow: %s; when that is mended: fpbench sync %s"

log = logging.getLogger("fpbench")


@hookimpl(trylast=True)
def fpbench_reported(report: Report) -> None:
    """Send the results to MLflow. They are on disk: whatever goes wrong costs one line."""
    outcome = _outcome(report)
    if outcome is not None:
        log.warning(LEFT, outcome, report.folder)


def send(folder: Path, watch: Watch | None = None, wait: float = 15) -> dict[str, Any]:
    """Read a finished run and send it to MLflow, as `send_report`.

    Raises InputError too, when `folder` is not a finished run's.
    """
    return send_report(Report(folder, read(folder)), watch, wait)


def send_report(report: Report, watch: Watch | None = None, wait: float = 15) -> dict[str, Any]:
    """Send a run to MLflow; what is there already is not doubled.

    Returns what mlflow.json then says: where the results are. Raises ResourceError when the
    tracker cannot be reached or refuses, or when another process has been sending this run for
    `wait` seconds.
    """
    folder, watch = report.folder, watch or Watch()
    tracker = Tracker.of(folder.resolve().parents[1])
    if tracker.is_web:
        watch.call(handshake, tracker)
    mark = tracker.mark(folder)
    try:
        with FileLock(mark, timeout=wait):
            sent = _send(report, tracker, watch)
            mark.unlink()
    except Timeout:
        raise ResourceError(
            f"expected nobody else to be sending {folder} to MLflow, found another process at it"
        ) from None
    return sent


def complete(runs: Path, watch: Watch | None = None) -> None:
    """Send what uploads from here left out when they were killed or given up; what cannot be
    sent now is left for the next time."""
    mark = Tracker.of(runs).mark(Path())
    with suppress(ResourceError, StoppedError):
        for found in sorted(runs.glob(f"*/*/{mark.name}")):
            with suppress(InputError):  # damaged since
                send(found.parent, watch, wait=0)


def _send(report: Report, tracker: Tracker, watch: Watch) -> dict[str, Any]:
    folder, record = report.folder, report.record
    todo = entries(record, folder)
    lock = folder.resolve().parents[1] / ".mlflow.lock" if tracker.is_local else None
    name = f"fpbench/{record.suite.name}"
    try:
        with connect(tracker.uri, lock, watch) as client:
            sender = Sender(client, watch, at_once=1 if tracker.is_local else AT_ONCE)
            experiment = sender.experiment(name, tracker.artifacts)
            ids = sender.send(experiment, record.run.id, todo)
    except StoppedError:
        raise
    except Exception as error:
        # Whatever MLflow, its database driver or the network raises means one thing here.
        raise ResourceError(
            f"expected MLflow at {tracker.shown} to take the results, got "
            f"{type(error).__name__}: {tracker.scrub(str(error))}"
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


def handshake(tracker: Tracker) -> None:
    """Raise ResourceError unless a server answers soon. A thread of its own asks: neither a
    name that does not resolve nor an answer that trickles in obeys a socket's timeout."""
    answer: list[str | None] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(f"{tracker.shown}/health", timeout=HANDSHAKE):  # noqa: S310
                answer.append(None)
        except urllib.error.HTTPError as error:
            # Somebody is there. Whether we may come in is for MLflow's own client to find out.
            answer.append(f"HTTP {error.code}" if error.code >= 500 else None)
        except Exception as error:
            reason = getattr(error, "reason", error)
            # So is one whose certificate is known to MLflow's client only.
            answer.append(None if isinstance(reason, ssl.SSLError) else str(reason))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HANDSHAKE)
    found = answer[0] if answer else f"no answer within {HANDSHAKE:.0f} s"
    if found is not None:
        raise ResourceError(f"expected an MLflow server at {tracker.shown}, got {found}")


def _outcome(report: Report) -> str | None:
    """Send a run for as long as its tracker keeps up; what went wrong, if something did.

    A thread that is left behind is a daemon and stops at its next call.
    """
    runs, watch, outcome = report.folder.resolve().parents[1], Watch(), list[str | None]()
    # A new database of our own takes its time to set up, once.
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
        log.warning(LEFT, "stopped", report.folder)
        watch.stopped = True
        thread.join(LEAVE - PATIENCE)
        raise
    watch.stopped = True
    took = f"the tracker took {watch.elapsed:.1f} s for {watch.calls} answers"
    return outcome[0] if outcome else took


CURVES = ("curve/robustness", "curve/uniqueness")


def charts_link(experiment: str, suite_run: str) -> str:
    """The chart page of one suite run: every method's curves, overlaid."""
    only = f"tags.`fpbench.suite_run` = '{suite_run}' and tags.`fpbench.kind` = 'method'"
    return f"/#/experiments/{experiment}/runs?compareRunsMode=CHART&searchFilter={quote(only, '')}"


def overlay_link(experiment: str, runs: Sequence[str]) -> str:
    """The page that draws both curves of all these runs on one axis."""
    query = {
        "runs": json.dumps(list(runs)),
        "metric": json.dumps(CURVES[0]),
        "experiments": json.dumps([experiment]),
        "plot_metric_keys": json.dumps(CURVES),
        "x_axis": "step",  # the only one that MLflow wants without quotes
        "plot_layout": "{}",
        "deselected_curves": "[]",
    }
    return "/#/metric?" + "&".join(f"{key}={quote(value, '')}" for key, value in query.items())
