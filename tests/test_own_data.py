"""Scenarios of a user's own files: folders of images, arrays, tables."""

# ruff: noqa: E501
# The table of bad data is read row by row.

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from documents import blocks
from PIL import Image
from sklearn.datasets import load_diabetes, load_digits, load_wine

import fpbench
from fpbench.cli import main

PAGE = Path(__file__).parents[1] / "docs" / "data.md"

REST = """
name: own
api: {api}
repeats: 1
recipes: {{train: {{epochs: 2}}, distill: {{epochs: 2}}}}
target: {{recipe: train, model: {model}}}
zoo:
  positives: [{{recipe: distill, model: {model}, copies: 2}}]
  negatives: [{{recipe: train, model: {model}, pool: public, copies: 2}}]
methods: [{{method: {method}, n_queries: 20}}]
"""

DIGITS = load_digits()


def pictures(folder: Path, parts: dict[str, slice], classes: int = 3) -> None:
    """Write digits as grey pictures in FOLDER/PART/CLASS/."""
    for part, chosen in parts.items():
        x, y = DIGITS.images[chosen], DIGITS.target[chosen]
        for i, (image, label) in enumerate(zip(x, y, strict=True)):
            if label < classes:
                (place := folder / part / f"digit {label}").mkdir(parents=True, exist_ok=True)
                Image.fromarray((image * 15).astype(np.uint8)).save(place / f"{i}.png")


