"""`fpbench ui`: a real MLflow server, what it serves, and that nothing of it is left behind."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner
from filelock import FileLock
from finished_runs import finished_run
from http_servers import Answer, serving

from conftest import wait_until
from fpbench import cli, read
from fpbench.reporting import mlflow_hook as tracking
from fpbench.reporting.mlflow_tracker import Tracker

SHOOT = Path(__file__).parents[1] / "docs" / "images" / "shoot.py"


# ── without a server ──────────────────────────────────────────────────────────────


def test_no_results_yet(tmp_path: Path) -> None:
    outcome = CliRunner().invoke(cli.main, ["ui", "--runs", str(tmp_path)])
    assert outcome.exit_code == 2
    assert "found none; make one with: fpbench run" in outcome.stderr


def test_not_a_run_folder(tmp_path: Path) -> None:
    outcome = CliRunner().invoke(cli.main, ["ui", str(tmp_path)])
    assert outcome.exit_code == 2
    assert outcome.stderr.startswith("error: expected the folder of a finished run")


def test_a_port_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = finished_run(tmp_path, repeats=1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        outcome = CliRunner().invoke(cli.main, ["ui", str(folder), "--port", str(port)])
    assert outcome.exit_code == 3
    assert f"fpbench ui --port {port + 1}" in outcome.stderr


def test_a_server_elsewhere_is_only_pointed_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished_run(tmp_path, "20260101-000000-aaaa", repeats=1)
    newest = finished_run(tmp_path, "20260102-000000-bbbb", repeats=1)
    sent = {"tracking_uri": "https://host/path", "chart": "/#/chart", "overlay": "/#/overlay"}
    (newest / "mlflow.json").write_text(json.dumps(sent))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:s3cret@host/path")
    outcome = CliRunner().invoke(cli.main, ["ui", "--runs", str(tmp_path)])
    assert outcome.stdout.split() == [
        "charts", "https://host/path/#/chart", "overlay", "https://host/path/#/overlay",
    ]  # fmt: skip


# ── with one ──────────────────────────────────────────────────────────────────────


@dataclass
class UI:
    """A running `fpbench ui`."""

    process: subprocess.Popen[str]
    folder: Path
    links: dict[str, str]
    address: str

    def get(self, path: str, body: object = None) -> Any:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(  # noqa: S310
            self.address + path, data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return answer.read()

    def runs(self, only: str) -> dict[str, Any]:
        body = {"experiment_ids": ["1"], "filter": only}
        found = json.loads(self.get("/api/2.0/mlflow/runs/search", body))
        return {run["info"]["run_name"]: run for run in found.get("runs", [])}

    def history(self, run: Any, key: str) -> list[Any]:
        path = (
            f"/api/2.0/mlflow/metrics/get-history?run_id={run['info']['run_id']}&metric_key={key}"
        )
        points: list[Any] = json.loads(self.get(path))["metrics"]
        return points


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UI]:
    runs = tmp_path_factory.mktemp("runs")
    folder = finished_run(runs)
    (folder / "figures").mkdir()
    (folder / "figures" / "curves.svg").write_text("<svg/>")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    said = runs / "said"
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    with said.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "fpbench", "ui", str(folder), "--port", str(port)],
            stdout=out, stderr=out, env=environment, text=True,
        )  # fmt: skip
    try:
        wait_until(lambda: "Ctrl-C" in said.read_text() or process.poll() is not None, 240)
        assert process.poll() is None, said.read_text()
        lines = [line.split() for line in said.read_text().splitlines()]
        links = {line[0]: line[1] for line in lines if line[0] in ("charts", "overlay")}
        yield UI(process, folder, links, f"http://127.0.0.1:{port}")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.mark.slow
def test_serves_what_was_never_sent_before(ui: UI) -> None:
    runs = ui.runs("tags.fpbench.kind = 'method'")
    assert list(runs) == ["akh", "random (again)"]  # in the suite's order
    assert len(ui.history(runs["akh"], "curve/robustness")) == 101
    suite = ui.runs("tags.fpbench.kind = 'suite'").popitem()[1]["info"]["run_id"]
    assert ui.get(f"/get-artifact?path=figures/curves.svg&run_uuid={suite}") == b"<svg/>"


@pytest.mark.slow
def test_sends_over_http_and_doubles_nothing(ui: UI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", ui.address)
    folder = finished_run(ui.folder.parents[1], "20260102-000000-bbbb")
    first = tracking.send(folder)
    assert tracking.send(folder) == first
    assert first["url"].startswith(f"{ui.address}/#/experiments/1/")
    runs = ui.runs("tags.fpbench.suite_run = '20260102-000000-bbbb'")
    assert len(runs) == 7
    for key in ("curve/robustness", "curve/uniqueness", "curve/rho"):
        assert len(ui.history(runs["akh"], key)) == 101
    assert len(ui.history(runs["akh"], "summary/aruc")) == 1


@dataclass
class Between:
    """A proxy before a server: each answer takes `seconds`, and after `most` there are none."""

    to: str
    seconds: float = 0.0
    most: float = float("inf")
    asked: int = 0

    def answer(self, request: BaseHTTPRequestHandler, body: bytes) -> Answer | None:
        self.asked += 1
        if self.asked > self.most:
            return None
        time.sleep(self.seconds)
        kind = request.headers.get("Content-Type") or "text/plain"
        passed_on = urllib.request.Request(  # noqa: S310
            self.to + request.path, body or None, {"Content-Type": kind}, method=request.command
        )
        try:
            with urllib.request.urlopen(passed_on, timeout=60) as answer:  # noqa: S310
                return answer.status, answer.read(), {}
        except urllib.error.HTTPError as error:
            return error.code, error.read(), {}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "between"), [("slow", {"seconds": 0.5}), ("dies", {"most": 7})])
def test_what_a_tracker_missed_is_there_after_sync(
    ui: UI, name: str, between: dict[str, Any], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    suite_run = f"20260103-000000-{name}"
    folder = finished_run(ui.folder.parents[1], suite_run)
    only = f"tags.`fpbench.suite_run` = '{suite_run}'"
    if name == "dies":
        for bound in ("PATIENCE", "LEAVE"):
            monkeypatch.setattr(tracking, bound, 300.0)  # on a busy machine it is slow too
    with serving(Between(ui.address, **between).answer) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        tracking.fpbench_reported(read(folder))
        mark = Tracker.of(folder.parents[1]).lock_file(folder)
    assert "not all results are in MLflow: " in caplog.text
    if took := re.search(r"took ([\d.]+) s for", caplog.text):
        assert float(took[1]) <= 5
    assert (name == "slow") is bool(took)
    with FileLock(mark, timeout=60):
        left = ui.runs(only)  # when the last answer was heard
    assert (name == "dies") <= len(left) < 7
    if name == "slow":
        assert {run["info"]["status"] for run in left.values()} <= {"KILLED", "FINISHED"}

    monkeypatch.setenv("MLFLOW_TRACKING_URI", ui.address)
    for _ in range(2):
        outcome = CliRunner().invoke(cli.main, ["sync", str(folder)])
        assert outcome.exit_code == 0, outcome.output
        runs = ui.runs(only)
        assert len(runs) == 7
        assert {run["info"]["status"] for run in runs.values()} == {"FINISHED"}
        assert len(ui.history(runs["akh"], "curve/robustness")) == 101
        assert len(ui.history(runs["akh"], "summary/aruc")) == 1


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium is installed")
def test_a_browser_overlays_the_methods(ui: UI, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("shoot", SHOOT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    curves, text = module.shoot(ui.links["charts"], tmp_path / "charts.png", 2)
    assert curves == 2
    for name in ("curve/robustness", "curve/uniqueness", "akh", "random (again)"):
        assert name in text
    assert "akh #0" not in text


@pytest.mark.slow
def test_leaves_nothing_behind(ui: UI) -> None:
    family = psutil.Process(ui.process.pid).children(recursive=True)
    assert family
    ui.process.send_signal(signal.SIGTERM)
    assert ui.process.wait(30) == 0
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not alive
