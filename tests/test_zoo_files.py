"""A zoo that somebody brings: files as positives and negatives, by list, pattern and table."""

from __future__ import annotations

import contextlib
import csv
import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from documents import ROOT, blocks
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


def run(path: Path, store: str = "store") -> dict[str, Any]:
    """The results of a run in the current folder."""
    result = ask("run", path, "--store", store, "--no-tracking", "--json")
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
        listed, matched, tabled = (run(suite(zoo)) for zoo in (LISTED, MATCHED, TABLED))
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


MIXED = """\
target: {recipe: train, model: mlp}
zoo:
  positives:
    - {recipe: given, files: zoo/ft*.safetensors, kind: brought}
    - {recipe: distill, model: mlp, copies: 2}
    - {recipe: given, file: zoo/wp0.safetensors, kind: brought, parent: zoo/ft0.safetensors}
    - {recipe: given, file: zoo/wp1.safetensors, kind: brought}
  negatives:
    - {recipe: train, model: mlp, copies: 2}
    - {recipe: given, files: zoo/new*.safetensors}
"""


def test_a_released_zoo_runs_elsewhere_and_makes_nothing_anew(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(
        suite(MIXED, HEAD.replace("{given", "{train: {epochs: 1}, distill: {epochs: 1}, given"))
    )
    names = [m["name"] for m in first["models"]]
    assert f"{names[1]} > given(mlp,wp0.safetensors," in names[5]
    released = ask("store export out/digits.tar --suite suite.yaml --store store --licence MIT")
    assert released.exit_code == 0, released.output
    (place / "there").mkdir()
    for file in (place / "out").iterdir():
        shutil.copy(file, place / "there")
    monkeypatch.chdir(place / "there")  # a folder without any checkpoint
    files = {f"digits.{end}" for end in ("tar", "suite.yaml", "card.md", "sha256")}
    assert {f.name for f in Path().iterdir()} == {
        *files,
        "digits.models.csv",
        "digits.models-2.csv",
    }
    subprocess.run(["sha256sum", "-c", "digits.sha256"], check=True, capture_output=True)
    card = Path("digits.card.md").read_text()
    assert "Licence of the models: MIT." in card
    assert "scikit-learn digits: 1,797 images" in card
    assert "| positive | brought | 4 | mlp | " in card
    assert ask("store import digits.tar --store kept").exit_code == 0
    plan = json.loads(ask("plan digits.suite.yaml --store kept --json").stdout)
    assert plan["missing"] == {}
    again = run(Path("digits.suite.yaml"), "kept")
    assert all(trial["cached"] for trial in again["trials"])
    assert table(again) == table(first)
    assert [m["name"] for m in again["models"]] == names


def test_a_release_needs_all_models_of_its_suite(place: Path) -> None:
    suite(TABLED)
    released = ask("store export out.tar --suite suite.yaml --store store")
    assert released.exit_code == 2
    assert "expected all 9 models of brought in store, found 0" in released.stderr
    assert not Path("out.tar").exists()


# ── what is refused ───────────────────────────────────────────────────────────────


def changed(row: int, column: int, cell: str) -> list[tuple[str, ...]]:
    rows = [list(r) for r in ROWS]
    rows[row][column] = cell
    return [tuple(r) for r in rows]


WRONG_TABLES = {
    "an unknown label": (changed(3, 2, "stolen"), "4:21: label: expected positive, negative or"),
    "a missing file": (changed(4, 0, "none.pth"), "5:1: file: expected a model file at "),
    "an unknown architecture": (changed(5, 1, "mpl"), "6:17: no architecture 'mpl' in digits; did"),
    "two rows of one file": ([*ROWS, ROWS[3]], "11:1: expected every model once, got "),
    "one file on both sides": ([*ROWS, ("ft0.safetensors", "mlp", "negative", "new", "")],
                               "11:1: expected other weights from negatives than"),
    "a file as two kinds": ([*ROWS, ("ft0.safetensors", "mlp", "positive", "x", "wp1.safetensors")],
                            "11:1: expected every model file once, got equal files from "),
    "an unknown parent": (changed(2, 4, "ft7.safetensors"), "3:35: parent: expected target"),
    "a parent on the other side": (changed(2, 4, "new0.safetensors"), "3:35: parent: expected"),
    "a negative from the target": (changed(6, 4, "target"), "7:35: parent: expected a model that"),
    "a circle": (changed(2, 4, "ft0.safetensors"), "3:35: parent: expected a model that"),
    "one kind on both sides": (changed(6, 3, "WP"), "7:1: kind: expected other kinds"),
    "no file": (changed(6, 0, ""), "7:1: expected a file in every row"),
    "an unknown column": (changed(0, 1, "archtecture"), "1:6: expected columns of a table"),
    "a column twice": (changed(0, 1, "file"), "1:6: expected every column once"),
    "no column of labels": ([row[:2] for row in ROWS], "1:1: expected a column 'label'"),
    "a cell too many": ([*ROWS, (*ROWS[1], "more")], "11:1: expected 5 cells, as in the first"),
    "two targets": ([*ROWS, ("wp1.safetensors", *ROWS[1][1:])], "11:1: expected one target, got 2"),
    "a wrong sha256": ([(*row, "sha256" if i == 0 else "0" * 63) for i, row in enumerate(ROWS)],
                       "2:25: sha256: expected 64 hexadecimal digits"),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "message"), WRONG_TABLES.values(), ids=WRONG_TABLES)
