"""Tables for the terminal, as text formats and as JSON: plans, plugins, checks, results."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from ..api.errors import last_line
from ..api.results import (
    Comparisons,
    Difference,
    MethodRecord,
    ModelRecord,
    Report,
    RunRecord,
    Summary,
    TrialRecord,
    with_interval,
)
from ..api.work import PlanSummary
from .screen import Screen

LONG = 3600.0
"""A plan that takes more seconds than this names smaller suites."""


def show_plan(plan: PlanSummary, console: Console | None = None) -> None:
    """Print what a run is going to do."""
    console = console or Screen(highlight=False)
    missing, zoos = sum(plan.missing.values()), len(plan.zoos)
    positives, negatives = sum(plan.positives.values()), sum(plan.negatives.values())
    models = zoos * (1 + positives + negatives)

    def counts(of: Mapping[str, int]) -> str:
        return escape(" · ".join(f"{name} {n}" for name, n in of.items()))

    console.print(
        f"[bold]{escape(plan.suite)}[/]  ·  {escape(plan.scenario)} ({plan.task})  ·  "
        f"api: {plan.api}  ·  {plan.repeats} repeats"
    )
    rows = Table.grid(padding=(0, 2))
    state = f"{models} models"
    if zoos > 1:
        state = f"{zoos} zoos x (1 + {positives} + {negatives}) models"
    state += f" · {models - missing} in the store"
    if missing:
        state += f" · {missing} to build in {len(plan.cohorts)} cohorts, {decimal(plan.bytes)}"
    rows.add_row("  zoo", state)
    if plan.seconds is not None:
        rows.add_row("", f"about {_format_duration(plan.seconds)} to build on {plan.device}")
        if plan.seconds > LONG and plan.smaller:
            rows.add_row("", f"similar smaller suites: {', '.join(map(escape, plan.smaller))}")
    rows.add_row("", f"{positives} positives   {counts(plan.positives)}")
    rows.add_row("", f"{negatives} negatives   {counts(plan.negatives)}")
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


def _format_duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.0f} h"


def show_cohorts(plan: PlanSummary) -> None:
    """Print which models a run makes together."""
    console = Screen(highlight=False, soft_wrap=True)
    for i, cohort in enumerate(plan.cohorts, 1):
        console.print(f"  cohort {i:3}  {len(cohort.models):3} x {cohort.kind}: {cohort.models[0]}"
                      + (" ..." if len(cohort.models) > 1 else ""), markup=False)  # fmt: skip


def plan_as_json(plan: PlanSummary) -> dict[str, Any]:
    """Return the JSON object of `fpbench plan --json`."""
    return {
        "suite": plan.suite,
        "scenario": plan.scenario,
        "api": plan.api,
        "zoos": plan.zoos,
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


NUMBERS: Mapping[str, Callable[[Summary], float | None]] = {
    "aruc": lambda s: s.aruc,
    "aruc_ci": lambda s: s.aruc_ci,
    "aruc_calibrated": lambda s: s.aruc_calibrated,
    "aruc_calibrated_ci": lambda s: s.aruc_calibrated_ci,
    "auc": lambda s: s.auc,
    "auc_ci": lambda s: s.auc_ci,
    "robustness_at_full_uniqueness": lambda s: s.robustness_at_full_uniqueness,
    "robustness_at_full_uniqueness_ci": lambda s: s.robustness_at_full_uniqueness_ci,
    "tpr_at_5_percent_fpr": lambda s: s.tpr_at_5_percent_fpr,
    "construct_seconds": lambda s: s.construct_seconds,
    "verify_seconds": lambda s: s.verify_seconds,
    "queries": lambda s: s.queries,
}
"""The numbers of a method in CSV and JSON, by name."""

LEFT_OUT_OF_JSON = {"auc_ci", "robustness_at_full_uniqueness_ci", "tpr_at_5_percent_fpr"}


def run_as_json(report: Report) -> dict[str, Any]:
    """Return the JSON object of `fpbench run --json`."""
    record = report.record
    numbers = {name: of for name, of in NUMBERS.items() if name not in LEFT_OUT_OF_JSON}
    return {
        "suite": report.suite,
        "run": str(report.folder),
        "methods": [
            {"method": m.method, **{name: of(summary) for name, of in numbers.items()}}
            for m, summary in record.finished
        ],
        "refusals": {m.method: m.refusal for m in record.methods if m.refusal},
        "errors": {m.method: [last_line(e) for e in m.errors] for m in record.methods if m.errors},
        "failures": dict(record.failures),
    }


def show_list(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the installed scenarios, recipes and methods."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("what", "name", "summary", "from"):
        table.add_column(column, no_wrap=column != "summary")
    for row in rows:
        table.add_row(row["what"], *(escape(row[k]) for k in ("name", "summary", "source")))
    Screen(highlight=False).print(table)


def show_description(entry: Mapping[str, Any]) -> None:
    """Print the description of a scenario, recipe or method."""
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
    """Print the checks of a method's contract, a line each, with the reason if one failed."""
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


