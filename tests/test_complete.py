"""Shell completion knows suites, methods and runs, and waits for nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from fpbench.cli import main


def completed(*words: str) -> list[str]:
    """What the last, unfinished word may become."""
    *done, last = words
    found = ShellComplete(main, {}, "fpbench", "_FPBENCH_COMPLETE").get_completions(done, last)
    return [item.value for item in found]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "suites" / "paper").mkdir(parents=True)
    methods = "methods: [{method: grid, label: grid-deep}, {method: picky}]"
    (tmp_path / "suites" / "quick.yaml").write_text(f"name: quick\n{methods}\n")
    (tmp_path / "suites" / "broken.yaml").write_text("{")
    (tmp_path / "suites" / "notes.txt").touch()
    (tmp_path / "runs" / "quick" / "20260101-000000-abcd").mkdir(parents=True)
    (tmp_path / "runs" / "quick" / "20260101-000000-abcd" / "results.json").touch()
    monkeypatch.chdir(tmp_path)


def test_suites_are_offered_at_once_and_along_their_path() -> None:
    assert set(completed("run", "")) >= {"suites/quick.yaml", "suites/", "runs/"}
    assert completed("run", "suites/q") == ["suites/quick.yaml"]
    assert completed("plan", "suites/") == ["suites/broken.yaml", "suites/paper/",
                                            "suites/quick.yaml"]  # fmt: skip
    assert completed("run", "nowhere/x") == []


def test_methods_are_those_of_the_suite_and_of_plugins() -> None:
    assert completed("run", "suites/quick.yaml", "--only", "gr") == ["grid", "grid-deep"]
    assert "metav" in completed("run", "suites/broken.yaml", "--with", "me")
    assert completed("describe", "ipg") == ["ipguard"]


def test_runs_are_offered() -> None:
    assert completed("report", "") == ["runs/quick/20260101-000000-abcd"]
    assert completed("compare", "runs/quick/2025") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script(shell: str) -> None:
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0, result.output
    assert "_FPBENCH_COMPLETE" in result.stdout


def test_neither_completion_nor_importing_fpbench_loads_torch() -> None:
    code = (
        "import sys, fpbench; from click.shell_completion import ShellComplete;"
        "from fpbench.cli import main;"
        "found = ShellComplete(main, {}, 'fpbench', '_X').get_completions("
        "['run', 'suites/quick.yaml', '--only'], 'grid');"
        "assert len(found) == 2; fpbench.__all__; dir(fpbench);"
        "print(*sorted(m for m in sys.modules if '.' not in m))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(out.stdout.split()) & {"torch", "mlflow", "rich", "numpy", "pandas", "pydantic"}
