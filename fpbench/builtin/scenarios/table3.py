"""The composition of the MetaV paper's zoos (Table 3), by kind of suspect."""

from __future__ import annotations

from collections.abc import Mapping


def composition(
    architectures: Mapping[str, tuple[int, int]], *, pruned_weights: int, pruned_filters: int = 0
) -> dict[str, float]:
    """Return the number of suspects of each kind.

    architectures: by name, the number of distilled and of independently trained models. The paper
    trains independent models on the owner's data and on public data, and does not say how many on
    each; here it is half of them on each.
    """
    counts: dict[str, float] = dict.fromkeys(("FTLL", "FTAL", "RTLL", "RTAL"), 2)
    counts["WP"] = pruned_weights
    if pruned_filters:
        counts["FP"] = pruned_filters
    for name, (distilled, independent) in architectures.items():
        if distilled:
            counts[f"distilled {name}"] = distilled
        for pool in ("train", "public"):
            counts[f"independent {name} ({pool})"] = independent / 2
    return counts | {"irrelevant": 10}
