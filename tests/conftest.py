"""What tests share: suites of toys, the command line as a function, plugin files."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
import torch
from click.testing import CliRunner, Result
from hypothesis import settings
from torch import nn
from toys import Blobs

from fpbench import Recipe, Scenario
from fpbench.cli import main, process
from fpbench.engine import estimate
from fpbench.reporting import figures

if TYPE_CHECKING:
    from office import Office

HERE = Path(__file__).parent
TOYS = HERE / "toys.py"

_CACHE = TemporaryDirectory(prefix="fpbench-answers-")
os.environ["FPBENCH_CACHE"] = _CACHE.name
# Workers take seconds to start, and find the same: test_executors.py.
os.environ["FPBENCH_EXECUTOR"] = "inline"

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


SMALL = UNTRAINED.replace("untrained", "small").replace("copies: 4", "copies: 2")
"""Five models, one trial: the least that can be run."""


@dataclass(frozen=True)
class Desk:
    """A folder with a suite, a store and runs, and the command line to work on them."""

    folder: Path

    @classmethod
    def of(cls, folder: Path, suite: str) -> Desk:
        """Make a folder with a suite."""
        folder.mkdir(parents=True, exist_ok=True)
        desk = cls(folder)
        desk.write(suite)
        return desk

    def words(self, command: str, *args: object, plugins: tuple[Path, ...] = ()) -> list[str]:
        """Return the words of `fpbench COMMAND SUITE ARGS` with the toys loaded."""
        words = [command, self.folder / "suite.yaml", "--store", self.folder / "store"]
        if command == "run":
            words += ["--runs", self.folder / "runs", "--no-tracking"]
        for plugin in (TOYS, *plugins):
            words += ["-p", plugin]
        return [*map(str, (*words, *args))]

    def __call__(self, command: str, *args: object, plugins: tuple[Path, ...] = ()) -> Result:
        """Run `fpbench COMMAND SUITE ARGS` with the toys loaded."""
        return CliRunner().invoke(main, self.words(command, *args, plugins=plugins))

    def write(self, text: str | bytes) -> Path:
        """Write the suite."""
        path = self.folder / "suite.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def run(
        self, *args: object, exit_code: int = 0, plugins: tuple[Path, ...] = ()
    ) -> dict[str, Any]:
        """Run the suite to its end and return the contents of results.json."""
        result = self("run", "--json", *args, plugins=plugins)
        assert result.exit_code == exit_code, result.output
        folder = Path(json.loads(result.stdout.splitlines()[-1])["run"])
        found: dict[str, Any] = json.loads((folder / "results.json").read_text())
        return found

    def run_folder(self, results: dict[str, Any]) -> Path:
        """Return the folder of the run that wrote some results."""
        return self.folder / "runs" / results["suite"]["name"] / str(results["run"]["id"])


def rates(results: dict[str, Any]) -> list[dict[str, float]]:
    """Return the matching rates of every trial."""
    return [trial["matching_rates"] for trial in results["trials"]]


def wait_until(condition: Callable[[], object], seconds: float = 900) -> None:
    """Wait until something is true; `seconds` is a bound for a busy machine, not a promise."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


METHOD = """\
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

import fpbench
from fpbench import Access
{imports}

@dataclass(frozen=True, kw_only=True)
class Mine(fpbench.Fingerprinter):
    '''Give every suspect the same rate.'''

    name = "{name}"
    supports = fpbench.Classification
    accepts = frozenset({{Access.LABEL}})
    n_queries: int = 12
    file: Path | None = None

    def construct(self, case):
        {construct}
        return fpbench.Fingerprint(case.scenario.data("test").inputs[:{count}], {{}})

    def match(self, fingerprint, replies):
        return {rate}

    def verify(self, fingerprint, oracle):
        {verify}

@fpbench.hookimpl
def fpbench_fingerprinters():
    return [Mine]
"""


def method_text(
    name: str = "mine", *, rate: object = 0.5, count: object = "self.n_queries",
    imports: str = "", construct: str = "pass",
    verify: str = "return super().verify(fingerprint, oracle)",
) -> str:  # fmt: skip
    """Return a plugin with a method of the given name, rate and number of queries.

    construct, verify: statements, in one line, that the method's own functions run.
    """
    return METHOD.format(
        name=name, rate=rate, count=count, imports=imports, construct=construct, verify=verify
    )


def method_file(path: Path, name: str = "mine", *, more: str = "", **parts: object) -> Path:
    """Write `method_text`, and more text after it, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(method_text(name, **parts) + more)  # type: ignore[arg-type]
    return path


def install(site: Path, name: str, text: str | None) -> None:
    """Install a plugin in a folder of `sys.path`: a module, beside its distribution's description.

    None leaves the module out, as a package that was removed halfway would.
    """
    if text is not None:
        (site / f"{name}.py").write_text(text)
    about = site / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[fpbench]\n{name} = {name}\n")


DRAW, TIME = figures.draw, estimate._speed


@pytest.fixture(autouse=True, scope="session")
def _quick() -> Iterator[None]:
    """Leave out what takes longer than the rest of a toy run: figures, and timing the device.

    SIGTERM ends pytest: commands that tests call in its process must not handle it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "stoppable", nullcontext)
        patch.setattr(figures, "draw", lambda *_: [])
        patch.setattr(estimate, "_speed", lambda *_: 1e9)
        yield


@contextmanager
def thoroughly() -> Iterator[None]:
    """Draw figures and time the device, as the runs and plans of users do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "draw", DRAW)
        patch.setattr(estimate, "_speed", TIME)
        yield


@pytest.fixture
def thorough() -> Iterator[None]:
    """Run a test `thoroughly`."""
    with thoroughly():
        yield


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database: MLflow takes seconds to make one."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("blank") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture(scope="session")
def office(tmp_path_factory: pytest.TempPathFactory) -> Office:
    """A model's owner, a thief's copy, another's model and a fingerprint."""
    from office import make_office

    return make_office(tmp_path_factory.mktemp("office"))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """An empty store and the tiny suite."""
    return Desk.of(tmp_path, TINY)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A desk on which the small suite was run, to read or to copy."""
    desk = Desk.of(tmp_path_factory.mktemp("small"), SMALL)
    desk.run()
    return desk


@pytest.fixture(scope="session")
def small_results(small: Desk) -> dict[str, Any]:
    """The results of that run."""
    (file,) = (small.folder / "runs").rglob("results.json")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


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
