"""The reference population: the zoo of a case that names none.

It holds thieves' copies of the target, and independent models of as many makings as two strangers'
trainings usually differ in. What differs are fields of the recipe `train`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..api.scenario import Scenario

Entry = dict[str, Any]

COPIES = 3
"""Copies of each kind that a thief makes."""

EACH = 2
"""Independent models of each making. Many makings tell more than many models of one."""

LARGEST = 3
"""The most architectures beside the target's own."""


def reference_zoo(scenario: Scenario, target: Mapping[str, Any], train: Mapping[str, Any]) -> Entry:
    """Return the key `zoo` of a case.

    target: the entry of the target, a recipe with a `model`.
    train:  the fields of the recipe `train`, as the case sets them or by default.
    """
    own = str(target["model"])
    others = [name for name in scenario.architectures if name != own][:LARGEST]
    only_asked = (
        own.rpartition(":")[2] == "onnx"
    )  # it has no weights to change, and nothing is trained in its form
    if only_asked:
        own, *others = others
    given = train["epochs"]
    epochs = given if isinstance(given, int) and given > 0 else 50  # a wrong one is refused later
    images = len(scenario.input_shape) == 3
    classes = scenario.task == "classification"
    makings: list[Entry] = [
        {},
        {"epochs": max(1, epochs // 3)},
        {"epochs": 3 * epochs},
        {"lr": 3e-3},
        {"lr": 3e-4, "epochs": 2 * epochs},
        {"batch_size": 256},
        {"optimizer": "sgd", "lr": 0.03},
        {"optimizer": "adamw", "weight_decay": 0.05, "cosine": True},
        {"weight_decay": 1e-3},
        {"share": 0.5, "epochs": 2 * epochs},
        {"augment": "noise"},
        {"augment": "mixup"},
    ]
    if images:
        makings += [{"augment": "shift"}, {"augment": "cutout", "epochs": 2 * epochs}]
    # What is usually done together: innocents made so are rated higher than by any one of it.
    together: Entry = {"optimizer": "adamw", "weight_decay": 0.05, "cosine": True,
                       "augment": "shift" if images else "noise"}  # fmt: skip
    if classes:
        makings += [{"label_smoothing": 0.1}]
        together["label_smoothing"] = 0.1
    makings += [together]
    elsewhere = [{}, {"epochs": 3 * epochs, "optimizer": "adamw", "weight_decay": 0.05},
                 {"optimizer": "sgd", "lr": 0.03, "augment": "mixup"}]  # fmt: skip
    if scenario.input_kind != "continuous":  # such inputs take no noise and do not mix
        makings, elsewhere = (
            [{key: x for key, x in making.items() if key != "augment"} for making in some]
            for some in (makings, elsewhere)
        )
    return {
        "positives": _copies([own, *others], only_asked=only_asked),
        "negatives": [
            *(
                _train(own, making, pool)
                for making in _different(makings, train)
                for pool in ("train", "public")
            ),
            *(
                _train(arch, making, "public")
                for arch in others
                for making in _different(elsewhere, train)
            ),
        ],
    }


def _different(makings: list[Entry], train: Mapping[str, Any]) -> list[Entry]:
    """Return the makings without those that are equal to an earlier one in this case."""
    found: list[Entry] = []
    for making in makings:
        if all({**train, **making} != {**train, **other} for other in found):
            found.append(making)
    return found


def _train(model: str, making: Mapping[str, Any], pool: str) -> Entry:
    return {"recipe": "train", "model": model, "pool": pool, "copies": EACH, **making}


def _copies(students: list[str], *, only_asked: bool) -> list[Entry]:
    """Return the entries of the known copies: what thieves do to the target.

    students:   architectures of distilled copies.
    only_asked: whether the target can only answer queries.
    """
    distilled: list[Entry] = [
        {"recipe": "distill", "model": name, "copies": COPIES} for name in students[:3]
    ]
    if only_asked:
        return distilled
    return [
        {"recipe": "finetune", "each": {"layers": ["last", "all"]}, "copies": COPIES},
        {"recipe": "retrain", "each": {"layers": ["last", "all"]}, "copies": COPIES},
        {"recipe": "prune_weights", "each": {"ratio": [0.1, 0.2, 0.3]}, "recover": 2},
        {"recipe": "prune_filters", "each": {"ratio": [0.1, 0.2]}, "recover": 2},
        *distilled,
    ]
