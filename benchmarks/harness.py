"""What fpbench itself costs: starting, planning, a run with nothing left to do, a large store.

    python benchmarks/harness.py commands
    python benchmarks/harness.py cached SUITE --store STORE    # where SUITE was run before
    python benchmarks/harness.py planning [--models 1000 10000 100000]
    python benchmarks/harness.py store [--entries 1000 10000 100000]
    python benchmarks/harness.py share SUITE                   # from an empty store
    python benchmarks/harness.py workers SUITE [--count 2]     # inline and by workers

Each measurement is a process of its own. CPU seconds, user and system, hold on a busy machine too;
wall seconds do not.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
QUICKSTART = HERE.parent / "suites" / "quickstart.yaml"

LARGE = """\
name: large
scenario: digits
api: probs
repeats: 3
target: {{recipe: train, model: resnet}}
zoo:
  positives:
    - {{recipe: finetune, layers: all, each: {{lr: {{range: [1/1000, {lrs}/1000, 1/1000]}}}}, copies: 500}}
  negatives:
    - {{recipe: train, model: resnet, each: {{lr: {{range: [1/1000, {lrs}/1000, 1/1000]}}}}, copies: 500}}
methods:
  - {{method: random}}
  - {{method: akh}}
"""  # noqa: E501


@dataclass(frozen=True)
class Cost:
    """Of one process: wall and CPU seconds, peak memory in MB."""

    wall: float
    cpu: float
    peak: float

    def __str__(self) -> str:
        return f"{self.wall:8.2f} s   {self.cpu:7.2f} s CPU   {self.peak:5.0f} MB"


def cost(*words: str | Path, **variables: str) -> Cost:
    """Run Python with some words to its end."""
    began = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, *map(str, words)], env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, words))} exited with {process.returncode}")
    wall = time.perf_counter() - began
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def commands() -> None:
    """Measure help, list and describe, first without and then with kept answers; and plan."""
    with tempfile.TemporaryDirectory() as folder:
        store = ("--store", f"{folder}/store")
        print(f"{'import torch':22}{cost('-c', 'import torch')}")
        for words in (
            ("--help",), ("list",), ("describe", "digits"), ("plan", QUICKSTART, *store),
        ):  # fmt: skip
            for when in ("first",) if words[0] == "plan" else ("first", "again"):
                spent = cost("-m", "fpbench", *words, FPBENCH_CACHE=f"{folder}/answers")
                print(f"{words[0]:14}{when:8}{spent}")


LISTENER = """\
import json, os, resource, sys
import fpbench

@fpbench.hookimpl
def fpbench_reported(report):
    used = resource.getrusage(resource.RUSAGE_SELF)
    with open(os.environ["HARNESS_HEARD"], "w") as file:
        json.dump([used.ru_utime + used.ru_stime, list(sys.modules)], file)
"""

IMPORT = """\
import importlib, json, sys
for name in json.load(open(sys.argv[1])):
    try:
        importlib.import_module(name)
    except Exception:
        pass
