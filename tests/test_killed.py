"""A run that is killed: the same command goes on, repeats nothing, and ends where it would have.

pytest tests/test_killed.py -m kills     the same with 20 kills, in minutes
"""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from killable import Killable

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


def found(killable: Killable) -> dict[str, Any]:
    """What the newest results say that does not depend on the clock."""
    newest = max((killable.folder / "runs").glob("*/*/results.json"))
    data = json.loads(newest.read_text())
    return {
        "models": {m["name"]: (m["weights_sha256"], m["utility"]) for m in data["models"]},
        "rates": [(t["matching_rates"], t["calibration_rates"]) for t in data["trials"]],
        "verdicts": [(t["calibrated_rates"], t["p_values"]) for t in data["trials"]],
        "metrics": {
            m["method"]: {k: v for k, v in m["summary"].items() if "seconds" not in k}
            for m in data["methods"]
            if m["summary"]
        },
        "comparisons": data["comparisons"],
        "failures": data["failures"],
    }


def desk(folder: Path) -> Killable:
    folder.mkdir(exist_ok=True)
    (folder / "suite.yaml").write_text(SUITE)
    return Killable(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], float]:
    """What an uninterrupted run finds, and the seconds it takes."""
    killable = desk(tmp_path_factory.mktemp("whole"))
    began = time.monotonic()
    assert killable.finish(killable.start("--no-tracking"))[0] == 0, killable.said
    return found(killable), time.monotonic() - began


def kill_and_go_on(killable: Killable, kills: int, seconds: float, *words: str) -> int:
    """Kill a run at random moments and begin it again, until it ends; how often it was hit.

    A run that ends by itself is begun anew from an empty store, as long as kills are left.
    """
    dice, hits, before = random.Random(0), 0, {}  # noqa: S311
    for _ in range(kills):
        code = killable.killed(dice.uniform(0, 0.9 * seconds), *words)
        assert code in (-signal.SIGKILL, 0), killable.said
        hits += code != 0
        after = killable.finished()
        # What was there is there, to the byte: nothing was made again, nothing was damaged.
        assert before.items() <= after.items()
        before = after
    assert killable.finish(killable.start(*words))[0] == 0, killable.said
    assert before.items() <= killable.finished().items()
    return hits


def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_been(
    tmp_path: Path, whole: tuple[dict[str, Any], float]
) -> None:
    killable = desk(tmp_path)
    assert kill_and_go_on(killable, 3, whole[1], "--no-tracking") >= 1
    assert found(killable) == whole[0]


@pytest.mark.kills
@pytest.mark.parametrize("seed", range(5))
def test_twenty_kills_with_tracking(
    tmp_path: Path, seed: int, whole: tuple[dict[str, Any], float]
) -> None:
    killable = desk(tmp_path)
    hits = kill_and_go_on(killable, 4, whole[1])
    print(f"{hits} kills hit")
    assert found(killable) == whole[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_ends_soon_and_says_how_to_go_on(
    tmp_path: Path, number: signal.Signals
) -> None:
    killable, mark = desk(tmp_path), tmp_path / "begun"
    plugin = tmp_path / "waits.py"
    plugin.write_text(
        WAITS.format(when="built", what="built", mark=str(mark), seconds=60, swallows="ValueError")
    )
    process = killable.start("--no-tracking", plugins=(plugin,))
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
    process = killable.start("--no-tracking", plugins=(plugin,))
    stop(process, mark, signal.SIGTERM)
    code, seconds = killable.finish(process)
    assert code == 128 + signal.SIGTERM
    assert seconds < 5
    assert "stopped; the same command goes on from here" in killable.said


def stop(process: Any, mark: Path, number: signal.Signals) -> None:
    """Send a signal once the plugin has it where it should be."""
    import os

    until = time.monotonic() + 240
    while not mark.exists():
        assert process.is_alive()
        assert time.monotonic() < until
        time.sleep(0.02)
    os.kill(process.pid, number)
