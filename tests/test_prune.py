"""Pruning removes what it says, and what it removed computes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from conftest import Bench
from fpbench.builtin.recipes.prune import PruneFilters, PruneWeights
from fpbench.builtin.recipes.train import Train
from fpbench.builtin.scenarios.digits import Digits, cnn, mlp, resnet
from fpbench.compute.stack import signature

PARENT = Train(scenario="digits", model="cnn")


def weights(**fields) -> PruneWeights:
    return PruneWeights(scenario="digits", parent=PARENT, **fields)


def filters(**fields) -> PruneFilters:
    return PruneFilters(scenario="digits", parent=PARENT, **fields)


def seeded(network) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = network()
        for module in model.modules():
            # As if trained: statistics and scales that are not the initial ones.
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


def pruned(recipe, network) -> nn.Module:
    lab = Bench(Digits(), make_parent=lambda: seeded(network))
    return recipe.make(lab).eval()


def layers(model) -> dict[str, nn.Module]:
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}


def pictures(n: int = 20) -> torch.Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("network", [mlp, cnn, resnet])
def test_every_layer_loses_its_share_of_weights(network, ratio):
    for name, layer in layers(pruned(weights(ratio=ratio), network)).items():
        gone = int((layer.weight == 0).sum())
        assert gone == round(ratio * layer.weight.numel()), name


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_a_global_share_is_of_all_weights_together(ratio):
    found = layers(pruned(weights(ratio=ratio, scope="global"), cnn)).values()
    sizes = [layer.weight.numel() for layer in found]
    gone = [int((layer.weight == 0).sum()) for layer in found]
    assert sum(gone) == round(ratio * sum(sizes))
    assert any(g != round(ratio * n) for g, n in zip(gone, sizes, strict=True))


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_the_smallest_weights_go_and_the_others_stay(scope):
    before, after = (layers(m) for m in (seeded(cnn), pruned(weights(ratio=0.5, scope=scope), cnn)))
    kept, lost = [], []
    for name, layer in after.items():
        old, new = before[name].weight.abs(), layer.weight.abs()
        assert torch.equal(new[new > 0], old[new > 0])
        kept.append(old[new > 0])
        lost.append(old[new == 0])
        if scope == "layer":
            assert lost[-1].max() <= kept[-1].min()
    if scope == "global":
        assert torch.cat(lost).max() <= torch.cat(kept).min()


def test_pruning_weights_leaves_biases_and_norms_alone():
    before, after = seeded(resnet).state_dict(), pruned(weights(ratio=0.5), resnet).state_dict()
    convs = {f"{name}.weight" for name in layers(seeded(resnet))}
    for name in before.keys() - convs:
        assert torch.equal(before[name], after[name]), name


@pytest.mark.parametrize("recipe", [weights, filters])
def test_a_pruned_model_is_an_ordinary_one(recipe):
    assert pruned(recipe(ratio=0.5), cnn).state_dict().keys() == cnn().state_dict().keys()


@pytest.mark.parametrize("network", [mlp, cnn, resnet])
@pytest.mark.parametrize("recipe", [weights, filters])
def test_recovering_learns_and_keeps_what_was_removed_at_zero(recipe, network):
    plain, recovered = (pruned(recipe(ratio=0.5, recover=k), network) for k in (0, 1))
    moved = False
    for name, layer in layers(plain).items():
        now = layers(recovered)[name].weight
        assert not now[layer.weight == 0].any(), name
        moved |= not torch.equal(now, layer.weight)
    assert moved


@pytest.mark.parametrize("recipe", [weights, filters])
def test_ratios_recover_together_as_they_would_alone(recipe):
    recipes = [recipe(ratio=r, recover=1) for r in (0.25, 0.5)]
    assert recipes[0].cohort() == recipes[1].cohort()
    lab = Bench(Digits(), make_parent=lambda: seeded(cnn))
    together = type(recipes[0]).make_many(recipes, lab)
    for one, alone in zip(together, [pruned(r, cnn) for r in recipes], strict=True):
        for name, tensor in one.state_dict().items():
            assert torch.allclose(tensor, alone.state_dict()[name], atol=1e-5), name


@pytest.mark.parametrize("network", [mlp, cnn, resnet])
def test_the_output_layer_keeps_all_its_neurons(network):
    before, after = seeded(network)[-1], pruned(filters(ratio=0.5), network)[-1]
    assert torch.equal(before.weight, after.weight)
    assert torch.equal(before.bias, after.bias)


@pytest.mark.parametrize("network", [cnn, resnet])
@pytest.mark.parametrize("ratio", [1 / 16, 0.5, 15 / 16])
def test_every_convolution_loses_its_share_of_filters(network, ratio):
    before, after = (layers(m) for m in (seeded(network), pruned(filters(ratio=ratio), network)))
    for name, layer in after.items():
        norms = before[name].weight.flatten(1).abs().sum(1)
        gone = layer.weight.flatten(1).abs().sum(1) == 0
        convolution = isinstance(layer, nn.Conv2d)
        assert int(gone.sum()) == (round(ratio * len(norms)) if convolution else 0), name
        if convolution:
            assert norms[gone].max() <= norms[~gone].min()


def test_a_network_without_convolutions_loses_hidden_neurons():
    first, second, last = layers(pruned(filters(ratio=0.5), mlp)).values()
    for layer in (first, second):
        gone = layer.weight.abs().sum(1) == 0
        assert int(gone.sum()) == len(gone) // 2
        assert not layer.bias[gone].any()
    assert last.weight.all()


def chain(*channels: int) -> nn.Module:
    """Convolutions with biases and batch normalisation, one without, a linear layer."""
    a, b, c = channels
    return nn.Sequential(
        nn.Conv2d(1, a, 3, padding=1), nn.BatchNorm2d(a), nn.ReLU(),
        nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(),
        nn.Conv2d(b, c, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 10),
    )  # fmt: skip


def without_filters(model: nn.Module) -> nn.Module:
    """The smaller network: every all-zero filter cut out of its layer and of the next."""
    convs = [i for i, m in enumerate(model) if isinstance(m, nn.Conv2d)]
    kept = [model[i].weight.flatten(1).abs().sum(1) > 0 for i in convs]
    small = chain(*(int(k.sum()) for k in kept)).eval()
    state, reads, k = {}, torch.tensor([True]), 0
    for i, module in enumerate(model):
        own = dict(module.state_dict())
        if isinstance(module, nn.Conv2d | nn.Linear):
            own["weight"] = own["weight"][:, reads]
        if isinstance(module, nn.Conv2d):
            reads, k = kept[k], k + 1
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            own = {n: t[reads] if t.ndim else t for n, t in own.items()}
        state |= {f"{i}.{n}": t for n, t in own.items()}
    small.load_state_dict(state)
    return small


@pytest.mark.parametrize("recover", [0, 1])
@pytest.mark.parametrize("ratio", [0.25, 0.75])
def test_a_removed_filter_computes_what_a_network_without_it_does(ratio, recover):
    model = pruned(filters(ratio=ratio, recover=recover), lambda: chain(8, 12, 16))
    small = without_filters(model)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    x = pictures()
    torch.testing.assert_close(model(x), small(x), atol=1e-5, rtol=1e-4)


def test_removed_filters_of_a_residual_network_add_nothing():
    model = pruned(filters(ratio=0.5), resnet)
    silent = []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(
                lambda m, _, out: silent.append((out[:, m.weight == 0], m.weight))
            )
    model(pictures())
    assert len(silent) == 3
    for out, scale in silent:
        assert int((scale == 0).sum()) == 8
        assert not out.any()


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_pruned_model_still_stacks_with_its_siblings(scope):
    """Pruning registers a layer's tensors anew; that must not make it another architecture."""
    assert signature(pruned(weights(ratio=0.5, scope=scope), cnn)) == signature(seeded(cnn))