def test_a_wrong_table_is_refused_with_its_place(
    place: Path, rows: list[tuple[str, ...]], message: str
) -> None:
    write_table(Path("zoo/models.csv"), rows)
    assert refused(TABLED).startswith(f"error: zoo/models.csv:{message}")


WRONG_SUITES = {
    "no match": ("zoo/wp?.safetensors", "zoo/wp?.pt", "10:23: files: expected files that match"),
    "no pattern": ("zoo/new*.safetensors, ", "7, ", "12:23: files: expected a pattern such as"),
    "a missing file": ("file: zoo/target.pth", "file: zoo/non.pth", "6:25: file: expected a model"),
    "several ways": ("kind: WP", "kind: WP, file: a.pth", "10:23: expected one of the keys file"),
    "no each": ("kind: WP", "each: 5", "10:53: each: expected keys with lists of values"),
    "a long kind": ("kind: WP", f"kind: {'W' * 61}", "10:53: kind: expected at most 60"),
    "a kind of results": ("kind: WP", "kind: target", "10:53: kind: expected at most 60"),
    "files of a recipe": ("given, files: [zoo", "finetune, files: [zoo",
                          "10:26: no key 'files' in finetune"),
    "no table": ("files: [zoo/wp?.safetensors]", "table: no.csv", "10:23: table: expected a CSV"),
    "a parent of the target": ("/target.pth", "/target.pth, parent: target", "6:47: no key"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), WRONG_SUITES.values(), ids=WRONG_SUITES)
def test_a_wrong_entry_is_refused_with_its_place(
    place: Path, old: str, new: str, message: str
) -> None:
    assert old in MATCHED
    assert refused(MATCHED.replace(old, new)).startswith(f"error: suite.yaml:{message}")


def test_a_missing_file_of_a_list_is_refused_at_its_own_place(place: Path) -> None:
    Path("zoo/ft1.safetensors").unlink()
    assert refused(LISTED).startswith("error: suite.yaml:9:58: file: expected a model file at ")


def test_a_file_that_is_needed_is_missed_when_the_run_is_planned(place: Path) -> None:
    rows = [(*row, "sha256" if i == 0 else f"{i:064}") for i, row in enumerate(ROWS)]
    write_table(Path("zoo/models.csv"), rows)
    Path("zoo/wp0.safetensors").unlink()
    assert refused(TABLED).startswith("error: zoo/models.csv:5:1: file: expected a model file at ")


def test_text_that_is_no_table_is_refused(place: Path) -> None:
    for raw in (b"\xff\xfe", b"", b'file,label\n"x', b"file;label\na;positive\n", b"file\0,label"):
        Path("zoo/models.csv").write_bytes(raw)
        assert refused(TABLED).startswith("error: zoo/models.csv")


# ── published zoos ────────────────────────────────────────────────────────────────

PAGE = blocks(ROOT / "docs" / "zoos.md")
SUITES = {found[1]: text for _, text in PAGE if (found := re.match(r"name: (\w+)", text))}
TABLES = [text for language, text in PAGE if language == "csv"]

