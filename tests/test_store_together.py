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
from stores import leftovers, models, told

from conftest import HERE, SMALL, TOYS, Desk, rates

ROUNDS = int(os.environ.get("FPBENCH_ROUNDS", "3"))

WORKER = """\
import json, os, sys
from click.testing import CliRunner
import fpbench.reporting.figures
from fpbench.cli import main

fpbench.reporting.figures.draw = lambda *_: []  # drawing takes longer than all the rest
print("ready", flush=True)
for line in sys.stdin:
    result = CliRunner().invoke(main, json.loads(line))
    print(json.dumps([result.exit_code, result.stdout, result.stderr]), flush=True)
"""


class Worker:
    """A process that runs one command after another."""

    def __init__(self, log: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER], cwd=HERE, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            # So that they do meet. What is there at first is what workers have for ever.
            env={**os.environ, "TOYS_SLEEP": "0.05", "TOYS_MADE": str(log)},
        )  # fmt: skip

    def tell(self, words: list[object]) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps([*map(str, words)]) + "\n")
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
def log(tmp_path_factory) -> Path:
    """What was made from nothing, each time it was."""
    return tmp_path_factory.mktemp("log") / "made.txt"


@pytest.fixture(scope="module")
def workers(log) -> Iterator[list[Worker]]:
    both = [Worker(log), Worker(log)]
    for worker in both:
        assert worker.process.stdout
        assert worker.process.stdout.readline() == "ready\n"
    yield both
    for worker in both:
        worker.process.kill()
        worker.process.communicate()


@pytest.fixture
def alone(small_results) -> list[dict[str, float]]:
    """The rates of a run that nobody disturbs."""
    return rates(small_results)


def run_of(desk: Desk, *args: object) -> list[str]:
    return desk.words("run", "--json", *args)


def check(desk: Desk, answer: dict[str, Any], alone: list[dict[str, float]]) -> None:
    assert rates(json.loads((Path(answer["run"]) / "results.json").read_text())) == alone
    assert answer["errors"] == answer["failures"] == {}


def test_two_runs_make_every_model_once(workers, log, alone, tmp_path):
    """One does the work itself, the other has workers."""
    for k in range(ROUNDS):
        log.write_text("")
        desk = Desk.of(tmp_path / str(k), SMALL)
        for worker, words in zip(workers, ([], ["--workers", 2]), strict=True):
            worker.tell(run_of(desk, *words))
        for worker in workers:
            check(desk, worker.answer(), alone)
        made = Counter(log.read_text().splitlines())
        assert made == {"drawn(wide)#0": 1, "drawn#1": 1, "drawn#2": 1}
        assert len(models(desk)) == 5
        assert told(desk, "verify")["damaged"] == {}
        assert leftovers(desk) == []


def test_a_run_is_not_disturbed_by_prunes_that_keep_another_suite(workers, log, alone, tmp_path):
    desk = Desk.of(tmp_path, SMALL)
    (tmp_path / "other.yaml").write_text(SMALL.replace("zoo:", "zoo:\n  seed: 7"))
    prune = ["store", "prune", "--keep", tmp_path / "other.yaml", "--store", tmp_path / "store",
             "--yes", "--json", "-p", TOYS]  # fmt: skip
    pruner, runner = workers
    for _ in range(ROUNDS):
        log.write_text("")
        runner.tell(run_of(desk, "--workers", 2))
        while not runner.done:
            pruner.tell(prune)
            pruner.answer()
        check(desk, runner.answer(), alone)
        made = Counter(log.read_text().splitlines())
        assert made == {"drawn(wide)#0": 1, "drawn#1": 1, "drawn#2": 1}
        pruner.tell(prune)
        pruner.answer()
        assert models(desk) == []
        assert leftovers(desk) == []
