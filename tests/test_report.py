"""A finished run as a page and as tables, read as their readers would."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from finished_runs import finished_run

from fpbench.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    losses = {"akh": [(0, 0.1, 3.0), (8, 0.4, 1.0)]}
    return finished_run(tmp_path_factory.mktemp("runs"), repeats=3, losses=losses)


def ask(*words: object) -> str:
    result = CliRunner().invoke(main, [*map(str, words)])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    return Path(ask("report", folder).strip())


class Cells(HTMLParser):
    """The text of every table cell."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.inside = tag == "td"

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.found.append(data)


def test_the_page_stands_in_the_runs_folder(folder: Path, page: Path) -> None:
    assert page == folder / "report.html"


def test_its_table_has_the_numbers_of_results_json(folder: Path, page: Path) -> None:
    cells = Cells()
    cells.feed(page.read_text())
    data = json.loads((folder / "results.json").read_text())
    for method in data["methods"][:2]:
        s = method["summary"]
        assert method["method"] in cells.found
        for key in ("aruc", "aruc_calibrated", "auc"):
            low, high = s[f"{key}_ci"]
            assert f"{s[key]:.3f} ({low:.2f} to {high:.2f})" in cells.found
        for key in ("robustness_at_full_uniqueness", "found", "false_positives"):
            low, high = s[f"{key}_ci"]
            shown = f"{100 * s[key]:.0f} % ({100 * low:.0f} to {100 * high:.0f})"
            assert shown in cells.found


def test_it_says_what_its_intervals_are_over(page: Path) -> None:
    assert "95 % interval over 3 splits of this one zoo" in page.read_text()


def test_the_same_as_json(folder: Path) -> None:
    found = json.loads(ask("report", folder, "--json"))
    data = json.loads((folder / "results.json").read_text())
    for shown, method in zip(found["methods"], data["methods"], strict=False):
        assert shown["aruc"] == method["summary"]["aruc"]
    assert [m["method"] for m in found["methods"]] == ["akh", "random (again)"]
    assert "metav" in found["refusals"]


def test_it_asks_nobody_for_anything(page: Path) -> None:
    html = re.sub(r"<script>.*?</script>", "", page.read_text(), flags=re.DOTALL)
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?!data:)""", html)
    assert "default-src 'none'" in html


def test_who_does_not_apply_is_noted(page: Path) -> None:
    assert "metav: n/a" in page.read_text()


def test_names_cannot_break_out_of_the_page(folder: Path, tmp_path: Path) -> None:
    data = json.loads((folder / "results.json").read_text())
    text = json.dumps(data).replace("random (again)", "</script><img src=x onerror=alert(1)>")
    (tmp_path / "results.json").write_text(text)
    html = Path(ask("report", tmp_path).strip()).read_text()
    assert "<img" not in re.sub(r"<script>.*?</script>", "", html, count=1, flags=re.DOTALL)


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium is installed")
def test_a_browser_draws_every_chart(page: Path, tmp_path: Path) -> None:
    dom = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
         "--disable-background-networking", f"--user-data-dir={tmp_path}",
         "--virtual-time-budget=10000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    for chart in range(5):
        after = dom.split(f'id="chart{chart}"')[1]
        assert "main-svg" in after.split('class="chart', 1)[0], chart


def test_markdown_has_a_row_per_method_with_results(folder: Path) -> None:
    lines = ask("report", folder, "--md").splitlines()
    assert [line.split(" | ")[0] for line in lines] == [
        "| method", "| ---", "| akh", "| random (again)",
    ]  # fmt: skip
    assert len({line.count("|") for line in lines}) == 1


def test_latex_escapes_what_latex_would_read(folder: Path, tmp_path: Path) -> None:
    text = (folder / "results.json").read_text().replace("random (again)", "a_b & 50%{x}")
    (tmp_path / "results.json").write_text(text)
    out = ask("report", tmp_path, "--latex")
    assert r"a\_b \& 50\%\{x\}" in out
    rows = [line for line in out.splitlines() if line.endswith(r"\\")]
    assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1


def test_csv_has_the_numbers_unrounded(folder: Path) -> None:
    rows = {
        row["method"]: row for row in csv.DictReader(io.StringIO(ask("report", folder, "--csv")))
    }
    data = json.loads((folder / "results.json").read_text())
    summary = data["methods"][0]["summary"]
    assert float(rows["akh"]["aruc"]) == summary["aruc"]
    assert [float(rows["akh"][f"found_{end}"]) for end in ("low", "high")] == summary["found_ci"]
    assert rows["metav"]["aruc"] == ""


def test_a_folder_without_results_is_told(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert result.exit_code == 2
    assert result.output.startswith("error: expected the folder of a finished run")


def test_a_run_compared_with_itself_differs_by_nothing(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    shutil.copy(folder / "results.json", again)
    found = json.loads(ask("compare", folder, again, "--json"))
    assert [d["first"].split(" (2026")[0] for d in found] == ["akh", "random (again)"]
    assert all((d["value"], d["low"], d["high"], d["p_value"]) == (0, 0, 0, 1) for d in found)


def test_what_was_lost_in_another_run_shows(folder: Path, tmp_path: Path) -> None:
    data = json.loads((folder / "results.json").read_text())
    for trial in data["trials"]:
        rates = trial["matching_rates"]
        trial["matching_rates"] = dict.fromkeys(rates, 0.5)
    (tmp_path / "results.json").write_text(json.dumps(data))
    for difference in json.loads(ask("compare", folder, tmp_path, "--metric", "auc", "--json")):
        assert difference["value"] > 0.1
        assert difference["low"] > 0


def test_runs_with_no_suspects_in_common_are_told(folder: Path, tmp_path: Path) -> None:
    text = (folder / "results.json").read_text()
    for digest in json.loads(text)["trials"][0]["matching_rates"]:
        text = text.replace(digest, digest[::-1])
    (tmp_path / "results.json").write_text(text)
    result = CliRunner().invoke(main, ["compare", str(folder), str(tmp_path)])
    assert result.exit_code == 2
    assert "judged the same suspects" in result.output


def test_one_run_has_nothing_to_be_compared_with(folder: Path) -> None:
    result = CliRunner().invoke(main, ["compare", str(folder)])
    assert result.exit_code == 2
    assert "two different runs" in result.output
