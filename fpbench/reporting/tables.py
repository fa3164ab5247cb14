"""What the terminal prints: plans, what is installed, checks; and the same as JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from ..api.errors import last_line
from ..api.results import Report
from ..api.work import PlanSummary
from ..results.comparison import Difference
from .screen import Screen

LONG = 3600.0
"""Seconds from which on a plan names smaller suites."""


def show_plan(plan: PlanSummary, console: Console | None = None) -> None:
    """What a run is going to do."""
    console = console or Screen(highlight=False)
    missing, models = (
        sum(plan.missing.values()),
        1 + sum([*plan.positives.values(), *plan.negatives.values()]),
    )

    def counts(of: Mapping[str, int]) -> str:
        return escape(" · ".join(f"{name} {n}" for name, n in of.items()))

    console.print(
        f"[bold]{escape(plan.suite)}[/]  ·  {escape(plan.scenario)} ({plan.task})  ·  "
        f"api: {plan.api}  ·  {plan.repeats} repeats"
    )
    rows = Table.grid(padding=(0, 2))
    state = f"{models} models · {models - missing} in the store"
    if missing:
        state += f" · {missing} to build in {len(plan.cohorts)} cohorts, {decimal(plan.bytes)}"
    rows.add_row("  zoo", state)
    if plan.seconds is not None:
        rows.add_row("", f"about {_duration(plan.seconds)} to build on {plan.device}")
        if plan.seconds > LONG and plan.smaller:
            rows.add_row("", f"smaller suites like it: {', '.join(map(escape, plan.smaller))}")
    rows.add_row("", f"{sum(plan.positives.values())} positives   {counts(plan.positives)}")
    rows.add_row("", f"{sum(plan.negatives.values())} negatives   {counts(plan.negatives)}")
    rows.add_row(
        "  split",
        f"{plan.judged[0]} + {plan.judged[1]} judged, "
        f"{plan.ensemble[0]} + {plan.ensemble[1]} to learn from",
    )
    for label, count in plan.trials.items():
        rows.add_row(f"  {escape(label)}", f"{count} x {escape(plan.tasks[label])}")
    for label, reason in plan.refusals.items():
        rows.add_row(f"  {escape(label)}", f"n/a   {escape(reason)}")
    console.print(rows)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.0f} h"


def show_cohorts(plan: PlanSummary) -> None:
    """Which models will be made together."""
    console = Screen(highlight=False, soft_wrap=True)
    for i, cohort in enumerate(plan.cohorts, 1):
        console.print(f"  cohort {i:3}  {len(cohort.models):3} x {cohort.kind}: {cohort.models[0]}"
                      + (" ..." if len(cohort.models) > 1 else ""), markup=False)  # fmt: skip


def plan_as_json(plan: PlanSummary) -> dict[str, Any]:
    """`fpbench plan --json`."""
    return {
        "suite": plan.suite,
        "scenario": plan.scenario,
        "api": plan.api,
        "repeats": plan.repeats,
        "positives": dict(plan.positives),
        "negatives": dict(plan.negatives),
        "judged": plan.judged,
        "ensemble": plan.ensemble,
        "missing": dict(plan.missing),
        "cohorts": [cohort.models for cohort in plan.cohorts],
        "bytes": plan.bytes,
        "device": plan.device,
        "seconds": plan.seconds,
        "smaller": plan.smaller,
        "trials": dict(plan.trials),
        "tasks": dict(plan.tasks),
        "refusals": dict(plan.refusals),
    }


def run_as_json(report: Report) -> dict[str, Any]:
    """The last line of `fpbench run --json`."""
    keys = ("aruc", "aruc_ci", "aruc_calibrated", "aruc_calibrated_ci", "auc",
            "robustness_at_full_uniqueness", "construct_seconds", "verify_seconds",
            "queries")  # fmt: skip
    methods = report.data["methods"]
    return {
        "suite": report.suite,
        "run": str(report.folder),
        "methods": [
            {"method": m["method"], **{key: m["summary"][key] for key in keys}}
            for m in methods
            if m["summary"]
        ],
        "refusals": {m["method"]: m["refusal"] for m in methods if m["refusal"]},
        "errors": {
            m["method"]: [last_line(e) for e in m["errors"]] for m in methods if m["errors"]
        },
        "failures": report.data["failures"],
    }


def show_list(rows: Sequence[Mapping[str, Any]]) -> None:
    """What is installed."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("what", "name", "summary", "from"):
        table.add_column(column, no_wrap=column != "summary")
    for row in rows:
        table.add_row(row["what"], *(escape(row[k]) for k in ("name", "summary", "source")))
    Screen(highlight=False).print(table)


