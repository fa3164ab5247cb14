"""A cohort trains at once, each member as if it were alone, in whichever way members run."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toys import Blobs, Drawn

from conftest import Bench
from fpbench import Pool, training
from fpbench.builtin.scenarios.digits import cnn, mlp, resnet
from fpbench.compute.stack import Stack, Stacks, choose_way, using
from fpbench.training.cohort import Alone

EPOCHS, LR, BATCH = 2, 0.01, 16
# Double precision: Adam turns the rounding of a small gradient into a step of its own.
CLOSE = {"atol": 1e-7, "rtol": 0.0}

every_way = pytest.mark.parametrize("way", ["fused", "stacked", "looped"])


def pictures(n: int = 50) -> Pool:
    rng = torch.Generator().manual_seed(1)
    return Pool(torch.rand(n, 1, 8, 8, generator=rng, dtype=torch.double), torch.arange(n) % 10)


def members(k: int) -> list[Drawn]:
    return [Drawn(scenario="blobs", seed=seed) for seed in range(k)]


def models(network, k: int) -> list[nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return [network().double() for _ in range(k)]


def fit(recipes, networks, pool=None, lab=None, **given) -> Bench:
    lab = lab or Bench()
    settings = {"loss": F.cross_entropy, "epochs": EPOCHS, "lr": LR, "batch_size": BATCH}
    training.fit(lab, recipes, networks, pool or pictures(), **(settings | given))
    return lab


def plain_loop(model: nn.Module, seed: int, pool: Pool, parameters=None, cosine=False) -> None:
    """The same training as anybody would write it for one model."""
    rng = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(parameters or model.parameters(), lr=LR)
    batches = math.ceil(len(pool.inputs) / BATCH)
    step = 0
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(pool.inputs), generator=rng).tensor_split(batches):
            if cosine:
                for group in optimizer.param_groups:
                    group["lr"] = LR * (1 + math.cos(math.pi * step / (EPOCHS * batches))) / 2
            optimizer.zero_grad()
            F.cross_entropy(model(pool.inputs[batch]), pool.truth[batch]).backward()
            optimizer.step()
            step += 1


def assert_same(one: nn.Module, other: nn.Module) -> None:
    expected = other.state_dict()
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(
            tensor, expected[name], **CLOSE, msg=lambda text, name=name: f"{name}: {text}"
        )


@every_way
@pytest.mark.parametrize("network", [mlp, cnn, resnet])
def test_a_cohort_equals_its_members_trained_alone(network, way):
    together, alone = models(network, 3), models(network, 3)
    with using(way):
        fit(members(3), together)
    for recipe, model in zip(members(3), alone, strict=True):
        fit([recipe], [model])
    for one, other in zip(together, alone, strict=True):
        assert_same(one, other)


@every_way
@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("network", [mlp, cnn, resnet])
def test_a_cohort_equals_a_plain_loop(network, cosine, way):
    together, plain = models(network, 3), models(network, 3)
    with using(way):
        fit(members(3), together, cosine=cosine)
    for recipe, model in zip(members(3), plain, strict=True):
        plain_loop(model, recipe.seed, pictures(), cosine=cosine)
    for one, other in zip(together, plain, strict=True):
        assert_same(one, other)


def another_ignored(output, truth):
    return F.cross_entropy(output, truth, ignore_index=3)


def smoothed(output, truth):
    return F.cross_entropy(output, truth, label_smoothing=0.1)


def told_apart(output, truth):
    """Cross-entropy, of something else than it is given."""
    return F.cross_entropy(2 * output, truth)


def to_shares(output, truth):
    return F.cross_entropy(output, F.one_hot(truth, 10).double())


def squared(output, truth):
    return F.mse_loss(output, F.one_hot(truth, 10).double())


def summed(output, truth):
    return F.cross_entropy(output, truth, reduction="sum")


def decided(output, truth):
    """Looks at a size, which no trace of it would know."""
    return F.cross_entropy(output, truth) * (1 if output.shape[0] > 3 else 2)


LOSSES = [
    F.cross_entropy, nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1),
    another_ignored, smoothed, told_apart, to_shares, squared, summed, decided,
]  # fmt: skip


def assert_learned_as_alone(network, pool, loss) -> None:
    together, alone = models(network, 3), models(network, 3)
    with using("fused"):
        fit(members(3), together, pool, loss=loss)
    for recipe, model in zip(members(3), alone, strict=True):
        fit([recipe], [model], pool, loss=loss)
    for one, other in zip(together, alone, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: getattr(loss, "__name__", str(loss)))
def test_members_learn_together_by_any_loss(loss):
    assert_learned_as_alone(mlp, pictures(), loss)


def test_an_input_without_a_class_counts_in_no_members_mean():
    x, truth = pictures()
    assert_learned_as_alone(mlp, Pool(x, truth.where(truth != 3, -100)), F.cross_entropy)


@pytest.mark.parametrize(("outputs", "truth"), [(2, (50, 2)), (2, (50, 1)), (1, (50,))])
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_squared_errors_are_each_members_own(outputs, truth):
    """Even of shapes that are spread over each other."""
    pool = Pool(torch.rand(50, 3).double(), torch.rand(truth).double())
    assert_learned_as_alone(lambda: nn.Sequential(nn.Linear(3, outputs)), pool, F.mse_loss)


def test_a_layer_that_no_output_depends_on_stays_as_it_is():
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.spare = nn.Linear(64, 10), nn.Linear(64, 10)

        def forward(self, x):
            return self.head(x.flatten(1))

    (model,) = models(Spare, 1)
    before = copy.deepcopy(model)
    fit(members(1), [model])
    assert torch.equal(model.spare.weight, before.spare.weight)
    assert not torch.equal(model.head.weight, before.head.weight)


def test_running_statistics_are_each_members_own():
    one, other = models(resnet, 2)
    fit(members(2), [one, other])
    assert not torch.equal(one[1].running_mean, other[1].running_mean)
    assert int(one[1].num_batches_tracked) == EPOCHS * math.ceil(50 / BATCH)


def test_members_of_other_seeds_see_other_batches():
    (model,) = models(mlp, 1)
    twin = copy.deepcopy(model)
    fit(members(2), [model, twin])
    assert not torch.equal(model[1].weight, twin[1].weight)


def test_trained_models_are_ready_to_be_asked():
    (model,) = models(resnet, 1)
    fit(members(1), [model])
    assert not model.training


def test_the_last_layer_alone_leaves_everything_else_as_it_is():
    together, before = models(resnet, 2), models(resnet, 2)
    fit(members(2), together, layers="last")
    for model, old in zip(together, before, strict=True):
        head = training.last_layer(model)
        for name, tensor in model.state_dict().items():
            changed = not torch.equal(tensor, old.state_dict()[name])
            assert changed == name.startswith(f"{head}."), name


def test_the_last_layer_alone_equals_a_plain_loop():
    (together,), (plain,) = models(resnet, 1), models(resnet, 1)
    fit(members(1), [together], layers="last")
    plain.eval()
    plain_loop(plain, 0, pictures(), parameters=plain[-1].parameters())
    assert_same(together, plain)


def test_a_network_that_is_one_layer_is_its_own_last_layer():
    model = nn.Linear(2, 3)
    before = model.weight.detach().clone()
    rng = torch.Generator().manual_seed(0)
    fit(members(1), [model], Pool(torch.rand(9, 2, generator=rng), torch.arange(9) % 3),
        layers="last")  # fmt: skip
    assert not torch.equal(model.weight, before)


@every_way
def test_masked_weights_stay_zero_and_the_others_learn(way):
    together = models(mlp, 2)
    masks = []
    for i, model in enumerate(together):
        mask = torch.ones_like(model[1].weight)
        mask[i::3] = 0
        masks.append({"1.weight": mask})
        with torch.no_grad():
            model[1].weight.mul_(mask)
    before = [m[1].weight.detach().clone() for m in together]
    with using(way):
        fit(members(2), together, masks=masks)
    for model, mask, old in zip(together, masks, before, strict=True):
        gone = mask["1.weight"] == 0
        assert not model[1].weight[gone].any()
        assert (model[1].weight != old)[~gone].float().mean() > 0.5  # dead units learn nothing


def explosive(output: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Cross-entropy that overflows for a network whose outputs are huge."""
    return F.cross_entropy(output, truth) * output.square().mean().exp()