"""


def cached(suite: Path, store: Path) -> None:
    """A run that finds everything in its store, until its table is shown; and a process that
    imports what it had imported by then. Figures are drawn after the table."""
    with tempfile.TemporaryDirectory() as folder:
        listener, heard = Path(folder) / "listener.py", Path(folder) / "heard.json"
        listener.write_text(LISTENER)
        words = ("run", suite, "--store", store, "--runs", f"{folder}/runs", "--no-tracking")
        run = cost("-m", "fpbench", *words, "-p", listener, HARNESS_HEARD=str(heard))
        shown, modules = json.loads(heard.read_text())
        heard.write_text(json.dumps(modules))
        imports = cost("-c", IMPORT, heard)
    print(f"whole run {run}")
    print(f"table     {shown:19.2f} s CPU\nimports   {imports}")
    print(f"beyond    {shown - imports.cpu:19.2f} s CPU")


def planning(sizes: list[int]) -> None:
    """`fpbench plan --json` of larger and larger suites, beyond one of a thousand models' start."""
    with tempfile.TemporaryDirectory() as folder:
        for models in sizes:
            suite = Path(folder) / f"{models}.yaml"
            suite.write_text(LARGE.format(lrs=models // 1000))
            words = ("-m", "fpbench", "plan", suite, "--json", "--store", f"{folder}/store")
            print(f"{models:7,} models   {cost(*words)}")


def store(sizes: list[int]) -> None:
    """Names of all entries, and one entry looked up, in larger and larger stores."""
    from fpbench.store.files import sealed, sha256
    from fpbench.store.store import Store

    made = sealed({"schema": "fpbench.model/1", "weights_sha256": sha256(b""), "utility": {}})
    with tempfile.TemporaryDirectory() as folder:
        shelf, full = Store(Path(folder)), 0
        for size in sizes:
            for i in range(full, size):
                place = shelf.folder_of("digits@1", sha256(str(i).encode()))
                place.mkdir(parents=True)
                (place / "made.json").write_bytes(made)
            full = size
            began = _cpu()
            names = [e.name for shard in os.scandir(f"{folder}/models/digits@1")
                     for e in os.scandir(shard)]  # fmt: skip
            listed = _cpu() - began
            assert len(names) == size
            asked = names[:: max(1, size // 1000)]
            began = _cpu()
            for name in asked:
                assert shelf.made_at(shelf.folder_of("digits@1", name))
            found = (_cpu() - began) / len(asked)
            each = listed / size * 1e6
            print(f"{size:7,} entries   all names {listed:7.4f} s CPU, {each:.1f} µs each   "
                  f"one look-up {found * 1e6:5.0f} µs CPU")  # fmt: skip


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


TIMERS = """\
import json, os, time
import fpbench
from fpbench.engine import attempt
from fpbench.store.store import Store

spent, trying = {"verified": 0.0, "loaded": 0.0, "compiler": 0.0}, []
run_trial, rates, load, imported = (
    attempt.run_trial, attempt._Verifier.rates, Store.load, attempt.import_module)

def timed(name, work):
    def timed_work(*given):
        began = time.perf_counter()
        found = work(*given)
        if trying:
            spent[name] += time.perf_counter() - began
        return found
    return timed_work

def while_trying(*given):
    trying.append(given)
    try:
        return run_trial(*given)
    finally:
        trying.pop()

def judged(verified, recipes):
    before = verified.seconds
    found = rates(verified, recipes)
    spent["verified"] += verified.seconds - before
    return found

attempt.run_trial, attempt._Verifier.rates = while_trying, judged
attempt.import_module, Store.load = timed("compiler", imported), timed("loaded", load)

@fpbench.hookimpl
def fpbench_reported(report):
    data = report.data
    spent["whole"] = data["run"]["seconds"]
    spent["made"] = sum(model["seconds"] or 0 for model in data["models"])
    spent["constructed"] = sum(trial["construct_seconds"] for trial in data["trials"])
    with open(os.environ["HARNESS_HEARD"], "w") as file:
        json.dump(spent, file)
"""


def share(suite: Path) -> None:
    """How much of a suite's run from an empty store makes models, constructs and verifies (the
    calibration half too), and where the rest goes."""
    with tempfile.TemporaryDirectory() as folder:
        listener, heard = Path(folder) / "timers.py", Path(folder) / "heard.json"
        listener.write_text(TIMERS)
        where = ("--store", f"{folder}/store", "--runs", f"{folder}/runs", "--no-tracking")
        words = ("run", suite, *where, "--executor", "inline", "-p", listener)
        cost("-m", "fpbench", *words, HARNESS_HEARD=str(heard))
        spent = json.loads(heard.read_text())
    whole = spent.pop("whole")
    work = sum(spent[name] for name in ("made", "constructed", "verified"))
    spent["else"] = whole - sum(spent.values())
    each = ", ".join(f"{name} {seconds:.1f}" for name, seconds in spent.items())
    print(
        f"{whole:.1f} s: {each}; {100 * (1 - work / whole):.1f} % not made, constructed, verified"
    )


def workers(suite: Path, count: int) -> None:
    """Time a suite from an empty store: inline, and by a worker per core."""
    for more in (("--executor", "inline"), ("--workers", str(count))):
        with tempfile.TemporaryDirectory() as folder:
            where = ("--store", f"{folder}/store", "--runs", f"{folder}/runs", "--no-tracking")
            spent = cost("-m", "fpbench", "run", suite, *where, *more)
        print(f"{' '.join(more):20}{spent.wall:8.0f} s, {spent.cpu:.0f} s CPU", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words = parser.add_subparsers(dest="word", required=True)
    words.add_parser("commands")
    run = words.add_parser("cached")
    run.add_argument("suite", type=Path)
    run.add_argument("--store", type=Path, required=True)
    large = words.add_parser("planning")
    large.add_argument("--models", type=int, nargs="+", default=[1000, 10_000, 100_000])
    shelf = words.add_parser("store")
    shelf.add_argument("--entries", type=int, nargs="+", default=[1000, 10_000, 100_000])
    words.add_parser("share").add_argument("suite", type=Path)
    beside = words.add_parser("workers")
    beside.add_argument("suite", type=Path)
    beside.add_argument("--count", type=int, default=os.cpu_count())
    given = parser.parse_args()
    if given.word == "cached":
        cached(given.suite, given.store)
    elif given.word == "planning":
        planning(given.models)
    elif given.word == "store":
        store(given.entries)
    elif given.word == "share":
        share(given.suite)
    elif given.word == "workers":
        workers(given.suite, given.count)
    else:
        commands()


if __name__ == "__main__":
    main()
