"""Generators: how they learn, what is done to them, what they are worth; FashionMNIST's files."""

from __future__ import annotations

import gzip
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import Drawn, Points

from conftest import Bench
from fpbench import Generation, Pool, Recipe, ResourceError
from fpbench.builtin.recipes.distill import Distill
from fpbench.builtin.recipes.finetune import Finetune, Retrain
from fpbench.builtin.recipes.prune import PruneFilters, PruneWeights
from fpbench.builtin.recipes.train import Train
from fpbench.builtin.scenarios import fmnist
from fpbench.builtin.scenarios.fashion import Fashion, digits
from fpbench.builtin.scenarios.frechet import frechet
from fpbench.compute.stack import Way, using
from fpbench.training import fit, last_layer

DATA = Path(os.environ.get("FPBENCH_DATA", "no FPBENCH_DATA")) / "fashion-mnist"
needs_data = pytest.mark.skipif(
    not all((DATA / name).is_file() for name in fmnist.SHA256),
    reason="needs fashion-mnist/ with the official files in $FPBENCH_DATA",
)
XL = Fashion.architectures["xl"]


@dataclass(frozen=True)
class Squares(Generation):
    """Fashion's networks, on white squares instead of clothes."""

    name = "squares"
    input_shape = Fashion.input_shape
    output_shape = Fashion.output_shape
    input_range = Fashion.input_range
    architectures = Fashion.architectures
    discriminators = Fashion.discriminators

    def load(self) -> Mapping[str, Pool]:
        rng = torch.Generator().manual_seed(0)
        squares = torch.full((24, 1, 28, 28), -1.0)
        squares[:, :, 8:20, 8:20] = 1
        squares += 0.1 * torch.rand(squares.shape, generator=rng)
        pools = ("train", "public", "irrelevant", "test")
        return {pool: Pool(self.latents(24, rng), squares.clamp(-1, 1)) for pool in pools}


def trained(k: int = 1, way: Way = "stacked", **given) -> list[nn.Module]:
    lab = Bench(Points())
    recipes = [Drawn(scenario="points", seed=seed) for seed in range(k)]
    models = [lab.new(recipe, "slim") for recipe in recipes]
    settings = {"epochs": 1, "lr": 1e-2, "batch_size": 32} | given
    with using(way):
        fit(lab, recipes, models, lab.scenario.data("train"), **settings)
    assert not lab.failures
    return models


def state(model: nn.Module) -> Tensor:
    return torch.cat([t.detach().flatten().double() for t in model.state_dict().values()])


# ── the game ───────────────────────────────────────────────────────────────────────


def test_a_generator_learns_what_real_samples_look_like():
    (model,) = trained(epochs=30)
    samples = model(Points().data("test").inputs)
    assert samples.mean().item() == pytest.approx(0.7, abs=0.15)


def test_generators_do_not_learn_the_samples_that_stand_beside_their_codes():
    """Real samples belong to no code: what is beside them in the pool must not matter."""
    lab = Bench(Points())
    inputs, truth = lab.scenario.data("train")
    found = []
    for codes in (inputs, torch.zeros_like(inputs)):
        recipe = Drawn(scenario="points")
        model = lab.new(recipe, "slim")
        fit(lab, [recipe], [model], Pool(codes, truth), epochs=2, lr=1e-2, batch_size=32)
        found.append(state(model))
    assert torch.equal(*found)


@pytest.mark.parametrize("layers", ["all", "last"])
@pytest.mark.parametrize("way", ["fused", "looped"])
def test_generators_learn_the_same_in_every_way(layers, way):
    for one, other in zip(
        trained(3, "stacked", layers=layers), trained(3, way, layers=layers), strict=True
    ):
        torch.testing.assert_close(state(one), state(other), atol=1e-9, rtol=0)


def test_each_generator_meets_another_discriminator_and_other_codes():
    one, other = trained(2)
    alone = trained(1)
    assert not torch.allclose(state(one), state(other))
    torch.testing.assert_close(state(one), state(alone[0]), atol=1e-9, rtol=0)


