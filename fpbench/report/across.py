"""Methods of different runs, compared on the suspects that they judged in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..api.errors import SuiteError
from ..comparison import Difference, Judged, compare, weighted_aruc, weighted_auc

Said = dict[str, dict[int, Judged]]


def across(runs: Mapping[str, Mapping[str, Any]], metric: str) -> list[Difference]:
    """Differences between methods of different runs, named "method (run)".

    runs:   by name, what their results.json holds.
    metric: "aruc", "aruc_calibrated" or "auc".

    Raises SuiteError for fewer than two runs, or runs that judged no split of suspects in common.
    """
    if len(runs) < 2:
        raise SuiteError("expected the folders of two different runs or more")
    said = {run: _said(data, calibrated=metric == "aruc_calibrated") for run, data in runs.items()}
    weighted = weighted_auc if metric == "auc" else weighted_aruc
    found: list[Difference] = []
    names = [*runs]
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            shared = [m for m in said[first] if m in said[second]]
            pairs = [(m, m) for m in shared] or [(a, b) for a in said[first] for b in said[second]]
            for a, b in pairs:
                one, two = _common(said[first][a], said[second][b])
                if one:
                    both = {f"{a} ({first})": one, f"{b} ({second})": two}
                    found += compare(weighted, both)
    if not found:
        raise SuiteError(
            "expected runs that judged the same suspects in the same repeats, found none in "
            "common; compare runs of one suite, or of suites with one zoo, seed and split"
        )
    return found


def _said(data: Mapping[str, Any], *, calibrated: bool) -> Said:
    positive = {m["digest"]: m["positive"] for m in data["models"]}
    said: Said = {}
    for trial in data["trials"]:
        rates = trial["calibrated_rates" if calibrated else "matching_rates"]
        if trial["error"] is None and rates:
            sides = [{d: r for d, r in rates.items() if positive[d] is p} for p in (True, False)]
            said.setdefault(trial["method"], {})[trial["repeat"]] = Judged(*sides)
    return said


def _common(
    one: Mapping[int, Judged], two: Mapping[int, Judged]
) -> tuple[dict[int, Judged], dict[int, Judged]]:
    """The repeats in which both judged the same suspects."""
    same = [
        k
        for k in one.keys() & two.keys()
        if one[k].positives.keys() == two[k].positives.keys()
        and one[k].negatives.keys() == two[k].negatives.keys()
    ]
    return {k: one[k] for k in same}, {k: two[k] for k in same}


def show(found: Sequence[Difference], metric: str) -> None:
    """Print the differences."""
    from rich.markup import escape
    from rich.table import Table

    from ..screen import Screen

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("first", "second", "first - second", "95 %", "p"):
        left = name in ("first", "second")
        table.add_column(name, justify="left" if left else "right", overflow="fold")
    for d in found:
        table.add_row(escape(d.first), escape(d.second), f"{d.value:+.3f}",
                      f"{d.low:+.3f} to {d.high:+.3f}", f"{d.p_value:.3f}")  # fmt: skip
    screen = Screen(highlight=False)
    if not screen.is_terminal:
        screen.width = 120  # two runs' names side by side
    screen.print(f"{metric.replace('_', ' ')}, on the suspects that both judged")
    screen.print(table)
