"""Notes on a suspect that differs from the known models behind its verdict's figures."""

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

    Return None if the data is not on this machine, or the model's answers are not finite.

    at_once: ask the whole pool in one call.
    """
    try:
        inputs, truth = scenario.data("test")
        with torch.no_grad():
            found = [model(x) for x in ([inputs] if at_once else parts(inputs))]
        measures = dict(scenario.utility(torch.cat(found), truth))
    except (ResourceError, RefusedError):
        return None
    return measures if all(map(math.isfinite, measures.values())) else None


def note_on_rate(rate: float, negatives: Sequence[float], positives: Sequence[float]) -> list[str]:
    """Return a note if a matching rate is beyond those of all known models."""
    low, high = min(*negatives, *positives), max(*negatives, *positives)
    if rate > high:
        return [
            f"no known model, copies among them, is rated as high (at most {high:.3f}): it is "
            "nearer to the target than they are, or is rated so for another reason"
        ]
    if rate < low:
        return [
            f"no known model, independent ones among them, is rated as low (at least {low:.3f}): "
            "it is further from the target than they are, or gets other inputs than it expects, or "
            "counts the classes in another order"
        ]
    return []


def note_on_model(
    models: Sequence[Mapping[str, Any]], arch: str | None, utility: Mapping[str, float] | None, *,
    copy: bool,
) -> list[str]:  # fmt: skip
    """Return a note if a suspect differs from the models behind the verdict's figures.

    models: the known models; for each whether it is `positive`, its `arch` and its `utility`.
    copy:   the verdict. A suspect that was judged a copy is compared with independent models
            only, another one with all known models.
    """
    known = [model for model in models if not (copy and model["positive"])]
    differs = []
    # The architecture of a file of one's own may be any of theirs, under another name.
    if arch and ".py:" not in arch and arch not in (archs := {str(m["arch"]) for m in known}):
        differs.append(f"architecture {arch}, theirs {', '.join(sorted(archs))}")
    for name, value in (utility or {}).items():
        theirs = [m["utility"][name] for m in known if name in (m["utility"] or {})]
        if theirs and not min(theirs) <= value <= max(theirs):
            differs.append(f"{name} {value:.3f}, theirs {min(theirs):.3f} to {max(theirs):.3f}")
    if not known or not differs:
        return []
    who = "independent" if copy else "known"
    return [
        f"these figures are of models like the {len(known)} {who} ones, and it is not like them: "
        f"{'; '.join(differs)}"
    ]
