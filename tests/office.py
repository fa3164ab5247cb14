"""A model's owner for tests: a model, a thief's copy, another's model, a fingerprint."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from click.testing import CliRunner, Result
from safetensors.torch import save_file
from torch import nn

from fpbench.builtin.scenarios.digits import Digits
from fpbench.cli import main

DIGITS = Digits()

CASE = """\
name: mine
scenario: digits
api: label
repeats: 1
recipes:
  train: {epochs: 15}
  distill: {epochs: 60}
target: {recipe: given, file: mine.safetensors, model: mlp}
zoo:
  positives:
    - {recipe: finetune, layers: all, copies: 3}
    - {recipe: distill, model: mlp, copies: 5}
  negatives:
    - {recipe: train, model: mlp, each: {pool: [train, public]}, copies: 10}
methods:
  - {method: akh, n_queries: 200}
  - {method: metav, n_queries: 5}
"""


_FOLDER = TemporaryDirectory(prefix="fpbench-office-")


def trained(seed: int, pool: str, teacher: nn.Module | None = None, epochs: int = 25) -> nn.Module:
    """A network that learned the labels of a pool, or a teacher's answers to it."""
    torch.manual_seed(seed)
    model, (x, truth) = DIGITS.architecture("mlp")(), DIGITS.data(pool)
    answers = truth if teacher is None else teacher(x).detach()
    loss = DIGITS.loss if teacher is None else DIGITS.distill_loss
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            loss(model(x[rows]), answers[rows]).backward()
            optimizer.step()
    return model.eval().requires_grad_(False)


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
    mine = trained(1, "train")
    copy, other = trained(2, "public", mine, epochs=50), trained(3, "public")
    for name, model in {"mine": mine, "copy": copy, "other": other}.items():
        save_file(model.state_dict(), folder / f"{name}.safetensors")
    (folder / "case.yaml").write_text(CASE.replace("mine.safe", f"{folder}/mine.safe"))
    office = Office(folder, copy, other)
    made = office(
        "fingerprint", folder / "case.yaml", "--only", "akh", "--store", folder / "store",
        "--out", folder / "mine.fp",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    assert re.search(r"expected false positives 4\.8 % .* from 20 negatives\)", made.output)
    return office
