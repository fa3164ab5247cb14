"""Figures of all methods, drawn into the run's folder."""

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
from ..api.results import RHO, MethodRecord, Report, RunRecord, Summary, TrialRecord, with_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..api.fingerprinter import Point

Scored = tuple[MethodRecord, Summary]
Colours = Sequence[str]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette without its yellow: colour-blind readers tell these apart on white."""

MARKERS = ("", "o", "s", "^", "D")
"""What tells the eighth method from the first, and so on."""


@hookimpl
def fpbench_reported(report: Report) -> None:
    """Draw the figures. The results are on disk: a figure that fails costs one line."""
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
    told = losses(record.trials)
    drawn = []
    # Text stays text, and the same results give the same bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fpbench", "pdf.fonttype": 42}):
        figures = {
            "curves": _curves(methods),
            "overlay": _overlay(methods, title),
            "full-uniqueness": draw_full_uniqueness(methods, COLOURS),
        }
        for sweep in sweeps(methods):
            figures[f"aruc-against-{sweep.key}"] = draw_sweep(sweep, COLOURS, told)
        if told:
            figures["loss"] = draw_losses(methods, told, COLOURS)
        if (samples := folder / "samples.npz").is_file():
            figures["samples"] = draw_samples(samples)
        for name, figure in figures.items():
            for ending, dated in (("svg", "Date"), ("pdf", "CreationDate"), ("png", None)):
                file = folder / "figures" / f"{name}.{ending}"
                figure.savefig(file, dpi=130, metadata={dated: None} if dated else None)
                drawn.append(file)
    return drawn


def _curves(methods: Sequence[Scored]) -> Figure:
    """Draw one axis per method: R, U and the area under both (the MetaV paper's Figure 2)."""
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
        _frame(axes)
        axes.set_xlabel("threshold ρ")
    grid[0, 0].legend([high, low, area], ["robustness R", "uniqueness U", "min(R, U)"],
                      loc="lower center", fontsize="small")  # fmt: skip
    return figure


def _overlay(methods: Sequence[Scored], title: str) -> Figure:
    """Draw all methods on one axis: R solid, U dashed."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    handles, names = [], []
    for rank, (method, summary) in enumerate(methods):
        look: dict[str, Any] = {
            "color": COLOURS[rank % len(COLOURS)],
            "marker": MARKERS[rank // len(COLOURS) % len(MARKERS)],
            "markevery": 10,
        }
        handles += axes.plot(RHO, summary.robustness, **look)
        axes.plot(RHO, summary.uniqueness, linestyle="--", **look)
        names.append(_title(method, summary))
    handles += [Line2D([], [], color="0.4"), Line2D([], [], color="0.4", linestyle="--")]
    names += ["robustness R", "uniqueness U"]
    _frame(axes)
    axes.set_xlabel("threshold ρ")
    axes.set_ylabel("share of suspects judged rightly")
    axes.set_title(title, parse_math=False)
    legend = figure.legend(handles, names, loc="outside right center", frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _title(method: MethodRecord, summary: Summary) -> str:
    return f"{method.method}: ARUC {with_interval(summary.aruc, summary.aruc_ci)}"


def _frame(axes: Axes) -> None:
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
"""What is swept, as an axis says it. More steps cost seconds, and seconds are what is asked for."""


@dataclass(frozen=True)
class Sweep:
    """Variants of methods that differ in one number.

    lines: by method, its variants, smallest number first.
    """

    key: str
    lines: Mapping[str, Sequence[Scored]]

    def x(self, variant: Scored) -> float:
        """Return where a variant stands on the axis."""
        method, summary = variant
        if self.key == "steps":
            return summary.construct_seconds
        return float(_settings(method)[self.key])


def sweeps(methods: Sequence[Scored]) -> Iterator[Sweep]:
    """Yield every number of which at least one method has two variants or more, all else equal."""
    keys = sorted(
        {key for m, _ in methods for key, value in _settings(m).items() if _number(value)}
    )
    for key in keys:
        lines: dict[tuple[str, str], list[Scored]] = {}
        for method, summary in methods:
            settings = _settings(method)
            if _number(settings.get(key)):
                rest = repr(sorted((k, str(v)) for k, v in settings.items() if k != key))
                lines.setdefault((method.name, rest), []).append((method, summary))
        swept = {
            k: sorted(v, key=lambda v: _settings(v[0])[key]) for k, v in lines.items() if len(v) > 1
        }
        if swept:
            yield Sweep(key, {_line(v[0][0].method, key): v for v in swept.values()})


def draw_sweep(sweep: Sweep, colours: Colours, losses: Mapping[str, Sequence[Point]]) -> Figure:
    """ARUC with its 95 % interval against what was swept (the MetaV paper's Figures 4 to 7).

    losses: by label. Where steps were swept, the longest variant's is drawn too, as in Figure 4.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axes = figure.subplots()
    for rank, (name, variants) in enumerate(sweep.lines.items()):
        summaries = [summary for _, summary in variants]
        axes.errorbar(
            [sweep.x(variant) for variant in variants], [s.aruc for s in summaries],
            yerr=[s.aruc_ci or 0 for s in summaries], label=name, capsize=3,
            color=colours[rank % len(colours)], marker="os^Dv"[rank % 5],
        )  # fmt: skip
    axes.set_xlabel(AXES.get(sweep.key, sweep.key))
    axes.set_ylabel("ARUC")
    axes.set_ylim(-0.02, 1.02)
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    if sweep.key == "steps":
        longest = {name: losses.get(v[-1][0].method, ()) for name, v in sweep.lines.items()}
        _draw_beside(axes, longest, colours)
    for text in axes.legend(frameon=False).get_texts():
        text.set_parse_math(False)
    return figure


def _draw_beside(axes: Axes, losses: Mapping[str, Sequence[Point]], colours: Colours) -> None:
    """Losses on a scale of their own, at the right, in their methods' colours."""
    if not any(losses.values()):
        return
    right = axes.twinx()
    for rank, points in enumerate(losses.values()):
        right.plot([at for _, at, _ in points], [loss for _, _, loss in points],
                   color=colours[rank % len(colours)], linestyle=":")  # fmt: skip
    right.set_ylabel("loss (dotted)")
    right.spines["top"].set_visible(False)


def draw_full_uniqueness(methods: Sequence[Scored], colours: Colours) -> Figure:
    """Robustness at the threshold where uniqueness is 100 % (the MetaV paper's Figure 3)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 0.6 + 0.32 * len(methods)), layout="constrained")
    axes = figure.subplots()
    shares = [100 * s.robustness_at_full_uniqueness for _, s in methods]
    half = [100 * (s.robustness_at_full_uniqueness_ci or 0) for _, s in methods]
    axes.barh(range(len(methods)), shares, xerr=half, color=colours[0], capsize=2)
    axes.set_yticks(range(len(methods)), [m.method for m, _ in methods], parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 105)
    axes.set_xlabel("positives found at full uniqueness, %")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _settings(method: MethodRecord) -> dict[str, Any]:
    return {**method.fields, "ensemble": method.ensemble}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _line(label: str, key: str) -> str:
    """A label without what is swept: "metav" of "metav(n_queries=10)"."""
    name, bracket, inside = label.partition("(")
    rest = [part for part in inside.rstrip(")").split(",") if not part.startswith(f"{key}=")]
    return f"{name}({','.join(rest)})" if bracket and any(rest) else name


def losses(trials: Sequence[TrialRecord]) -> dict[str, list[Point]]:
    """Return by label a method's loss: its mean over repeats, at the steps that all of them have.

    Methods without losses are not in it.
    """
    told: dict[str, list[dict[int, tuple[float, float]]]] = {}
    for trial in trials:
        if trial.losses:
            finite = {step: (at, loss) for step, at, loss in trial.losses if loss is not None}
            told.setdefault(trial.method, []).append(finite)
    return {label: mean for label, repeats in told.items() if (mean := [*_mean(repeats)])}


def _mean(repeats: Sequence[Mapping[int, tuple[float, float]]]) -> Iterator[Point]:
    for step in sorted(set[int].intersection(*map(set, repeats))):
        seconds, values = zip(*(points[step] for points in repeats), strict=True)
        yield step, statistics.fmean(seconds), statistics.fmean(values)


def draw_losses(
    methods: Sequence[Scored], told: Mapping[str, Sequence[Point]],
    colours: Sequence[str],
) -> Figure:  # fmt: skip
    """Loss against seconds: an axis per method, for each has a loss of its own, and a line per
    variant of it."""
    from matplotlib.figure import Figure

    names = {m.method: m.name for m, _ in methods}
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


INCH = 0.55
"""An image's side in the figure."""

LETTER = 0.062
"""A letter's width in the labels."""


def draw_samples(file: Path) -> Figure:
    """The figure of a run's samples.npz."""
    from matplotlib.figure import Figure

    found = np.lib.npyio.NpzFile(io.BytesIO(file.read_bytes()), allow_pickle=False)
    names, images = found["rows"], found["images"]
    rows, columns, height, width = images.shape[:4]
    # A border of one white pixel around each.
    border = [(0, 0), (0, 0), (1, 1), (1, 1), *[(0, 0)] * (images.ndim - 4)]
    framed = np.pad(images, border, constant_values=255).swapaxes(1, 2)
    mosaic = framed.reshape(rows * (height + 2), columns * (width + 2), *images.shape[4:])
    # Laid out by hand: matplotlib's layouts cut long labels off beside axes of a fixed aspect.
    label = LETTER * max(len(name) for name in names.flat)
    whole = label + INCH * columns
    figure = Figure(figsize=(whole, INCH * rows))
    axes = figure.add_axes((label / whole, 0, 1 - label / whole, 1))
    axes.imshow(mosaic, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    ticks = [(height + 2) * (row + 0.5) - 0.5 for row in range(rows)]
    axes.set_yticks(ticks, [f"{kind}\n{model}" for kind, model in names], fontsize="x-small",
                    parse_math=False)  # fmt: skip
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    return figure
