"""What tests share: toys, a suite of them, and the command line as a function."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from hypothesis import settings
from torch import nn
from toys import Blobs

from fpbench import Recipe, Scenario
from fpbench.cli import main, process

HERE = Path(__file__).parent

# A busy machine is not a bug, and the first call of anything imports half of scipy.
settings.register_profile("fpbench", deadline=None)
settings.load_profile("fpbench")

TINY = """\
name: tiny
scenario: blobs
api: probs
repeats: 2
recipes:
  train: {epochs: 8, lr: 0.03, batch_size: 16}
  finetune: {epochs: 2, batch_size: 16}
target: {recipe: train, model: wide}
zoo:
  positives:
    - {recipe: finetune, each: {layers: [last, all]}, copies: 2}
    - {recipe: nudged, each: {by: [0.01, 0.1]}, copies: 2}
  negatives:
    - {recipe: train, model: wide, each: {pool: [train, public]}, copies: 2}
    - {recipe: drawn, copies: 4}
methods:
  - {method: grid}
  - {method: random, n_queries: 20}
  - {method: metav, n_queries: 5, steps: 10}
  - {method: picky}
"""

UNTRAINED = """\
name: untrained
scenario: blobs
api: label
repeats: 1
target: {recipe: drawn, model: wide}
zoo:
  positives:
    - {recipe: nudged, copies: 4}
  negatives:
    - {recipe: drawn, copies: 4}
methods:
  - {method: grid}
"""


@dataclass(frozen=True)
class Desk:
    """A folder with a suite, a store and runs, and the command line to work on them."""

    folder: Path

    def __call__(self, command: str, *args: object, plugins: tuple[Path, ...] = ()) -> Result:
        """Run `fpbench COMMAND SUITE ARGS` with the toys loaded."""
        words = [command, str(self.folder / "suite.yaml"), "--store", str(self.folder / "store")]
        if command == "run":
            words += ["--runs", str(self.folder / "runs"), "--no-tracking"]
        for plugin in (HERE / "toys.py", *plugins):
            words += ["-p", str(plugin)]
        return CliRunner().invoke(main, [*words, *map(str, args)])

    def write(self, text: str | bytes) -> Path:
        """Write the suite."""
        path = self.folder / "suite.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def run(
        self, *args: object, exit_code: int = 0, plugins: tuple[Path, ...] = ()
    ) -> dict[str, Any]:
        """Run the suite to its end; returns what results.json holds."""
        result = self("run", "--json", *args, plugins=plugins)
        assert result.exit_code == exit_code, result.output
        folder = Path(json.loads(result.stdout.splitlines()[-1])["run"])
        found: dict[str, Any] = json.loads((folder / "results.json").read_text())
        return found


@pytest.fixture(autouse=True, scope="session")
def _ends_by_sigterm() -> Iterator[None]:
    """A command that tests call in their own process must not take SIGTERM for itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "stoppable", nullcontext)
        yield


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["FPBENCH_CACHE"] = str(tmp_path_factory.mktemp("answers"))
    # Workers take seconds to start, and find the same: test_executors.py.
    os.environ["FPBENCH_EXECUTOR"] = "inline"


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database: MLflow takes seconds to make one."""
    from fpbench.reporting import mlflow_upload as upload

    file = tmp_path_factory.mktemp("blank") / "mlflow.db"
    with upload.connect(f"sqlite:///{file}", None, upload.Watch()):
        return file


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """An empty store and the tiny suite."""
    desk = Desk(tmp_path)
    desk.write(TINY)
    return desk


@dataclass
class Bench:
    """A lab without a store: parents are given, seeds are the recipe's own."""

    scenario: Scenario = field(default_factory=Blobs)
    make_parent: Callable[[], nn.Module] | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    failures: dict[str, str] = field(default_factory=dict)

    def parent(self, recipe: Recipe) -> nn.Module:
        assert self.make_parent is not None
        return self.make_parent()

    def new(self, recipe: Recipe, model: str) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            return self.scenario.architectures[model]()

    def rng(self, recipe: Recipe) -> torch.Generator:
        return torch.Generator().manual_seed(recipe.seed)

    def failed(self, recipe: Recipe, reason: str) -> None:
        self.failures[str(recipe)] = reason
