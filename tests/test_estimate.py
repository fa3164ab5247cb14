"""A plan says how long building will take, and an impossible one stops before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import Desk
from toys import Blobs, Drawn

from fpbench import Recipe, ResourceError, Scenario
from fpbench.builtin.recipes.prune import PruneWeights
from fpbench.builtin.recipes.train import Train
from fpbench.builtin.scenarios.skin import Skin
from fpbench.engine import estimate
from fpbench.engine.plan import Plan, cohorts
from fpbench.engine.registry import Registry
from fpbench.engine.suite import Suite
from fpbench.reporting.tables import show_plan
from fpbench.store.store import Store

SUITES = Path(__file__).parent.parent / "suites"
SCENARIO = Skin(size=32)


def train(**fields) -> Train:
    return Train(scenario=str(SCENARIO), model="small_vgg", **fields)


@pytest.fixture
def one_gigaflop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_speed", lambda *_: 1e9)


def seconds(*recipes) -> float | None:
    return building(recipes, SCENARIO, "small_resnet")


def building(recipes: Sequence[Recipe], scenario: Scenario, timed: str) -> float | None:
    return estimate.seconds(recipes, scenario, timed, "cpu")


@pytest.mark.usefixtures("one_gigaflop")
def test_time_grows_with_epochs_models_and_images() -> None:
    one = seconds(train(epochs=1))
    assert one is not None
    assert seconds(train(epochs=7)) == pytest.approx(7 * one)
    assert seconds(train(epochs=1), train(epochs=1, seed=1)) == pytest.approx(2 * one)
    fewer = SCENARIO.pool_sizes["irrelevant"] / SCENARIO.pool_sizes["train"]
    assert seconds(train(epochs=1, pool="irrelevant")) == pytest.approx(fewer * one)


@pytest.mark.usefixtures("one_gigaflop")
def test_a_pass_is_forwards_and_backwards_through_the_network() -> None:
    # small_vgg at 32 x 32, multiply-adds of its three convolutions and two linear layers, by
    # hand; backwards takes twice as many, less the images' own gradient.
    first, others = 16 * 16 * 16 * 27, 16 * 16 * 32 * 144 + 8 * 8 * 64 * 288 + 1024 * 64 + 64 * 7
    per_image = 2 * (2 * first + 3 * others)
    expected = per_image * SCENARIO.pool_sizes["train"] / 1e9
    assert seconds(train(epochs=1)) == pytest.approx(expected)


@pytest.mark.usefixtures("one_gigaflop")
def test_pruning_without_recovery_takes_no_time() -> None:
    parent = train(epochs=1)
    pruned = PruneWeights(scenario=str(SCENARIO), parent=parent, ratio=0.5)
    assert seconds(parent, pruned) == seconds(parent)


def test_nothing_is_said_where_nothing_is_known() -> None:
    assert building([Drawn(scenario="blobs")], Blobs(), "wide") is None


def test_a_speed_is_measured() -> None:
    found = seconds(train(epochs=1))
    assert found is not None
    assert 0 < found < 1e5


@pytest.mark.parametrize(("speed", "named"), [(1e9, True), (1e18, False)])
def test_a_long_suite_names_smaller_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    speed: float, named: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(estimate, "_speed", lambda *_: speed)
    suite = Suite.load(SUITES / "skin.yaml", Registry.load())
    show_plan(Plan.of(suite).summary(Store(tmp_path), "cpu"))
    out = capsys.readouterr().out
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
    assert not list((desk.folder / "store").rglob("*.safetensors"))


def test_a_store_with_room_says_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "not" / "yet")
    store.require(1)
    with pytest.raises(ResourceError, match="free some, or give --store another disk"):
        store.require(10**18)


def test_what_takes_long_is_made_and_saved_a_few_at_a_time() -> None:
    quick = [train(epochs=1, seed=i) for i in range(10)]
    long = [train(epochs=100_000, seed=i) for i in range(10)]
    unknown = [Train(scenario="blobs", model="slim", seed=i) for i in range(10)]
    assert [len(part) for part in cohorts(quick + long, SCENARIO)] == [10, 4, 4, 2]
    assert [len(part) for part in cohorts(unknown, Blobs())] == [10]
