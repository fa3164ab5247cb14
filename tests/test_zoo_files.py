"""A zoo that somebody brings: files as positives and negatives, by list, pattern and table."""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import save_file
from torch import nn

from fpbench.builtin.scenarios.digits import Digits
from fpbench.cli import main

HEAD = """\
name: brought
scenario: digits
api: probs
repeats: 2
recipes: {given: {model: mlp}}
"""
METHODS = """\
methods:
  - {method: akh}
  - {method: random, n_queries: 20}
"""
LISTED = """\
target: {recipe: given, file: zoo/target.pth}
zoo:
  positives:
    - {recipe: given, each: {file: [zoo/ft0.safetensors, zoo/ft1.safetensors]}, kind: FTAL}
    - {recipe: given, each: {file: [zoo/wp0.safetensors, zoo/wp1.safetensors]}, kind: WP}
  negatives:
    - {recipe: given, each: {file: [zoo/new0.safetensors, zoo/new1.safetensors]}, kind: new}
    - {recipe: given, each: {file: [zoo/old0.safetensors, zoo/old1.safetensors]}, kind: old}
"""
MATCHED = """\
target: {recipe: given, file: zoo/target.pth}
zoo:
  positives:
    - {recipe: given, files: "zoo/ft*.safetensors", kind: FTAL}
    - {recipe: given, files: [zoo/wp?.safetensors], kind: WP}
  negatives:
    - {recipe: given, files: zoo/new*.safetensors, kind: new}
    - {recipe: given, files: "**/old[01].safetensors", kind: old}
"""
TABLED = """\
target: {recipe: given, table: zoo/models.csv}
zoo:
  positives:
    - {recipe: given, table: zoo/models.csv}
  negatives:
    - {recipe: given, table: zoo/models.csv}
"""
ROWS = [
    ("file", "architecture", "label", "kind", "parent"),
    ("target.pth", "mlp", "target", "", ""),
    *((f"ft{i}.safetensors", "mlp", "positive", "FTAL", "target") for i in range(2)),
    *((f"wp{i}.safetensors", "mlp", "positive", "WP", "") for i in range(2)),
    *((f"new{i}.safetensors", "mlp", "negative", "new", "") for i in range(2)),
    *((f"old{i}.safetensors", "mlp", "negative", "old", "") for i in range(2)),
]


def network(seed: int, noise: float = 0, arch: str = "mlp") -> nn.Module:
    """A network that is not trained, and weights near those of the one without noise."""
    torch.manual_seed(seed)
    made = Digits().architecture(arch)()
    torch.manual_seed(hash(noise) % 1000)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += noise * torch.randn_like(parameter)
    return made


def write_table(path: Path, rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def make_zoo(folder: Path) -> None:
    """A target, two kinds of positives and two of negatives, and a table of them."""
    folder.mkdir(parents=True)
    states = {"target.pth": network(0)}
    states |= {f"ft{i}.safetensors": network(0, 0.01 * (i + 1)) for i in range(2)}
    states |= {f"wp{i}.safetensors": network(0, 0.02 * (i + 2)) for i in range(2)}
    states |= {f"{kind}{i}.safetensors": network(seed + i)
               for kind, seed in (("new", 10), ("old", 20)) for i in range(2)}  # fmt: skip
    for name, model in states.items():
        save = torch.save if name.endswith(".pth") else save_file
        save(model.state_dict(), folder / name)
    write_table(folder / "models.csv", ROWS)


@pytest.fixture(scope="module")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("brought")
    make_zoo(folder / "zoo")
    return folder


@pytest.fixture
def place(brought: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the zoo, which a test may change, as the current one."""
    shutil.copytree(brought / "zoo", tmp_path / "zoo")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ask(command: str, *words: object) -> Result:
    return CliRunner().invoke(main, [*command.split(), *map(str, words)])


def suite(zoo: str, head: str = HEAD) -> Path:
    path = Path("suite.yaml")
    path.write_text(head + zoo + METHODS)
    return path


def run(zoo: str, *words: object, store: str = "store") -> dict[str, Any]:
    """The results of a run in the current folder."""
    path = suite(zoo) if "\n" in zoo else Path(zoo)
    result = ask("run", path, "--store", store, "--no-tracking", "--json", *words)
    assert result.exit_code == 0, result.output
    folder = Path(json.loads(result.stdout.splitlines()[-1])["run"])
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def table(results: Mapping[str, Any]) -> list[Any]:
    """What the tables of a run show: the models, and each method's summary."""
    models = [
        {k: m[k] for k in ("digest", "kind", "positive", "arch", "utility", "weights_sha256")}
        for m in results["models"]
    ]
    methods = [(m["method"], m["summary"]["aruc"], m["summary"]["kinds"])
               for m in results["methods"]]  # fmt: skip
    return [models, methods, [t["matching_rates"] for t in results["trials"]]]


def refused(zoo: str, *words: object, head: str = HEAD) -> str:
    """The one sentence with which planning refuses a suite."""
    result = ask("plan", suite(zoo, head), "--store", "store", *words)
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_a_list_a_pattern_and_a_table_give_the_same_results(brought: Path) -> None:
    with contextlib.chdir(brought):
        listed, matched, tabled = map(run, (LISTED, MATCHED, TABLED))
    assert table(listed) == table(matched) == table(tabled)
    kinds = [m["kind"] for m in listed["models"]]
    assert kinds == ["target", "FTAL", "FTAL", "WP", "WP", "new", "new", "old", "old"]
    assert [m["positive"] for m in listed["models"]] == 5 * [True] + 4 * [False]
    assert all(0 < m["utility"]["accuracy"] < 1 for m in listed["models"])
    assert {"FTAL", "WP", "new", "old"} == {*listed["methods"][0]["summary"]["kinds"]}
    target = listed["models"][0]["name"]
    assert all(m["name"].startswith(f"{target} > given(mlp,") for m in listed["models"][1:5])
    for trial in tabled["trials"]:  # a stratified split leaves one of each kind
        judged = [m["kind"] for m in tabled["models"] if m["digest"] in trial["matching_rates"]]
        assert judged == ["FTAL", "WP", "new", "old"]
    assert all(trial["cached"] for trial in tabled["trials"])  # they are the same models
