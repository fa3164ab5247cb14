"""The tutorial and the Python page do what they say, on a quickstart of toy size."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from fpbench.cli import main

ROOT = Path(__file__).parent.parent
QUICK = """
name: quickstart
scenario: digits
api: probs
repeats: 3
recipes: {train: {epochs: 6}}
target: {recipe: train, model: mlp}
zoo:
  positives:
    - {recipe: finetune, layers: last, epochs: 1, copies: 4}
  negatives:
    - {recipe: train, model: mlp, copies: 4}
methods:
  - {method: akh}
  - {method: random}
"""


def blocks(path: str) -> list[tuple[str, str]]:
    return re.findall(r"```(\w+)\n(.*?)```", (ROOT / path).read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone's place with a quickstart of seconds; its store serves all tests here."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "suites").mkdir()
    (folder / "suites" / "quickstart.yaml").write_text(QUICK)
    return folder


@pytest.fixture(autouse=True)
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody answers there


def test_the_tutorials_commands_run_in_their_order(folder: Path) -> None:
    ran = []
    for language, text in blocks("docs/tutorial.md"):
        if language == "python":
            assert len(text.strip().splitlines()) <= 60
            (folder / "midway" / "fpbench_midway.py").write_text(text)
        for line in text.splitlines() if language == "console" else ():
            if line.startswith("fpbench "):
                result = CliRunner().invoke(main, shlex.split(line)[1:])
                assert result.exit_code == 0, f"{line}\n{result.output}"
                ran.append(line.split()[1])
    assert ran == ["new", "check", "run", "run", "run", "list"]


def test_the_python_pages_code_runs(folder: Path) -> None:
    code = "\n".join(text for language, text in blocks("docs/python.md") if language == "python")
    (folder / "page.py").write_text(code)
    names = runpy.run_path(str(folder / "page.py"))
    report, curves, suspects = (names[name] for name in ("report", "curves", "suspects"))
    assert report.methods == ["akh", "random"]
    assert report.data["suite"]["repeats"] == 2
    assert [len(curve) for curve in curves.values()] == [101, 101, 101]
    assert len(suspects) == 2 * len(report.data["trials"][0]["matching_rates"])
    rows = report._repr_html_().split("<tr>")[2:]
    for row, method in zip(rows, report.methods, strict=True):
        assert row.startswith(f"<td>{method}</td>")
        assert f"{report.summary(method)['aruc']:.3f} ± " in row
    with pytest.raises(KeyError, match="did you mean random"):
        report.summary("randon")
