"""The schema of results.json: every version is read, and damage is refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import CliRunner
from documents import ROOT
from finished_runs import finished_run
from pydantic import BaseModel

import fpbench
from fpbench.cli import main

OF_SCHEMA_1 = Path(__file__).parent / "results_of_schema_1.json"
"""Results of the suite TINY, written by fpbench when its schema was fpbench.results/1."""

OF_SCHEMA_2 = OF_SCHEMA_1.with_name("results_of_schema_2.json")
"""Results of `finished_run`, written by fpbench when its schema was fpbench.results/2."""


@pytest.fixture(params=[OF_SCHEMA_1, OF_SCHEMA_2], ids=["schema 1", "schema 2"])
def earlier(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    shutil.copy(request.param, tmp_path / "results.json")
    return tmp_path


@pytest.fixture
def old(tmp_path: Path) -> Path:
    shutil.copy(OF_SCHEMA_1, tmp_path / "results.json")
    return tmp_path


def changed(folder: Path, change: Any) -> None:
    """Change the results in a folder."""
    file = folder / "results.json"
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))
    (folder / "SHA256SUMS").unlink(missing_ok=True)


# ── earlier versions ──────────────────────────────────────────────────────────────


def test_results_of_the_first_schema_are_read_with_every_number(old: Path) -> None:
    data = json.loads(OF_SCHEMA_1.read_text())
    found = json.loads(json.dumps(fpbench.read(old).data))
    assert found["schema"] == "fpbench.results/3"
    added = {"construct_cpu_seconds": None, "verify_cpu_seconds": None, "zoo": 0}
    assert found["trials"] == [trial | added for trial in data["trials"]]
    assert found["models"] == [model | {"zoo": 0} for model in data["models"]]
    assert found["targets"] == [data["target"]]
    for name in ("run", "scenario", "failures"):
        assert found[name] == data[name]


def test_half_widths_are_read_as_intervals_within_the_bounds(earlier: Path) -> None:
    data = json.loads((earlier / "results.json").read_text())
    for method, now in zip(data["methods"], fpbench.read(earlier).data["methods"], strict=True):
        for name, half in (method["summary"] or {}).items():
            read = now["summary"].get(name)
            if name.endswith("_ci") and not name.startswith("tpr"):
                mean = method["summary"][name.removesuffix("_ci")]
                high = {"a": 100 / 101, "r": 1.0}.get(name[0], float("inf"))
                high = 1.0 if name == "auc_ci" else high
                expected = [max(0, mean - half), min(high, mean + half)]
                assert read == (half if half is None else pytest.approx(expected)), name
            elif name.startswith("tpr"):
                assert read is None  # there are fewer than 20 negatives
            elif name != "kinds":
                assert read == method["summary"][name]


def test_nothing_is_called_stolen_in_results_of_earlier_schemas(earlier: Path) -> None:
    report = fpbench.read(earlier)
    (method, *_) = [m for m in report.methods if report.summary(m)]
    summary = report.summary(method)
    assert summary["found"] is None
    assert {kind["called"] for kind in summary["kinds"].values()} == {None}
    assert {row["called"] for row in report.rates(method)} == {None}


def test_every_reader_reads_earlier_schemas(earlier: Path) -> None:
    for words in (["--md"], ["--latex"], ["--csv"], ["--json"], []):
        done = CliRunner().invoke(main, ["report", str(earlier), *words])
        assert done.exit_code == 0, done.output
        text = (earlier / "report.html").read_text() if not words else done.output
        assert "random" in text


def test_the_first_runs_had_neither_losses_nor_threads(old: Path) -> None:
    def as_at_first(data: dict[str, Any]) -> None:
        for trial in data["trials"]:
            del trial["losses"], trial["threads"]

    changed(old, as_at_first)
    record = fpbench.read(old).record
    assert {(trial.losses, trial.threads) for trial in record.trials} == {((), 1)}


def test_a_run_is_read_as_it_was_reported_and_written(tmp_path: Path) -> None:
    folder = finished_run(tmp_path, losses={"akh": [(0, 0.1, float("nan"))]}, repeats=1)
    report = fpbench.read(folder)
    assert report.data == json.loads((folder / "results.json").read_text())
    assert report.record.trials[0].losses == ((0, 0.1, None),)
    assert report.summary("akh")["aruc_ci"] is None


def test_texts_that_no_file_or_terminal_takes_are_written_so_that_they_do(tmp_path: Path) -> None:
    folder = finished_run(tmp_path, repeats=1, errors={"akh": "half a pair: \ud800, red: \x1b[31m"})
    (written,) = (folder / "errors").iterdir()
    for text in (fpbench.read(folder).why_not("akh"), written.read_text()):
        assert text == r"half a pair: \ud800, red: \x1b[31m"


# ── damage ────────────────────────────────────────────────────────────────────────


def set_at(*path: Any, value: Any) -> Any:
    def change(data: Any) -> None:
        *above, last = path
        for key in above:
            data = data[key]
        data[last] = value

    return change


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def judged_elsewhere(data: Any) -> None:
    data["trials"][0]["matching_rates"]["ab" * 32] = 0.5


def one_side_only(data: Any) -> None:
    positive = {model["digest"]: model["positive"] for model in data["models"]}
    trial = data["trials"][0]
    for name in ("matching_rates", "calibrated_rates"):
        trial[name] = {d: rate for d, rate in trial[name].items() if positive[d]}


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (set_at("methods", 0, "summary", "aruc", value=1.5), "methods.0.summary.aruc"),
        (set_at("methods", 0, "summary", "uniqueness", value=[0.5]), "summary.uniqueness"),
        (set_at("methods", 0, "fields", "deep", value=nested(800)), "nested"),
        (set_at("trials", 0, "verify_seconds", value=-1), "trials.0.verify_seconds"),
        (set_at("trials", 0, "seed", value="\x1b[2J"), "trials.0.seed"),
        (set_at("trials", 0, "matching_rates", value={"x": 0.5}), "trials.0.matching_rates"),
        (set_at("comparisons", "auc", value=[{}]), "comparisons.auc.0"),
        (set_at("run", "started", value="yesterday"), "run.started"),
        (set_at("models", value=[]), "models"),
        (judged_elsewhere, "judged models that are not in the record"),
        (one_side_only, "not the rates of both sides"),
    ],
)
def test_damage_is_told_in_a_sentence_that_says_where(old: Path, change: Any, where: str) -> None:
    changed(old, change)
    for command in ("report", "sync"):
        done = CliRunner().invoke(main, [command, str(old)])
        assert done.exit_code == 2, done.output
        assert done.stderr.startswith("error: expected fpbench.results/1 in ")
        assert done.stderr.count("\n") == 1
        assert where in done.stderr
        assert "\x1b" not in done.stderr


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_rate_is_a_finite_number(old: Path, number: str) -> None:
    file = old / "results.json"
    text = re.sub(r'("calibration_rates": \{"\w+": )[^,]+', rf"\g<1>{number}", file.read_text())
    file.write_text(text)
    with pytest.raises(fpbench.InputError, match="damaged at trials"):
        fpbench.read(old)


def test_an_unknown_schema_is_refused_in_a_sentence(old: Path) -> None:
    changed(old, set_at("schema", value="fpbench.results/10"))
    with pytest.raises(fpbench.InputError, match="a later fpbench wrote; update fpbench"):
        fpbench.read(old)
    changed(old, set_at("schema", value=["else"]))
    with pytest.raises(fpbench.InputError, match=r"got \['else'\]$"):
        fpbench.read(old)


# ── the type ──────────────────────────────────────────────────────────────────────


def fields(part: type[BaseModel]) -> set[str]:
    """The names of all fields of a part and of the parts in it."""
    found = set()
    for name, field in part.model_fields.items():
        found.add(field.alias or name)
        for inner in parts(field.annotation):
            found |= fields(inner)
    return found


def parts(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [part for inner in get_args(annotation) for part in parts(inner)]


def test_the_document_names_every_field(old: Path) -> None:
    named = set(re.findall(r"`(\w+)`", (ROOT / "docs" / "results.md").read_text()))
    found = fields(type(fpbench.read(old).record))
    assert {"schema", "called", "dirty"} <= found
    assert not found - named


def test_a_record_cannot_be_changed(old: Path) -> None:
    report = fpbench.read(old)
    with pytest.raises(ValueError, match="frozen"):
        report.record.suite.name = "other"


def test_the_schema_needs_no_torch() -> None:
    code = "import sys, fpbench; fpbench.Report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
