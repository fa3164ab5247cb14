"""`list` and `describe` need torch once; what they found is kept until it may have changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from finished_runs import finished_run

from conftest import TOYS, UNTRAINED, Desk, install

HEAVY = {"torch", "numpy", "mlflow", "pandas", "matplotlib", "scipy", "sklearn"}

TELL = """\
import sys
from fpbench.cli import main
try:
    main(sys.argv[1:])
finally:
    print(*(m for m in sys.modules if "." not in m), file=sys.stderr)
"""


COMPLETE = """\
import sys
from click.shell_completion import BashComplete
from fpbench.cli import main
*done, last = sys.argv[1:]
found = BashComplete(main, {}, "fpbench", "").get_completions(done, last)
print(*(item.value for item in found))
print(*(m for m in sys.modules if "." not in m), file=sys.stderr)
"""


def fpbench(*words: object, code: str = TELL, **variables: str) -> tuple[str, set[str]]:
    """What a new process prints, and which modules it loads."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *map(str, words)],
        capture_output=True, text=True, check=True, env={**os.environ, **variables},
    )  # fmt: skip
    return done.stdout, set(done.stderr.splitlines()[-1].split())


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Where answers are kept after `fpbench list`, and what it said."""
    cache = tmp_path_factory.mktemp("listed")
    said, loaded = fpbench("list", FPBENCH_CACHE=str(cache))
    assert "torch" in loaded
    return cache, said


def test_what_is_installed_is_told_without_torch_once_it_was_listed(
    listed: tuple[Path, str], tmp_path: Path
) -> None:
    cache, said = listed
    folder = finished_run(tmp_path / "runs", repeats=1)
    for words, beginning in {
        ("list",): said,
        ("describe", "metav"): "metav  method",
        ("new", "method", "mine", "--into", tmp_path): f"{tmp_path}/mine has a method",
        ("report", folder): str(folder),  # it needs none of that, nor torch
        ("leaderboard", folder, "-o", tmp_path / "board.html"): f"{tmp_path}/board.html",
    }.items():
        found, loaded = fpbench(*words, FPBENCH_CACHE=str(cache))
        assert found.startswith(beginning)
        assert not loaded & (HEAVY - {"numpy"}), words


def test_a_shell_completes_what_was_listed_without_torch(
    listed: tuple[Path, str], tmp_path: Path
) -> None:
    def completed(*words: str, cache: Path = listed[0]) -> list[str]:
        out, loaded = fpbench(*words, code=COMPLETE, FPBENCH_CACHE=str(cache))
        assert not loaded & HEAVY
        return out.split()

    assert completed("describe", "di") == ["digits", "distill"]
    assert completed("check", "ran") == ["random"]
    assert completed("check", "di") == []
    assert completed("describe", "met", cache=tmp_path) == ["metafinger", "metav"]  # plugins' names


LISTENER = """\
import sys
import fpbench

@fpbench.hookimpl
def fpbench_reported(report):
    print("loaded by now:", "mlflow" in sys.modules)
"""


def test_a_run_shows_its_table_before_it_loads_mlflow(desk: Desk, tmp_path: Path) -> None:
    listener = tmp_path / "listener.py"
    listener.write_text(LISTENER)
    out, _ = fpbench(
        "run", desk.write(UNTRAINED), "--store", tmp_path / "store", "--runs", tmp_path / "runs",
        "-p", TOYS, "-p", listener, MLFLOW_TRACKING_URI="http://127.0.0.1:9",
    )  # fmt: skip
    assert out.index("ARUC") < out.index("loaded by now: False")


PLUGIN = """\
from dataclasses import dataclass
from words import SUMMARY
from fpbench import Fingerprinter, hookimpl

@dataclass(frozen=True, kw_only=True)
class Mine(Fingerprinter):
    __doc__ = SUMMARY
    name = "{name}"

    def construct(self, lab):
        raise NotImplementedError

    def match(self, fingerprint, replies):
        raise NotImplementedError

@hookimpl
def fpbench_fingerprinters():
    return [Mine]
"""


def test_what_was_listed_is_listed_anew_after_any_edit(tmp_path: Path) -> None:
    site, words = tmp_path / "site", tmp_path / "site" / "words.py"
    site.mkdir()
    words.write_text('SUMMARY = "The first summary."\n')
    install(site, "mine", PLUGIN.format(name="mine"))

    def listed() -> tuple[str, bool]:
        said, loaded = fpbench("list", PYTHONPATH=str(site), FPBENCH_CACHE=str(tmp_path / "cache"))
        return said, "torch" in loaded

    said, slow = listed()
    assert slow
    assert "The first summary." in said
    assert listed() == (said, False)
    (site / "results.json").touch()  # beside the code, and none of it
    assert listed() == (said, False)
    words.write_text('SUMMARY = "Another summary."\n')  # a module that the plugin imports
    said, slow = listed()
    assert "Another summary." in said
    assert listed() == (said, False)
    install(site, "second", PLUGIN.format(name="second"))
    said, slow = listed()
    assert "second" in said
    assert listed() == (said, False)
    (site / "second.py").write_text("import nothing_of_that_name")
    for _ in range(2):  # a broken plugin may be mended from outside: nothing is kept
        said, slow = listed()
        assert slow
        assert "broken plugin" in said


def test_a_kept_answer_that_was_damaged_is_found_again(
    listed: tuple[Path, str], tmp_path: Path
) -> None:
    (kept,) = listed[0].iterdir()
    (tmp_path / kept.name).write_bytes(kept.read_bytes()[:-9])
    assert fpbench("list", FPBENCH_CACHE=str(tmp_path))[0] == listed[1]
