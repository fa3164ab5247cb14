"""Whether a suspect is like the known models that its verdict's figures are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..api.errors import ResourceError
from ..api.scenario import Scenario
from ..api.stack import parts
from .layout import RefusedError


def utility_of(model: nn.Module, scenario: Scenario, *, at_once: bool) -> dict[str, float] | None:
    """How good a model is at the task, on the test pool; None where that cannot be told: the data
    is not on this machine, or the model does not answer it.

    at_once: ask all of the pool in one call.
    """
    try:
        inputs, truth = scenario.data("test")
        with torch.no_grad():
            found = [model(x) for x in ([inputs] if at_once else parts(inputs))]
        return dict(scenario.utility(torch.cat(found), truth))
    except (ResourceError, RefusedError):
        return None


def outside(rate: float, negatives: Sequence[float], positives: Sequence[float]) -> list[str]:
    """A note on a matching rate that no known model comes near."""
    known = [*negatives, *positives]
    low, high = min(known), max(known)
    if rate > high:
        return [
            f"no known model, copies among them, is rated as high (at most {high:.3f}): it is nearer "
            "to the target than they are, or is rated so for another reason"
        ]
    if rate < low:
        return [
            f"no known model, independent ones among them, is rated as low (at least {low:.3f}): "
            "look whether it gets the inputs it expects, and counts the classes in the same order"
        ]
    return []


def unlike(
    models: Sequence[Mapping[str, Any]], arch: str | None, utility: Mapping[str, float] | None, *,
    copy: bool,
) -> list[str]:  # fmt: skip
    """A note on a suspect that is not like the models that the verdict's figures are of.

    models: of each known one whether it is `positive`, its `arch` and its `utility`.
    copy:   the verdict. False positives are figures of independent models, misses of copies.
    """
    alike = [model for model in models if model["positive"] is not copy]
    differs = []
    # The architecture of a file of one's own may be any of theirs, under another name.
    if arch and ".py:" not in arch and arch not in (archs := {str(m["arch"]) for m in alike}):
        differs.append(f"architecture {arch}, theirs {', '.join(sorted(archs))}")
    for name, value in (utility or {}).items():
        theirs = [m["utility"][name] for m in alike if name in (m["utility"] or {})]
        if theirs and not min(theirs) <= value <= max(theirs):
            differs.append(f"{name} {value:.3f}, theirs {min(theirs):.3f} to {max(theirs):.3f}")
    if not differs:
        return []
    who, what = (
        ("independent models", "the p-value and the false positives")
        if copy
        else ("known copies", "how many are caught")
    )
    return [
        f"it is unlike the {len(alike)} {who}, of which alone {what} can tell: {'; '.join(differs)}"
    ]
