"""What is drawn into a run's folder."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from finished_runs import finished_run

from fpbench import Report, read
from fpbench.api.results import MethodRecord, RunRecord
from fpbench.reporting.figures import draw, find_sweeps, fpbench_reported, mean_losses


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return finished_run(tmp_path)


def test_draws_every_method_that_has_results(folder: Path) -> None:
    files = draw(read(folder).record, folder)
    assert {f.name for f in files} == {
        f"{name}.{ending}"
        for name in ("curves", "full-uniqueness", "overlay")
        for ending in ("pdf", "png", "svg")
    }
    for name in ("curves", "overlay"):
        svg = (folder / "figures" / f"{name}.svg").read_text()
        assert "akh: ARUC 0." in svg
        assert "random (again): ARUC 0." in svg
        assert "metav" not in svg  # it declined
        assert (folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (folder / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_same_results_give_the_same_bytes(folder: Path) -> None:
    record = read(folder).record
    first = {f: f.read_bytes() for f in draw(record, folder)}
    assert {f: f.read_bytes() for f in draw(record, folder)} == first


def test_more_methods_than_colours_and_labels_that_look_like_mathematics(folder: Path) -> None:
    record = read(folder).record
    akh = record.methods[0]
    labels = [f"$_{{{i}$ & <{i}>" for i in range(17)]
    methods = tuple(akh.model_copy(update={"method": label}) for label in labels)
    draw(record.model_copy(update={"methods": methods}), folder)
    assert "$_{16$ &amp; &lt;16&gt;" in (folder / "figures" / "overlay.svg").read_text()


def test_one_repeat_has_no_interval(tmp_path: Path) -> None:
    folder = finished_run(tmp_path, repeats=1)
    draw(read(folder).record, folder)
    assert "±" not in (folder / "figures" / "curves.svg").read_text()


def test_nothing_to_draw(tmp_path: Path) -> None:
    trouble = {"akh": "KeyError: 'x'", "random (again)": "KeyError: 'y'"}
    folder = finished_run(tmp_path, repeats=1, errors=trouble)
    assert draw(read(folder).record, folder) == []
    assert not (folder / "figures").exists()


@pytest.mark.usefixtures("thorough")
def test_a_figure_that_fails_costs_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report = Report(tmp_path / "gone", read(finished_run(tmp_path)).record)
    with caplog.at_level(logging.WARNING, "fpbench"):
        fpbench_reported(report)
    (line,) = [r.getMessage() for r in caplog.records]
    assert line.startswith("no figures: FileNotFoundError")


def variant(method: MethodRecord, key: str, value: Any) -> MethodRecord:
    """The same results as if the method had been tried with a value of a setting."""
    name, _, others = method.method.rstrip(")").partition("(")
    label = f"{name}({','.join([*filter(None, [others]), f'{key}={value}'])})"
    return method.model_copy(update={"method": label, "fields": {**method.fields, key: value}})


def swept(record: RunRecord, key: str, values: Sequence[Any], first: int = 1) -> RunRecord:
    """The same results as if the first methods had been tried with several values of a setting."""
    variants = [variant(m, key, value) for m in record.methods[:first] for value in values]
    return record.model_copy(update={"methods": (*variants, *record.methods[first:])})


def test_what_a_suite_sweeps_becomes_an_axis(folder: Path) -> None:
    files = draw(swept(read(folder).record, "n_queries", [10, 50, 100]), folder)
    assert "aruc-against-n_queries.svg" in {f.name for f in files}
    svg = (folder / "figures" / "aruc-against-n_queries.svg").read_text()
    assert "number of queries N" in svg
    assert "akh" in svg
    assert "random" not in svg  # it was tried once


DESCENT = [(0, 0.1, 3.0), (1, 0.2, 2.0), (2, 0.3, 1.5)]


def test_a_loss_that_is_told_is_drawn_with_an_axis_per_method(tmp_path: Path) -> None:
    folder = finished_run(tmp_path, losses={"akh": DESCENT, "random (again)": DESCENT[:2]})
    assert "loss.svg" in {f.name for f in draw(read(folder).record, folder)}
    svg = (folder / "figures" / "loss.svg").read_text()
    assert svg.count(">seconds of construction<") == 2
    assert ">akh<" in svg
    assert ">random<" in svg


def test_the_loss_drawn_is_the_mean_at_steps_that_every_repeat_told(tmp_path: Path) -> None:
    trials = read(finished_run(tmp_path, repeats=3)).record.trials
    told = [DESCENT, [(0, 0.3, 5.0), (2, 0.5, None)], []]
    akh = [
        trial.model_copy(update={"losses": points})
        for trial, points in zip(trials[:3], told, strict=True)
    ]
    assert mean_losses([*akh, *trials[3:]]) == {"akh": [(0, pytest.approx(0.2), 4.0)]}


def test_aruc_over_seconds_has_the_loss_of_the_longest_beside_it(tmp_path: Path) -> None:
    folder = finished_run(tmp_path)
    record = swept(read(folder).record, "steps", [10, 50])
    told = record.trials[0].model_copy(update={"method": "akh(steps=50)", "losses": DESCENT})
    draw(record.model_copy(update={"trials": (told,)}), folder)
    svg = (folder / "figures" / "aruc-against-steps.svg").read_text()
    assert "loss (dotted)" in svg
    assert "seconds to construct" in svg


def test_two_settings_swept_together_make_a_line_each(folder: Path) -> None:
    record = swept(swept(read(folder).record, "n_queries", [10, 50]), "depth", [1, 2], first=2)
    found = {s.key: s for s in find_sweeps(record.finished[:4])}
    assert found["n_queries"].lines.keys() == {"akh(depth=1)", "akh(depth=2)"}
    assert found["depth"].lines.keys() == {"akh(n_queries=10)", "akh(n_queries=50)"}
