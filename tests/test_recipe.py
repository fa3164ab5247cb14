"""A model is named by how it was made."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from toys import Drawn, Nudged

from fpbench import FieldError
from fpbench.builtin.recipes.finetune import Finetune
from fpbench.builtin.recipes.prune import PruneWeights
from fpbench.builtin.recipes.train import Train

TARGET = Train(scenario="digits", model="resnet")
TUNED = Finetune(scenario="digits", parent=TARGET, layers="last", seed=1)


def test_a_digest_never_changes():
    # Every store in the world is named by these: a new value here orphans them all.
    first = Drawn(scenario="blobs", seed=3)
    child = Nudged(scenario="blobs", parent=first, by=0.5)
    assert first.digest == "baf86edeb791bc9334e0dd048ca2b9663b47e4cb9f05f189474cb96145266ff2"
    assert child.digest == "81b39087d4504e045fd01c0f79ca3281b54fc65a1d7ab7dc076f63ddebe5280a"


def test_another_process_finds_the_same_digest():
    code = "import test_recipe; print(test_recipe.TUNED.digest)"
    out = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert out.stdout.strip() == TUNED.digest


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"layers": "all"},
        {"lr": 0.002},
        {"epochs": 11},
        {"cosine": True},
        {"scenario": "digits(size=16)"},
        {"parent": replace(TARGET, seed=7)},
        {"parent": replace(TARGET, epochs=51)},
    ],
    ids=str,
)
def test_every_field_names_the_model(change):
    assert replace(TUNED, **change).digest != TUNED.digest
    assert replace(TUNED, **change) != TUNED


def test_a_new_version_is_a_new_model():
    @dataclass(frozen=True, kw_only=True)
    class Next(Finetune):
        version = Finetune.version + 1

    assert Next(scenario="digits", parent=TARGET, layers="last", seed=1).digest != TUNED.digest


def test_a_new_version_of_a_parent_is_a_new_child():
    @dataclass(frozen=True, kw_only=True)
    class Next(Train):
        version = Train.version + 1

    child = replace(TUNED, parent=Next(scenario="digits", model="resnet"))
    assert child.digest != TUNED.digest


def test_recipes_of_equal_fields_and_other_names_are_other_models():
    nudged = Nudged(scenario="blobs", parent=TARGET, by=0.5)
    pruned = PruneWeights(scenario="blobs", parent=TARGET, ratio=0.5)
    assert nudged.digest != pruned.digest


def test_equal_recipes_are_one_model():
    again = Finetune(scenario="digits", parent=replace(TARGET), layers="last", seed=1)
    assert again == TUNED
    assert {again, TUNED} == {again}
    assert again.digest == TUNED.digest


@pytest.mark.parametrize(("one", "other"), [({"lr": 1}, {"lr": 1.0}), ({"seed": 3.0}, {"seed": 3})])
def test_how_a_number_is_written_does_not_matter(one, other):
    assert replace(TUNED, **one).digest == replace(TUNED, **other).digest


def test_lineage_goes_from_a_model_to_the_first():
    child = Nudged(scenario="digits", parent=TUNED)
    assert list(child.lineage()) == [child, TUNED, TARGET]
    assert [step["digest"] for step in child.describe()] == [
        TARGET.digest, TUNED.digest, child.digest,
    ]  # fmt: skip


def test_a_positive_descends_from_the_target_and_a_negative_does_not():
    grandchild = Nudged(scenario="digits", parent=TUNED)
    stranger = replace(TARGET, seed=1)
    assert TUNED.descends_from(TARGET)
    assert grandchild.descends_from(TARGET)
    assert TARGET.descends_from(TARGET)
    assert not stranger.descends_from(TARGET)
    assert not replace(TUNED, parent=stranger).descends_from(TARGET)
    assert not TARGET.descends_from(TUNED)


def test_a_recipe_prints_its_lineage_and_what_is_not_default():
    assert str(TARGET) == "train(resnet)#0"
    assert str(replace(TUNED, lr=0.01)) == "train(resnet)#0 > finetune(lr=0.01,layers=last)#1"


def test_a_child_has_its_parents_architecture_unless_it_says_otherwise():
    assert TUNED.arch == "resnet"
    assert Drawn(scenario="blobs", model="wide").arch == "wide"


@pytest.mark.parametrize(
    ("field", "value"),
    [("epochs", 0), ("epochs", 1.5), ("epochs", True), ("lr", -1), ("lr", float("nan")),
     ("lr", float("inf")), ("layers", "first"), ("seed", -1), ("cosine", "perhaps")],
)  # fmt: skip
def test_a_field_refuses_what_it_cannot_be(field, value):
    with pytest.raises(FieldError, match=f"{field}: expected .*, got"):
        replace(TUNED, **{field: value})
