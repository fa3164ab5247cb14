"""Figures of a run's methods, written into the run's folder."""

from __future__ import annotations

import io
import logging
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..api.hooks import hookimpl
from ..api.results import (
    RHO,
    Interval,
    MethodRecord,
    Report,
    RunRecord,
    Summary,
    TrialRecord,
    with_interval,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from ..api.fingerprinter import Point

Scored = tuple[MethodRecord, Summary]
Colours = Sequence[str]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette without yellow: colour-blind readers can distinguish them on white."""

MARKERS = ("", "o", "s", "^", "D")
"""Marks on the lines: they distinguish the eighth method from the first, which has its colour."""


@hookimpl
def fpbench_reported(report: Report) -> None:
    """Draw the figures. If that fails, log a warning: the results are on disk already."""
    try:
        draw(report.record, report.folder)
    except Exception as error:
        logging.getLogger("fpbench").warning("no figures: %s: %s", type(error).__name__, error)


def draw(record: RunRecord, folder: Path) -> list[Path]:
    """Draw every method that has results; return the files."""
    import matplotlib as mpl

    methods = record.finished
    if not methods:
        return []
    (folder / "figures").mkdir(exist_ok=True)
    title = f"{record.suite.name} on {record.scenario.name}"
    losses = mean_losses(record.trials)
    files = []
    # Text stays text in SVG and PDF, and equal results give equal bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fpbench", "pdf.fonttype": 42}):
        figures = {
            "curves": _draw_curves(methods),
            "overlay": _draw_overlay(methods, title),
            "full-uniqueness": draw_full_uniqueness(methods, COLOURS),
        }
        for sweep in find_sweeps(methods):
            figures[f"aruc-against-{sweep.key}"] = draw_sweep(sweep, COLOURS, losses)
        if losses:
            figures["loss"] = draw_losses(methods, losses, COLOURS)
        if (samples := folder / "samples.npz").is_file():
            figures["samples"] = draw_samples(samples)
        for name, figure in figures.items():
            for ending, dated in (("svg", "Date"), ("pdf", "CreationDate"), ("png", None)):
                file = folder / "figures" / f"{name}.{ending}"
                figure.savefig(file, dpi=130, metadata={dated: None} if dated else None)
                files.append(file)
    return files


def _draw_curves(methods: Sequence[Scored]) -> Figure:
    """Draw R, U and the area under both, an axis per method (the MetaV paper's Figure 2)."""
    from matplotlib.figure import Figure

    columns = min(len(methods), 4)
    rows = -(-len(methods) // columns)
    figure = Figure(figsize=(3.1 * columns + 0.4, 2.9 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(methods) :]:
        axes.set_visible(False)
    for axes, (method, summary) in zip(grid.flat, methods, strict=False):
        r, u = summary.robustness, summary.uniqueness
        (high,) = axes.plot(RHO, r, color=COLOURS[0])
        (low,) = axes.plot(RHO, u, color=COLOURS[1], linestyle="--")
        area = axes.fill_between(RHO, [min(pair) for pair in zip(r, u, strict=True)],
                                 color="0.5", alpha=0.25, linewidth=0)  # fmt: skip
        axes.set_title(_title(method, summary), fontsize="medium", parse_math=False)
        _format_axes(axes)
        axes.set_xlabel("threshold ρ")
    grid[0, 0].legend([high, low, area], ["robustness R", "uniqueness U", "min(R, U)"],
                      loc="lower center", fontsize="small")  # fmt: skip
    return figure


def _draw_overlay(methods: Sequence[Scored], title: str) -> Figure:
    """Draw all methods on one axis: R solid, U dashed."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    handles, names = [], []
    for rank, (method, summary) in enumerate(methods):
        style: dict[str, Any] = {
            "color": COLOURS[rank % len(COLOURS)],
            "marker": MARKERS[rank // len(COLOURS) % len(MARKERS)],
            "markevery": 10,
        }
        handles += axes.plot(RHO, summary.robustness, **style)
        axes.plot(RHO, summary.uniqueness, linestyle="--", **style)
        names.append(_title(method, summary))
    handles += [Line2D([], [], color="0.4"), Line2D([], [], color="0.4", linestyle="--")]
    names += ["robustness R", "uniqueness U"]
    _format_axes(axes)
    axes.set_xlabel("threshold ρ")
    axes.set_ylabel("share of suspects judged correctly")
    axes.set_title(title, parse_math=False)
    legend = figure.legend(handles, names, loc="outside right center", frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _title(method: MethodRecord, summary: Summary) -> str:
    return f"{method.method}: ARUC {with_interval(summary.aruc, summary.aruc_ci)}"


def _format_axes(axes: Axes) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.02, 1.02)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


AXES = {
    "n_queries": "number of queries N",
    "ensemble": "models in the ensemble",
    "steps": "seconds to construct",
}
"""Axis labels of swept fields. Steps are drawn as the seconds that they take."""


@dataclass(frozen=True)
class Sweep:
    """Variants of methods that differ in one number.

    key:   the name of that number.
    lines: the variants of each method, smallest number first.
    """

    key: str
    lines: Mapping[str, Sequence[Scored]]

    def x(self, variant: Scored) -> float:
        """Return a variant's position on the axis."""
        method, summary = variant
        if self.key == "steps":
            return summary.construct_seconds
        return float(_settings(method)[self.key])


def find_sweeps(methods: Sequence[Scored]) -> Iterator[Sweep]:
    """Yield a sweep for every number in which two or more variants of a method differ.

    Variants of one line are equal in all other settings.
    """
    keys = sorted(
        {key for m, _ in methods for key, value in _settings(m).items() if _is_number(value)}
    )
    for key in keys:
        lines: dict[tuple[str, str], list[Scored]] = {}
        for method, summary in methods:
            settings = _settings(method)
            if _is_number(settings.get(key)):
                rest = repr(sorted((k, str(v)) for k, v in settings.items() if k != key))
                lines.setdefault((method.name, rest), []).append((method, summary))
        swept = {
            k: sorted(v, key=lambda v: _settings(v[0])[key]) for k, v in lines.items() if len(v) > 1
        }
        if swept:
            yield Sweep(key, {_label_without(key, v[0][0].method): v for v in swept.values()})


def draw_sweep(sweep: Sweep, colours: Colours, losses: Mapping[str, Sequence[Point]]) -> Figure:
    """Draw ARUC with its 95 % interval against the swept number (the MetaV paper's Figures 4 to 7).

    losses: by label. If steps were swept, the loss of the longest variant is drawn too (Figure 4).
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axes = figure.subplots()
    for rank, (name, variants) in enumerate(sweep.lines.items()):
        summaries = [summary for _, summary in variants]
        axes.errorbar(
            [sweep.x(variant) for variant in variants], [s.aruc for s in summaries],
            yerr=_errors([(s.aruc, s.aruc_ci) for s in summaries]), label=name, capsize=3,
            color=colours[rank % len(colours)], marker="os^Dv"[rank % 5],
        )  # fmt: skip
    axes.set_xlabel(AXES.get(sweep.key, sweep.key))
    axes.set_ylabel("ARUC")
    axes.set_ylim(-0.02, 1.02)
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    if sweep.key == "steps":
        longest = {name: losses.get(v[-1][0].method, ()) for name, v in sweep.lines.items()}
        _draw_right_axis(axes, longest, colours)
    for text in axes.legend(frameon=False).get_texts():
        text.set_parse_math(False)
    return figure


def _draw_right_axis(axes: Axes, losses: Mapping[str, Sequence[Point]], colours: Colours) -> None:
    """Draw losses in their methods' colours, with their own axis at the right."""
    if not any(losses.values()):
        return
    right = axes.twinx()
    for rank, points in enumerate(losses.values()):
        right.plot([at for _, at, _ in points], [loss for _, _, loss in points],
                   color=colours[rank % len(colours)], linestyle=":")  # fmt: skip
    right.set_ylabel("loss (dotted)")
    right.spines["top"].set_visible(False)


def draw_full_uniqueness(methods: Sequence[Scored], colours: Colours) -> Figure:
    """Draw the robustness at full uniqueness, U = 100 % (the MetaV paper's Figure 3)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 0.6 + 0.32 * len(methods)), layout="constrained")
    axes = figure.subplots()
    shares = [s.robustness_at_full_uniqueness for _, s in methods]
    ends = [s.robustness_at_full_uniqueness_ci for _, s in methods]
    axes.barh(range(len(methods)), [100 * share for share in shares],
              xerr=100 * _errors([*zip(shares, ends, strict=True)]),
              color=colours[0], capsize=2)  # fmt: skip
    axes.set_yticks(range(len(methods)), [m.method for m, _ in methods], parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 105)
    axes.set_xlabel("positives found at full uniqueness, %")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _errors(values: Sequence[tuple[float, Interval | None]]) -> NDArray[np.float64]:
    """Return how far each interval reaches below and above its mean: (2, n); 0 without one."""
    ends = [(value - ci[0], ci[1] - value) if ci else (0.0, 0.0) for value, ci in values]
    return np.array(ends).T


def _settings(method: MethodRecord) -> dict[str, Any]:
    return {**method.fields, "ensemble": method.ensemble}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _label_without(key: str, label: str) -> str:
    """Return a label without the swept field: "metav" for "metav(n_queries=10)"."""
    name, bracket, fields = label.partition("(")
    rest = [part for part in fields.rstrip(")").split(",") if not part.startswith(f"{key}=")]
    return f"{name}({','.join(rest)})" if bracket and any(rest) else name


def mean_losses(trials: Sequence[TrialRecord]) -> dict[str, list[Point]]:
    """Return each method's mean loss by label, at the steps that all its repeats have.

    Methods without losses are left out.
    """
    finite_losses: dict[str, list[dict[int, tuple[float, float]]]] = {}
    for trial in trials:
        if trial.losses:
            finite = {step: (at, loss) for step, at, loss in trial.losses if loss is not None}
            finite_losses.setdefault(trial.method, []).append(finite)
    means = {label: [*_mean(repeats)] for label, repeats in finite_losses.items()}
    return {label: mean for label, mean in means.items() if mean}


def _mean(repeats: Sequence[Mapping[int, tuple[float, float]]]) -> Iterator[Point]:
    for step in sorted(set[int].intersection(*map(set, repeats))):
        seconds, values = zip(*(points[step] for points in repeats), strict=True)
        yield step, statistics.fmean(seconds), statistics.fmean(values)


def draw_losses(
    methods: Sequence[Scored], losses: Mapping[str, Sequence[Point]],
    colours: Sequence[str],
) -> Figure:  # fmt: skip
    """Draw losses against seconds: an axis per method, because each has its own loss, and a line
    per variant."""
    from matplotlib.figure import Figure

    names = {m.method: m.name for m, _ in methods}
    panels = list(dict.fromkeys(names[label] for label in losses))
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.8 * columns + 0.4, 2.9 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, name in zip(grid.flat, panels, strict=False):
        variants = [label for label in losses if names[label] == name]
        for rank, label in enumerate(variants):
            _, seconds, values = zip(*losses[label], strict=True)
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


INCH = 0.55
"""The side of an image in the figure, in inches."""

LETTER = 0.062
"""The width of a letter in the labels, in inches."""


def draw_samples(file: Path) -> Figure:
    """Draw the images of a run's samples.npz."""
    from matplotlib.figure import Figure

    samples = np.lib.npyio.NpzFile(io.BytesIO(file.read_bytes()), allow_pickle=False)
    names, images = samples["rows"], samples["images"]
    rows, columns, height, width = images.shape[:4]
    # Each image gets a border of one white pixel.
    border = [(0, 0), (0, 0), (1, 1), (1, 1), *[(0, 0)] * (images.ndim - 4)]
    framed = np.pad(images, border, constant_values=255).swapaxes(1, 2)
    mosaic = framed.reshape(rows * (height + 2), columns * (width + 2), *images.shape[4:])
    # matplotlib's layouts cut long labels off beside axes of a fixed aspect, so we place the axes.
    label = LETTER * max(len(name) for name in names.flat)
    width_of_figure = label + INCH * columns
    figure = Figure(figsize=(width_of_figure, INCH * rows))
    axes = figure.add_axes((label / width_of_figure, 0, 1 - label / width_of_figure, 1))
    axes.imshow(mosaic, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    ticks = [(height + 2) * (row + 0.5) - 0.5 for row in range(rows)]
    axes.set_yticks(ticks, [f"{kind}\n{model}" for kind, model in names], fontsize="x-small",
                    parse_math=False)  # fmt: skip
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    return figure
