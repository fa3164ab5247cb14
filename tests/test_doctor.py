"""`fpbench doctor` finds what is wrong, and never falls over it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from filelock import FileLock

from conftest import install
from fpbench.cli import main


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)


def ask(tmp_path: Path, exit_code: int = 0) -> list[dict[str, Any]]:
    words = ["doctor", "--json", "--store", str(tmp_path / "store"), "--runs", str(tmp_path / "r")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == exit_code, result.output
    found = json.loads(result.stdout)
    assert found["ok"] is (exit_code == 0)
    findings: list[dict[str, Any]] = found["findings"]
    return findings


def test_all_is_well_on_a_machine_that_works(tmp_path: Path) -> None:
    findings = ask(tmp_path)
    assert {f["part"] for f in findings} == {
        "version", "device", "store", "runs", "tracker", "plugin", "data"
    }  # fmt: skip
    assert not [*tmp_path.iterdir()]  # it looks, and changes nothing
    assert any("telemetry is off" in f["text"] for f in findings)


def test_data_is_found_where_it_is_and_else_the_places_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FPBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    table = tmp_path / "data" / "iwpc" / "iwpc_raw.csv.gz"
    table.parent.mkdir(parents=True)
    table.touch()
    said = {f["text"].partition(":")[0]: f for f in ask(tmp_path) if f["part"] == "data"}
    assert str(table) in said["warfarin"]["text"]
    assert said["skin"]["state"] == "missing"
    assert str(tmp_path / "data" / "ham10000-28") in said["skin"]["text"]


def test_a_held_lock_and_damage_in_the_store_are_counted(tmp_path: Path) -> None:
    store = tmp_path / "store"
    (store / "locks").mkdir(parents=True)
    (store / "locks" / "free.lock").touch()
    (store / "models" / "digits@1" / "ab" / "ab12.damaged-1-2").mkdir(parents=True)
    with FileLock(store / "locks" / "held.lock"):
        findings = ask(tmp_path, exit_code=1)
    texts = [f["text"] for f in findings if f["part"] == "store"]
    assert any("1 locks held" in text for text in texts)
    assert next(f["text"] for f in findings if f["state"] == "broken").startswith("1 files")


def test_a_tracker_that_is_down_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    broken = [f for f in ask(tmp_path, exit_code=1) if f["state"] == "broken"]
    assert [f["part"] for f in broken] == ["tracker"]
    assert "http://127.0.0.1:9" in broken[0]["text"]


def test_a_broken_plugin_is_named_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    install(tmp_path / "site", "gone", None)
    monkeypatch.syspath_prepend(tmp_path / "site")
    broken = [f for f in ask(tmp_path, exit_code=1) if f["state"] == "broken"]
    assert [f["part"] for f in broken] == ["plugin"]
    assert "No module named 'gone'" in broken[0]["text"]


def test_what_raises_becomes_a_finding_and_hides_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> bool:
        raise RuntimeError("no driver")

    monkeypatch.setattr(torch.cuda, "is_available", broken)
    findings = ask(tmp_path, exit_code=1)
    assert {"part": "device", "state": "broken", "text": "RuntimeError: no driver"} in findings
    assert {f["part"] for f in findings} >= {"store", "plugin", "data"}
