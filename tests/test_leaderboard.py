"""Many runs on one page."""

from __future__ import annotations

import json
import re
import shutil
from html import escape
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from finished_runs import finished_run

from fpbench.cli import main


def board(tmp_path: Path, *folders: Path) -> str:
    out = tmp_path / "board.html"
    result = CliRunner().invoke(main, ["leaderboard", *map(str, folders), "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(out)
    return out.read_text()


def columns(html: str) -> list[str]:
    return re.findall(r"<th><button>(.*?)</button>", html)[1:]


def changed(folder: Path, name: str, change: Any) -> Path:
    """A copy of a run with some of its results changed."""
    copy = folder.with_name(name)
    shutil.copytree(folder, copy)
    data = json.loads((copy / "results.json").read_text())
    data["run"]["id"] = name
    change(data)
    (copy / "results.json").write_text(json.dumps(data))
    (copy / "SHA256SUMS").unlink()
    return copy


def test_every_method_has_its_numbers_and_its_run(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "runs")
    html = board(tmp_path, folder)
    data = json.loads((folder / "results.json").read_text())
    assert columns(html) == ["toy"]
    for method in data["methods"]:
        assert f"<td>{method['method']}</td>" in html
        if s := method["summary"]:
            low, high = s["aruc_ci"]
            assert f">{s['aruc']:.3f} ({low:.2f} to {high:.2f})</span>" in html
    assert "95 % interval over 2 splits of this one zoo" in html
    assert escape(data["methods"][2]["refusal"]).replace("&#x27;", "&#39;") in html
    assert folder.name in html


def test_runs_that_judged_the_same_share_a_column_and_the_newest_counts(tmp_path: Path) -> None:
    old = finished_run(tmp_path / "runs")

    def newer(data: dict[str, Any]) -> None:
        data["run"]["started"] = "2026-02-02T00:00:00+00:00"
        data["methods"] = data["methods"][:1]
        data["methods"][0]["summary"]["aruc"] = 0.123

    new = changed(old, "20260202-000000-beef", newer)
    for order in ((old, new), (new, old)):
        html = board(tmp_path, *order)
        assert columns(html) == ["toy"]
        assert 'data-value="0.123"' in html
        assert "<td>random (again)</td>" in html  # the older run's, which the newer lacks


def test_another_zoo_is_another_column(tmp_path: Path) -> None:
    first = finished_run(tmp_path / "runs")

    def another(data: dict[str, Any]) -> None:
        data["models"][0]["weights_sha256"] = "other"

    second = changed(first, "20260303-000000-cafe", another)
    assert columns(board(tmp_path, first, second)) == ["toy", "toy #2"]


def test_it_asks_nobody_for_anything_and_names_cannot_break_out(tmp_path: Path) -> None:
    def hostile(data: dict[str, Any]) -> None:
        data["methods"][0]["method"] = "</script><img src=x onerror=alert(1)>"

    first = finished_run(tmp_path / "runs")
    html = board(tmp_path, changed(first, "20260404-000000-dead", hostile))
    assert "<img" not in html
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?!data:)""", re.sub(
        r"<script>.*?</script>|&lt;.*?&gt;", "", html, flags=re.DOTALL))  # fmt: skip
    assert "default-src 'none'" in html