def table(file: Path, source: Callable[..., object] = load_wine) -> pd.DataFrame:
    """Write a table of scikit-learn as CSV, with a column of texts."""
    rows = source(as_frame=True).frame
    rows["size"] = np.where(np.arange(len(rows)) % 3 == 0, "large", "small")
    rows.to_csv(file, index=False)
    return rows


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder of a user, with data in each form."""
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "digits", {"train": slice(0, 600), "test": slice(600, 800)})
    x = (DIGITS.images[:600] * 15).astype(np.uint8)
    np.savez("digits.npz", train_images=x[:400], train_labels=DIGITS.target[:400, None],
             test_images=x[400:600], test_labels=DIGITS.target[400:600, None])  # fmt: skip
    table(Path("wine.csv"))
    table(Path("diabetes.csv"), load_diabetes)
    return tmp_path


def run(
    scenario: str, *options: str, model: str = "mlp", api: str = "label", method: str = "random"
):
    """Run a suite with a scenario through the command line."""
    text = f"scenario: {scenario}" + REST.format(model=model, api=api, method=method)
    Path("own.yaml").write_text(text)
    return CliRunner().invoke(main, ["run", "own.yaml", "--no-tracking", "--store", "store",
                                     "--device", "cpu", *options])  # fmt: skip


GOOD = {
    "images": ("{scenario: images, folder: digits}", "mlp", "label", "random"),
    "arrays": ("{scenario: arrays, file: digits.npz}", "mlp", "label", "random"),
    "a table of classes": (
        "{scenario: table, file: wine.csv, target: target}", "s", "label", "random",
    ),
    "a table of values": (
        "{scenario: table, file: diabetes.csv, target: target, labels: values}", "s", "output",
        "modeldiff",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_benchmark_runs_on_a_users_own_files(here, name):
    scenario, model, api, method = GOOD[name]
    result = run(scenario, model=model, api=api, method=method)
    assert result.exit_code == 0, result.output
    report = fpbench.read(next(Path("runs/own").iterdir()))
    assert report.summary(method)["aruc"] is not None


def load(name: str, **fields: object) -> fpbench.Scenario:
    from fpbench.engine.registry import Registry

    return Registry.load().scenarios[name].cls(**fields)


def test_pools_are_parts_of_the_folder_and_shares_of_its_training_part(here):
    scenario = load("images", folder="digits")
    pools = scenario.load()
    n = sum(DIGITS.target[:600] < 3)
    assert len(pools["train"].inputs) + len(pools["public"].inputs) == n
    assert len(pools["test"].inputs) == sum(DIGITS.target[600:800] < 3)
    assert scenario.class_names == ("digit 0", "digit 1", "digit 2")
    assert pools["irrelevant"].inputs.shape[1:] == (1, 8, 8)


def test_shares_are_dealt_by_the_seed(here):
    shares = {"train": 1, "public": 2, "test": 1}
    first, again, other = (
        load("table", file="wine.csv", target="target", **shares, seed=seed) for seed in (0, 0, 1)
    )
    assert {name: len(pool.truth) for name, pool in first.load().items()} == {
        "train": 44, "public": 89, "test": 45, "irrelevant": 442,
    }  # fmt: skip
    assert torch.equal(first.load()["train"].inputs, again.load()["train"].inputs)
    assert not torch.equal(first.load()["train"].truth, other.load()["train"].truth)


def test_a_scenario_is_named_by_its_content_and_not_by_its_path(here):
    shutil.copytree("digits", "copy")
    before = str(load("images", folder="digits"))
    assert str(load("images", folder="copy")) == before
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("copy/test/digit 0/new.png")
    assert str(load("images", folder="copy")) != before


@pytest.mark.parametrize(
    ("name", "fields"),
    [("images", {"folder": "digits"}), ("arrays", {"file": "digits.npz"}),
     ("table", {"file": "wine.csv", "target": "target"})],
)  # fmt: skip
def test_data_are_found_from_another_working_folder(here, monkeypatch, name, fields):
    scenario = load(name, **fields)
    monkeypatch.chdir("/")
    assert len(pickle.loads(pickle.dumps(scenario)).load()["train"].truth)  # noqa: S301


def test_data_that_change_after_planning_are_not_used(here):
    scenario = load("table", file="wine.csv", target="target")
    changed(ash=9.0)()
    with pytest.raises(fpbench.ResourceError, match="they have changed"):
        scenario.load()


def test_other_data_than_those_of_the_digest_are_refused(here):
    digest = load("arrays", file="digits.npz").sha256
    assert load("arrays", file="digits.npz", sha256=digest).sha256 == digest
    result = run(f"{{scenario: table, file: wine.csv, target: target, sha256: {digest}}}")
    assert result.exit_code == 2
    assert "expected data of sha256" in result.output


def test_networks_normalise_and_queries_stay_pictures(here):
    plain, centred = (
        load("images", folder="digits", **fields)
        for fields in ({}, {"mean": (0.5,), "std": (0.25,)})
    )
    torch.manual_seed(0)
    network = plain.architecture("cnn")()
    torch.manual_seed(0)
    normalising = centred.architecture("cnn")()
    x = torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(normalising(x), network((x - 0.5) / 0.25))
    assert centred.load()["train"].inputs.amin() == 0
    result = run("{scenario: images, folder: digits, mean: [0.5], std: [0.25]}")
    assert result.exit_code == 0, result.output


def test_classes_have_the_order_that_is_asked_for(here):
    names = ("digit 2", "digit 0", "digit 1")
    usual, other = (load("images", folder="digits", **f) for f in ({}, {"classes": names}))
    moved = torch.tensor([1, 2, 0])
    assert torch.equal(moved[usual.load()["test"].truth], other.load()["test"].truth)


@pytest.mark.parametrize(
    "labels",
    [DIGITS.target[:600], DIGITS.target[:600, None], DIGITS.target[:600] + 1,
     DIGITS.target[:600].astype(np.uint8), DIGITS.target[:600].astype(str)],
    ids=["(n,)", "(n, 1)", "from one", "bytes", "texts"],
)  # fmt: skip
def test_labels_are_understood_as_tools_write_them(here, labels):
    np.savez("x.npz", x=DIGITS.images[:600] / 16, y=labels)
    scenario = load("arrays", file="x.npz")
    assert scenario.output_shape == (10,)
    assert set(scenario.load()["train"].truth.tolist()) == set(range(10))


@pytest.mark.parametrize(
    ("shape", "layout", "found"),
    [((600, 8, 8), None, (1, 8, 8)), ((600, 64), None, (64,)), ((600, 8, 8, 1), None, (1, 8, 8)),
     ((600, 1, 8, 8), None, (1, 8, 8)), ((600, 8, 4, 2), "nhwc", (2, 8, 4))],
)  # fmt: skip
def test_images_may_have_channels_first_or_last(here, shape, layout, found):
    x = (DIGITS.images[:600] / 16).reshape(shape)
    np.savez("x.npz", x=x, y=DIGITS.target[:600])
    assert load("arrays", file="x.npz", layout=layout).input_shape == found


def changed(**columns: object) -> Callable[[], None]:
    def change() -> None:
        rows = pd.read_csv("wine.csv")
        for name, value in columns.items():
            rows.loc[11, name] = value
        rows.to_csv("wine.csv", index=False)

    return change


def arrays(**content: object) -> Callable[[], None]:
    good = {"x": DIGITS.images[:600] / 16, "y": DIGITS.target[:600]}
    return lambda: np.savez("digits.npz", **{**good, **content})


def nan() -> np.ndarray:
    x = DIGITS.images[:600] / 16
    x[3, 2, 1] = np.nan
    return x


WINE, NPZ = (
    "{scenario: table, file: wine.csv, target: target",
    "{scenario: arrays, file: digits.npz",
)
FOLDER = "{scenario: images, folder: digits"
BAD = {
    "no folder": ("{scenario: images, folder: nowhere}", None, "own.yaml:1:30: folder: expected a folder"),
    "no images": ("{scenario: images, folder: .}", lambda: shutil.rmtree("digits"), "folder: expected images in"),
    "an empty class": (f"{FOLDER}}}", lambda: Path("digits/train/digit 9").mkdir(), "found none in 'digit 9'"),
    "a broken picture": (f"{FOLDER}}}", lambda: Path("digits/train/digit 2/0.png").write_bytes(b"no"), "digits/train/digit 2/0.png: expected an image"),
    "pictures of two sizes": (f"{FOLDER}}}", lambda: Image.new("L", (9, 8)).save("digits/train/digit 0/z.png"), "got 9 x 8; `size:` scales"),
    "an unknown part": (f"{FOLDER}, test: tset}}", None, "test: expected the name of a part or a share, got 'tset'; parts: test, train"),
    "other classes": (f"{FOLDER}, classes: [a, b]}}", None, "classes: expected the classes a, b in digits"),
    "three means": (f"{FOLDER}, mean: [1, 2, 3]}}", None, "mean: expected a number per channel, 1, or one for all, got 3"),
    "a share of nothing": (f"{FOLDER}, train: 0.001}}", None, "train: expected examples for the pool train"),
    "no labels": (NPZ + "}", lambda: np.savez("digits.npz", x=DIGITS.images), "got no labels"),
    "objects": (NPZ + "}", arrays(y=np.array([{}] * 600)), "allow_pickle"),
    "no npz": (NPZ + "}", lambda: Path("digits.npz").write_text("x"), "expected an npz file"),
    "half of the labels": (NPZ + "}", arrays(y=DIGITS.target[:300]), "as many labels as inputs in digits.npz, got 300 and 600"),
    "one-hot labels": (NPZ + "}", arrays(y=np.eye(10)[DIGITS.target[:600]]), "one-hot labels?"),
    "labels with a gap": (NPZ + "}", arrays(y=DIGITS.target[:600] * 2), "without gaps"),
    "values as labels": (NPZ + "}", arrays(y=DIGITS.target[:600] / 2), "`labels: values` makes it a regression"),
    "whole numbers as inputs": (NPZ + "}", arrays(x=DIGITS.images[:600].astype(np.int64)), "expected inputs as bytes (uint8) or floating-point numbers in digits.npz, got int64"),
    "not a number": (NPZ + "}", arrays(x=nan()), "got nan at [3, 2, 1]"),
    "inputs beyond one": (NPZ + "}", arrays(x=DIGITS.images[:600]), "range: expected `range: [low, high]`, for the inputs in digits.npz are from 0.0 to 16.0"),
    "an infinite range": (NPZ + ", range: [0, .inf]}", None, "range: expected [smallest, largest]"),
    "channels nowhere": (NPZ + "}", arrays(x=np.zeros((600, 4, 4, 4))), "expected `layout: nhwc` or `layout: nchw`"),
    "an unknown column": (WINE + ", columns: [alcohl]}", None, "columns: no column 'alcohl' in "),
    "an empty cell": (WINE + "}", changed(ash=np.nan), "found nothing in row 12, column 'ash'"),
    "an infinite cell": (WINE + "}", changed(hue=np.inf), "found inf in row 12, column 'hue'"),
    "numbers as classes": ("{scenario: table, file: wine.csv, target: ash}", None, "target: expected classes in the column 'ash'"),
    "classes as numbers": ("{scenario: table, file: wine.csv, target: size, labels: values}", None, "target: expected numbers in the column 'size'"),
    "a rare class": (WINE + "}", changed(target=7), "found none of class '7'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_data_are_one_sentence_before_anything_is_made(here, name):
    scenario, damage, expected = BAD[name]
    if damage:
        damage()
    result = run(scenario)
    assert result.exit_code == 2, result.output
    assert expected in result.output.replace("\n", " ")
    assert "Traceback" not in result.output
    assert not Path("store").exists() or not [*Path("store").rglob("*.safetensors")]


@pytest.mark.parametrize("suite", [text for language, text in blocks(PAGE) if language == "yaml"])
def test_the_suites_of_the_page_are_planned(here, suite):
    Path("digits").rename("clothes")
    Path("page.yaml").write_text(suite)
    result = CliRunner().invoke(main, ["plan", "page.yaml", "--store", "store"])
    assert result.exit_code == 0, result.output
