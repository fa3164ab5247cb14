"""Out of disk at any write, out of memory anywhere: nothing is lost, the same command goes on."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stores import leftovers, told

import fpbench
from conftest import SMALL, TOYS, Desk, rates


class Disk:
    """A disk that is full from its k-th write on: a file or folder made, or a content synced.

    writes: how many there were. A content that does not fit is torn.
    """

    def __init__(self) -> None:
        self.root, self.writes, self.room = "", 0, 0
        self.sync = os.fsync

    def fill(self, root: Path, room: int) -> None:
        self.root, self.writes, self.room = str(root), 0, room

    def write(self, path: str) -> None:
        self.writes += 1
        if self.writes > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def hear(self, event: str, args: tuple[object, ...]) -> None:
        if not self.root or event not in ("open", "os.mkdir"):
            return
        path = str(args[0])
        if not path.startswith(self.root) or os.path.exists(path):
            return
        if event == "os.mkdir" or int(str(args[2])) & os.O_CREAT:
            self.write(path)

    def fsync(self, handle: int) -> None:
        if self.root and stat.S_ISREG(os.fstat(handle).st_mode):
            try:
                self.write("content")
            except OSError:
                os.ftruncate(handle, os.fstat(handle).st_size // 2)
                raise
        self.sync(handle)


DISK = Disk()
sys.addaudithook(DISK.hear)


@pytest.fixture
def disk(monkeypatch) -> Iterator[Disk]:
    monkeypatch.setattr(os, "fsync", DISK.fsync)
    yield DISK
    DISK.root = ""


def run(desk: Desk) -> list[dict[str, float]]:
    """Run the suite from Python, without a screen, and return the rates."""
    report = fpbench.run(
        desk.folder / "suite.yaml", store=desk.folder / "store", runs=desk.folder / "runs",
        plugins=[TOYS], tracking=False, quiet=True,
    )  # fmt: skip
    assert not report.failed
    return rates(report.data)


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_write_loses_nothing_that_is_finished(disk, tmp_path):
    whole = Desk.of(tmp_path / "whole", SMALL)
    disk.fill(whole.folder, sys.maxsize)
    expected, writes = run(whole), disk.writes
    assert writes > 50

    for room in range(writes):
        desk = Desk.of(tmp_path / str(room), SMALL)
        disk.fill(desk.folder, room)
        with pytest.raises((OSError, fpbench.ResourceError), match="No space left"):
            run(desk)
        disk.root = ""
        assert run(desk) == expected, room
        # What the run had found damaged, it would have set aside.
        assert leftovers(desk) == [], room


@pytest.mark.parametrize("room", [5, 40])
def test_a_full_disk_is_told_in_a_sentence_and_the_same_command_goes_on(disk, tmp_path, room):
    desk = Desk.of(tmp_path, SMALL)
    disk.fill(tmp_path, room)
    full = desk("run")
    disk.root = ""
    assert full.exit_code == 3
    assert "No space left on device" in full.stderr
    assert "what is finished is kept, and the same command goes on from there" in full.stderr
    assert full.stderr.count("\n") == 1
    assert [trial["cached"] for trial in desk.run()["trials"]] == [False]


@pytest.fixture
def tmpfs(tmp_path) -> Iterator[Path]:
    folder = tmp_path / "tmpfs"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(folder)], capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"no disk of our own to fill: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("works", [(), ("--workers", 2)], ids=["inline", "local"])
def test_a_real_disk_that_is_full_is_gone_on_with_when_it_has_room_again(tmpfs, works):
    desk = Desk.of(tmpfs, SMALL.replace("copies: 2", "copies: 6"))
    full = desk("run", *works)
    assert full.exit_code == 3, full.output
    assert told(desk, "verify")["damaged"] == {}
    subprocess.run(["mount", "-o", "remount,size=50m", str(tmpfs)], check=True)
    again = desk.run(*works)
    assert told(desk, "verify")["damaged"] == {}
    assert rates(again) == rates(desk.run("--store", desk.folder / "another"))


# ── memory ────────────────────────────────────────────────────────────────────────

HUNGRY = """\
import os
from dataclasses import dataclass
import torch
from toys import Drawn, Grid
import fpbench

def eat():
    how = os.environ.get("HUNGRY")
    if how == "numbers":
        bytes(1 << 62)
    elif how == "tensor":
        torch.empty(1 << 52)
    elif how == "gpu":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 90.00 GiB.\\nMore")

@dataclass(frozen=True, kw_only=True)
class Greedy(Grid):
    name = "greedy"
    def construct(self, case):
        eat()
        return super().construct(case)

@dataclass(frozen=True, kw_only=True)
class Hungry(Drawn):
    name = "hungry"
    def make(self, lab):
        eat()
        return super().make(lab)

@fpbench.hookimpl
def fpbench_recipes():
    return [Hungry]

@fpbench.hookimpl
def fpbench_fingerprinters():
    return [Greedy]
"""

WAYS = ("numbers", "tensor", "gpu")


@pytest.fixture
def hungry(tmp_path) -> Path:
    path = tmp_path / "hungry.py"
    path.write_text(HUNGRY)
    return path


@pytest.mark.parametrize("way", WAYS)
def test_a_method_that_asks_for_too_much_memory_fails_alone(tmp_path, hungry, monkeypatch, way):
    desk = Desk.of(tmp_path, SMALL + "  - {method: greedy}\n")
    monkeypatch.setenv("HUNGRY", way)
    errors = {t["method"]: t["error"] for t in desk.run(exit_code=1, plugins=(hungry,))["trials"]}
    assert errors["grid"] is None
    assert errors["greedy"].startswith("greedy ran out of memory")
    assert "\n" not in errors["greedy"]
    monkeypatch.delenv("HUNGRY")
    trials = desk.run(plugins=(hungry,))["trials"]
    assert [(t["method"], t["cached"]) for t in trials] == [("grid", True), ("greedy", False)]


@pytest.mark.parametrize("way", WAYS)
def test_a_model_there_is_no_memory_for_stops_the_run_and_nothing_is_lost(
    tmp_path, hungry, monkeypatch, way
):
    desk = Desk(tmp_path)
    desk.write(SMALL.replace("    - {recipe: drawn, copies: 2}",
                             "    - {recipe: drawn, copies: 2}\n    - {recipe: hungry, seed: 9}"
                             "\n    - {recipe: hungry, seed: 10}"))  # fmt: skip
    monkeypatch.setenv("HUNGRY", way)
    stopped = desk("run", plugins=(hungry,))
    assert stopped.exit_code == 3, stopped.output
    assert stopped.stderr.startswith("error: out of memory")
    assert stopped.stderr.endswith("the same command goes on from there\n")
    assert stopped.stderr.count("\n") == 1
    found = told(desk, "verify")
    assert found["damaged"] == {}
    assert found["models"] > 0
    monkeypatch.setenv("HUNGRY", "")
    monkeypatch.setenv("TOYS_MADE", str(tmp_path / "made.txt"))
    desk.run(plugins=(hungry,))
    assert set((tmp_path / "made.txt").read_text().split()) == {"hungry#9", "hungry#10"}
