"""What reaches MLflow, and what happens when it is not there. Stores are real; the trackers
that are broken are sockets that misbehave."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from click.testing import CliRunner
from filelock import FileLock
from finished_runs import finished_run
from http_servers import Answer, serving

from conftest import UNTRAINED, Desk
from fpbench import InputError, ResourceError, cli, read
from fpbench.reporting import mlflow_hook as tracking
from fpbench.reporting import mlflow_upload as upload
from fpbench.reporting.mlflow_tracker import Tracker
from fpbench.reporting.screen import Screen
from fpbench.reporting.tables import show_results

CURVES = ["curve/robustness", "curve/uniqueness", "curve/rho"]


@pytest.fixture
def runs(tmp_path: Path, blank: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(blank, tmp_path / "mlflow.db")
    return tmp_path


class Seen:
    """What MLflow has of all runs in one place."""

    def __init__(self, runs: Path) -> None:
        from mlflow import MlflowClient

        self.uri = f"sqlite:///{runs / 'mlflow.db'}"
        self.client = MlflowClient(self.uri)
        found = self.client.get_experiment_by_name("fpbench/toy")
        assert found is not None
        self.experiment = found.experiment_id
        self.runs = {run.info.run_name: run for run in self.client.search_runs([self.experiment])}

    def points(self) -> dict[tuple[str, str], int]:
        """How many points every metric of every run has."""
        return {
            (name, key): len(self.client.get_metric_history(run.info.run_id, key))
            for name, run in self.runs.items()
            for key in run.data.metrics
        }

    def files(self, name: str, folder: str | None = None) -> list[str]:
        found = self.client.list_artifacts(self.runs[name].info.run_id, folder)
        return sorted(f.path for f in found)

    def table(self, name: str, file: str) -> Any:
        # The client asks MLflow's global tracker here, whatever its own is.
        with patch.dict(os.environ, MLFLOW_TRACKING_URI=self.uri):
            return self.client.load_table(self.experiment, file, [self.runs[name].info.run_id])


# ── what is there ─────────────────────────────────────────────────────────────────


def test_methods_lie_flat_and_repeats_below_them(runs: Path) -> None:
    sent = tracking.send(finished_run(runs))
    seen = Seen(runs)
    assert set(seen.runs) == {
        "suite 20260101-000000-abcd", "akh", "akh #0", "akh #1",
        "random (again)", "random (again) #0", "random (again) #1",
    }  # fmt: skip
    parents = {name: run.data.tags.get("mlflow.parentRunId") for name, run in seen.runs.items()}
    assert parents["akh"] is None
    assert parents["suite 20260101-000000-abcd"] is None
    assert parents["akh #1"] == seen.runs["akh"].info.run_id == sent["methods"]["akh"]
    assert {run.info.status for run in seen.runs.values()} == {"FINISHED"}
    tags = seen.runs["akh"].data.tags
    assert tags["fpbench.suite_run"] == "20260101-000000-abcd"
    assert tags["fpbench.kind"] == "method"
    assert tags["fpbench.schema"] == "fpbench.results/3"


def test_a_run_sends_the_report_that_it_has_and_does_not_read_its_folder_again(
    runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = finished_run(runs, repeats=1)
    report = read(folder)
    (folder / "SHA256SUMS").write_text("of other files")
    with pytest.raises(InputError, match="damaged"):
        tracking.send(folder)
    with caplog.at_level(logging.WARNING, "fpbench"):
        tracking.fpbench_reported(report)
    assert not caplog.records
    assert Seen(runs).runs["akh"].info.status == "FINISHED"


def test_curves_are_metrics_over_rho(runs: Path) -> None:
    folder = finished_run(runs)
    tracking.send(folder)
    seen, akh = Seen(runs), json.loads((folder / "results.json").read_text())["methods"][0]
    run = seen.runs["akh"]
    assert len(run.data.metrics) <= 15
    for key in CURVES:
        points = seen.client.get_metric_history(run.info.run_id, key)
        assert [p.step for p in points] == list(range(101))
        wanted = akh["summary"].get(key.removeprefix("curve/")) or [k / 100 for k in range(101)]
        assert [p.value for p in points] == pytest.approx(wanted)
        # Never the time of sending: that would double every point the second time.
        assert {p.timestamp // 1000 for p in points} == {1767225600}
    summary = akh["summary"]
    assert run.data.metrics["summary/aruc"] == pytest.approx(summary["aruc"])
    assert run.data.metrics["summary/aruc_hi"] == pytest.approx(summary["aruc_ci"][1])
    repeats = [seen.runs[f"akh #{i}"].data.metrics["summary/aruc"] for i in range(2)]
    assert sum(repeats) / 2 == pytest.approx(summary["aruc"])
    assert not set(CURVES) & seen.runs["akh #0"].data.metrics.keys()


def test_a_loss_is_a_metric_over_steps_and_time(runs: Path) -> None:
    tracking.send(finished_run(runs, losses={"akh": [(0, 0.5, 3.0), (4, 2.5, 1.0)]}))
    seen = Seen(runs)
    found = seen.client.get_metric_history(seen.runs["akh"].info.run_id, "loss")
    began = seen.runs["akh"].info.start_time
    assert [(p.step, p.timestamp - began, p.value) for p in found] == [(0, 500, 3), (4, 2500, 1)]
    assert "loss" not in seen.runs["random (again)"].data.metrics


def test_files_tables_inputs_and_who_declined(runs: Path) -> None:
    folder = finished_run(runs)
    (folder / "figures").mkdir()
    (folder / "figures" / "curves.svg").write_text("<svg/>")
    tracking.send(folder)
    seen, suite = Seen(runs), "suite 20260101-000000-abcd"
    assert seen.files(suite) == [
        "figures", "methods.json", "results.json", "suite.yaml", "suspects.csv",
    ]  # fmt: skip
    assert seen.files(suite, "figures") == ["figures/curves.svg"]
    # A method that declined has a reason, and no run that a chart would show as zeros.
    assert "metav: metav needs probs" in seen.runs[suite].data.tags["fpbench.declined"]
    assert "metav" not in seen.runs
    methods = seen.table(suite, "methods.json")
    assert list(methods["method"]) == ["akh", "random (again)", "metav"]
    suspects = seen.table("akh", "suspects.json")
    assert len(suspects) == 16
    assert {"name", "kind", "positive", "accuracy", "matching_rate"} <= set(suspects.columns)
    inputs = seen.runs["akh"].inputs.dataset_inputs
    assert [(i.dataset.name, i.tags[0].value) for i in inputs] == [
        ("digits", "evaluation"), ("zoo of toy", "suspects"),
    ]  # fmt: skip


def test_a_method_that_failed(runs: Path) -> None:
    trace = "Traceback (most recent call last):\n  ...\nValueError: no such layer"
    tracking.send(finished_run(runs, errors={"akh": trace}, failures={"ab" * 32: "out of luck"}))
    seen = Seen(runs)
    status = {name: run.info.status for name, run in seen.runs.items()}
    assert status["akh"] == status["akh #0"] == status["suite 20260101-000000-abcd"] == "FAILED"
    assert status["akh #1"] == status["random (again)"] == "FINISHED"
    assert seen.runs["akh"].data.tags["fpbench.error"] == "ValueError: no such layer"
    assert seen.files("akh", "errors") == ["errors/0.txt"]
    assert seen.files("suite 20260101-000000-abcd", "failures") == ["failures/abababababab.txt"]
    assert "summary/aruc" in seen.runs["akh"].data.metrics  # of the repeats that went well
    assert not seen.runs["akh #0"].data.metrics


def test_a_method_without_any_result_has_no_numbers(runs: Path) -> None:
    folder = finished_run(runs, repeats=1, errors={"akh": "KeyError: 'x'"})
    sent = tracking.send(folder)
    run = Seen(runs).runs["akh"]
    assert (run.info.status, run.data.metrics) == ("FAILED", {})
    assert sent["methods"]["akh"] not in sent["overlay"]
    assert sent["methods"]["random (again)"] in sent["overlay"]


# ── once and again ────────────────────────────────────────────────────────────────


def test_sending_twice_doubles_nothing(runs: Path) -> None:
    folder = finished_run(runs)
    first = tracking.send(folder)
    before, points = Seen(runs), Seen(runs).points()
    assert points["akh", "curve/robustness"] == 101
    assert tracking.send(folder) == first
    after = Seen(runs)
    assert after.points() == points
    assert {n: r.info.run_id for n, r in after.runs.items()} == {
        n: r.info.run_id for n, r in before.runs.items()
    }


@pytest.mark.parametrize("calls", [2, 5, 6, 11, 12, 13, 17, 18, 24])
def test_an_interrupted_upload_is_completed(
    runs: Path, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished_run(runs, repeats=1)
    whole = upload.Watch.call

    def breaks(self: upload.Watch, *args: Any, **kwargs: Any) -> Any:
        if self.calls == calls:
            raise ConnectionError("the cable is out")
        return whole(self, *args, **kwargs)

    with monkeypatch.context() as broken:
        broken.setattr(upload.Watch, "call", breaks)
        with pytest.raises(ResourceError, match="the cable is out"):
            tracking.send(folder)
    assert not (folder / "mlflow.json").exists()
    if calls > 3:
        # What is not complete says so.
        assert {r.info.status for r in Seen(runs).runs.values()} <= {"KILLED", "FINISHED"}
    tracking.send(folder)
    seen = Seen(runs)
    assert len(seen.runs) == len(seen.client.search_runs([seen.experiment])) == 5
    assert {run.info.status for run in seen.runs.values()} == {"FINISHED"}
    points = seen.points()
    assert {points[name, key] for name in ("akh", "random (again)") for key in CURVES} == {101}
    assert {n for (_, key), n in points.items() if key not in CURVES} == {1}
    assert len(seen.table("akh", "suspects.json")) == 16
    assert len(seen.runs["akh"].inputs.dataset_inputs) == 2


def killed_before_the_first_status(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(MlflowClient, "set_terminated", killed)
        with pytest.raises(KeyboardInterrupt):
            tracking.send(folder)


def test_the_next_run_completes_what_a_killed_upload_left(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = finished_run(runs, "20260101-000000-aaaa", repeats=1)
    killed_before_the_first_status(first, monkeypatch)
    assert [run.info.status for run in Seen(runs).runs.values()] == ["RUNNING"]
    tracking.fpbench_reported(read(finished_run(runs, "20260102-000000-bbbb", repeats=1)))
    seen = Seen(runs)
    found = seen.client.search_runs([seen.experiment])
    assert [run.info.status for run in found] == 10 * ["FINISHED"]
    assert (first / "mlflow.json").exists()
    assert not [*runs.glob("*/*/.mlflow*")]


def test_the_next_run_sends_one_that_was_killed_before_its_upload_began(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.write(UNTRAINED)
    with monkeypatch.context() as context:
        context.setattr(tracking, "_send_in_time", lambda _: None)
        first = desk.run_folder(desk.run("--tracking"))
    assert not (first / "mlflow.json").exists()
    desk.run("--no-tracking")
    desk.run("--tracking")
    sent = [folder.parent for folder in (desk.folder / "runs").glob("*/*/mlflow.json")]
    assert len(sent) == 2  # the first and the last; the one without tracking is nobody's business
    assert first in sent
    assert not [*(desk.folder / "runs").glob("*/*/.mlflow*")]


def test_nobody_sends_what_another_process_is_sending(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished_run(runs, repeats=1)
    killed_before_the_first_status(folder, monkeypatch)
    with FileLock(Tracker.of(runs).lock_file(folder)):
        tracking.complete(runs)
        with pytest.raises(ResourceError, match="found another; try again"):
            tracking.send(folder, wait=0)
    assert [run.info.status for run in Seen(runs).runs.values()] == ["RUNNING"]


def test_the_numbers_agree_everywhere(runs: Path) -> None:
    """results.json, MLflow, the terminal's table and the page, of one run."""
    folder = finished_run(runs)
    tracking.send(folder)
    seen, data = Seen(runs), json.loads((folder / "results.json").read_text())
    out = io.StringIO()
    show_results(read(folder).record, Screen(file=out, width=200))
    printed = {line.split("  ")[0]: line for line in out.getvalue().splitlines()}
    outcome = CliRunner().invoke(cli.main, ["report", str(folder)])
    page = Path(outcome.output.strip()).read_text()
    table = re.findall(r"<td>(.*?)</td>", page)
    for method in data["methods"][:2]:
        summary, logged = method["summary"], seen.runs[method["method"]].data.metrics
        assert logged["summary/aruc"] == summary["aruc"]
        assert logged["summary/auc"] == summary["auc"]
        assert logged["summary/aruc_calibrated"] == summary["aruc_calibrated"]
        full = summary["robustness_at_full_uniqueness"]
        assert logged["summary/robustness_at_full_uniqueness"] == full
        assert "summary/tpr_at_5_percent_fpr" not in logged  # not measured: too few negatives
        for name in ("found", "false_positives"):
            assert logged[f"summary/{name}"] == summary[name]
        assert logged["cost/queries"] == summary["queries"]
        cells = table[table.index(method["method"]) :]
        for key in ("aruc", "aruc_calibrated"):
            low, high = summary[f"{key}_ci"]
            shown = f"{summary[key]:.3f} ({low:.2f} to {high:.2f})"
            assert shown in printed[method["method"]]
            assert shown in cells[:13]
        low, high = summary["robustness_at_full_uniqueness_ci"]
        seconds = summary["construct_seconds"]
        for shown in (f"{100 * full:.0f} % ({100 * low:.0f} to {100 * high:.0f})",
                      f"{seconds:.2f} s", str(summary["queries"])):  # fmt: skip
            assert shown in printed[method["method"]]
            assert shown in cells[:13]
        assert f"{100 * summary['found']:.0f} %" in printed[method["method"]]


