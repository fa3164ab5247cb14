"""Files of plugins and architectures: their neighbours, and suites that name them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from conftest import HERE, TOYS, UNTRAINED, Desk, method_file
from fpbench.cli import main


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def method(path: Path, name: str = "own", load: str = "", count: str = "7") -> Path:
    """Write a plugin file with a method that asks `count` queries."""
    return method_file(path, name, imports=load, count=count)


def queries(desk: Desk, *args: object, plugins: tuple[Path, ...] = ()) -> int:
    """Run the suite and return how many queries its last trial asked."""
    return int(desk.run(*args, plugins=plugins)["trials"][-1]["queries"])


def refused(result: Result) -> str:
    """Return the one sentence of a refused command."""
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line


LOADS = {
    "when it is loaded": ("from amount import AMOUNT", "AMOUNT"),
    "when it works": ("", "__import__('amount').AMOUNT"),
    "through another": ("import another", "another.AMOUNT"),
}


@pytest.mark.parametrize("workers", [(), ("--workers", 1)], ids=["inline", "in a worker"])
@pytest.mark.parametrize("how", LOADS)
def test_a_plugin_file_imports_its_neighbours(desk: Desk, how: str, workers: tuple[object]) -> None:
    desk.write(UNTRAINED + "  - {method: own}\n")
    load, count = LOADS[how]
    file = method(desk.folder / "code" / "mine.py", load=load, count=count)
    write(desk.folder / "code" / "amount.py", "AMOUNT = 3\n")
    write(desk.folder / "code" / "another.py", "from amount import AMOUNT\n")
    assert queries(desk, *workers, plugins=(file,)) == 3


def test_neighbours_are_read_anew_with_their_plugin(desk: Desk) -> None:
    desk.write(UNTRAINED + "  - {method: own}\n")
    file = method(desk.folder / "mine.py", load="from amount import AMOUNT", count="AMOUNT")
    for count in (3, 11):
        write(desk.folder / "amount.py", f"AMOUNT = {count}\n")
        assert queries(desk, "--store", desk.folder / f"store {count}", plugins=(file,)) == count


def test_a_neighbour_hides_no_module_of_python_or_of_a_package(desk: Desk) -> None:
    desk.write(UNTRAINED + "  - {method: own}\n")
    load = "import colorsys, foolbox; assert colorsys.rgb_to_hsv and foolbox.attacks"
    file = method(desk.folder / "code" / "mine.py", load=load)
    for name in ("colorsys", "foolbox", "json"):
        write(desk.folder / "code" / f"{name}.py", "raise RuntimeError('a neighbour')\n")
    code = f"import sys; from fpbench.cli import main; main({['list', '--json', '-p', str(file)]})"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "own" in [row["name"] for row in json.loads(done.stdout)]


def test_neighbours_of_one_name_in_two_folders_are_refused(desk: Desk) -> None:
    files = [
        method(desk.folder / name / f"{name}.py", name, "import amount") for name in ("one", "two")
    ]
    for file in files:
        write(file.parent / "amount.py", "")
    said = refused(desk("plan", plugins=tuple(files)))
    for file in files:
        assert str(file.parent / "amount.py") in said
    assert "expected one module 'amount' beside the plugin files" in said


def test_two_plugin_files_may_have_one_file_name(desk: Desk) -> None:
    desk.write(UNTRAINED + "  - {method: one}\n  - {method: two}\n")
    files = tuple(method(desk.folder / name / "mine.py", name) for name in ("one", "two"))
    data = desk.run("--workers", 1, plugins=files)
    assert [trial["error"] for trial in data["trials"]] == [None] * 3


def test_a_plugin_file_may_be_named_twice(desk: Desk) -> None:
    file = method(desk.folder / "mine.py")
    assert desk("plan", plugins=(file, file)).exit_code == 0


def test_a_check_finds_the_neighbours_too(tmp_path: Path) -> None:
    file = method(tmp_path / "mine.py", load="from amount import AMOUNT", count="AMOUNT")
    write(tmp_path / "amount.py", "AMOUNT = 9\n")
    result = CliRunner().invoke(main, ["check", "own", "-p", str(file), "--json"])
    (row,) = (
        row
        for row in json.loads(result.stdout)
        if row["check"] == "rates_the_same_in_a_new_process"
    )
    assert row["passed"], row


@pytest.mark.parametrize("load", ["from layers import *", ""], ids=["at the top", "when called"])
@pytest.mark.parametrize("workers", [(), ("--workers", 1)], ids=["inline", "in a worker"])
def test_an_architectures_file_imports_its_neighbours(
    desk: Desk, load: str, workers: tuple[object]
) -> None:
    write(desk.folder / "layers.py", "from torch import nn\ndef inner(): return nn.Linear(2, 3)\n")
    inner = "inner()" if load else "__import__('layers').inner()"
    file = write(desk.folder / "net.py", f"{load}\ndef make(): return {inner}\n")
    desk.write(UNTRAINED.replace("model: wide", f'model: "{file}:make"'))
    data = desk.run(*workers)
    assert data["models"][0]["arch"] == f"{file}:make"
    assert data["failures"] == {}


# ── suites that name their plugin files ───────────────────────────────────────────────────

NAMED = UNTRAINED + "  - {method: own}\nplugins: [code/mine.py]\n"


@pytest.fixture
def named(desk: Desk) -> Desk:
    """A suite whose method is in a plugin file that it names."""
    desk.write(NAMED)
    method(desk.folder / "code" / "mine.py")
    return desk


@pytest.mark.parametrize("workers", [(), ("--workers", 1)], ids=["inline", "in a worker"])
def test_a_suite_loads_the_plugin_files_that_it_names(
    named: Desk, workers: tuple[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(HERE)  # paths are seen from the suite's folder
    assert queries(named, *workers) == 7


def test_a_suites_plugin_file_may_be_named_on_the_command_line_too(named: Desk) -> None:
    assert (
        named("plan", plugins=(named.folder / "code" / ".." / "code" / "mine.py",)).exit_code == 0
    )


def test_a_suites_plugins_can_be_chosen_alone(named: Desk) -> None:
    named.write(NAMED.replace("  - {method: own}\n", ""))
    data = named.run("--only", "own")
    assert [trial["method"] for trial in data["trials"]] == ["own"]


BASED: dict[str, tuple[str, Callable[[Path], object]]] = {
    "the base's": ("methods: [{method: own}]\n", lambda folder: None),
    "its own too": (
        "plugins: [mine2.py]\nmethods: [{method: own}, {method: second}]\n",
        lambda folder: method(folder / "deep" / "mine2.py", "second"),
    ),
}


@pytest.mark.parametrize("case", BASED)
def test_a_suite_on_a_base_loads_the_bases_plugins(named: Desk, case: str) -> None:
    text, prepare = BASED[case]
    prepare(named.folder)
    file = write(named.folder / "deep" / "based.yaml", f"name: based\nbase: ../suite.yaml\n{text}")
    words = ["plan", str(file), "--json", "-p", str(TOYS)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert "own" in json.loads(result.stdout)["trials"]


def test_an_override_names_plugins_as_the_suite_would(named: Desk) -> None:
    method(named.folder / "code" / "second.py", "second")
    settings = ("-o", "plugins.+=code/second.py", "-o", "methods.+={method: second}")
    assert named("plan", *settings).exit_code == 0
    said = refused(named("plan", "-o", "plugins=[gone.py]"))
    assert said.startswith("error: -o plugins=[gone.py]: plugins: expected a Python file at ")


BAD = {
    "no list": ("plugins: mine.py", "11:1: plugins: expected a list of Python files"),
    "no paths": ("plugins: [{a: b}]", "11:1: plugins: expected a list of Python files"),
    "not there": ("plugins: [gone.py]", "11:11: plugins: expected a Python file at "),
    "raises": ("plugins: [raises.py]", "11:11: plugins: plugin "),
    "no Python": ("plugins: [suite.yaml]", "11:11: plugins: plugin "),
    "taken": (
        "plugins: [taken.py]",
        "11:11: plugins: expected one plugin to offer random, got two",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_plugin_file_that_cannot_be_loaded_is_told_in_its_place(desk: Desk, case: str) -> None:
    text, said = BAD[case]
    desk.write(UNTRAINED.replace("methods:", f"{text}\nmethods:"))
    write(desk.folder / "raises.py", "1 / 0\n")
    method(desk.folder / "taken.py", "random")
    line = refused(desk("plan"))
    assert line.startswith(f"error: {desk.folder / 'suite.yaml'}:{said}"), line
    if case == "raises":
        assert line.endswith("did not load: ZeroDivisionError: division by zero")


def test_python_runs_the_package_as_the_command(tmp_path: Path) -> None:
    env = {**os.environ, "COLUMNS": "100"}
    said = [
        subprocess.run([*command, "run", "--help"], capture_output=True, text=True, env=env)
        for command in (
            [sys.executable, "-m", "fpbench"],
            [Path(sys.executable).parent / "fpbench"],
        )
    ]
    assert said[0].returncode == 0
    assert said[0].stdout == said[1].stdout
    assert said[0].stdout.startswith("Usage: fpbench run ")
