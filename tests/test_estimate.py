"""A plan says how long building will take, and an impossible one stops before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import fpbench
from conftest import TOYS, UNTRAINED, Desk
from fpbench.cli import main

SUITES = Path(__file__).parent.parent / "suites"

SKIN = """\
name: timed
scenario: {scenario: skin, size: 32}
api: probs
recipes:
  train: {epochs: 1, model: small_vgg}
target: {recipe: train}
zoo:
  positives:
    - {recipe: prune_weights, each: {ratio: [0.4, 0.5]}}
  negatives:
    - {recipe: train, copies: 2}
methods:
  - {method: random}
"""
"""Three models to train; pruning without recovery trains none."""

IMAGES = {"train": 4005, "irrelevant": 2268}
"""The owner's half of DermaMNIST's 7,007 + 1,003 images, and those of the other domain."""


def planned(desk: Desk, text: str, **overrides: Any) -> fpbench.PlanSummary:
    return fpbench.plan(
        desk.write(text), store=desk.folder / "store", device="cpu", plugins=[TOYS],
        overrides=overrides,
    )  # fmt: skip


def seconds(desk: Desk, **overrides: Any) -> float:
    found = planned(desk, SKIN, **overrides).seconds
    assert found is not None
    return found


def test_a_pass_is_forwards_and_backwards_through_the_network(desk: Desk) -> None:
    # small_vgg at 32 x 32, multiply-adds of its three convolutions and two linear layers, by
    # hand; backwards takes twice as many, less the images' own gradient.
    first, others = 16 * 16 * 16 * 27, 16 * 16 * 32 * 144 + 8 * 8 * 64 * 288 + 1024 * 64 + 64 * 7
    per_image = 2 * (2 * first + 3 * others)
    # conftest.py has every device do a gigaflop per second.
    assert seconds(desk) == pytest.approx(3 * per_image * IMAGES["train"] / 1e9)


def test_time_grows_with_epochs_models_and_images(desk: Desk) -> None:
    one = seconds(desk) / 3
    assert seconds(desk, **{"recipes.train.epochs": 7}) == pytest.approx(7 * 3 * one)
    assert seconds(desk, **{"zoo.negatives.train.copies": 3}) == pytest.approx(4 * one)
    share = IMAGES["irrelevant"] / IMAGES["train"]
    other = seconds(desk, **{"zoo.negatives.train.pool": "irrelevant"})
    assert other == pytest.approx((1 + 2 * share) * one)


def test_nothing_is_said_where_nothing_is_known(desk: Desk) -> None:
    assert planned(desk, UNTRAINED).seconds is None


@pytest.mark.usefixtures("thorough")
def test_a_speed_is_measured(desk: Desk) -> None:
    assert 0 < seconds(desk) < 1e5


@pytest.mark.parametrize(("speed", "named"), [(1e9, True), (1e18, False)])
def test_a_long_suite_names_smaller_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speed: float, named: bool
) -> None:
    monkeypatch.setattr("fpbench.engine.estimate._speed", lambda *_: speed)
    words = ["plan", str(SUITES / "skin.yaml"), "--store", str(tmp_path), "--device", "cpu"]
    out = CliRunner().invoke(main, words).stdout
    assert "to build on cpu" in out
    assert ("skin-32, skin-cpu" in out) is named


def test_too_small_a_disk_is_told_before_anything_is_made(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        free = 0

    monkeypatch.setattr("shutil.disk_usage", lambda _: Full)
    result = desk("run")
    assert result.exit_code == 3
    assert "of free disk for the models in" in result.stderr
    assert "free some, or give --store another disk" in result.stderr
    assert not list((desk.folder / "store").rglob("*.safetensors"))


@pytest.mark.parametrize(("epochs", "expected"), [(1, [11, 2]), (100_000, [1, 4, 4, 2, 2])])
def test_what_takes_long_is_made_and_saved_a_few_at_a_time(
    desk: Desk, epochs: int, expected: list[int]
) -> None:
    many = f"{{recipe: train, epochs: {epochs}, copies: 10}}"
    text = SKIN.replace("{recipe: train, copies: 2}", many)
    assert [len(cohort.models) for cohort in planned(desk, text).cohorts] == expected
