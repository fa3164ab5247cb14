"""The page on Python does what it says, as a notebook would, on a quickstart of toy size."""

from __future__ import annotations

from pathlib import Path

import pytest
from documents import ROOT, blocks, clone
from IPython.core.interactiveshell import InteractiveShell


def test_the_pages_blocks_are_the_cells_of_a_notebook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clone(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody answers there
    shell = InteractiveShell()
    for language, cell in blocks(ROOT / "docs/python.md"):
        if language == "python":
            shell.run_cell(cell).raise_error()
    report, curves, suspects = (shell.user_ns[name] for name in ("report", "curves", "suspects"))
    assert report.methods == ["akh", "random"]
    assert report.data["suite"]["repeats"] == 2
    assert [len(curve) for curve in curves.values()] == [101, 101, 101]
    assert len(suspects) == 2 * len(report.data["trials"][0]["matching_rates"])
    assert shell.user_ns["tried"].methods == ["mine"]
    html = shell.display_formatter.format(report)[0]["text/html"]
    for row, method in zip(html.split("<tr>")[2:], report.methods, strict=True):
        assert row.startswith(f"<td>{method}</td>")
        assert f"{report.summary(method)['aruc']:.3f} (" in row
    with pytest.raises(KeyError, match="did you mean random"):
        report.summary("randon")
