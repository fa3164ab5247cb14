"""A run's charts as plain dictionaries, which Plotly draws in the reader's browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..api.results import RHO, MethodRecord, RunRecord, Summary
from .figures import COLOURS, mean_losses

if TYPE_CHECKING:
    from ..api.fingerprinter import Point

Chart = dict[str, Any]
Methods = Sequence[tuple[MethodRecord, Summary]]

POSITIVE, NEGATIVE = COLOURS[1], COLOURS[0]


def make_charts(record: RunRecord) -> list[tuple[str, str, Chart]]:
    """Return the charts in the page's order, each as (title, how to read it, chart)."""
    methods = record.finished
    if not methods:
        return []
    charts = [
        (
            "Robustness and uniqueness",
            "Solid: the share of stolen models that are rated above the threshold. Dashed: the "
            "share of independent models that are not. A threshold works where both lines are "
            "high. Click a method to hide it, click twice to see only this method.",
            draw_curves(methods),
        ),
        (
            "Matching rates",
            "Each point is a suspect in one repeat, by kind of suspect.",
            draw_rates(record, methods),
        ),
        (
            "Called stolen, by kind of suspect",
            "How many suspects of a kind were called stolen, of how many judged in all repeats. "
            "The threshold is fixed on models that are not judged. A good method has a dark upper "
            "block (+, stolen) and a light lower block (−, independent). Point at a field to see "
            "the mean matching rate.",
            draw_heatmap(record, methods),
        ),
        (
            "Utility and matching rate",
            "A method should find the stolen models of high utility. A stolen model of low utility "
            "matters less, because it no longer works well.",
            draw_utility(record, methods),
        ),
    ]
    if losses := mean_losses(record.trials):
        text = (
            "The loss that a method minimises while it constructs, as the mean over repeats. Each "
            "method has its own loss, so losses of two methods cannot be compared."
        )
        charts.append(("Loss", text, draw_losses(losses)))
    return charts


