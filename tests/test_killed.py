"""A run that is killed: the same command goes on, repeats nothing, and ends where it would have.

`pytest tests/test_killed.py -m slow` does the same with $FPBENCH_KILLS kills, five by default.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from killable import WORKS, Killable, serving

from conftest import TINY, UNTRAINED, Desk, wait_until

# Methods that take a moment, so that a kill hits them too.
SUITE = TINY.replace("n_queries: 5, steps: 10", "n_queries: 5, steps: 60")

WAITS = """\
import time
from pathlib import Path

import fpbench

@fpbench.hookimpl
def fpbench_{when}({what}):
    Path({mark!r}).touch()
    while True:
        try:
            time.sleep({seconds})
        except {swallows}:
            pass
"""

KILLS = int(os.environ.get("FPBENCH_KILLS", "5"))
"""How many runs are killed at random moments, for each executor."""


def desk(folder: Path, executor: str = "inline") -> Killable:
    return Killable(Desk.of(folder, SUITE).folder, executor)


@pytest.fixture(params=WORKS)
def executor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with serving():
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], float]:
    """What an uninterrupted run finds, and the seconds it takes."""
    killable = desk(tmp_path_factory.mktemp("whole"))
    began = time.monotonic()
    assert killable.finish(killable.start())[0] == 0, killable.said
    return killable.found(), time.monotonic() - began


def kill_and_go_on(killable: Killable, kills: int, dice: random.Random, seconds: float) -> int:
    """Kill a run up to `kills` times at random moments, go on each time, in the end to the end;
    how often it was hit. Seconds are those of a whole run, and less is left each time."""
    hits: int = 0
    before: dict[str, bytes] = {}
    for k in range(kills):
        code = killable.killed(dice.uniform(0, seconds / (1 + k)))
        assert code in (-signal.SIGKILL, 0), killable.said
        hits += code != 0
        after = killable.finished()
        # What was there is there, to the byte: nothing was made again, nothing was damaged.
        assert before.items() <= after.items()
        before = after
    assert killable.finish(killable.start())[0] == 0, killable.said
    assert before.items() <= killable.finished().items()
    return hits


def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_been(
    tmp_path: Path, whole: tuple[dict[str, Any], float], executor: str
) -> None:
    found, seconds = whole
    killable = desk(tmp_path, executor)
    dice = random.Random(0)  # noqa: S311
    assert kill_and_go_on(killable, 3, dice, seconds) >= 1
    assert killable.found() == found


def test_a_cohort_of_which_some_models_are_in_place_is_completed_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk.of(tmp_path, UNTRAINED)
    made = tmp_path / "made"
    monkeypatch.setenv("TOYS_MADE", str(made))
    moved = []

    rename = Path.rename

    def killed(place: Path, to: Path) -> Path:
        if len(moved) == 2:
            raise KeyboardInterrupt
        moved.append(to)
        return rename(place, to)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        assert desk("run").exit_code == 130
    assert desk("run").exit_code == 0
    names = made.read_text().splitlines()
    assert len(names) == len(set(names))


@pytest.mark.slow
def test_many_kills(tmp_path: Path, whole: tuple[dict[str, Any], float], executor: str) -> None:
    found, seconds = whole
    dice, hits, lives = random.Random(1), 0, 0  # noqa: S311
    while hits < KILLS:
        killable = desk(tmp_path / str(lives), executor)
        hits += kill_and_go_on(killable, 4, dice, seconds)
        lives += 1
        assert killable.found() == found
        print(f"{hits} kills in {lives} runs, {len(killable.finished())} finished things each")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_ends_soon_and_says_how_to_go_on(
    tmp_path: Path, number: signal.Signals, executor: str
) -> None:
    killable, mark = desk(tmp_path, executor), tmp_path / "begun"
    plugin = tmp_path / "waits.py"
    plugin.write_text(
        WAITS.format(when="built", what="built", mark=str(mark), seconds=60, swallows="ValueError")
    )
    process = killable.start(plugins=(plugin,))
    stop(process, mark, number)
    code, seconds = killable.finish(process)
    assert code == 128 + number
    assert seconds < 5
    assert "stopped; the same command goes on from here" in killable.said
    assert "Traceback" not in killable.said


def test_a_plugin_that_catches_everything_cannot_hold_it_longer(tmp_path: Path) -> None:
    killable, mark = desk(tmp_path), tmp_path / "begun"
    plugin = tmp_path / "waits.py"
    plugin.write_text(
        WAITS.format(when="planned", what="plan", mark=str(mark), seconds=60,
                     swallows="BaseException")
    )  # fmt: skip
    process = killable.start(plugins=(plugin,))
    stop(process, mark, signal.SIGTERM)
    code, seconds = killable.finish(process)
    assert code == 128 + signal.SIGTERM
    assert seconds < 5
    assert "stopped; the same command goes on from here" in killable.said


def stop(process: Any, mark: Path, number: signal.Signals) -> None:
    """Send a signal once the plugin has it where it should be."""
    wait_until(lambda: mark.exists() or not process.is_alive(), 240)
    assert process.is_alive()
    os.kill(process.pid, number)