def show_description(entry: Mapping[str, Any]) -> None:
    """One scenario, recipe or method."""
    console = Screen(highlight=False)
    console.print(
        f"[bold]{escape(entry['name'])}[/]  {entry['what']}, from {escape(entry['source'])}"
    )
    console.print(f"\n{entry['text']}\n", markup=False, soft_wrap=True)
    for key, value in entry.items():
        if key not in ("what", "name", "source", "text", "fields"):
            console.print(f"{key.replace('_', ' ')}: {value}", markup=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("field", "type", "default"):
        table.add_column(column)
    for f in entry["fields"]:
        table.add_row(*(escape(str(v)) for v in (
            f["name"], f["type"], "(required)" if f["required"] else f["default"])))  # fmt: skip
    console.print(table)


def show_checks(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """How a method kept the contract: a line per check, and what is wrong where it failed."""
    console = Screen(highlight=False, soft_wrap=True)
    for row in rows:
        where = " ".join(filter(None, (row["scenario"], row["access"])))
        if row["check"] == "declines":
            console.print(f"n/a   {where}: {row['reason']}", markup=False)
        elif row["passed"]:
            console.print(f"[green]ok[/]    {row['check']}  [dim]{escape(where)}[/]")
        else:
            console.print(f"[red]FAIL[/]  {row['check']}  {escape(where + ': ' + row['reason'])}")
    failed = sum(not row["passed"] for row in rows)
    console.print(f"{name}: {len(rows) - failed} passed, {failed} failed", markup=False)


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


HEAD = ("method", "ARUC", "calibrated", "AUC", "R at U = 1", "TPR at 5 % FPR", "behind the first",
        "construct", "verify", "queries")  # fmt: skip
NUMBERS = (
    "aruc", "aruc_ci", "aruc_calibrated", "aruc_calibrated_ci", "auc", "auc_ci",
    "robustness_at_full_uniqueness", "robustness_at_full_uniqueness_ci", "tpr_at_5_percent_fpr",
    "construct_seconds", "verify_seconds", "queries",
)  # fmt: skip


def shown(data: Mapping[str, Any]) -> list[list[str]]:
    """A row per method that has results, under HEAD, for people.

    "behind the first" is the difference in calibrated ARUC to the method that has most of it, with
    the 95 % interval of the paired bootstrap.
    """
    done = [m for m in data["methods"] if m["summary"]]
    if not done:
        return []
    leader = max(done, key=lambda m: m["summary"]["aruc_calibrated"])["method"]
    return [[m["method"], *_numbers(m["summary"]), _behind(data, leader, m["method"]),
             *_costs(m["summary"])] for m in done]  # fmt: skip


def _numbers(s: Mapping[str, Any]) -> list[str]:
    return [
        *(_interval(s[name], s[f"{name}_ci"]) for name in ("aruc", "aruc_calibrated", "auc")),
        f"{100 * s['robustness_at_full_uniqueness']:.0f} %",
        f"{100 * s['tpr_at_5_percent_fpr']:.0f} %",
    ]


def _costs(s: Mapping[str, Any]) -> list[str]:
    return [f"{s['construct_seconds']:.2f} s", f"{s['verify_seconds']:.2f} s", str(s["queries"])]


def _interval(value: float, half: float | None) -> str:
    return f"{value:.3f}" if half is None else f"{value:.3f} ± {half:.3f}"


def _behind(data: Mapping[str, Any], leader: str, method: str) -> str:
    for pair in data["comparisons"]["aruc_calibrated"]:
        if {pair["first"], pair["second"]} == {leader, method} and leader != method:
            sign = 1 if pair["first"] == leader else -1
            low, high = sorted((sign * pair["low"], sign * pair["high"]))
            return f"{sign * pair['value']:.3f} ({low:.3f} to {high:.3f})"
    return ""


def markdown(data: Mapping[str, Any]) -> str:
    """The table in Markdown."""
    lines = [HEAD, ["---", *["---:"] * (len(HEAD) - 1)], *shown(data)]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def latex(data: Mapping[str, Any]) -> str:
    """The table in LaTeX, for the booktabs package."""
    rows = [" & ".join(map(_tex, line)) + r" \\" for line in shown(data)]
    return "\n".join(
        [
            r"\begin{tabular}{l" + "r" * (len(HEAD) - 1) + "}", r"\toprule",
            " & ".join(map(_tex, HEAD)) + r" \\", r"\midrule", *rows, r"\bottomrule",
            r"\end{tabular}", "",
        ]
    )  # fmt: skip


def _tex(cell: str) -> str:
    for plain, escaped in (
        ("\\", r"\textbackslash "), ("%", r"\%"), ("_", r"\_"), ("&", r"\&"), ("#", r"\#"),
        ("$", r"\$"), ("{", r"\{"), ("}", r"\}"), ("~", r"\textasciitilde "),
        ("^", r"\textasciicircum "), ("±", r"$\pm$"),
    ):  # fmt: skip
        cell = cell.replace(plain, escaped) if plain != "\\" else cell.replace("\\", "\0")
    return cell.replace("\0", r"\textbackslash ")


def as_csv(data: Mapping[str, Any]) -> str:
    """The methods' numbers, unrounded: a row per method."""
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(["method", *NUMBERS])
    for method in data["methods"]:
        summary: Mapping[str, Any] = method["summary"] or {}
        rows.writerow([method["method"], *(summary.get(name) for name in NUMBERS)])
    return out.getvalue()


def show_differences(found: Sequence[Difference], metric: str) -> None:
    """Print the differences."""
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
