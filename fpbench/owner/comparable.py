"""Whether a suspect is like the models that a verdict's figures are based on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..api.errors import ResourceError
from ..api.scenario import Scenario
from ..compute.stack import parts
from .tensor_layout import RefusedError

SLACK = 0.5
"""The part of the references' range by which a suspect's number may lie outside of it."""


def measure_utility(
    model: Callable[[Tensor], Tensor], scenario: Scenario, *, at_once: bool
) -> dict[str, float] | None:
    """Return a model's utility on the test pool.

    The result is None if the data is not on this machine, or if a measure is not finite.

    at_once: ask the whole pool in one call.
    """
    try:
        inputs, truth = scenario.data("test")
        with torch.no_grad():
            outputs = [model(x) for x in ([inputs] if at_once else parts(inputs))]
        measures = dict(scenario.utility(torch.cat(outputs), truth))
    except (ResourceError, RefusedError):
        return None
    return measures if all(map(math.isfinite, measures.values())) else None


def profile_of(replies: Tensor, scenario: Scenario) -> dict[str, float]:
    """Return numbers that describe answers to a fingerprint's queries.

    replies: labels (n,), scores (n, n_classes), or a task's outputs (n, *output_shape).
    """
    if scenario.task == "classification":
        labels = replies if replies.dim() == 1 else replies.argmax(-1)
        return {"share of the commonest answer": float(labels.bincount().max()) / len(labels)}
    flat = replies.double().flatten(1) if replies.dim() > 1 else replies.double()[:, None]
    return {"mean answer": float(flat.mean()), "spread of the answers": float(flat.std(0).mean())}


def reasons_not_to_judge(
    references: Sequence[Mapping[str, Any]], suspect: Mapping[str, Any], *, above: bool
) -> list[str]:
    """Return how a suspect is unlike every reference; empty if it can be judged.

    references: the known models, each with `positive`, `arch`, `rate`, `utility` and `profile`.
    suspect:    the same of the suspect; `arch` and `utility` are None if they are unknown.
    above:      whether its rate is above the threshold. It is then compared with the independent
                models alone, because only they show how high an innocent model is rated.
    """
    compared = [model for model in references if not (above and model["positive"])]
    reasons = []
    arch = suspect["arch"]
    # An architecture in a file of the user's may be one of theirs under another name.
    if arch and ".py:" not in arch and arch not in (archs := {str(m["arch"]) for m in compared}):
        reasons.append(f"its architecture is {arch}, theirs are {', '.join(sorted(archs))}")
    for group in ("utility", "profile"):
        for name, value in (suspect[group] or {}).items():
            theirs = [m[group][name] for m in compared if name in (m[group] or {})]
            if theirs and not inside(value, theirs):
                reasons.append(
                    f"its {name} is {value:.3f}, theirs are {min(theirs):.3f} to {max(theirs):.3f}"
                )
    rates = [m["rate"] for m in references]
    if suspect["rate"] < min(rates) - SLACK * (max(rates) - min(rates)):
        reasons.append(
            f"its matching rate is {suspect['rate']:.3f}, theirs are at least {min(rates):.3f}; it "
            "may expect other inputs, or its classes may be in another order"
        )
    return reasons


def inside(value: float, theirs: Sequence[float]) -> bool:
    """Return whether a number is in the range of others, widened by half of it on both sides."""
    low, high = min(theirs), max(theirs)
    slack = SLACK * (high - low)
    return low - slack <= value <= high + slack
