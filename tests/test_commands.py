"""Every command that the documents show works: it is given as it is written, on a small zoo.

Each document has a clone with a quickstart of toy size, two finished runs and an owner's files.
Its commands are given in their order, with RUN, NAME and FILE.py replaced. `run` of another suite
than the quickstart would take hours: its suite is planned with the same settings.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from documents import PAGES, ROOT, blocks, clone, lines
from finished_runs import finished_run
from office import CASE, Api, Office, numbers, opened
from torch import Tensor

from fpbench.cli import main

ELSEWHERE = {"ui": "test_server.py starts it and asks it"}

PLANNED_TOO = {"--only", "--with", "-o", "-p"}
"""The options of `run` that `plan` takes; the others say where and how work is done."""


def shown(page: Path) -> list[str]:
    """A document's commands of ours, in their order."""
    found = [line for language, text in blocks(page) if language == "console"
             for line in lines(text) if line.startswith("fpbench ")]  # fmt: skip
    return list(dict.fromkeys(found))


SHOWING = [page for page in PAGES if shown(page)]


def parsed(words: list[str]) -> tuple[str, dict[str, object]]:
    """What click does before it runs anything: the command, its values. Raises UsageError."""
    group: click.Command = main
    context, name, left = None, "fpbench", words
    while isinstance(group, click.Group):
        context = click.Context(group, info_name=name, parent=context)
        left = group.parse_args(context, left)
        name, command, left = group.resolve_command(context, [*context._protected_args, *left])
        assert command is not None
        group = command
    return name, group.make_context(name, left, parent=context).params


def filled(line: str, runs: list[Path]) -> str:
    """A command with what a reader would put in: runs, the name of a plugin, its file."""
    left = iter([*runs, *runs])
    line = re.sub(r"\bRUN\b|runs/quickstart/\S+", lambda _: str(next(left)), line)
    line = re.sub(r"\b(method|recipe|scenario)(:?) NAME\b", r"\1\2 own_\1", line)
    return line.replace("NAME", "own_method").replace("FILE.py", "own_recipe/fpbench_own_recipe.py")


def as_plan(words: list[str]) -> list[str]:
    """A command that `plan`s what another one would run."""
    found, rest = ["plan"], iter(words[1:])
    for word in rest:
        if not word.startswith("-"):
            found.append(word)
        elif word != "--no-tracking":
            value = next(rest)
            found += [word, value] if word in PLANNED_TOO else []
    return found


@pytest.fixture
def place(tmp_path: Path, blank: Path, office: Office, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader of a document is, with what it presumes."""
    clone(tmp_path)
    shutil.copy(blank, tmp_path / "mlflow.db")
    for name in ("mine", "copy", "other"):
        shutil.copy(office.folder / f"{name}.safetensors", tmp_path)
    (tmp_path / "mine.yaml").write_text(CASE)
    (tmp_path / "api.yaml").write_text("labels: 'predictions[*].class'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FPBENCH_STORE", str(office.folder / "store"))
    return tmp_path


@cache
def planned(*words: str) -> Result:
    """What a plan says, once: it times a step of training."""
    return CliRunner().invoke(main, words)


def given(words: list[str], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give one command, and expect that it works."""
    name, values = parsed(words)
    if name in ELSEWHERE:
        return
    if name == "run" and values["suite"] != Path("suites/quickstart.yaml"):
        words = as_plan(words)
    # Nobody answers a run, whose upload is for sync to show.
    tracker = "http://127.0.0.1:9" if name == "run" else f"sqlite:///{place}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker)
    result = planned(*words) if words[0] == "plan" else CliRunner().invoke(main, words)
    assert result.exit_code == 0, f"fpbench {shlex.join(words)}\n{result.output}"


def classes(out: Tensor) -> dict[str, list[dict[str, int]]]:
    return {"predictions": [{"class": k} for k in out.argmax(-1).tolist()]}


@pytest.mark.parametrize("page", SHOWING, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_document_work(
    page: Path, place: Path, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands, code = shown(page), dict(blocks(page)).get("python", "")
    runs = [finished_run(place / "runs", name, repeats=1) for name in ("a", "b")]
    with opened(Api(office.copy, classes, numbers)) as api:
        for line in commands:
            words = shlex.split(filled(line, runs), comments=True)[1:]
            given([re.sub(r"^http://.*", api.url, word) for word in words], place, monkeypatch)
            if words == ["new", "method", "midway"]:
                Path("midway/fpbench_midway.py").write_text(code)  # the tutorial's


def test_a_command_that_is_not_there_would_be_found() -> None:
    for words in (["rum", "x.yaml"], ["run", "x.yaml", "--onyl", "metav"], ["new", "metod", "x"]):
        with pytest.raises(click.UsageError):
            parsed(words)


def test_a_run_of_another_suite_is_planned_with_its_settings() -> None:
    words = shlex.split("run suites/skin.yaml --device cuda:0 --only metav -o seed=1 --no-tracking")
    assert as_plan(words) == ["plan", "suites/skin.yaml", "--only", "metav", "-o", "seed=1"]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_of_another_encoding_gets_what_it_can_show(encoding):
    command = [sys.executable, "-m", "fpbench", "plan", "suites/quickstart.yaml"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"quickstart" in done.stdout
    assert b"Traceback" not in done.stderr
