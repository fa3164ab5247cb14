"""What `list`, `describe` and `plan` said is said again at once, until it may have changed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from conftest import HERE, UNTRAINED, Desk
from finished_runs import finished_run

from fpbench.cli import answers as remember

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
        "-p", HERE / "toys.py", "-p", listener, MLFLOW_TRACKING_URI="http://127.0.0.1:9",
    )  # fmt: skip
    assert out.index("ARUC") < out.index("loaded by now: False")


Ask = Callable[[], int]


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a module that is loaded, in a folder that modules are looked for in."""
    file = tmp_path / "code" / "made_up.py"
    file.parent.mkdir()
    file.write_text("x = 1")
    module = ModuleType("made_up")
    module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "made_up", module)
    monkeypatch.syspath_prepend(file.parent)
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setenv("FPBENCH_CACHE", str(tmp_path / "cache"))
    # As if nothing had been edited for a while when this process began.
    monkeypatch.setattr(remember, "BEGAN", time.time_ns() + 10**10)
    return file


@pytest.fixture
def ask(code: Path) -> Ask:
    """Asks one question; the answer is how often it had to be found."""
    found = 0

    def find() -> tuple[int, bool]:
        nonlocal found
        found += 1
        return found, True

    return lambda: remember.remembered(["how often?"], find)


def same_size_and_time(code: Path) -> None:
    before = code.stat()
    code.write_text("x = 2")
    os.utime(code, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "code, its size and time as before": same_size_and_time,
    "code that is gone": Path.unlink,
    "something installed": lambda code: (code.parent / "new.py").touch(),
    "a variable of ours": lambda _: os.environ.update(FPBENCH_DATA="/elsewhere"),
    "the kept answer": lambda code: next((code.parents[1] / "cache").iterdir()).write_text("{}"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_answer_holds_until_something_changes(
    change: Callable[[Path], object], code: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FPBENCH_DATA", "/here")
    assert [ask(), ask()] == [1, 1]
    change(code)
    assert [ask(), ask()] == [2, 2]


def test_an_answer_outlives_what_a_run_writes_beside_the_code(code: Path, ask: Ask) -> None:
    assert ask() == 1
    (code.parent / "board.html").touch()
    (code.parent / "runs").mkdir()
    assert ask() == 1
    (code.parent / "package").mkdir()
    (code.parent / "package" / "__init__.py").touch()
    assert ask() == 2


def test_an_answer_found_while_code_changed_is_not_kept(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remember, "BEGAN", time.time_ns())
    assert [ask(), ask()] == [1, 2]


@pytest.mark.usefixtures("code")
def test_an_answer_that_is_not_sound_is_not_kept() -> None:
    answers = iter([("broken", False), ("mended", True)])
    assert remember.remembered(["?"], lambda: next(answers)) == "broken"
    assert remember.remembered(["?"], lambda: next(answers)) == "mended"