NETWORKS = """\
from fpbench.builtin.scenarios.digits import cnn, mlp


def resnet18():
    return mlp()


def mbnetv2():
    return cnn()
"""

STEM = "ModelReuse-pretrain.resnet18.imagenet-1k-transfer.Flower102.0_5"
QURD = {
    **{f"{STEM}{end}": "mlp" for end in ("", "-prune.0_2", "-prune.0_5", "-prune.0_8", "-distill")},
    **{f"{STEM}-steal.{arch}": arch for arch in ("resnet18", "mbnetv2")},
    **{f"ModelReuse-train.{arch}.Flower102": arch for arch in ("resnet18", "mbnetv2")},
    **{f"{STEM.replace('resnet18', 'mbnetv2')[:-3]}{share}": "mbnetv2" for share in ("0_1", "1_0")},
}
"""The folders of the models on the hub, and their architectures."""

SAC = ["model/vgg_model.pth", *(f"finetune_10/finetune{i}.pth" for i in range(20))]
SAC += [f"model/{kind}_{i}.pth" for i in range(20)
        for kind in ("student_model_1", "student_model_kd", "clean_model")]  # fmt: skip


def published(name: str) -> Path:
    """The suite of the page, over digits."""
    text = re.sub("scenario: .*", "scenario: digits", SUITES[name])
    for theirs, ours in (("vgg16_bn", "mlp"), ("vgg13", "mlp"), ("resnet18", "resnet"),
                         ("densenet121", "cnn"), ("mobilenet_v2", "cnn")):  # fmt: skip
        text = text.replace(f'"torchvision:{theirs}"', ours)
    path = Path(f"{name}.yaml")
    path.write_text(text)
    Path("networks.py").write_text(NETWORKS)
    return path


def planned(path: Path) -> tuple[dict[str, int], dict[str, int], int]:
    """The positives and negatives of a plan by recipe, and the number of cohorts."""
    result = ask("plan", path, "--store", "store", "--json")
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    return plan["positives"], plan["negatives"], len(plan["cohorts"])


def put(file: str, content: object) -> None:
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, file)


def test_the_checkpoints_of_sac_are_a_zoo(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for i, file in enumerate(SAC):
        put(file, {"features.0.weight": torch.full((3,), float(i))})
    assert planned(published("sac")) == ({"given": 60}, {"given": 20}, 81)


def test_the_checkpoints_of_qurd_are_a_zoo(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, (name, arch) in enumerate(QURD.items()):
        folder = Path("zoo", name)
        folder.mkdir(parents=True)
        model = network(seed, arch="cnn" if arch == "mbnetv2" else "mlp")
        save_file(model.state_dict(), folder / "model.safetensors")
        (folder / "config.json").write_text("{}")
    results = run(published("qurd"))
    kinds = Counter((m["kind"], m["positive"]) for m in results["models"])
    assert kinds == {
        ("target", True): 1, ("pruned", True): 3, ("distilled", True): 1, ("stolen", True): 2,
        ("retrained", False): 2, ("other pretraining", False): 2,
    }  # fmt: skip


def test_the_checkpoints_of_modeldiff_are_a_zoo(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (text,) = (t for t in TABLES if "final_ckpt" in t)
    for i, row in enumerate(csv.DictReader(text.splitlines())):
        put(f"models/{row['file']}", {"state_dict": {"fc.weight": torch.full((3,), float(i))}})
    Path("models/models.csv").write_text(text)
    assert planned(published("modeldiff")) == ({"given": 4}, {"given": 4}, 9)


def test_the_entries_of_the_page_work(place: Path) -> None:
    entries = next(text for language, text in PAGE if language == "yaml")
    for seed, name in enumerate(("target.safetensors", "stolen.pth", "a.pth", "b.pth",
                                 "pruned_1.safetensors", "finetuned.pth", "independent.pth",
                                 "finetuned_pruned.pth", "target.pth", "another.pth")):  # fmt: skip
        put(f"zoo/{name}", {"x": torch.full((3,), float(seed))})
    Path("zoo/models.csv").write_text(TABLES[0])
    head = "name: page\nscenario: digits\napi: probs\n"
    assert planned(suite(entries, head))[0] == {"given": 4, "prune_weights": 1}
    assert planned(suite(TABLED, head)) == ({"given": 2}, {"given": 2}, 5)
