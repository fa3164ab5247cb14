"""Runs of the tiny suite in processes that can be killed, each forked from one that has torch."""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

# What a run imports on its way. This module is what the fork server loads, once for all runs.
import filelock
import matplotlib.backends.backend_agg
import matplotlib.backends.backend_svg
import matplotlib.figure
import sklearn.linear_model
import sklearn.metrics
import torch._dynamo
import torch.func
from scipy import stats

from fpbench.cli import main

LOADED = (filelock, matplotlib, sklearn, stats, torch)

SERVER = multiprocessing.get_context("forkserver")

WORKS = {"inline": ("--executor", "inline"), "local": ("--workers", "2")}

if "conftest" not in sys.modules:  # in the server, hence in every run and in every worker
    # Workers are forked from it too, rather than from a server that each run would have to start.
    multiprocessing.forkserver.ensure_running = lambda: None
    multiprocessing.forkserver.ForkServer.ensure_running = lambda _: None  # type: ignore[method-assign]


def _main(words: list[str], said: str) -> None:
    out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    main(words)


@contextmanager
def serving() -> Iterator[None]:
    """A server that has loaded this module; one that other tests started has not."""
    stop = multiprocessing.forkserver._forkserver._stop  # type: ignore[attr-defined]
    stop()
    SERVER.set_forkserver_preload(["killable"])
    # The one thing that it takes over: it ignores sys.path, and modules that it does not find.
    with patch.dict(os.environ, PYTHONPATH=str(Path(__file__).parent)):
        process = SERVER.Process(target=int)
        process.start()
        process.join()
    yield
    stop()


@dataclass(frozen=True)
class Killable:
    """A folder with a suite, its store and its runs; who does the work."""

    folder: Path
    executor: str = "inline"

    def command(self, *words: str, plugins: tuple[Path, ...] = ()) -> list[str]:
        """Return the words of the command that starts a run."""
        from conftest import Desk  # the fork server must not load it

        return Desk(self.folder).words("run", *WORKS[self.executor], *words, plugins=plugins)

    def start(self, *words: str, plugins: tuple[Path, ...] = ()) -> Any:
        """Begin a run; the process. Inside `serving`."""
        command, said = self.command(*words, plugins=plugins), str(self.folder / "said.txt")
        process = SERVER.Process(target=_main, args=(command, said))
        process.start()
        return process

    def finish(self, process: Any, seconds: float = 300) -> tuple[int, float]:
        """Its exit code (-9 if it was killed), and the seconds until it ended."""
        began = time.monotonic()
        process.join(seconds)
        assert not process.is_alive(), "it does not end"
        return process.exitcode, time.monotonic() - began

    def killed(self, after: float, *words: str, number: int = signal.SIGKILL) -> int:
        """Run, and end it after some seconds if it has not ended by itself; its exit code."""
        process = self.start(*words)
        process.join(after)
        if process.is_alive():
            os.kill(process.pid, number)
        return self.finish(process)[0]

    @property
    def said(self) -> str:
        """What the last run printed."""
        return (self.folder / "said.txt").read_text()

    def finished(self) -> dict[str, bytes]:
        """Every finished member and trial, by its place in the store: a member that is made
        again has other seconds, and another time, in it."""
        store = self.folder / "store"
        found = [*store.glob("models/*/??/*/made.json"), *store.glob("trials/??/*.json")]
        return {
            str(f.relative_to(store)): f.read_bytes()
            for f in found
            if not any(part.startswith(".") for part in f.relative_to(store).parts)
        }

    def found(self) -> dict[str, Any]:
        """What the newest results say that does not depend on the clock."""
        newest = max((self.folder / "runs").glob("*/*/results.json"))
        data = json.loads(newest.read_text())
        rates = ("matching_rates", "calibration_rates", "calibrated_rates", "p_values")
        return {
            "models": {m["name"]: (m["weights_sha256"], m["utility"]) for m in data["models"]},
            "rates": [[t[name] for name in rates] for t in data["trials"]],
            "metrics": {
                m["method"]: {k: v for k, v in m["summary"].items() if "seconds" not in k}
                for m in data["methods"]
                if m["summary"]
            },
            "comparisons": data["comparisons"],
            "failures": data["failures"],
        }