def test_a_loss_of_ones_own_is_learned_without_a_discriminator(monkeypatch):
    monkeypatch.setitem(Points.discriminators, "slim", None)  # nobody may build it
    lab, recipe = Bench(Points()), Drawn(scenario="points")
    model = lab.new(recipe, "slim")
    inputs, truth = lab.scenario.data("train")
    fit(lab, [recipe], [model], Pool(inputs, truth), loss=lab.scenario.distill_loss,
        epochs=20, lr=1e-2, batch_size=32)  # fmt: skip
    assert lab.scenario.utility(model(inputs), truth)["pixel_error"] < 0.1


def test_a_generator_that_diverges_is_named():
    lab, recipe = Bench(Points()), Drawn(scenario="points")
    model = lab.new(recipe, "slim")
    nn.init.constant_(model[0].weight, float("nan"))
    fit(lab, [recipe], [model], lab.scenario.data("train"), epochs=2, lr=1e-2, batch_size=32)
    assert "in epoch 1 of 2" in lab.failures["drawn#0"]


# ── what is done to a generator ────────────────────────────────────────────────────


def seeded() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return XL().eval()


PARENT = Train(scenario="squares", model="xl")
LINEAGE = {"scenario": "squares", "parent": PARENT, "batch_size": 8}


def made(recipe: Recipe) -> nn.Module:
    lab = Bench(Squares(), make_parent=seeded)
    (model,) = type(recipe).make_many([recipe], lab)
    assert not lab.failures
    return model


@pytest.mark.parametrize(
    "recipe",
    [
        Train(scenario="squares", model="xl", epochs=1, batch_size=8),
        Train(scenario="squares", model="s", epochs=1, batch_size=8, pool="irrelevant"),
        Finetune(layers="all", epochs=1, **LINEAGE),
        Finetune(layers="last", epochs=1, **LINEAGE),
        Retrain(layers="all", epochs=1, **LINEAGE),
        Retrain(layers="last", epochs=1, **LINEAGE),
        PruneWeights(ratio=0.3, recover=1, **LINEAGE),
        PruneFilters(ratio=0.25, recover=1, **LINEAGE),
        Distill(model="s", epochs=1, **LINEAGE),
    ],
    ids=lambda r: f"{r.kind}",
)
def test_every_recipe_makes_a_generator_that_is_not_its_parent(recipe):
    model = made(recipe)
    z = Squares().data("test").inputs
    out = model(z)
    assert out.shape == (24, 1, 28, 28)
    assert out.abs().max() <= 1
    assert not model.training
    assert not torch.allclose(out, seeded()(z), atol=1e-4)


def test_fine_tuning_the_last_layer_moves_the_last_transposed_convolution_alone():
    model, before = made(Finetune(layers="last", epochs=1, **LINEAGE)), seeded().state_dict()
    head = last_layer(model)
    assert isinstance(model.get_submodule(head), nn.ConvTranspose2d)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) != name.startswith(f"{head}."), name


def test_filters_of_a_transposed_convolution_are_its_output_channels():
    model = made(PruneFilters(ratio=0.5, recover=1, **LINEAGE))
    hidden = [m for m in model if isinstance(m, nn.ConvTranspose2d)][:-1]
    norms = [m for m in model if isinstance(m, nn.BatchNorm2d)]
    for layer, norm in zip(hidden, norms, strict=True):
        gone = layer.weight.abs().sum((0, 2, 3)) == 0
        assert int(gone.sum()) == layer.out_channels // 2
        assert not norm.weight[gone].any()
        assert not norm.bias[gone].any()


def test_a_student_is_taught_code_by_code():
    student = made(Distill(model="s", lr=3e-3, epochs=60, **LINEAGE))
    inputs = Squares().data("public").inputs
    with torch.no_grad():
        wanted, given = seeded()(inputs), student(inputs)
    assert (given - wanted).square().mean() < 0.5 * wanted.square().mean()


# ── the networks ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", sorted(Fashion.architectures))
def test_generators_answer_in_one_range_and_discriminators_judge_them(size):
    generator, judge = (
        made_by[size]().eval() for made_by in (Fashion.architectures, Fashion.discriminators)
    )
    out = generator(Fashion().latents(4, torch.Generator().manual_seed(0)))
    assert out.shape == (4, 1, 28, 28)
    assert isinstance(generator[-1] if size == "xl" else generator[-2], nn.Tanh)
    assert judge(out).shape == (4, 1)


