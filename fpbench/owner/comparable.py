"""Notes on a suspect that differs from the known models that calibrated the fingerprint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..api.errors import ResourceError
from ..api.scenario import Scenario
from ..compute.stack import parts
from .tensor_layout import RefusedError


def measure_utility(
    model: nn.Module, scenario: Scenario, *, at_once: bool
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


def note_on_rate(rate: float, negatives: Sequence[float], positives: Sequence[float]) -> list[str]:
    """Return a note if a matching rate is higher or lower than those of all known models."""
    low, high = min(*negatives, *positives), max(*negatives, *positives)
    if rate > high:
        return [
            f"no known model is rated as high, not even a copy (at most {high:.3f}): the suspect "
            "is closer to the target than they are, or its rate has another cause"
        ]
    if rate < low:
        return [
            f"no known model is rated as low, not even an independent one (at least {low:.3f}): "
            "the suspect differs more from the target than they do, or it expects other inputs, or "
            "its classes are in another order"
        ]
    return []


def note_on_model(
    models: Sequence[Mapping[str, Any]], arch: str | None, utility: Mapping[str, float] | None, *,
    copy: bool,
) -> list[str]:  # fmt: skip
    """Return a note if a suspect differs from the models that the verdict's figures are based on.

    models: the known models; for each whether it is `positive`, its `arch` and its `utility`.
    copy:   the verdict. A suspect that was judged a copy is compared with independent models
            only, another one with all known models.
    """
    compared = [model for model in models if not (copy and model["positive"])]
    differences = []
    # An architecture in a file of the user's may be one of theirs under another name.
    if arch and ".py:" not in arch and arch not in (archs := {str(m["arch"]) for m in compared}):
        differences.append(f"architecture {arch}, theirs {', '.join(sorted(archs))}")
    for name, value in (utility or {}).items():
        theirs = [m["utility"][name] for m in compared if name in (m["utility"] or {})]
        if theirs and not min(theirs) <= value <= max(theirs):
            differences.append(f"{name} {value:.3f}, theirs {min(theirs):.3f} to {max(theirs):.3f}")
    if not compared or not differences:
        return []
    group = "independent" if copy else "known"
    return [
        f"these figures are based on {len(compared)} {group} models, and the suspect differs from "
        f"all of them: {'; '.join(differences)}"
    ]