@every_way
def test_a_member_that_diverges_is_named_and_harms_nobody(way):
    together, without = models(mlp, 3), models(mlp, 3)
    with torch.no_grad():
        together[1][1].weight.mul_(1e4)
    with using(way):
        lab = fit(members(3), together, loss=explosive)
    alone = [without[0], without[2]]
    fit([members(3)[0], members(3)[2]], alone, loss=explosive)

    assert list(lab.failures) == ["drawn#1"]
    assert "in epoch 1 of 2" in lab.failures["drawn#1"]
    assert_same(together[0], alone[0])
    assert_same(together[2], alone[1])


def test_a_member_that_diverges_is_named_once():
    reports = []

    class Listening(Bench):
        def failed(self, recipe, reason):
            reports.append(reason)

    networks = models(mlp, 1)
    with torch.no_grad():
        networks[0][1].weight.fill_(float("nan"))
    fit(members(1), networks, lab=Listening(), epochs=4)
    assert len(reports) == 1


def before_each_pass(monkeypatch, do):
    """Call do(size) whenever so many members are about to answer."""
    for cls in (Stack, Alone):

        def call(self, x, *, shared, real=cls.__call__):
            do(getattr(self, "size", 1))
            return real(self, x, shared=shared)

        monkeypatch.setattr(cls, "__call__", call)


