"""What is drawn into a run's folder."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from finished_runs import finished_run

from fpbench.reporting.figures import draw, fpbench_reported, losses, sweeps


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return finished_run(tmp_path)


def test_draws_every_method_that_has_results(folder: Path) -> None:
    data = json.loads((folder / "results.json").read_text())
    files = draw(data, folder)
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
    data = json.loads((folder / "results.json").read_text())
    first = {f: f.read_bytes() for f in draw(data, folder)}
    assert {f: f.read_bytes() for f in draw(data, folder)} == first


def test_more_methods_than_colours_and_labels_that_look_like_mathematics(folder: Path) -> None:
    data = json.loads((folder / "results.json").read_text())
    akh = data["methods"][0]
    data["methods"] = [{**akh, "method": f"$_{{{i}$ & <{i}>"} for i in range(17)]
    draw(data, folder)
    assert "$_{16$ &amp; &lt;16&gt;" in (folder / "figures" / "overlay.svg").read_text()


def test_one_repeat_has_no_interval(tmp_path: Path) -> None:
    folder = finished_run(tmp_path, repeats=1)
    draw(json.loads((folder / "results.json").read_text()), folder)
    assert "±" not in (folder / "figures" / "curves.svg").read_text()


def test_nothing_to_draw(tmp_path: Path) -> None:
    assert draw({"methods": [{"summary": None}]}, tmp_path) == []
    assert not list(tmp_path.iterdir())


def test_a_figure_that_fails_costs_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report = SimpleNamespace(data={"methods": [{"summary": {"aruc": 1.0}}]}, folder=tmp_path)
    with caplog.at_level(logging.WARNING, "fpbench"):
        fpbench_reported(report)  # type: ignore[arg-type]
    assert [r.getMessage() for r in caplog.records] == ["no figures: KeyError: 'suite'"]


def swept(data, key, values):
    """The same results as if akh had been tried with several values of a setting."""
    akh = data["methods"][0]
    variants = [
        {**akh, "method": f"akh({key}={v})", "fields": {**akh["fields"], key: v}} for v in values
    ]
    return {**data, "methods": [*variants, *data["methods"][1:]]}


def test_what_a_suite_sweeps_becomes_an_axis(folder: Path) -> None:
    data = json.loads((folder / "results.json").read_text())
    files = draw(swept(data, "n_queries", [10, 50, 100]), folder)
    assert "aruc-against-n_queries.svg" in {f.name for f in files}
    svg = (folder / "figures" / "aruc-against-n_queries.svg").read_text()
    assert "number of queries N" in svg
    assert "akh" in svg
    assert "random" not in svg  # it was tried once


DESCENT = [(0, 0.1, 3.0), (1, 0.2, 2.0), (2, 0.3, 1.5)]


def test_a_loss_that_is_told_is_drawn_with_an_axis_per_method(tmp_path: Path) -> None:
    folder = finished_run(tmp_path, losses={"akh": DESCENT, "random (again)": DESCENT[:2]})
    data = json.loads((folder / "results.json").read_text())
    assert "loss.svg" in {f.name for f in draw(data, folder)}
    svg = (folder / "figures" / "loss.svg").read_text()
    assert svg.count(">seconds of construction<") == 2
    assert ">akh<" in svg
    assert ">random<" in svg


def test_the_loss_drawn_is_the_mean_at_steps_that_every_repeat_told() -> None:
    told = [DESCENT, [(0, 0.3, 5.0), (2, 0.5, None)], []]
    trials = [{"method": "akh", "losses": points} for points in told]
    found = losses({"trials": [*trials, {"method": "random"}]})
    assert found == {"akh": [(0, pytest.approx(0.2), 4.0)]}


def test_aruc_over_seconds_has_the_loss_of_the_longest_beside_it(tmp_path: Path) -> None:
    folder = finished_run(tmp_path)
    data = swept(json.loads((folder / "results.json").read_text()), "steps", [10, 50])
    told = {"method": "akh(steps=50)", "losses": DESCENT}
    draw({**data, "trials": [told]}, folder)
    svg = (folder / "figures" / "aruc-against-steps.svg").read_text()
    assert "loss (dotted)" in svg
    assert "seconds to construct" in svg


def test_two_settings_swept_together_make_a_line_each(folder: Path) -> None:
    data = json.loads((folder / "results.json").read_text())
    data = swept(data, "n_queries", [10, 50])
    doubled = [
        {**m, "method": f"akh(n_queries={m['fields']['n_queries']},depth={d})",
         "fields": {**m["fields"], "depth": d}}
        for d in (1, 2)
        for m in data["methods"][:2]
    ]  # fmt: skip
    found = {s.key: s for s in sweeps(doubled)}
    assert found["n_queries"].lines.keys() == {"akh(depth=1)", "akh(depth=2)"}
    assert found["depth"].lines.keys() == {"akh(n_queries=10)", "akh(n_queries=50)"}
