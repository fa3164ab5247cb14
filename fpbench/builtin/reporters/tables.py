"""What the terminal prints: plans, results, what is installed; and the same as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fpbench import PlanSummary, Report

LONG = 3600.0
"""Seconds from which on a plan names smaller suites."""


def last_line(text: str) -> str:
    """What a traceback comes down to."""
    return text.strip().splitlines()[-1]


def show_plan(plan: PlanSummary, console: Console | None = None) -> None:
    """What a run is going to do."""
    console = console or Console(highlight=False)
    missing, models = (
        sum(plan.missing.values()),
        1 + sum([*plan.positives.values(), *plan.negatives.values()]),
    )

    def counts(of: Mapping[str, int]) -> str:
        return " · ".join(f"{name} {n}" for name, n in of.items())

    task = type(plan.scenario).__mro__[1].__name__.lower()
    console.print(
        f"[bold]{escape(plan.suite)}[/]  ·  {escape(str(plan.scenario))} ({task})  ·  "
        f"api: {plan.api}  ·  {plan.repeats} repeats"
    )
    rows = Table.grid(padding=(0, 2))
    state = f"{models} models · {models - missing} in the store"
    if missing:
        state += f" · {missing} to build in {len(plan.cohorts)} cohorts, {plan.bytes / 1e6:.1f} MB"
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
    console = Console(highlight=False, soft_wrap=True)
    for i, cohort in enumerate(plan.cohorts, 1):
        console.print(f"  cohort {i:3}  {len(cohort):3} x {cohort[0].kind}: {cohort[0]}"
                      + (" ..." if len(cohort) > 1 else ""), markup=False)  # fmt: skip


def plan_as_json(plan: PlanSummary) -> dict[str, Any]:
    """`fpbench plan --json`."""
    return {
        "suite": plan.suite,
        "scenario": str(plan.scenario),
        "api": str(plan.api),
        "repeats": plan.repeats,
        "positives": dict(plan.positives),
        "negatives": dict(plan.negatives),
        "judged": plan.judged,
        "ensemble": plan.ensemble,
        "missing": dict(plan.missing),
        "cohorts": [[str(recipe) for recipe in cohort] for cohort in plan.cohorts],
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
    keys = ("aruc", "aruc_ci", "auc", "robustness_at_full_uniqueness", "construct_seconds",
            "verify_seconds", "queries")  # fmt: skip
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


def show_results(data: Mapping[str, Any], console: Console) -> None:
    """The table of methods, and the table of kinds of suspect."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("method")
    for name in ("ARUC", "AUC", "R at U=1", "TPR@5%", "construct", "verify", "queries"):
        table.add_column(name, justify="right")
    for method in data["methods"]:
        table.add_row(escape(method["method"]), *_cells(method))
    console.print()
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
    _show_kinds(data, done, console)


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
    half = s["aruc_ci"]
    return [
        f"{s['aruc']:.3f}" + (f" ± {half:.3f}" if half is not None else ""),
        f"{s['auc']:.3f}",
        f"{100 * s['robustness_at_full_uniqueness']:.0f} %",
        f"{100 * s['tpr_at_5_percent_fpr']:.0f} %",
        f"{s['construct_seconds']:.2f} s",
        f"{s['verify_seconds']:.2f} s",
        f"{s['queries']}",
    ]


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
    console.print("+ descends from the target, - does not; per method: mean matching rate",
                  style="dim", markup=False)  # fmt: skip
    console.print()


def show_list(rows: Sequence[Mapping[str, Any]]) -> None:
    """What is installed."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("what", "name", "summary", "from"):
        table.add_column(column, no_wrap=column != "summary")
    for row in rows:
        table.add_row(row["what"], *(escape(row[k]) for k in ("name", "summary", "source")))
    Console(highlight=False).print(table)


def show_description(entry: Mapping[str, Any]) -> None:
    """One scenario, recipe or method."""
    console = Console(highlight=False)
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
    console = Console(highlight=False, soft_wrap=True)
    for row in rows:
        where = " ".join(filter(None, (row["scenario"], row["access"])))
        if row["check"] == "declines":
            console.print(f"n/a   {where}: {row['reason']}", markup=False)
        elif row["passed"]:
            console.print(f"[green]ok[/]    {row['check']}  [dim]{where}[/]")
        else:
            console.print(f"[red]FAIL[/]  {row['check']}  {where}: {escape(row['reason'])}")
    failed = sum(not row["passed"] for row in rows)
    console.print(f"{name}: {len(rows) - failed} passed, {failed} failed", markup=False)
