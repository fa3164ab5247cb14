"""Figures that need no curves: robustness at full uniqueness, and ARUC against what was swept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fpbench.api.progress import Point

    Colours = Sequence[str]

Method = Mapping[str, Any]

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
    lines: Mapping[str, Sequence[Method]]

    def x(self, method: Method) -> float:
        """Where a variant stands on the axis."""
        if self.key == "steps":
            return float(method["summary"]["construct_seconds"])
        return float(_settings(method)[self.key])


def sweeps(methods: Sequence[Method]) -> Iterator[Sweep]:
    """Every number of which at least one method has two variants or more, all else equal."""
    keys = sorted({key for m in methods for key, value in _settings(m).items() if _number(value)})
    for key in keys:
        lines: dict[tuple[str, str], list[Method]] = {}
        for method in methods:
            settings = _settings(method)
            if _number(settings.get(key)):
                rest = repr(sorted((k, str(v)) for k, v in settings.items() if k != key))
                lines.setdefault((method["name"], rest), []).append(method)
        swept = {
            k: sorted(v, key=lambda m: _settings(m)[key]) for k, v in lines.items() if len(v) > 1
        }
        if swept:
            yield Sweep(key, {_line(v[0]["method"], key): v for v in swept.values()})


def draw_sweep(sweep: Sweep, colours: Colours, losses: Mapping[str, Sequence[Point]]) -> Figure:
    """ARUC with its 95 % interval against what was swept (the MetaV paper's Figures 4 to 7).

    losses: by label. Where steps were swept, the longest variant's is drawn too, as in Figure 4.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axes = figure.subplots()
    for rank, (name, variants) in enumerate(sweep.lines.items()):
        summaries = [m["summary"] for m in variants]
        axes.errorbar(
            [sweep.x(m) for m in variants], [s["aruc"] for s in summaries],
            yerr=[s["aruc_ci"] or 0 for s in summaries], label=name, capsize=3,
            color=colours[rank % len(colours)], marker="os^Dv"[rank % 5],
        )  # fmt: skip
    axes.set_xlabel(AXES.get(sweep.key, sweep.key))
    axes.set_ylabel("ARUC")
    axes.set_ylim(-0.02, 1.02)
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    if sweep.key == "steps":
        longest = {name: losses.get(v[-1]["method"], ()) for name, v in sweep.lines.items()}
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


def draw_full_uniqueness(methods: Sequence[Method], colours: Colours) -> Figure:
    """Robustness at the threshold where uniqueness is 100 % (the MetaV paper's Figure 3)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 0.6 + 0.32 * len(methods)), layout="constrained")
    axes = figure.subplots()
    summaries = [m["summary"] for m in methods]
    shares = [100 * s["robustness_at_full_uniqueness"] for s in summaries]
    half = [100 * (s["robustness_at_full_uniqueness_ci"] or 0) for s in summaries]
    axes.barh(range(len(methods)), shares, xerr=half, color=colours[0], capsize=2)
    axes.set_yticks(range(len(methods)), [m["method"] for m in methods], parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 105)
    axes.set_xlabel("positives found at full uniqueness, %")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _settings(method: Method) -> dict[str, Any]:
    return {**method["fields"], "ensemble": method["ensemble"]}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _line(label: str, key: str) -> str:
    """A label without what is swept: "metav" of "metav(n_queries=10)"."""
    name, bracket, inside = label.partition("(")
    rest = [part for part in inside.rstrip(")").split(",") if not part.startswith(f"{key}=")]
    return f"{name}({','.join(rest)})" if bracket and any(rest) else name
