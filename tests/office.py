"""A model's owner for tests: a model, a thief's copy, another's model, a fingerprint."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import torch
from click.testing import CliRunner, Result
from http_servers import Answer, serving
from torch import Tensor, nn

from fpbench import Classification
from fpbench.cli import main

PAGE = (Path(__file__).parents[1] / "docs" / "verify.md").read_text()
MODELS = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1].replace('"cnn"', '"mlp"')  # type: ignore[index]
"""The script of the page on verdicts that makes three models, here of a simpler architecture."""

CASE = """\
name: mine
scenario: digits
api: label
recipes:
  distill: {epochs: 60}
target: {recipe: given, file: mine.safetensors, model: mlp}
zoo:
  positives:
    - {recipe: finetune, layers: last, copies: 3}
    - {recipe: distill, model: mlp, copies: 5}
  negatives:
    - {recipe: train, model: mlp, each: {pool: [train, public], epochs: {range: [6, 15, 1]}}}
methods:
  - {method: akh, n_queries: 200}
"""
"""An owner's case with negatives of 20 makings."""


@dataclass(frozen=True)
class Office:
    """A folder with one's own model, a thief's copy of it, another's model, and a fingerprint."""

    folder: Path
    copy: nn.Module
    other: nn.Module
    digits: Classification

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


def make_office(folder: Path) -> Office:
    """Do what the page on verdicts says, in a folder."""
    with contextlib.chdir(folder):
        exec(MODELS, names := dict[str, Any]())  # noqa: S102 - the page's own code
    case = CASE.replace("mine.safe", f"{folder}/mine.safe")
    (folder / "case.yaml").write_text(case + "  - {method: metav, n_queries: 5}\n")
    office = Office(folder, names["copy"], names["other"], names["DIGITS"])
    made = office(
        "fingerprint", folder / "case.yaml", "--method", "akh", "--store", folder / "store",
        "--out", folder / "mine.fp",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    assert "for 5 % false positives, from 20 independent models of 20 makings" in made.output
    return office


@dataclass
class Api:
    """A prediction API of one model, on loopback."""

    model: nn.Module
    reply: Callable[[Tensor], Any]
    read: Callable[[BaseHTTPRequestHandler, bytes], Tensor]
    url: str = ""
    requests: int = 0
    troubles: list[int] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler, body: bytes) -> Answer | None:
        self.requests += 1
        self.headers.append(request.headers.get("authorization", ""))
        status = self.troubles.pop(0) if self.troubles else 200
        if status == 0:
            return None  # a broken line
        with torch.no_grad():
            said = self.reply(self.model(self.read(request, body))) if status == 200 else "busy"
        headers = {"location": "http://169.254.169.254/"} if status == 302 else {}
        return status, json.dumps(said).encode(), headers


@contextlib.contextmanager
def opened(api: Api) -> Iterator[Api]:
    """Serve an API at its `url`."""
    with serving(api.answer) as address:
        api.url = f"{address}/predict"
        yield api


def numbers(_: BaseHTTPRequestHandler, body: bytes) -> Tensor:
    """Read a request of rows of numbers."""
    return torch.tensor(json.loads(body)["inputs"])
