"""Plugins that misbehave: their own work fails, is told and not kept; all other work is as ever."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import misbehaving
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from conftest import HERE, UNTRAINED, Desk
from fpbench import cli

PLUGIN = HERE / "misbehaving.py"


def suite(*methods: str) -> str:
    listed = "".join(f"  - {{method: {m}}}\n" for m in methods)
    return UNTRAINED.replace("  - {method: grid}\n", listed)


def troubled(*troubles: str) -> str:
    return suite(f"bad, each: {{trouble: [{', '.join(troubles)}]}}", "grid")


WORKS = {"inline": (), "local": ("--workers", 1)}
"""Who does the work; one worker, so that everybody comes after everybody else's trouble."""


@pytest.fixture(scope="module", params=WORKS)
def works(request: pytest.FixtureRequest) -> tuple[object, ...]:
    return WORKS[request.param]


# ── methods ───────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def failed(
    tmp_path_factory: pytest.TempPathFactory, works: tuple[object, ...]
) -> tuple[Desk, dict[str, Any]]:
    """A run of every way to fail, and grid after them."""
    desk = Desk.of(tmp_path_factory.mktemp("failed"), troubled(*misbehaving.REASONS))
    return desk, desk.run(*works, plugins=(PLUGIN,), exit_code=1)


@pytest.mark.parametrize("trouble", misbehaving.REASONS)
def test_a_trial_that_fails_says_why(failed: tuple[Desk, dict[str, Any]], trouble: str) -> None:
    _, data = failed
    (method,) = (m for m in data["methods"] if m["method"] == f"bad(trouble={trouble})")
    assert method["summary"] is None
    (error,) = method["errors"]
    assert misbehaving.REASONS[trouble] in error
    assert len(error) < 50_000


def test_others_finish_beside_them(failed: tuple[Desk, dict[str, Any]]) -> None:
    _, data = failed
    grid = data["methods"][-1]
    assert grid["errors"] == []
    assert grid["summary"]["repeats"] == 1


def test_each_failure_lies_in_the_runs_folder(failed: tuple[Desk, dict[str, Any]]) -> None:
    desk, data = failed
    files = sorted((desk.run_folder(data) / "errors").iterdir())
    assert len(files) == len(misbehaving.REASONS)
    texts = [file.read_text() for file in files]
    assert any("ZeroDivisionError" in t and "misbehaving.py" in t for t in texts)


def test_the_table_and_the_page_show_failures_as_such(
    failed: tuple[Desk, dict[str, Any]],
) -> None:
    desk, data = failed
    shown = desk("run", plugins=(PLUGIN,))
    assert shown.exit_code == 1
    assert "failed bad(trouble=raises) #0: ZeroDivisionError: division by zero" in shown.stdout
    rows = [line.split() for line in shown.stdout.splitlines() if line.startswith("bad(")]
    assert ["bad(trouble=raises)", "failed"] in rows

    page = CliRunner().invoke(cli.main, ["report", str(desk.run_folder(data))])
    text = Path(page.output.strip()).read_text()
    assert "bad(trouble=raises) failed: ZeroDivisionError: division by zero" in text


def test_a_failure_is_never_kept(failed: tuple[Desk, dict[str, Any]]) -> None:
    desk, _ = failed
    again = desk.run(plugins=(PLUGIN,), exit_code=1)
    assert [t["method"] for t in again["trials"] if t["cached"]] == ["grid"]
    assert sum(bool(t["error"]) for t in again["trials"]) == len(misbehaving.REASONS)


def state() -> list[Any]:
    """What plugins share."""
    drawn = [np.asarray(part).tobytes() for part in np.random.get_state()]
    return [
        random.getstate(), drawn,
        torch.get_rng_state().tolist(), torch.get_default_dtype(), str(torch.get_default_device()),
        torch.get_num_threads(), torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark,
        torch.get_float32_matmul_precision(), os.getcwd(), dict(os.environ), id(sys.stdout),
    ]  # fmt: skip


