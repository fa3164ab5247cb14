"""Several at once over one store: every model is made once, nothing is torn, nobody is disturbed.

A few rounds; as many as FPBENCH_ROUNDS says, to be surer.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import HERE, Desk
from stores import SMALL, models, rates, told

ROUNDS = int(os.environ.get("FPBENCH_ROUNDS", "3"))

WORKER = """\
import json, os, sys
from click.testing import CliRunner
from fpbench.builtin.reporters import figures
from fpbench.cli import main

figures.draw = lambda *_: []  # drawing takes longer than all the rest
print("ready", flush=True)
for line in sys.stdin:
    words, os.environ["TOYS_MADE"] = json.loads(line)
    result = CliRunner().invoke(main, words)
    print(json.dumps([result.exit_code, result.stdout, result.stderr]), flush=True)
"""


class Worker:
    """A process that runs one command after another."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER], cwd=HERE, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "TOYS_SLEEP": "0.05"},  # so that they do meet
        )  # fmt: skip

    def tell(self, words: list[object], made: Path) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps([[*map(str, words)], str(made)]) + "\n")
        self.process.stdin.flush()

    @property
    def done(self) -> bool:
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def answer(self, exit_code: int = 0) -> dict[str, Any]:
        assert self.process.stdout
        code, out, err = json.loads(self.process.stdout.readline())
        assert code == exit_code, out + err
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        return found


@pytest.fixture(scope="module")
def workers() -> Iterator[list[Worker]]:
    both = [Worker(), Worker()]
    for worker in both:
        assert worker.process.stdout
        assert worker.process.stdout.readline() == "ready\n"
    yield both
    for worker in both:
        worker.process.kill()
        worker.process.communicate()


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> list[dict[str, float]]:
    """The rates of a run that nobody disturbs."""
    desk = Desk(tmp_path_factory.mktemp("alone"))
    desk.write(SMALL)
    return rates(desk.run())


def run_of(desk: Desk) -> list[object]:
    return ["run", desk.folder / "suite.yaml", "--store", desk.folder / "store", "--runs",
            desk.folder / "runs", "--no-tracking", "--json", "-p", HERE / "toys.py"]  # fmt: skip


def check(desk: Desk, answer: dict[str, Any], alone: list[dict[str, float]]) -> None:
    assert rates(json.loads((Path(answer["run"]) / "results.json").read_text())) == alone
    assert answer["errors"] == answer["failures"] == {}


def leftovers(desk: Desk) -> list[Path]:
    store = desk.folder / "store"
    return [*store.rglob(".tmp-*"), *store.rglob("*.damaged-*"), *(store / "running").iterdir()]


def test_two_runs_make_every_model_once(workers, alone, tmp_path):
    for k in range(ROUNDS):
        desk = Desk(tmp_path / str(k))
        desk.folder.mkdir()
        desk.write(SMALL)
        for worker in workers:
            worker.tell(run_of(desk), desk.folder / "made.txt")
        for worker in workers:
            check(desk, worker.answer(), alone)
        made = Counter((desk.folder / "made.txt").read_text().splitlines())
        assert made == {"drawn(wide)#0": 1, "drawn#1": 1, "drawn#2": 1}
        assert len(models(desk)) == 5
        assert told(desk, "verify")["damaged"] == {}
        assert leftovers(desk) == []


def test_a_run_is_not_disturbed_by_prunes_that_keep_another_suite(workers, alone, tmp_path):
    desk = Desk(tmp_path)
    desk.write(SMALL)
    (tmp_path / "other.yaml").write_text(SMALL.replace("zoo:", "zoo:\n  seed: 7"))
    prune = ["store", "prune", "--keep", tmp_path / "other.yaml", "--store", tmp_path / "store",
             "--yes", "--json", "-p", HERE / "toys.py"]  # fmt: skip
    runner, pruner = workers
    for _ in range(ROUNDS):
        log = tmp_path / "made.txt"
        log.write_text("")
        runner.tell(run_of(desk), log)
        while not runner.done:
            pruner.tell(prune, log)
            pruner.answer()
        check(desk, runner.answer(), alone)
        made = Counter(log.read_text().splitlines())
        assert made == {"drawn(wide)#0": 1, "drawn#1": 1, "drawn#2": 1}
        pruner.tell(prune, log)
        pruner.answer()
        assert models(desk) == []
        assert leftovers(desk) == []
