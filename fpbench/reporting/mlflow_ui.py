"""`fpbench ui`: serve the local results with MLflow's pages, on loopback, until Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from ..api.errors import InputError, ResourceError
from ..results.folder import finished, read
from .mlflow_hook import complete, send
from .mlflow_tracker import Tracker
from .mlflow_upload import DEFAULTS
from .screen import Screen

START = 180.0
"""Seconds a server may take to start; half a minute is usual."""


def serve(runs_dir: Path, run_folder: Path | None, port: int) -> None:
    """Serve a run, by default the newest, with MLflow's pages until Ctrl-C.

    If MLFLOW_TRACKING_URI names a server, print the links to it and start nothing.
    """
    console = Screen(highlight=False)
    folder = run_folder or next(finished(runs_dir), None)
    if folder is None:
        raise InputError(
            f"expected finished runs in {runs_dir}, found none; make one with: "
            "fpbench run suites/quickstart.yaml",
        )
    read(folder)
    runs = folder.resolve().parents[1]
    tracker = Tracker.of(runs)
    if not tracker.is_web:
        _require_free(port)
    with console.status("looking for the run in MLflow ..."):
        sent = _find_or_send(folder, tracker)
        complete(runs)
    if tracker.is_web:
        _show(console, sent, tracker.shown)
        return
    log = runs / "mlflow-server.log"
    with _server(tracker, port, log) as process:
        address = f"http://127.0.0.1:{port}"
        with console.status("starting MLflow, which takes half a minute ..."):
            _wait_for(address, process, log)
        _show(console, sent, address)
        console.print("Ctrl-C ends it")
        process.wait()
        raise ResourceError(f"expected MLflow to keep running, but it ended: {_last_line(log)}")


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ResourceError(
                f"port {port} cannot be used ({error.strerror}); choose another: "
                f"fpbench ui --port {port + 1}"
            ) from None


def _find_or_send(folder: Path, tracker: Tracker) -> dict[str, Any]:
    """Return where a run is in MLflow; send it if it is not there."""
    file = folder / "mlflow.json"
    if file.is_file() and (not tracker.is_local or tracker.database.exists()):
        try:
            sent: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            if sent["tracking_uri"] == tracker.shown:
                return sent
        except (ValueError, TypeError, KeyError):
            pass  # the file is damaged; a second upload adds nothing twice
    return send(folder)


@contextmanager
def _server(tracker: Tracker, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run MLflow's server in its own process group, and end the group with the block.

    Ctrl-C, SIGTERM and SIGHUP, for a terminal that is closed, end the block.
    """
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--backend-store-uri", tracker.uri, "--workers", "1",
        "--default-artifact-root", str(tracker.artifacts), "--no-serve-artifacts",
    ]  # fmt: skip
    # MLflow's jobs would take nine more processes, which outlive the server; we have no jobs.
    environment = {**DEFAULTS, **os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.default_int_handler) for number in ends}
    process = None
    try:
        with log.open("wb") as out:
            process = subprocess.Popen(  # noqa: S603
                command, env=environment, stdout=out, stderr=out, start_new_session=True
            )
        yield process
    except KeyboardInterrupt:
        pass
    finally:
        # A second Ctrl-C must not leave processes of the server behind.
        for number in ends:
            signal.signal(number, signal.SIG_IGN)
        if process is not None:
            _end(process)
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server and every process it started."""
    for number, seconds in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            process.poll()
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.05)


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server answers. Raises ResourceError if it ends or takes too long."""
    until = time.monotonic() + START
    while time.monotonic() < until:
        if process.poll() is not None:
            raise ResourceError(f"expected MLflow to start, but it ended: {_last_line(log)}")
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2):  # noqa: S310
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.3)
    raise ResourceError(f"expected MLflow to start within {START:.0f} s; its output is in {log}")


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"{lines[-1] if lines else 'no output'} (more in {log})"


def _show(console: Console, sent: dict[str, Any], address: str) -> None:
    for name, link in (("charts", sent["chart"]), ("overlay", sent["overlay"])):
        console.print(f"{name:9} {address}{link}", markup=False, soft_wrap=True)
