"""Finished work on disk: right to the last byte, or made again."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from stores import flip
from torch import nn
from toys import Blobs, Drawn

from conftest import UNTRAINED, Bench, Desk
from fpbench import ResourceError
from fpbench.store import files
from fpbench.store.checks import MODEL
from fpbench.store.files import sealed, sha256, unsealed
from fpbench.store.store import Store

CPU = torch.device("cpu")
RECIPE = Drawn(scenario="blobs", model="wide", seed=3)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def untrained(tmp_path: Path) -> Desk:
    """A suite that is run in no time, because it trains nothing."""
    return Desk.of(tmp_path, UNTRAINED)


def keep(store: Store, scenario: Blobs | None = None) -> Path:
    scenario = scenario or Blobs()
    store.save([(RECIPE, RECIPE.make(Bench()), {"utility": {"accuracy": 0.5}})], scenario)
    return store.folder(RECIPE, scenario)


def test_what_is_saved_is_loaded_to_the_bit(store):
    keep(store)
    loaded, made = store.load(RECIPE, Blobs(), CPU), RECIPE.make(Bench())
    for name, tensor in made.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert store.made(RECIPE, Blobs())["utility"] == {"accuracy": 0.5}
    assert store.intact(RECIPE, Blobs())


def test_a_loaded_model_is_frozen_and_ones_own(store):
    keep(store)
    one, other = (store.load(RECIPE, Blobs(), CPU) for _ in range(2))
    assert not one.training
    assert not any(p.requires_grad for p in one.parameters())
    with torch.no_grad():
        one[0].weight.zero_()
    assert other[0].weight.any()


class Constant(nn.Module):
    """Has numbers that are nobody's weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide, self.head = nn.Linear(2, width), nn.Linear(width, 3)
        self.mean = torch.full((2,), 0.5)
        self.register_buffer("scale", torch.full((3,), 2.0), persistent=False)

    def forward(self, x):
        return self.scale * self.head(self.wide(x - self.mean))


@pytest.mark.parametrize("width", [8, 10**6], ids=["small", "large"])
def test_what_a_network_has_beside_its_weights_is_loaded_too(store, width):
    class Centred(Blobs):
        architectures = {"wide": partial(Constant, width)}  # noqa: RUF012

    made, x = Constant(width).eval(), torch.rand(5, 2)
    store.save([(RECIPE, made, {})], Centred())
    assert torch.equal(store.load(RECIPE, Centred(), CPU)(x), made(x))


def test_loading_draws_no_number_that_a_method_would_draw(store):
    keep(store)
    before = torch.get_rng_state()
    store.load(RECIPE, Blobs(), CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_folder_tells_people_what_it_holds(store):
    folder = keep(store)
    told = json.loads((folder / "recipe.json").read_text())
    assert told["model"] == "drawn(wide)#3"
    assert told["lineage"][0]["digest"] == RECIPE.digest == folder.name


def test_an_empty_store_has_nothing(store):
    assert not store.intact(RECIPE, Blobs())
    assert store.made(RECIPE, Blobs()) is None
    assert store.trial("0" * 64) is None
    assert not store.root.exists()


def test_a_new_version_of_a_scenario_has_its_own_models(store):
    @dataclass(frozen=True)
    class Next(Blobs):
        version = 2

    keep(store)
    assert not store.intact(RECIPE, Next())


def test_a_store_of_before_lineages_were_sealed_is_intact(store):
    folder = keep(store)
    told = unsealed((folder / "recipe.json").read_bytes())
    (folder / "recipe.json").write_text(json.dumps(told, indent=1))
    assert store.intact(RECIPE, Blobs())
    told["lineage"][0]["fields"]["seed"] = 4
    (folder / "recipe.json").write_text(json.dumps(told, indent=1))
    assert not store.intact(RECIPE, Blobs())


def test_a_trial_that_another_run_mends_meanwhile_is_not_set_aside(store, monkeypatch):
    key, good = "0" * 64, {
        "matching_rates": {"1" * 64: 0.5}, "calibration_rates": {}, "queries": 3,
        "construct_seconds": 1.0, "verify_seconds": 0.5, "device": "cpu",
    }  # fmt: skip
    store.save_trial(key, good)
    (path,) = (store.root / "trials").rglob("*.json")
    path.write_bytes(flip(path.read_bytes()))
    real = Store.lock

    def lock(self, name, timeout=-1):
        monkeypatch.undo()
        self.save_trial(key, good)
        return real(self, name, timeout)

    monkeypatch.setattr(Store, "lock", lock)
    assert store.trial(key) == good
    assert [*path.parent.iterdir()] == [path]


def test_a_model_that_changes_while_it_is_used_is_not_used(store):
    folder = keep(store)
    weights = folder / "weights.safetensors"
    weights.write_bytes(flip(weights.read_bytes()))
    with pytest.raises(ResourceError, match="changed in the store while it was being used"):
        store.load(RECIPE, Blobs(), CPU)


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_is_ever_unpickled(store, tmp_path):
    folder = keep(store)
    raw = pickle.dumps({"0.weight": Bomb(tmp_path / "boom")})
    (folder / "weights.safetensors").write_bytes(raw)
    # Even by one who can seal: checksums keep out accidents, the format keeps out code.
    made = {"schema": MODEL, **store.made(RECIPE, Blobs()), "weights_sha256": sha256(raw)}
    (folder / "made.json").write_bytes(sealed(made))
    with pytest.raises(ResourceError, match="expected the weights of a wide as safetensors"):
        store.load(RECIPE, Blobs(), CPU)
    assert not (tmp_path / "boom").exists()


def test_a_crash_before_a_file_is_whole_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.write(path, b"old")

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        files.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [path]


def test_what_a_killed_run_left_half_written_is_not_a_model(untrained):
    first = untrained.run()
    for folder in (untrained.folder / "store" / "models").rglob(first["targets"][0]):
        folder.rename(folder.with_name(".tmp-killed"))
        (folder.with_name(".tmp-killed") / "made.json").unlink()
    assert untrained.run()["trials"][0]["matching_rates"] == first["trials"][0]["matching_rates"]


@pytest.mark.parametrize(("mask", "file", "folder"), [(0o002, 0o664, 0o775), (0o077, 0o600, 0o700)])
def test_who_may_read_and_write_what_a_run_leaves_is_decided_by_the_umask(desk, mask, file, folder):
    desk.write(UNTRAINED)
    before = os.umask(mask)
    try:
        data = desk.run()
    finally:
        os.umask(before)
    places = [desk.folder / "store", desk.run_folder(data)]
    paths = [path for place in places for path in place.rglob("*")]
    modes = {"file": set(), "folder": set()}
    for path in paths:
        modes["folder" if path.is_dir() else "file"].add(path.stat().st_mode & 0o777)
    assert modes == {"file": {file}, "folder": {folder}}
