"""What the terminal prints: plans, what is installed, checks; and the same as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from fpbench import PlanSummary, Report
from fpbench.api.text import last_line
from fpbench.screen import Screen

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


def show_ways(ways: Iterable[Mapping[str, Any]]) -> None:
    """How networks train here, as far as that was measured."""
    console = Screen(highlight=False, soft_wrap=True)
    for way in ways:
        each = ", ".join(f"{name} {1e3 * s:.1f}" for name, s in way["seconds"].items())
        console.print(f"  fastest  {way['way']}: {way['what'].removeprefix('train: ')}, "
                      f"{way['device']} (ms a step: {each})", markup=False)  # fmt: skip


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
