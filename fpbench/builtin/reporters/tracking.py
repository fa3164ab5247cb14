"""Results in MLflow: curves as metrics, so that its pages draw and overlay them by themselves."""

from __future__ import annotations

import json
import logging
import math
import ssl
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpbench import FpbenchError, ResourceError, SuiteError, hookimpl

from . import links
from .entries import entries
from .folder import Tracker, read
from .upload import Sender, StoppedError, Watch, connect

if TYPE_CHECKING:
    from fpbench import Report

PATIENCE = 3.0
"""Seconds that a run loses to a server that is slow, beyond what its answers take anyway."""

HANDSHAKE = 3.0
"""Seconds within which a server must give a first sign of life."""


LEFT = "not all of it in MLflow: %s; when that is mended: fpbench sync %s"

log = logging.getLogger("fpbench")


@hookimpl(trylast=True)
def fpbench_reported(report: Report) -> None:
    """Send the results to MLflow. They are on disk: whatever goes wrong costs one line."""
    # A new database of our own takes its time to set up, once.
    local = Tracker.of(report.folder.resolve().parents[1]).is_local
    watch = Watch(math.inf if local else PATIENCE)
    outcome = _outcome(report.folder, watch)
    if outcome is not None:
        log.warning(LEFT, outcome, report.folder)


def send(folder: Path, watch: Watch | None = None) -> dict[str, Any]:
    """Send a finished run to MLflow; what is there already is not doubled.

    Returns what mlflow.json then says: where the results are. Raises SuiteError when `folder`
    is not a finished run's, ResourceError when the tracker cannot be reached or refuses.
    """
    data = read(folder)
    runs = folder.resolve().parents[1]
    tracker, watch = Tracker.of(runs), watch or Watch()
    if tracker.is_web:
        watch.call(handshake, tracker)
    try:
        todo = entries(data, folder)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SuiteError(
            f"expected whole results in {folder / 'results.json'}, found them damaged: {error!r}"
        ) from None
    lock = runs / ".mlflow.lock" if tracker.is_local else None
    name = f"fpbench/{data['suite']['name']}"
    try:
        with connect(tracker.uri, lock, watch) as client:
            sender = Sender(client, watch)
            experiment = sender.experiment(name, tracker.artifacts)
            ids = sender.send(experiment, data["run"]["id"], todo)
    except StoppedError:
        raise
    except Exception as error:
        # Whatever MLflow, its database driver or the network raises means one thing here.
        raise ResourceError(
            f"expected MLflow at {tracker.shown} to take the results, got "
            f"{type(error).__name__}: {tracker.scrub(str(error))}"
        ) from None
    methods = {method: run for (kind, method, _), run in ids.items() if kind == "method"}
    curves = [methods[m["method"]] for m in data["methods"] if m["summary"]]
    chart = links.charts(experiment, data["run"]["id"])
    sent = {
        "tracking_uri": tracker.shown,
        "experiment": name,
        "experiment_id": experiment,
        "suite": ids["suite", "", ""],
        "methods": methods,
        "chart": chart,
        "overlay": links.overlay(experiment, curves),
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


def _outcome(folder: Path, watch: Watch) -> str | None:
    """Send a run for as long as its tracker keeps up; what went wrong, if something did.

    A thread that is left behind is a daemon and stops at its next call.
    """
    outcome: list[str | None] = []

    def body() -> None:
        try:
            send(folder, watch)
            outcome.append(None)
        except StoppedError:
            pass
        except FpbenchError as error:
            outcome.append(str(error))
        except BaseException as error:
            outcome.append(f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=body, name="fpbench-mlflow", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.1)
            if watch.too_slow and thread.is_alive():
                return f"the tracker took {watch.elapsed:.1f} s for {watch.calls} answers"
    except KeyboardInterrupt:
        log.warning(LEFT, "stopped", folder)
        raise
    finally:
        watch.stopped = True
    return outcome[0] if outcome else "stopped"
