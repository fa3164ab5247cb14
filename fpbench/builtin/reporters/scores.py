"""What the terminal prints of results: methods, who is ahead, kinds of suspect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fpbench.api.text import last_line


def show_results(data: Mapping[str, Any], console: Console) -> None:
    """The table of methods, and the table of kinds of suspect."""
    console.print()
    show_methods(data, console)
    done = [m for m in data["methods"] if m["summary"]]
    if not done:
        return
    # Side by side as many methods as a line holds.
    room = max(1, (console.width - 50) // (2 + max(len(m["method"]) for m in done)))
    for i in range(0, len(done), room):
        _show_kinds(data, done[i : i + room], console)
    console.print("+ descends from the target, - does not; per method: mean matching rate",
                  style="dim", markup=False)  # fmt: skip
    console.print()


def show_methods(data: Mapping[str, Any], console: Console) -> None:
    """The table of methods, who could not be tried, and what can be said of their order."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("method")
    for name in (
        "ARUC",
        "calibrated",
        "AUC",
        "R at U=1",
        "TPR@5%",
        "construct",
        "verify",
        "queries",
    ):
        table.add_column(name, justify="right")
    for method in data["methods"]:
        table.add_row(escape(method["method"]), *_cells(method))
    console.print(table)
    for method in data["methods"]:
        if why := _why_not(method):
            console.print(f"{method['method']}: {why}", markup=False)
    done = [m for m in data["methods"] if m["summary"]]
    if not done:
        return
    first = done[0]["summary"]
    console.print(
        f"ARUC's ceiling is 100/101 = {first['aruc_ceiling']:.3f}; ± is the 95 % interval of the "
        f"mean over {first['repeats']} repeats; the smallest false positive rate above 0 that can "
        f"be measured is {100 * first['smallest_fpr']:.1f} %",
        style="dim", markup=False,
    )  # fmt: skip
    if line := _timed_apart(data):
        console.print(line, markup=False)
    if line := _who_is_ahead(data):
        console.print(line, markup=False)


def _timed_apart(data: Mapping[str, Any]) -> str | None:
    """Where the seconds of a table belong to different devices, or numbers of threads."""
    good = [trial for trial in data.get("trials", ()) if not trial["error"]]
    settings = sorted({(trial["device"], trial["threads"]) for trial in good})
    if len(settings) < 2:
        return None
    named = " and ".join(f"{device} (threads: {threads})" for device, threads in settings)
    return f"seconds are not to be compared: they were measured on {named}"


def _who_is_ahead(data: Mapping[str, Any]) -> str | None:
    """The method of highest calibrated ARUC, and those that may be as good."""
    done = [m for m in data["methods"] if m["summary"]]
    if len(done) < 2:
        return None
    first = max(done, key=lambda m: m["summary"]["aruc_calibrated"])["method"]
    level = []
    for pair in data["comparisons"]["aruc_calibrated"]:
        if first in (pair["first"], pair["second"]) and pair["low"] <= 0 <= pair["high"]:
            level.append(pair["second"] if pair["first"] == first else pair["first"])
    if not level:
        return f"calibrated, {first} is ahead of every other (paired bootstrap, 95 %)"
    return f"calibrated, {first} is ahead of all but {', '.join(level)} (paired bootstrap, 95 %)"


def _why_not(method: Mapping[str, Any]) -> str | None:
    """Why a method has no result, or not all of them."""
    if method["refusal"]:
        return f"n/a: {method['refusal']}"
    if method["errors"]:
        return f"{len(method['errors'])} failed: {last_line(method['errors'][0])}"
    return None if method["summary"] else "failed: the target could not be made"


def _cells(method: Mapping[str, Any]) -> list[str]:
    s = method["summary"]
    if not s:
        return ["[dim]n/a[/]" if method["refusal"] else "[red]failed[/]"]
    return [
        *(_with_interval(s[name], s[f"{name}_ci"]) for name in ("aruc", "aruc_calibrated")),
        f"{s['auc']:.3f}",
        f"{100 * s['robustness_at_full_uniqueness']:.0f} %",
        f"{100 * s['tpr_at_5_percent_fpr']:.0f} %",
        f"{s['construct_seconds']:.2f} s",
        f"{s['verify_seconds']:.2f} s",
        f"{s['queries']}",
    ]


def _with_interval(value: float, half: float | None) -> str:
    return f"{value:.3f}" + (f" ± {half:.3f}" if half is not None else "")


def _show_kinds(
    data: Mapping[str, Any], done: Sequence[Mapping[str, Any]], console: Console
) -> None:
    """Per kind: how many, how useful they still are, each method's mean matching rate."""
    measures = list(data["models"][0]["utility"] or {})
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("suspects", no_wrap=True)
    for name in ("made", *(m.replace("_", " ") for m in measures), *(m["method"] for m in done)):
        table.add_column(escape(name), justify="right")
    kinds: dict[tuple[bool, str], list[Mapping[str, Any]]] = {}
    for model in data["models"]:
        kinds.setdefault((model["positive"], model["kind"]), []).append(model)
    for (positive, kind), models in kinds.items():
        useful = [m["utility"] for m in models if m["utility"]]
        means = [
            sum(u[name] for u in useful) / len(useful) if useful else None for name in measures
        ]
        rates = [(m["summary"]["kinds"].get(kind) or {}).get("matching_rate") for m in done]
        table.add_row(
            f"{'+' if positive else '-'} {escape(kind)}",
            str(len(models)),
            *("" if v is None else f"{v:.3f}" for v in (*means, *rates)),
        )
    console.print()
    console.print(table)
