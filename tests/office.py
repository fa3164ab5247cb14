"""A model's owner for tests: a model, a thief's copy, another's model, a fingerprint."""

from __future__ import annotations

import contextlib
import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from click.testing import CliRunner, Result
from torch import nn

from fpbench.builtin.scenarios.digits import Digits
from fpbench.cli import main

DIGITS = Digits()

PAGE = (Path(__file__).parents[1] / "docs" / "verify.md").read_text()
MODELS, CASE = (
    found[1]
    for language in ("python", "yaml")
    if (found := re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL))
)
"""What the page on verdicts has an owner write: a script that makes three models, and a case."""


_FOLDER = TemporaryDirectory(prefix="fpbench-office-")


@dataclass(frozen=True)
class Office:
    """A folder with one's own model, a thief's copy of it, another's model, and a fingerprint."""

    folder: Path
    copy: nn.Module
    other: nn.Module

    def __call__(self, *words: object) -> Result:
        return CliRunner().invoke(main, [str(word) for word in words])

    def verify(
        self, suspect: object, *words: object, exit_code: int = 0, name: str = "mine.fp"
    ) -> Any:
        """A verdict; where one is refused, the sentence."""
        out = self.folder / "verdict.json"
        out.unlink(missing_ok=True)
        result = self("verify", self.folder / name, suspect, "--out", out, *words)
        assert result.exit_code == exit_code, result.output
        return json.loads(out.read_text()) if exit_code == 0 else result.output


@functools.cache
def opened() -> Office:
    """The one office of a test session."""
    folder = Path(_FOLDER.name)
    with contextlib.chdir(folder):
        exec(MODELS, names := dict[str, Any]())  # noqa: S102 - the page's own code
    case = CASE.replace("mine.safe", f"{folder}/mine.safe")
    (folder / "case.yaml").write_text(case + "  - {method: metav, n_queries: 5}\n")
    office = Office(folder, names["copy"], names["other"])
    made = office(
        "fingerprint", folder / "case.yaml", "--only", "akh", "--store", folder / "store",
        "--out", folder / "mine.fp",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    assert re.search(r"expected false positives 4\.8 % .* from 20 negatives\)", made.output)
    return office