def test_two_runs_of_a_suite_share_an_experiment(runs: Path) -> None:
    first = tracking.send(finished_run(runs, "20260101-000000-aaaa", repeats=1))
    second = tracking.send(finished_run(runs, "20260102-000000-bbbb", repeats=1))
    assert first["experiment_id"] == second["experiment_id"]
    assert first["suite"] != second["suite"]


# ── trackers that are not there ───────────────────────────────────────────────────


@pytest.fixture
def hanging() -> Iterator[str]:
    """Accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def closed() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def answering() -> Iterator[Callable[[int, float], str]]:
    """Is healthy, then answers everything with one status after some seconds."""
    with ExitStack() as stack:

        def start(status: int, seconds: float) -> str:
            def answer(request: BaseHTTPRequestHandler, _: bytes) -> Answer:
                healthy = request.path == "/health"
                time.sleep(0 if healthy else seconds)
                return 200 if healthy else status, b"", {}

            return stack.enter_context(serving(answer))

        yield start


def lost(folder: Path, caplog: pytest.LogCaptureFixture) -> tuple[float, str]:
    """Report a run; seconds lost, and the one line that says so."""
    began = time.perf_counter()
    with caplog.at_level(logging.WARNING):
        tracking.fpbench_reported(read(folder))
    seconds = time.perf_counter() - began
    ours = [r.getMessage() for r in caplog.records if r.name == "fpbench"]
    assert len(ours) == 1
    assert "\n" not in ours[0]
    assert ours[0].endswith(f"fpbench sync {folder}")
    return seconds, ours[0]


def test_nobody_listens(
    runs: Path, closed: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = finished_run(runs, repeats=1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", closed)
    seconds, line = lost(folder, caplog)
    assert seconds < 1
    assert f"expected an MLflow server at {closed}, got" in line
    outcome = CliRunner().invoke(cli.main, ["sync", str(folder)])
    assert outcome.exit_code == 3
    assert outcome.stderr.count("\n") == 1


def test_accepts_and_never_answers(
    runs: Path, hanging: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = finished_run(runs, repeats=1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", hanging)
    seconds, line = lost(folder, caplog)
    assert seconds < 5
    assert "no answer within 3 s" in line


def test_healthy_but_hangs_later(
    runs: Path, answering: Callable[[int, float], str], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    folder = finished_run(runs, repeats=1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", answering(200, 30))
    monkeypatch.setattr(tracking, "PATIENCE", 1.0)
    monkeypatch.setattr(tracking, "LEAVE", 1.5)
    seconds, line = lost(folder, caplog)
    assert seconds < 4
    assert "answers" in line


@pytest.mark.parametrize("each", [0.2, 1.0, 3.0])
def test_answers_everything_but_slowly(
    runs: Path, each: float, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A real database whose every answer takes a while."""
    folder, whole = finished_run(runs, repeats=1), upload.Watch.call

    def slowly(self: upload.Watch, *args: Any, **kwargs: Any) -> Any:
        def slow(function: Callable[..., Any], *a: Any, **kw: Any) -> Any:
            time.sleep(each)
            return function(*a, **kw)

        return whole(self, slow, *args, **kwargs)

    with monkeypatch.context() as tired:
        tired.setattr(upload.Watch, "call", slowly)
        tired.setattr(Tracker, "is_local", False)
        tired.setattr(tracking, "PATIENCE", 0.8)
        tired.setattr(tracking, "LEAVE", 1.2)
        _, line = lost(folder, caplog)
    took = re.search(r"the tracker took ([\d.]+) s for \d+ answers", line)
    assert took is not None
    assert float(took[1]) <= 1.4
    tracking.send(folder)
    seen = Seen(runs)
    assert {run.info.status for run in seen.runs.values()} == {"FINISHED"}
    assert {n for (_, key), n in seen.points().items() if key in CURVES} == {101}