def test_what_a_method_does_to_the_process_reaches_nobody_else(
    tmp_path: Path, works: tuple[object, ...]
) -> None:
    text = suite("grid", "metav, n_queries: 5, steps: 5").replace("label", "probs", 1)
    desk = Desk.of(tmp_path, text)
    alone = desk.run(*works, "--store", tmp_path / "another", plugins=(PLUGIN,))["trials"]

    text = troubled(*misbehaving.GLOBAL, "itself").replace("label", "probs", 1)
    desk.write(text + "  - {method: spoiler}\n  - {method: metav, n_queries: 5, steps: 5}\n")
    before = state()
    data = desk.run(*works, plugins=(PLUGIN,))
    assert state() == before
    rates = {t["method"]: t["matching_rates"] for t in data["trials"]}
    assert [rates[t["method"]] for t in alone] == [t["matching_rates"] for t in alone]
    # Nor its own trial: each is the same as that of the method without trouble.
    assert len({json.dumps(rates[m]) for m in rates if m.startswith("bad(")}) == 1


@pytest.mark.parametrize("more", [(), ("--workers", "2")], ids=WORKS)
def test_json_is_alone_on_stdout_whatever_plugins_print(desk: Desk, more: tuple[str, ...]) -> None:
    loud = desk.folder / "loud.py"
    loud.write_text("import os\nprint('hello')\nos.write(1, b'hello from below\\n')\n")
    desk.write(troubled("prints", "warns"))
    command = desk.words("run", "--json", *more, plugins=(PLUGIN, loud))
    done = subprocess.run(
        [sys.executable, "-m", "fpbench", *command], capture_output=True, text=True,
        timeout=300, env={**os.environ, "PYTHONPATH": str(HERE)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["suite"] == "untrained"
    for words in ("hello\n", "hello from below\n", "some words of mine\n"):
        assert words in done.stderr


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        ("undecided", "method undecided: expected declines to say why"),
        ("moody", "moody: AttributeError: no such mood"),
    ],
)
def test_a_method_that_cannot_even_be_planned_is_named(
    desk: Desk, method: str, sentence: str
) -> None:
    desk.write(suite(method))
    result = desk("plan", plugins=(PLUGIN,))
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert sentence in line


# ── recipes ───────────────────────────────────────────────────────────────────────

TROUBLES = {
    "none": "expected a network from clumsy, got None",
    "odd": "Odd: stop",
    "data": "expected clumsy not to change the scenario's data, found it changed",
    "trial-error": "TrialError: not my day",
}


def test_a_recipe_that_misbehaves_fails_alone(desk: Desk) -> None:
    entry = f"    - {{recipe: clumsy, each: {{trouble: [{', '.join(TROUBLES)}]}}}}\n"
    desk.write(UNTRAINED.replace("  negatives:\n", "  negatives:\n" + entry))
    data = desk.run(plugins=(PLUGIN,), exit_code=1)
    told = list(data["failures"].values())
    assert len(told) == len(TROUBLES)
    for reason in TROUBLES.values():
        assert any(reason in text for text in told)
    assert len(list((desk.run_folder(data) / "errors").glob("model-*.txt"))) == len(TROUBLES)
    (trial,) = data["trials"]
    assert trial["error"] is None
    # All models have seen the data as they are.
    assert len({model["utility"]["accuracy"] for model in data["models"] if model["utility"]}) > 1


def test_what_a_recipe_does_to_the_process_reaches_nobody_else(
    desk: Desk, works: tuple[object, ...]
) -> None:
    text = UNTRAINED.replace("recipe: drawn, copies: 4", "recipe: train, model: slim, copies: 4")
    desk.write(text)
    alone = {m["name"]: m["weights_sha256"] for m in desk.run(*works)["models"]}

    entry = f"    - {{recipe: clumsy, each: {{trouble: [{', '.join(misbehaving.GLOBAL)}]}}}}\n"
    desk.write(text.replace("  negatives:\n", "  negatives:\n" + entry))
    before = state()
    data = desk.run(*works, "--store", desk.folder / "another", plugins=(PLUGIN,))
    assert state() == before
    assert alone.items() <= {m["name"]: m["weights_sha256"] for m in data["models"]}.items()


