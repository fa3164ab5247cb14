"""The fields by which trainings of independent people differ: optimizer, augmentation, share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toys import Blobs, Drawn

from conftest import Bench
from fpbench import InputError, Pool, training
from fpbench.builtin.recipes.distill import Distill
from fpbench.builtin.recipes.train import Train
from fpbench.builtin.scenarios.digits import Digits, cnn
from fpbench.builtin.scenarios.warfarin import Warfarin
from fpbench.training.augment import Augmenter

FIELDS: list[dict[str, Any]] = [
    {"optimizer": "sgd"}, {"optimizer": "adamw", "weight_decay": 0.1}, {"weight_decay": 0.1},
    {"augment": "flip"}, {"augment": "shift"}, {"augment": "cutout"}, {"augment": "noise"},
    {"augment": "mixup"}, {"share": 0.5},
]  # fmt: skip


def trained(recipes: list[Drawn], **fields: Any) -> list[nn.Module]:
    lab = Bench(Digits())
    with torch.random.fork_rng():
        torch.manual_seed(7)
        models = [cnn() for _ in range(3)][: len(recipes)]
    rng = torch.Generator().manual_seed(1)
    inputs = torch.rand(48, 1, 8, 8, generator=rng)
    pool = Pool(inputs, torch.arange(48) % 10)
    training.fit(
        lab, recipes, models, pool, loss=F.cross_entropy, epochs=2, lr=0.01, batch_size=16, **fields
    )
    return models


def weights(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters())


@pytest.mark.parametrize("fields", FIELDS, ids=str)
def test_a_field_changes_the_model_and_a_member_is_the_same_alone(fields: dict[str, Any]) -> None:
    members = [Drawn(scenario="digits", seed=seed) for seed in range(3)]
    together, alone = trained(members, **fields), trained(members[:1], **fields)
    assert torch.allclose(weights(together[0]), weights(alone[0]), atol=2e-3)
    assert not torch.allclose(weights(trained(members[:1])[0]), weights(alone[0]), atol=2e-3)


def test_a_model_of_default_fields_keeps_the_name_that_it_had_before_there_were_others() -> None:
    train = Train(scenario="digits", model="mlp")
    student = Distill(scenario="digits", model="cnn", parent=train)
    assert train.digest.startswith("e49c96294e9a498d")
    assert student.digest.startswith("c9d18903a5d5c409")
    other = Train(scenario="digits", model="mlp", optimizer="sgd")
    assert other.digest != train.digest
    assert other.describe()[0]["fields"]["optimizer"] == "sgd"


def test_a_kind_names_what_differs() -> None:
    recipe = Train(
        scenario="digits", model="mlp", pool="public", optimizer="sgd", augment="mixup",
        label_smoothing=0.1,
    )  # fmt: skip
    assert recipe.kind == "independent mlp (public, sgd, mixup, smoothing 0.1)"
    assert Train(scenario="digits", model="mlp").kind == "independent mlp (train)"
    student = Distill(scenario="digits", model="cnn", parent=recipe, share=0.5)
    assert student.kind == "distilled cnn (share 0.5)"


def test_smoothed_labels_make_less_certain_answers() -> None:
    lab, x = Bench(Digits()), Digits().data("test").inputs
    sure = {}
    for smoothing in (0.0, 0.3):
        recipe = Train(scenario="digits", model="mlp", epochs=15, label_smoothing=smoothing)
        sure[smoothing] = float(recipe.make(lab)(x).softmax(-1).amax(-1).mean())
    assert sure[0.3] < sure[0.0] - 0.1


def augmented(kind: Any, x: Tensor) -> Tensor:
    recipe = Drawn(scenario="digits")
    return Augmenter(kind, Bench(Digits()), [recipe], x)(x[None])[0]


def test_images_are_changed_as_the_names_say() -> None:
    x = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    flipped = augmented("flip", x)
    mirrored = (flipped == x.flip(-1)).flatten(1).all(1)
    assert 10 < mirrored.sum() < 54
    assert (mirrored | (flipped == x).flatten(1).all(1)).all()
    shifted = augmented("shift", x)
    assert {tuple(row) for row in shifted.flatten(1).tolist()} != {
        tuple(row) for row in x.flatten(1).tolist()
    }
    assert torch.isin(shifted, x).all()  # pixels move, none is new
    hidden = (augmented("cutout", x) == 0).flatten(1).sum(1)
    assert (hidden == 4).all()  # a quarter of each side
    noisy = augmented("noise", x)
    assert 0 < (noisy - x).abs().mean() < 0.1
    assert noisy.min() >= 0
    assert noisy.max() <= 1


def test_fields_that_a_task_does_not_allow_are_refused_in_a_sentence() -> None:
    lab = Bench(Warfarin())
    smoothed = Train(scenario="warfarin", model="s", label_smoothing=0.1)
    with pytest.raises(InputError, match=r"label_smoothing: expected 0 for .*regression, got 0\.1"):
        smoothed._loss(lab.scenario)
    with pytest.raises(InputError, match="augment: expected noise or mixup for inputs of shape"):
        Augmenter("flip", Bench(Blobs()), [Drawn(scenario="blobs")], torch.rand(4, 2))