def test_refuses_and_the_password_stays_here(
    runs: Path, answering: Callable[[int, float], str], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    folder = finished_run(runs, repeats=1)
    uri = answering(403, 0).replace("http://", "http://me:s3cret@")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    seconds, line = lost(folder, caplog)
    assert seconds < 5
    assert "403" in line
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("content", [None, "{", "[]", '{"schema": "fpbench.results/9"}',
                                     '{"schema": "fpbench.results/1"}'])  # fmt: skip
def test_not_a_run_folder(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    outcome = CliRunner().invoke(cli.main, ["sync", str(tmp_path)])
    assert outcome.exit_code == 2
    assert outcome.stderr.startswith("error: expected")
    assert outcome.stderr.count("\n") == 1


def test_damaged_results(runs: Path) -> None:
    folder = finished_run(runs, repeats=1)
    data = json.loads((folder / "results.json").read_text())
    del data["methods"][0]["summary"]["uniqueness"]
    (folder / "results.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="damaged"):
        tracking.send(folder)


def test_a_folder_may_have_any_name(
    blank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    runs = tmp_path / "a%25b?c=d#e f"
    runs.mkdir()
    shutil.copy(blank, runs / "mlflow.db")
    tracker = Tracker.of(runs)
    before = (runs / "mlflow.db").read_bytes()
    MlflowClient(tracker.uri).create_experiment("x", artifact_location=tracker.artifacts)
    assert tracker.database == runs / "mlflow.db"
    assert tracker.database.read_bytes() != before


def test_where_results_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    local = Tracker.of(tmp_path)
    assert local.uri == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert local.artifacts == (tmp_path / "mlflow-artifacts").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:s3cret@host:5000/path/")
    remote = Tracker.of(tmp_path)
    assert (remote.shown, remote.artifacts) == ("https://host:5000/path", None)


def test_mlflow_is_told_what_fpbench_wants_unless_the_user_says_otherwise(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "99")
    tracking.send(finished_run(runs, repeats=1))
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "99"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