@pytest.mark.parametrize(("size", "k"), [("s", 2), ("m", 4), ("l", 8)])
def test_fully_connected_networks_are_those_of_table_4(size, k):
    def widths(model: nn.Module) -> list[int]:
        linear = [m for m in model if isinstance(m, nn.Linear)]
        return [linear[0].in_features, *(m.out_features for m in linear)]

    assert widths(Fashion.architectures[size]()) == [100, 64 * k, 128 * k, 256 * k, 784]
    assert widths(Fashion.discriminators[size]()) == [784, 256 * k, 128 * k, 64 * k, 1]


def test_latent_codes_fill_the_box_and_depend_on_the_generator_alone():
    first, second = (Fashion().latents(50, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (50, 100)
    assert -1 <= first.min() < -0.99 < 0.99 < first.max() <= 1


# ── what a generator is worth ──────────────────────────────────────────────────────


def test_the_frechet_distance_of_two_gaussians():
    rng = torch.Generator().manual_seed(0)
    cloud = torch.randn(20_000, 2, generator=rng)
    stretched = cloud * torch.tensor([3.0, 1.0]) + torch.tensor([0.0, 2.0])
    assert frechet(cloud, cloud) == pytest.approx(0, abs=1e-6)
    # |m1 - m2|^2 = 4, and (3 - 1)^2 for the deviations.
    assert frechet(cloud, stretched) == pytest.approx(8, rel=0.03)
    assert frechet(stretched, cloud) == pytest.approx(frechet(cloud, stretched))


@needs_data
def test_clothes_are_nearer_to_clothes_than_digits_are():
    scenario = Fashion(images=4000)
    test = scenario.data("test").truth

    def worth(samples: Tensor) -> float:
        (distance,) = scenario.utility(samples, test).values()
        return distance

    clothes = worth(scenario.data("train").truth)
    assert clothes < 5
    assert worth(scenario.data("irrelevant").truth) > 20 * clothes
    assert worth(test.roll(7, 3)) > 5 * clothes


# ── the data ───────────────────────────────────────────────────────────────────────


@needs_data
def test_pools_are_clothes_in_range_and_share_no_image():
    pools = Fashion(images=4000).load()
    assert {name: len(pool.truth) for name, pool in pools.items()} == {
        "train": 2000, "public": 2000, "test": 2500, "irrelevant": 2000,
    }  # fmt: skip
    for pool in pools.values():
        assert pool.truth.shape[1:] == (1, 28, 28)
        assert pool.truth.min() == -1
        assert pool.truth.max() > 0.99
        assert pool.inputs.shape == (len(pool.truth), 100)
    both = torch.cat([pools["train"].truth, pools["public"].truth])
    assert len(both.unique(dim=0)) == 4000
    assert torch.equal(Fashion(images=4000).load()["train"].inputs, pools["train"].inputs)


def test_irrelevant_images_are_digits_by_turns():
    some = digits(2000)
    assert some.shape == (2000, 1, 28, 28)
    assert torch.equal(some[0], some[1797])


def test_a_file_that_is_not_the_official_one_is_not_used(tmp_path, monkeypatch):
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    fake = np.zeros((2, 28, 28), np.uint8).tobytes()
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(fake))
    monkeypatch.setenv("FPBENCH_DATA", str(tmp_path))
    with pytest.raises(ResourceError, match=r"expected t10k-.* with sha256 346e55"):
        fmnist.read("t10k-images-idx3-ubyte.gz")


@pytest.mark.parametrize("trouble", [ConnectionError, ValueError("hash of downloaded file")])
def test_without_files_and_network_one_sentence_says_where_to_put_them(
    tmp_path, monkeypatch, trouble
):
    import pooch
    import requests

    def fails(*_, **__):
        raise requests.ConnectionError if trouble is ConnectionError else trouble

    monkeypatch.setenv("FPBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(pooch, "retrieve", fails)
    with pytest.raises(ResourceError, match=r"in \$FPBENCH_DATA/fashion-mnist or .*put it there"):
        Fashion().load()