@pytest.mark.parametrize("layers", ["all", "last"])
def test_a_cohort_that_does_not_fit_in_memory_is_split(monkeypatch, layers):
    whole, split = models(resnet, 3), models(resnet, 3)
    fit(members(3), whole, layers=layers)
    sizes = []

    def scarce(size):
        sizes.append(size)
        if size > 1 and len(sizes) > 2:  # after some steps, to make it harder
            raise torch.OutOfMemoryError

    before_each_pass(monkeypatch, scarce)
    with using("stacked"):
        fit(members(3), split, layers=layers)
    assert set(sizes) == {1, 2, 3}
    for one, other in zip(whole, split, strict=True):
        assert_same(one, other)


def test_masks_follow_their_members_through_a_split(monkeypatch):
    together = models(mlp, 2)
    masks = [{"1.weight": torch.zeros(128, 64)}, {"1.weight": torch.ones(128, 64)}]
    with torch.no_grad():
        together[0][1].weight.zero_()

    def scarce(size):
        if size > 1:
            raise torch.OutOfMemoryError

    before_each_pass(monkeypatch, scarce)
    with using("stacked"):
        fit(members(2), together, masks=masks)
    assert not together[0][1].weight.any()
    assert together[1][1].weight.all()


def test_one_model_that_does_not_fit_is_an_error(monkeypatch):
    def never(_):
        raise torch.OutOfMemoryError

    before_each_pass(monkeypatch, never)
    with pytest.raises(torch.OutOfMemoryError):
        fit(members(1), models(mlp, 1))


# ── which way ──────────────────────────────────────────────────────────────────────


class Wide(nn.Module):
    """A known graph with as many weights as it is told."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(64, hidden), nn.Linear(hidden, 10)

    def forward(self, x):
        return self.out(self.into(x.flatten(1)))


class Unknown(Wide):
    """A graph that holds a function which nobody taught fpbench to keep apart."""

    def forward(self, x):
        return self.out(self.into(x.flatten(1)).cumsum(1))


@pytest.mark.parametrize(
    ("network", "members", "way"),
    [
        (Wide(8), 1, "looped"),
        (Wide(8), 2, "fused"),
        (Wide(8), 40, "fused"),
        (Wide(60_000), 2, "looped"),  # 18 MB
        (Unknown(8), 2, "stacked"),
        (Unknown(1000), 2, "looped"),  # 0.3 MB
        (resnet(), 12, "fused"),
    ],
)
def test_how_members_run_is_a_rule_of_graph_and_size(network, members, way):
    assert choose_way(network, members) == way


class Viewed(nn.Module):
    """Flattens as many tutorials do, which only channels first in memory allow."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4 * 36, 10)

    def forward(self, x):
        return self.head(self.conv(x).relu().view(-1, 4 * 36))


class Undecided(nn.Module):
    """What it computes depends on the numbers it is given, which vmap refuses."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(x.flatten(1) if x.sum() > 0 else -x.flatten(1))


@pytest.mark.parametrize("network", [Viewed, Undecided])
@pytest.mark.parametrize("count", [1, 3])
def test_a_network_that_cannot_run_in_every_way_trains_all_the_same(network, count):
    trained = models(network, count)
    before = [copy.deepcopy(model) for model in trained]
    fit(members(count), trained)
    for one, other in zip(before, trained, strict=True):
        assert not torch.equal(one.head.weight, other.head.weight)


def test_all_ways_of_answering_agree_and_so_do_their_gradients():
    networks = [m.eval() for m in (*models(resnet, 2), *models(mlp, 3), *models(resnet, 1))]
    found = {}
    for way in ("fused", "stacked", "looped"):
        x = pictures(5).inputs.requires_grad_()
        with using(way):
            out = Stacks(networks)(x)
        (slope,) = torch.autograd.grad(out.square().sum(), x)
        found[way] = out.detach(), slope
    alone = torch.stack([m(pictures(5).inputs) for m in networks]).detach()
    torch.testing.assert_close(found["looped"][0], alone)
    for way in ("fused", "stacked"):
        for one, other in zip(found[way], found["looped"], strict=True):
            torch.testing.assert_close(one, other)


# ── precision ──────────────────────────────────────────────────────────────────────


@every_way
def test_bfloat16_is_for_who_asks_and_nearly_the_same(way):
    exact, low = ([m.float() for m in models(cnn, 2)] for _ in range(2))
    pool = Pool(pictures().inputs.float(), pictures().truth)
    with using(way):
        fit(members(2), exact, pool)
        fit(members(2), low, pool, lab=Bench(scenario=Blobs(precision="bfloat16")))
    for one, other in zip(exact, low, strict=True):
        a, b = (torch.cat([p.flatten() for p in m.parameters()]) for m in (one, other))
        assert not torch.equal(a, b)
        assert b.dtype == torch.float32
        assert (a - b).norm() < 0.2 * a.norm()


def test_models_of_another_precision_have_another_name():
    assert str(Blobs()) == "blobs"
    assert str(Blobs(precision="bfloat16")) == "blobs(precision=bfloat16)"
