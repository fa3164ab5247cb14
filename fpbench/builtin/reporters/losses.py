"""What methods say of their loss while they construct: its mean over repeats, and its figure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fpbench.api.progress import Point


def losses(data: Mapping[str, Any]) -> dict[str, list[Point]]:
    """By label, a method's loss: its mean over repeats, at the steps that all of them told.

    Methods that told none are not in it.
    """
    told: dict[str, list[dict[int, tuple[float, float]]]] = {}
    for trial in data["trials"]:
        points = trial.get("losses")  # results of an earlier version have none
        if points:
            finite = {step: (at, loss) for step, at, loss in points if loss is not None}
            told.setdefault(trial["method"], []).append(finite)
    return {label: mean for label, repeats in told.items() if (mean := [*_mean(repeats)])}


def _mean(repeats: Sequence[Mapping[int, tuple[float, float]]]) -> Iterator[Point]:
    for step in sorted(set[int].intersection(*map(set, repeats))):
        seconds, values = zip(*(points[step] for points in repeats), strict=True)
        yield step, statistics.fmean(seconds), statistics.fmean(values)


def draw_losses(
    methods: Sequence[Mapping[str, Any]], told: Mapping[str, Sequence[Point]],
    colours: Sequence[str],
) -> Figure:  # fmt: skip
    """Loss against seconds: an axis per method, for each has a loss of its own, and a line per
    variant of it."""
    from matplotlib.figure import Figure

    names = {m["method"]: m["name"] for m in methods}
    panels = list(dict.fromkeys(names[label] for label in told))
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.8 * columns + 0.4, 2.9 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, name in zip(grid.flat, panels, strict=False):
        variants = [label for label in told if names[label] == name]
        for rank, label in enumerate(variants):
            _, seconds, values = zip(*told[label], strict=True)
            axes.plot(seconds, values, label=label, color=colours[rank % len(colours)])
        axes.set_title(name, fontsize="medium", parse_math=False)
        axes.set_xlabel("seconds of construction")
        axes.set_ylabel("loss")
        axes.grid(color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
        if len(variants) > 1:
            for text in axes.legend(frameon=False, fontsize="small").get_texts():
                text.set_parse_math(False)
    return figure
