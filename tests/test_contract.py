"""Every installed method keeps the contract on every toy scenario it applies to."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from fpbench.cli import main

ROWS = json.loads(CliRunner().invoke(main, ["list", "--json"]).stdout)
METHODS = sorted(row["name"] for row in ROWS if row["what"] == "method")


@pytest.mark.parametrize("name", METHODS)
def test_contract(name: str) -> None:
    result = CliRunner().invoke(main, ["check", name])
    assert result.exit_code == 0, result.output
