"""Skin: what its pools hold, what its networks do, what is said when the data is not there."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pooch
import psutil
import pytest
import torch

from conftest import Bench
from fpbench import Pool, ResourceError
from fpbench.api.scenario import forget_data
from fpbench.builtin.recipes.prune import PruneFilters
from fpbench.builtin.recipes.train import Train
from fpbench.builtin.scenarios import derma, skin_networks
from fpbench.builtin.scenarios.skin import Skin
from fpbench.compute.stack import Stacks
from fpbench.training import fit

HAM = Path(os.environ.get("FPBENCH_DATA", "no FPBENCH_DATA")) / "ham10000-28/ham10000_28.npz"
needs_data = pytest.mark.skipif(
    not HAM.is_file(), reason="needs ham10000-28/ham10000_28.npz in $FPBENCH_DATA"
)
SIZES = (9, 2, 5)
SMALL = ("small_squeezenet", "small_resnet", "small_densenet", "small_alexnet", "small_vgg")


def test_networks_are_named_without_waiting_for_torchvision():
    code = "import sys; from fpbench.builtin.scenarios.skin import Skin; " \
           "print(*Skin(size=32).architectures); print('torchvision' in sys.modules)"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, imported = done.stdout.splitlines()
    assert "resnet18" in names.split()
    assert imported == "False"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Both archives, shrunk to a few images, in $FPBENCH_DATA; no cache and no network."""
    rng = np.random.default_rng(0)
    for name, archive in derma.ARCHIVES.items():
        arrays = {}
        for split, n in zip(derma.SPLITS, SIZES, strict=True):
            arrays[f"{split}_images"] = rng.integers(0, 256, (n, 28, 28, 3), np.uint8)
            arrays[f"{split}_labels"] = (np.arange(n) % 7)[:, None].astype(np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        path = tmp_path / archive.folder / archive.file
        path.parent.mkdir()
        path.write_bytes(buffer.getvalue())
        known = "sha256:" + hashlib.sha256(buffer.getvalue()).hexdigest()
        monkeypatch.setitem(derma.ARCHIVES, name, replace(archive, checksum=known, sizes=SIZES))

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no network\nand more lines")

    monkeypatch.setattr(pooch, "retrieve", unreachable)
    monkeypatch.setenv("FPBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    forget_data()
    yield tmp_path
    forget_data()


def image_file(folder: Path, name: str) -> Path:
    return folder / derma.ARCHIVES[name].folder / derma.ARCHIVES[name].file


# ── pools ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [32, 224])
@pytest.mark.parametrize("dataset", list(derma.ARCHIVES))
def test_pools_are_what_a_model_is_asked(data: Path, dataset: str, size: int,
                                         monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr("fpbench.builtin.scenarios.skin.IRRELEVANT", 8)
    real = "fpbench.builtin.scenarios.skin.photographs"
    monkeypatch.setattr(real, lambda: (255 * torch.ones(8, 3, 28, 28), torch.arange(8) % 7))
    scenario = Skin(size=size, dataset=dataset)
    pools = scenario.load()
    for name, pool in pools.items():
        assert pool.inputs.shape == (scenario.pool_sizes[name], 3, size, size)
        assert pool.inputs.dtype == torch.float32
        assert 0 <= pool.inputs.min() <= pool.inputs.max() <= 1
        assert pool.truth.dtype == torch.int64


def test_owner_and_attacker_share_no_image(data: Path) -> None:
    pools = Skin(size=32).load()
    rows = torch.cat([pools["train"].inputs, pools["public"].inputs]).flatten(1)
    assert len(rows) == SIZES[0] + SIZES[1]
    assert len(rows.unique(dim=0)) == len(rows)


def test_the_other_domain_has_all_seven_labels(data: Path) -> None:
    pool = Skin(size=32).load()["irrelevant"]
    assert sorted(pool.truth.unique().tolist()) == list(range(7))


@needs_data
def test_the_ham10000_subset_is_the_one_that_is_documented() -> None:
    scenario = Skin(size=32, dataset="ham10000-28")
    test = scenario.data("test")
    assert len(test.truth) == 1512
    assert len(scenario.data("train").truth) + len(scenario.data("public").truth) == 5984
    constant = torch.zeros(1512, 7)
    constant[:, 5] = 1
    utility = scenario.utility(constant, test.truth)
    assert utility["accuracy"] == pytest.approx(0.601, abs=0.001)
    assert utility["balanced_accuracy"] == pytest.approx(1 / 7)


def test_utility_weighs_every_class_alike_in_balanced_accuracy() -> None:
    truth = torch.tensor([0, 0, 0, 1])
    answers = torch.eye(7)[torch.tensor([0, 0, 0, 2])]
    utility = Skin(size=32).utility(answers, truth)
    assert utility == {"accuracy": 0.75, "balanced_accuracy": 0.5}


def test_the_subset_is_never_called_dermamnist() -> None:
    other = Skin(dataset="ham10000-28")
    assert other.summary.startswith("HAM10000-28 subset, not DermaMNIST")
    assert str(other) == "skin(dataset=ham10000-28)"
    assert Skin().summary.startswith("DermaMNIST")


# ── what is said when something is missing ────────────────────────────────────────


@pytest.mark.parametrize("dataset", list(derma.ARCHIVES))
def test_a_truncated_archive_is_named_and_never_read(data: Path, dataset: str) -> None:
    path = image_file(data, dataset)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ResourceError, match=r"expected .*npz with .* truncated or another"):
        derma.load(dataset)


@pytest.mark.parametrize(
    ("missing", "present"), [("dermamnist", "ham10000-28"), ("ham10000-28", "dermamnist")]
)
def test_without_one_archive_the_other_is_offered(data: Path, missing: str, present: str) -> None:
    image_file(data, missing).unlink()
    with pytest.raises(ResourceError) as error:
        derma.load(missing)
    sentence = str(error.value)
    assert sentence.endswith(f"{present} is here: `-o scenario.dataset={present}`")
    assert f"$FPBENCH_DATA/{missing}" in sentence
    assert "\n" not in sentence


def test_without_either_nothing_is_offered(data: Path) -> None:
    for name in derma.ARCHIVES:
        image_file(data, name).unlink()
    with pytest.raises(
        ResourceError, match=r"could not be fetched \(ConnectionError: no network"
    ) as e:
        derma.load("dermamnist")
    assert "-o scenario" not in str(e.value)


def test_too_little_memory_is_told_before_anything_is_enlarged(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Little:
        available = 10**6

    monkeypatch.setattr(psutil, "virtual_memory", Little)
    with pytest.raises(ResourceError, match=r"GB of free memory .* found 0.0 GB; .* size 32"):
        Skin(size=224).load()


# ── networks ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("size", "name"), [(size, name) for size, by in skin_networks.BY_SIZE.items() for name in by]
)
def test_every_network_maps_images_to_seven_logits(size: int, name: str) -> None:
    scenario = Skin(size=size)
    with torch.device("meta"):
        out = scenario.architectures[name]()(torch.empty(2, *scenario.input_shape))
    assert out.shape == (2, 7)


@pytest.mark.parametrize("name", [*SMALL, "squeezenet"])
def test_a_network_learns_in_a_cohort_and_answers_in_a_stack(name: str) -> None:
    scenario = Skin(size=32)
    lab = Bench(scenario)
    recipes = [Train(scenario=str(scenario), model=name, seed=seed) for seed in range(2)]
    models = [lab.new(recipe, name) for recipe in recipes]
    before = [model.state_dict()["1.weight"].clone() for model in models] if name in SMALL else []
    rng = torch.Generator().manual_seed(0)
    pool = Pool(torch.rand(16, 3, 32, 32, generator=rng), torch.arange(16) % 7)
    fit(lab, recipes, models, pool, loss=scenario.loss, epochs=1, lr=1e-3, batch_size=8)
    assert not lab.failures
    for model, old in zip(models, before, strict=False):
        assert not torch.equal(model.state_dict()["1.weight"], old)
    with torch.no_grad():
        alone = torch.stack([model(pool.inputs) for model in models])
        assert torch.allclose(Stacks(models)(pool.inputs), alone, atol=1e-5)


def test_a_removed_filter_of_the_target_takes_its_normalisation_along(data: Path) -> None:
    scenario = Skin(size=32)
    lab = Bench(scenario, make_parent=lambda: skin_networks.PAPERS["resnet18"]().eval())
    parent = Train(scenario=str(scenario), model="resnet18")
    recipe = PruneFilters(scenario=str(scenario), parent=parent, ratio=0.5)
    masks = recipe.masks(lab.parent(recipe), lab)
    convolutions = [name for name in masks if ".conv" in name or "downsample.0" in name]
    norms = [name for name in masks if ".bn" in name or "downsample.1" in name]
    assert len(convolutions) == 20
    assert len(norms) == 2 * len(convolutions)  # each one's scale and shift
