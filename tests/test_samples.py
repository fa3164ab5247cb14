"""What a run of generators keeps and shows of the pictures they draw."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from conftest import Desk, thoroughly
from fpbench.cli import main

SUITE = """\
name: pictures
scenario: strokes
api: output
repeats: 1
target: {recipe: drawn}
zoo:
  positives:
    - {recipe: nudged, each: {by: [0.01, 0.1, 1.0, 2.0]}}
  negatives:
    - {recipe: drawn, copies: 4}
    - {recipe: drawn, trouble: raises}
methods:
  - {method: metav, n_queries: 2, steps: 2}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    desk = Desk.of(tmp_path_factory.mktemp("samples"), SUITE)
    with thoroughly():
        (model,) = desk.run(exit_code=1)["failures"].values()
    assert "no luck today" in model
    (folder,) = (desk.folder / "runs" / "pictures").iterdir()
    return folder


def test_one_model_of_every_kind_is_asked_the_same_codes(run: Path) -> None:
    with np.load(run / "samples.npz", allow_pickle=False) as found:
        rows, images = found["rows"].tolist(), found["images"]
    assert rows == [["target", "drawn#0"], ["nudged", "nudged(by=1.0)#0"], ["drawn", "drawn#3"]]
    assert images.shape == (3, 8, 4, 3)
    assert images.dtype == np.uint8
    assert len(np.unique(images, axis=0)) == 3


def test_they_become_a_figure_and_a_part_of_the_page(run: Path) -> None:
    svg = (run / "figures" / "samples.svg").read_text()
    assert "nudged(by=1.0)#0" in svg
    page = Path(CliRunner().invoke(main, ["report", str(run)]).stdout.strip()).read_text()
    (image,) = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert base64.b64decode(image) == (run / "figures" / "samples.png").read_bytes()
