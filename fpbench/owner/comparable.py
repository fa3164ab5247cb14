"""Whether a suspect is like the known models that its verdict's figures are of."""

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


def utility_of(model: nn.Module, scenario: Scenario, *, at_once: bool) -> dict[str, float] | None:
    """How good a model is at the task, on the test pool; None where that cannot be told: the data
    is not on this machine, or the model does not answer it with finite numbers.

    at_once: ask all of the pool in one call.
    """
    try:
        inputs, truth = scenario.data("test")
        with torch.no_grad():
            found = [model(x) for x in ([inputs] if at_once else parts(inputs))]
        measures = dict(scenario.utility(torch.cat(found), truth))
    except (ResourceError, RefusedError):
        return None
    return measures if all(map(math.isfinite, measures.values())) else None


def outside(rate: float, negatives: Sequence[float], positives: Sequence[float]) -> list[str]:
    """A note on a matching rate that no known model comes near."""
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


def unlike(
    models: Sequence[Mapping[str, Any]], arch: str | None, utility: Mapping[str, float] | None, *,
    copy: bool,
) -> list[str]:  # fmt: skip
    """A note on a suspect that is not like the models that the verdict's figures are of.

    models: of each known one whether it is `positive`, its `arch` and its `utility`.
    copy:   the verdict. Taken for a copy, a suspect has to be unlike independent models in its
            answers to the queries alone; otherwise it may be like any known model.
    """
    alike = [model for model in models if not (copy and model["positive"])]
    differs = []
    # The architecture of a file of one's own may be any of theirs, under another name.
    if arch and ".py:" not in arch and arch not in (archs := {str(m["arch"]) for m in alike}):
        differs.append(f"architecture {arch}, theirs {', '.join(sorted(archs))}")
    for name, value in (utility or {}).items():
        theirs = [m["utility"][name] for m in alike if name in (m["utility"] or {})]
        if theirs and not min(theirs) <= value <= max(theirs):
            differs.append(f"{name} {value:.3f}, theirs {min(theirs):.3f} to {max(theirs):.3f}")
    if not alike or not differs:
        return []
    who = "independent" if copy else "known"
    return [
        f"these figures are of models like the {len(alike)} {who} ones, and it is not like them: "
        f"{'; '.join(differs)}"
    ]