def draw_curves(methods: Methods) -> Chart:
    """Draw R and U of all methods over the threshold."""
    traces = []
    for rank, (m, s) in enumerate(methods):
        colour = COLOURS[rank % len(COLOURS)]
        # From the eighth method on, colours repeat, with marks on the lines.
        marks = ("", "circle", "square", "triangle-up", "diamond")[rank // len(COLOURS) % 5]
        for name, share, dash in (
            ("robustness", s.robustness, "solid"),
            ("uniqueness", s.uniqueness, "dash"),
        ):
            traces.append(
                {"x": RHO, "y": share, "mode": "lines+markers" if marks else "lines",
                 "marker": {"symbol": marks, "maxdisplayed": 12, "size": 7}, "name": m.method,
                 "legendgroup": m.method, "showlegend": name == "robustness",
                 "line": {"color": colour, "dash": dash},
                 "hovertemplate": name + " %{y:.3f} at ρ = %{x:.2f}"
                                  "<extra>%{fullData.name}</extra>"}
            )  # fmt: skip
    return {"data": traces, "layout": _layout("threshold ρ", "share of suspects", height=460)}


def draw_rates(record: RunRecord, methods: Methods) -> Chart:
    """Draw every suspect's rate by kind; a menu picks the method."""
    models = {m.digest: m for m in record.models}
    traces = []
    for rank, (m, _) in enumerate(methods):
        for positive, colour in ((True, POSITIVE), (False, NEGATIVE)):
            dots = [(models[d], rate, t.p_values.get(d)) for t in record.trials
                    if t.method == m.method for d, rate in t.matching_rates.items()
                    if models[d].positive is positive]  # fmt: skip
            traces.append(
                {"type": "box", "boxpoints": "all", "jitter": 0.6, "pointpos": 0,
                 "fillcolor": "rgba(0,0,0,0)", "line": {"width": 0},
                 "marker": {"color": colour, "size": 5, "opacity": 0.6},
                 "name": "stolen" if positive else "independent",
                 "x": [model.kind for model, _, _ in dots], "y": [rate for _, rate, _ in dots],
                 "text": [f"{model.name}<br>p = {p:.3g}" if p is not None else model.name
                          for model, _, p in dots],
                 "hovertemplate": "%{text}<br>rate %{y:.3f}<extra></extra>",
                 "visible": rank == 0}
            )  # fmt: skip
    layout = _layout("", "matching rate", height=480)
    kinds = [m.kind for m in record.models if m.kind != "target"]
    layout["xaxis"] |= {"categoryorder": "array", "categoryarray": list(dict.fromkeys(kinds))}
    return {
        "data": traces,
        "layout": layout | {"updatemenus": _menu(_labels(methods), 2)},
    }


def draw_heatmap(record: RunRecord, methods: Methods) -> Chart:
    """Draw the share of every kind of suspect that every method called stolen."""
    positive = {m.kind: m.positive for m in record.models if m.kind != "target"}
    kinds = [k for side in (True, False) for k, p in positive.items() if p is side]
    rows = [[s.kinds.get(kind) for _, s in methods] for kind in kinds]
    names = [f"{'+' if positive[k] else '−'} {k}" for k in kinds]
    trace = {"type": "heatmap", "x": _labels(methods), "y": names,
             "z": [[entry.called if entry else None for entry in row] for row in rows],
             "text": [[entry.called_of_judged if entry else "" for entry in row] for row in rows],
             "customdata": [[entry.matching_rate if entry else None for entry in row]
                            for row in rows],
             "zmin": 0, "zmax": 1, "colorscale": "Cividis", "reversescale": True,
             "texttemplate": "%{text}",
             "hovertemplate": "%{y}, %{x}: %{text} called stolen, mean matching rate "
                              "%{customdata:.3f}<extra></extra>"}  # fmt: skip
    layout = _layout("", "", height=120 + 26 * len(kinds))
    layout["yaxis"] |= {"automargin": True, "autorange": "reversed", "range": None}
    return {"data": [trace], "layout": layout}


def draw_utility(record: RunRecord, methods: Methods) -> Chart:
    """Draw suspects' mean rates against the task's headline measure; a menu picks the method."""
    measure = next((next(iter(m.utility)) for m in record.models if m.utility), "utility")
    traces = []
    for rank, (m, _) in enumerate(methods):
        rates: dict[str, list[float]] = {}
        for trial in record.trials:
            if trial.method == m.method:
                for digest, rate in trial.matching_rates.items():
                    rates.setdefault(digest, []).append(rate)
        for positive, colour in ((True, POSITIVE), (False, NEGATIVE)):
            dots = [
                (model, model.utility.get(measure))
                for model in record.models
                if model.positive is positive and model.digest in rates and model.utility
            ]
            traces.append(
                {"mode": "markers", "name": "stolen" if positive else "independent",
                 "marker": {"color": colour, "size": 7, "opacity": 0.7},
                 "x": [useful for _, useful in dots],
                 "y": [sum(r) / len(r) for r in (rates[model.digest] for model, _ in dots)],
                 "text": [model.name for model, _ in dots],
                 "hovertemplate": "%{text}<br>rate %{y:.3f}<extra></extra>",
                 "visible": rank == 0}
            )  # fmt: skip
    layout = _layout(measure.replace("_", " "), "mean matching rate", height=440)
    return {
        "data": traces,
        "layout": layout | {"updatemenus": _menu(_labels(methods), 2)},
    }


def draw_losses(losses: Mapping[str, Sequence[Point]]) -> Chart:
    """Draw each method's loss against seconds; a menu picks the method."""
    traces = [
        {"mode": "lines", "name": label, "x": [at for _, at, _ in points],
         "y": [loss for _, _, loss in points], "text": [step for step, _, _ in points],
         "line": {"color": COLOURS[0]}, "visible": rank == 0,
         "hovertemplate": "%{y:.4g} after step %{text}, %{x:.2f} s<extra></extra>"}
        for rank, (label, points) in enumerate(losses.items())
    ]  # fmt: skip
    layout = _layout("seconds of construction", "loss", height=440)
    layout["yaxis"] |= {"range": None}
    menu = _menu([*losses], 1)
    return {"data": traces, "layout": layout | {"updatemenus": menu}}


def _labels(methods: Methods) -> list[str]:
    return [method.method for method, _ in methods]


def _menu(labels: Sequence[str], traces: int) -> list[dict[str, Any]]:
    """Return a menu that shows one method's traces; each method has `traces` of them."""
    buttons = [
        {"label": label, "method": "update",
         "args": [{"visible": [i // traces == k for i in range(traces * len(labels))]}]}
        for k, label in enumerate(labels)
    ]  # fmt: skip
    return [{"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.16, "yanchor": "top"}]


def _layout(x: str, y: str, *, height: int) -> dict[str, Any]:
    return {
        "height": height, "margin": {"t": 40, "r": 20, "b": 60, "l": 60},
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
        "xaxis": {"title": {"text": x}, "automargin": True},
        "yaxis": {"title": {"text": y}, "range": [-0.03, 1.03]},
        "legend": {"orientation": "v", "tracegroupgap": 0}, "hovermode": "closest",
    }  # fmt: skip