def show_results(record: RunRecord, console: Console) -> None:
    """Print the table of methods, and the table of kinds of suspect."""
    console.print()
    show_methods(record.methods, record.comparisons, console, trials=record.trials)
    for note in record.notes_on_weights:
        console.print(note, style="dim", markup=False)
    done = record.finished
    if not done:
        return
    # A table holds as many methods as fit into a line.
    per_table = max(1, (console.width - 50) // (2 + max(len(m.method) for m, _ in done)))
    for i in range(0, len(done), per_table):
        _show_kinds(record.models, done[i : i + per_table], console)
    console.print("+ descends from the target, - does not; per method: mean matching rate",
                  style="dim", markup=False)  # fmt: skip
    console.print()


def show_methods(
    methods: Sequence[MethodRecord], comparisons: Comparisons, console: Console, *,
    trials: Sequence[TrialRecord] = (),
) -> None:  # fmt: skip
    """Print the table of methods, why some have no result, and which method is best."""
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
    for method in methods:
        table.add_row(escape(method.method), *_cells(method))
    console.print(table)
    for method in methods:
        if why := _why_not(method):
            console.print(f"{method.method}: {why}", markup=False)
    first = next((method.summary for method in methods if method.summary), None)
    if not first:
        return
    console.print(
        f"ARUC's ceiling is 100/101 = {first.aruc_ceiling:.3f}; ± is the 95 % interval of the "
        f"mean over {first.repeats} repeats; the smallest false positive rate above 0 that can "
        f"be measured is {100 * first.smallest_fpr:.1f} %",
        style="dim", markup=False,
    )  # fmt: skip
    if line := _note_on_seconds(trials):
        console.print(line, markup=False)
    if line := _compare_with_best(methods, comparisons):
        console.print(line, markup=False)


def _note_on_seconds(trials: Sequence[TrialRecord]) -> str | None:
    """Return a note if seconds were measured on different devices or numbers of threads."""
    settings = sorted({(trial.device, trial.threads) for trial in trials if not trial.error})
    if len(settings) < 2:
        return None
    named = " and ".join(f"{device} (threads: {threads})" for device, threads in settings)
    return f"seconds cannot be compared: they were measured on {named}"


def _best_method(methods: Sequence[MethodRecord]) -> str | None:
    """Return the label of the method with the highest calibrated ARUC."""
    calibrated = {m.method: m.summary.aruc_calibrated for m in methods if m.summary}
    return max(calibrated, key=lambda label: calibrated[label], default=None)


def _compare_with_best(methods: Sequence[MethodRecord], comparisons: Comparisons) -> str | None:
    """Return a sentence on how the method with the highest calibrated ARUC differs from others."""
    best = _best_method(methods)
    pairs = [p for p in comparisons.aruc_calibrated if best in (p.first, p.second)]
    if not pairs:
        return None
    similar = [
        pair.second if pair.first == best else pair.first
        for pair in pairs
        if pair.low <= 0 <= pair.high
    ]
    parts = []
    if worse := len(pairs) - len(similar):
        parts.append(f"significantly better than {worse} method{'s' * (worse > 1)}")
    if similar:
        parts.append(f"not significantly different from {', '.join(similar)}")
    return f"{best} is {' and '.join(parts)} (calibrated ARUC, paired bootstrap, 95 %)"


def _why_not(method: MethodRecord) -> str | None:
    """Return why a method has no result, or lacks some of its results."""
    if method.refusal:
        return f"n/a: {method.refusal}"
    if method.errors:
        return f"{len(method.errors)} failed: {method.why_not}"
    return None if method.summary else f"failed: {method.why_not}"


def _cells(method: MethodRecord) -> list[str]:
    s = method.summary
    if not s:
        return ["[dim]n/a[/]" if method.refusal else "[red]failed[/]"]
    return [
        with_interval(s.aruc, s.aruc_ci),
        with_interval(s.aruc_calibrated, s.aruc_calibrated_ci),
        f"{s.auc:.3f}",
        *_shares(s),
        *_costs(s),
    ]


def _show_kinds(
    models: Sequence[ModelRecord], done: Sequence[tuple[MethodRecord, Summary]], console: Console
) -> None:
    """Print, per kind of suspect, their number, mean utility and mean matching rates."""
    measures = list(next((model.utility for model in models if model.utility), {}))
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("suspects", no_wrap=True)
    for name in ("made", *(m.replace("_", " ") for m in measures), *(m.method for m, _ in done)):
        table.add_column(escape(name), justify="right")
    kinds: dict[tuple[bool, str], list[ModelRecord]] = {}
    for model in models:
        kinds.setdefault((model.positive, model.kind), []).append(model)
    for (positive, kind), members in kinds.items():
        utilities = [model.utility or {} for model in members]
        means = [_mean([u[name] for u in utilities if name in u]) for name in measures]
        rates = kind_rates([summary for _, summary in done], kind)
        table.add_row(
            f"{'+' if positive else '-'} {escape(kind)}",
            str(len(members)),
            *("" if v is None else f"{v:.3f}" for v in (*means, *rates)),
        )
    console.print()
    console.print(table)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def kind_rates(summaries: Sequence[Summary], kind: str) -> list[float | None]:
    """Return each method's mean matching rate on a kind of suspect, None if it judged none."""
    of_kind = [summary.kinds.get(kind) for summary in summaries]
    return [entry.matching_rate if entry else None for entry in of_kind]


HEAD = ("method", "ARUC", "calibrated", "AUC", "R at U = 1", "TPR at 5 % FPR", "behind the first",
        "construct", "verify", "queries")  # fmt: skip


def table_rows(record: RunRecord) -> list[list[str]]:
    """Return a row of texts per method that has results; HEAD names the columns.

    "behind the first" is the difference in calibrated ARUC to the method with the highest one,
    with the 95 % interval of the paired bootstrap.
    """
    best = _best_method(record.methods)
    return [
        [
            m.method,
            with_interval(s.aruc, s.aruc_ci),
            with_interval(s.aruc_calibrated, s.aruc_calibrated_ci),
            with_interval(s.auc, s.auc_ci),
            *_shares(s),
            _behind(record.comparisons, best, m.method),
            *_costs(s),
        ]
        for m, s in record.finished
    ]


def _shares(s: Summary) -> list[str]:
    return [
        f"{100 * s.robustness_at_full_uniqueness:.0f} %",
        f"{100 * s.tpr_at_5_percent_fpr:.0f} %",
    ]


def _costs(s: Summary) -> list[str]:
    return [f"{s.construct_seconds:.2f} s", f"{s.verify_seconds:.2f} s", str(s.queries)]


def _behind(comparisons: Comparisons, best: str | None, method: str) -> str:
    for pair in comparisons.aruc_calibrated:
        if {pair.first, pair.second} == {best, method} and best != method:
            sign = 1 if pair.first == best else -1
            low, high = sorted((sign * pair.low, sign * pair.high))
            return f"{sign * pair.value:.3f} ({low:.3f} to {high:.3f})"
    return ""


def as_markdown(record: RunRecord) -> str:
    """Return the table in Markdown."""
    lines = [HEAD, ["---", *["---:"] * (len(HEAD) - 1)], *table_rows(record)]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def as_latex(record: RunRecord) -> str:
    """Return the table in LaTeX, for the booktabs package."""
    rows = [" & ".join(map(_escape_tex, line)) + r" \\" for line in table_rows(record)]
    return "\n".join(
        [
            r"\begin{tabular}{l" + "r" * (len(HEAD) - 1) + "}", r"\toprule",
            " & ".join(map(_escape_tex, HEAD)) + r" \\", r"\midrule", *rows, r"\bottomrule",
            r"\end{tabular}", "",
        ]
    )  # fmt: skip


def _escape_tex(cell: str) -> str:
    for plain, escaped in (
        ("\\", r"\textbackslash "), ("%", r"\%"), ("_", r"\_"), ("&", r"\&"), ("#", r"\#"),
        ("$", r"\$"), ("{", r"\{"), ("}", r"\}"), ("~", r"\textasciitilde "),
        ("^", r"\textasciicircum "), ("±", r"$\pm$"),
    ):  # fmt: skip
        cell = cell.replace(plain, escaped) if plain != "\\" else cell.replace("\\", "\0")
    return cell.replace("\0", r"\textbackslash ")


def as_csv(record: RunRecord) -> str:
    """Return the methods' numbers as CSV, unrounded: a row per method."""
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(["method", *NUMBERS])
    for method in record.methods:
        s = method.summary
        rows.writerow([method.method, *(of(s) if s else None for of in NUMBERS.values())])
    return out.getvalue()


def show_differences(differences: Sequence[Difference], metric: str) -> None:
    """Print the differences between methods of several runs."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("first", "second", "first - second", "95 %", "p"):
        left = name in ("first", "second")
        table.add_column(name, justify="left" if left else "right", overflow="fold")
    for d in differences:
        table.add_row(escape(d.first), escape(d.second), f"{d.value:+.3f}",
                      f"{d.low:+.3f} to {d.high:+.3f}", f"{d.p_value:.3f}")  # fmt: skip
    screen = Screen(highlight=False)
    if not screen.is_terminal:
        screen.width = 120  # the names of two runs fit into a line
    screen.print(f"{metric.replace('_', ' ')}, on the suspects that both judged")
    screen.print(table)
