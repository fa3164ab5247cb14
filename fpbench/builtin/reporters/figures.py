"""Figures of all methods, drawn into the run's folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpbench import hookimpl
from fpbench.api.text import readable

from .losses import draw_losses, losses
from .samples import draw_samples
from .sweeps import draw_full_uniqueness, draw_sweep, sweeps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fpbench import Report

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette without its yellow: colour-blind readers tell these apart on white."""

MARKERS = ("", "o", "s", "^", "D")
"""What tells the eighth method from the first, and so on."""


@hookimpl
def fpbench_reported(report: Report) -> None:
    """Draw the figures. The results are on disk: a figure that fails costs one line."""
    try:
        draw(report.data, report.folder)
    except Exception as error:
        logging.getLogger("fpbench").warning("no figures: %s: %s", type(error).__name__, error)


def draw(data: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw every method that has results; return the files."""
    import matplotlib as mpl

    data = readable(data)
    methods = [m for m in data["methods"] if m["summary"]]
    if not methods:
        return []
    (folder / "figures").mkdir(exist_ok=True)
    title = f"{data['suite']['name']} on {data['scenario']['name']}"
    told = losses(data)
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


def _curves(methods: Sequence[Mapping[str, Any]]) -> Figure:
    """One axis per method: R, U and the area under both (the MetaV paper's Figure 2)."""
    from matplotlib.figure import Figure

    columns = min(len(methods), 4)
    rows = -(-len(methods) // columns)
    figure = Figure(figsize=(3.1 * columns + 0.4, 2.9 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(methods) :]:
        axes.set_visible(False)
    for axes, method in zip(grid.flat, methods, strict=False):
        rho, r, u = _points(method)
        (high,) = axes.plot(rho, r, color=COLOURS[0])
        (low,) = axes.plot(rho, u, color=COLOURS[1], linestyle="--")
        area = axes.fill_between(rho, [min(pair) for pair in zip(r, u, strict=True)],
                                 color="0.5", alpha=0.25, linewidth=0)  # fmt: skip
        axes.set_title(_title(method), fontsize="medium", parse_math=False)
        _frame(axes)
        axes.set_xlabel("threshold ρ")
    grid[0, 0].legend([high, low, area], ["robustness R", "uniqueness U", "min(R, U)"],
                      loc="lower center", fontsize="small")  # fmt: skip
    return figure


def _overlay(methods: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """All methods on one axis: R solid, U dashed."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    handles, names = [], []
    for rank, method in enumerate(methods):
        rho, r, u = _points(method)
        look: dict[str, Any] = {
            "color": COLOURS[rank % len(COLOURS)],
            "marker": MARKERS[rank // len(COLOURS) % len(MARKERS)],
            "markevery": 10,
        }
        handles += axes.plot(rho, r, **look)
        axes.plot(rho, u, linestyle="--", **look)
        names.append(_title(method))
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


def _points(method: Mapping[str, Any]) -> tuple[list[float], list[float], list[float]]:
    r, u = method["summary"]["robustness"], method["summary"]["uniqueness"]
    return [step / (len(r) - 1) for step in range(len(r))], r, u


def _title(method: Mapping[str, Any]) -> str:
    summary = method["summary"]
    half = summary["aruc_ci"]
    interval = f" ± {half:.3f}" if half is not None else ""
    return f"{method['method']}: ARUC {summary['aruc']:.3f}{interval}"


def _frame(axes: Axes) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.02, 1.02)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
