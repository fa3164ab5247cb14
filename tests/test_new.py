"""`fpbench new`: what it writes works at once, and nothing is overwritten."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fpbench.cli import main


def new(*words: object) -> Result:
    return CliRunner().invoke(main, ["new", *map(str, words)])


@pytest.mark.parametrize("what", ["method", "recipe", "scenario"])
def test_what_is_written_passes_its_own_tests(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"my_{what}"
    result = new(what, name, "--into", tmp_path / "plugins")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "plugins" / name
    monkeypatch.syspath_prepend(folder)
    tests = importlib.import_module(f"test_{name}")
    ran = 0
    for test, function in vars(tests).items():
        if test.startswith("test_"):
            wanted = inspect.signature(function).parameters
            function(**({"tmp_path": tmp_path} if "tmp_path" in wanted else {}))
            ran += 1
    assert ran >= 1
    for module in (f"test_{name}", f"fpbench_{name}"):
        sys.modules.pop(module, None)


@pytest.mark.parametrize("what", ["method", "recipe", "scenario"])
def test_its_distribution_has_the_entry_point(what: str, tmp_path: Path) -> None:
    assert new(what, "a_first", "--into", tmp_path).exit_code == 0
    project = tomllib.loads((tmp_path / "a_first" / "pyproject.toml").read_text())
    module = project["project"]["entry-points"]["fpbench"]["a_first"]
    assert (tmp_path / "a_first" / f"{module}.py").is_file()
    assert project["project"]["name"] == "fpbench-a-first"
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"] == [f"{module}.py"]
    plugin = tmp_path / "a_first" / f"{module}.py"
    listed = json.loads(CliRunner().invoke(main, ["list", "--json", "-p", str(plugin)]).stdout)
    assert [row["what"] for row in listed if row["name"] == "a_first"] == [what]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    assert new("method", "mine", "--into", tmp_path).exit_code == 0
    module = tmp_path / "mine" / "fpbench_mine.py"
    module.write_text("precious")
    again = new("method", "mine", "--into", tmp_path)
    assert again.exit_code == 2
    assert "nothing was changed" in again.stderr
    assert module.read_text() == "precious"


@pytest.mark.parametrize("name", ["Mine", "1st", "a-b", "class", "../up", "", "metav", "random"])
def test_a_name_that_cannot_be_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    result = new("method", name, "--into", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: new method {name}: expected a ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert not [*tmp_path.iterdir()]


def test_a_class_hides_nothing_that_its_module_imports(tmp_path: Path) -> None:
    assert new("method", "case", "--into", tmp_path).exit_code == 0
    assert "class CaseMethod(Fingerprinter)" in (tmp_path / "case" / "fpbench_case.py").read_text()