# ── scenarios ─────────────────────────────────────────────────────────────────────

SCENARIOS = {
    "raises": "expected its data, but load raised OSError: the disk is",
    "exits": "expected its data, but load raised SystemExit",
    "absent": "expected its data, but load raised KeyError: 'public'",
    "shape": "expected inputs of shape (n, 2) in 'public', got (60, 1)",
    "nan": "expected finite inputs in 'public'",
    "range": "expected inputs in [-1.0, 1.0] in 'public', got [8",
    "lengths": "expected 60 truths in 'public', got 59",
    "empty": "expected inputs in 'public', got none",
    "no tensor": "expected a tensor of inputs in 'public', got list",
    "no pool": "expected a Pool of inputs and truth in 'public', got 42",
    "double": "expected inputs of torch.float32 in 'public', got torch.float64",
    "column": "expected classes of shape (n,) and torch.int64, from 0 to 2, got (60, 1) and",
    "from one": "expected classes of shape (n,) and torch.int64, from 0 to 2, got (60,) and "
    "torch.int64, from 1 to 3 in 'public'",
    "int32": "expected classes of shape (n,) and torch.int64, from 0 to 2, got (60,) and "
    "torch.int32",
    "one-hot": "expected classes of shape (n,) and torch.int64, from 0 to 2, got (60, 3) and",
}


@pytest.mark.parametrize("trouble", SCENARIOS)
def test_a_scenario_whose_data_are_wrong_is_named_before_anything_is_made(
    desk: Desk, trouble: str
) -> None:
    desk.write(UNTRAINED.replace("blobs", f"{{scenario: spoiled, trouble: {trouble}}}"))
    result = desk("run", plugins=(PLUGIN,))
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: scenario spoiled(trouble={trouble}): {SCENARIOS[trouble]}")
    assert not list((desk.folder / "store").rglob("made.json"))


def test_models_whose_utility_is_no_number_are_not_kept(desk: Desk) -> None:
    desk.write(UNTRAINED.replace("blobs", "{scenario: spoiled, trouble: useless}"))
    data = desk.run(plugins=(PLUGIN,), exit_code=1)
    assert len(data["failures"]) == 9
    assert any("expected a utility of finite numbers" in t for t in data["failures"].values())
    assert data["trials"] == []


# ── reporters ─────────────────────────────────────────────────────────────────────

REPORTER = """\
import os, sys, fpbench

def act(**what):
    {act}

@fpbench.hookimpl(tryfirst=True)
def fpbench_planned(plan): act()

@fpbench.hookimpl(tryfirst=True)
def fpbench_built(built): act()

@fpbench.hookimpl(tryfirst=True)
def fpbench_attempted(result): act()

@fpbench.hookimpl(tryfirst=True)
def fpbench_reported(report): act()
"""


LISTENER = """\
import fpbench
from pathlib import Path

@fpbench.hookimpl
def fpbench_reported(report):
    Path({log!r}).write_text(str(report.folder))
"""


@pytest.mark.parametrize(
    "act", ["1 / 0", "sys.exit(0)", "raise GeneratorExit", "os.chdir('/')", "sys.stdout = None"]
)
def test_a_reporter_that_misbehaves_keeps_nobody_from_hearing(desk: Desk, act: str) -> None:
    desk.write(UNTRAINED)
    path = desk.folder / "reporter.py"
    path.write_text(REPORTER.format(act=act))
    listener, log = desk.folder / "listener.py", desk.folder / "heard.txt"
    listener.write_text(LISTENER.format(log=str(log)))
    before = state()
    data = desk.run(plugins=(path, listener))
    assert state() == before
    assert log.read_text() == str(desk.run_folder(data))
    assert data["methods"][0]["summary"]["aruc"] >= 0
