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
    DEFAULT_FPR,
    Comparisons,
    Difference,
    MethodRecord,
    ModelRecord,
    Report,
    RunRecord,
    Summary,
    TrialRecord,
    percent,
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


WITH_INTERVALS = (
    "aruc", "aruc_learned", "aruc_calibrated", "auc", "robustness_at_full_uniqueness",
    "tpr_at_1_percent_fpr", "tpr_at_5_percent_fpr", "found", "false_positives",
)  # fmt: skip
"""The numbers of a method that have an interval, in CSV and JSON."""

PLAIN = ("fpr", "construct_seconds", "verify_seconds", "queries", "zoos", "repeats")
"""The other numbers of a method in CSV and JSON."""


def run_as_json(report: Report) -> dict[str, Any]:
    """Return the JSON object of `fpbench run --json`."""
    record = report.record
    names = [*(n for name in WITH_INTERVALS for n in (name, f"{name}_ci")), *PLAIN]
    return {
        "suite": report.suite,
        "run": str(report.folder),
        "methods": [
            {"method": m.method, **{name: getattr(summary, name) for name in names}}
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


def show_results(record: RunRecord, console: Console, *, details: bool = False) -> None:
    """Print the table of methods and a sentence on the best one.

    details: print also what the numbers mean, and the table of kinds of suspect.
    """
    console.print()
    show_methods(
        record.methods, record.comparisons, console, trials=record.trials,
        weigh=record.suite.weigh, details=details,
    )  # fmt: skip
    for note in record.notes_on_weights:
        console.print(note, style="dim", markup=False)
    done = record.finished
    if not done or not details:
        return
    # A table holds as many methods as fit into a line.
    names = 12 + max(len(model.kind) for model in record.models)
    names += sum(2 + len(name) for name in _measures(record.models))
    per_table = max(1, (console.width - names) // (2 + max(len(m.method) for m, _ in done)))
    for i in range(0, len(done), per_table):
        _show_kinds(record.models, done[i : i + per_table], console)
    console.print(
        "+ descends from the target, - does not; per method: how many were called stolen, of how "
        "many judged in all repeats",
        style="dim", markup=False,
    )  # fmt: skip
    console.print()


def show_methods(
    methods: Sequence[MethodRecord], comparisons: Comparisons, console: Console, *,
    trials: Sequence[TrialRecord] = (), weigh: Mapping[str, float] | None = None,
    details: bool = True,
) -> None:  # fmt: skip
    """Print the table of methods, the best first, why some have no result, and how the best differs
    from the others."""
    methods = ranked(methods)
    tables = (_method_table(methods, columns) for columns in LAYOUTS)
    # The last layout is wrapped if it does not fit either.
    unlimited = console.options.update(max_width=10_000)
    fitting = (t for t in tables if console.measure(t, options=unlimited).maximum <= console.width)
    console.print(next(fitting, None) or _method_table(methods, LAYOUTS[-1]))
    for method in methods:
        if why := _why_not(method):
            console.print(f"{method.method}: {why}", markup=False)
    for note in make_notes(methods, weigh or {}) if details else []:
        console.print(note, style="dim", markup=False)
    for warning in warn_of_overfitting(methods):
        console.print(warning, style="dim", markup=False)
    for line in (_note_on_seconds(trials), _compare_with_best(methods, comparisons)):
        if line:
            console.print(line, markup=False)


def ranked(methods: Sequence[MethodRecord]) -> list[MethodRecord]:
    """Return methods by calibrated ARUC, the highest first; those without results come last."""
    return sorted(methods, key=lambda m: -m.summary.aruc_calibrated if m.summary else 1)


COLUMNS: Mapping[str, tuple[str, Callable[[Summary], str]]] = {
    "aruc": ("ARUC", lambda s: f"{s.aruc:.3f}"),
    "aruc+": ("ARUC", lambda s: with_interval(s.aruc, s.aruc_ci)),
    "learned": ("learned", lambda s: "" if s.aruc_learned is None else f"{s.aruc_learned:.3f}"),
    "calibrated+": (
        "calibrated", lambda s: with_interval(s.aruc_calibrated, s.aruc_calibrated_ci)
    ),
    "auc": ("AUC", lambda s: f"{s.auc:.3f}"),
    "auc+": ("AUC", lambda s: with_interval(s.auc, s.auc_ci)),
    "full": ("R at U=1", lambda s: percent(s.robustness_at_full_uniqueness)),
    "full+": (
        "R at U=1",
        lambda s: percent(s.robustness_at_full_uniqueness, s.robustness_at_full_uniqueness_ci),
    ),
    "found": ("found", lambda s: percent(s.found)),
    "false": ("false", lambda s: percent(s.false_positives)),
    "construct": ("construct", lambda s: f"{s.construct_seconds:.2f} s"),
    "verify": ("verify", lambda s: f"{s.verify_seconds:.2f} s"),
    "queries": ("queries", lambda s: str(s.queries)),
}  # fmt: skip
"""The columns of the table of methods: heading and cell. A "+" is with the interval."""

LAYOUTS = (
    ("calibrated+", "aruc+", "learned", "auc+", "full+", "found", "false", "construct", "verify",
     "queries"),
    ("calibrated+", "aruc", "learned", "auc", "full+", "found", "false", "construct", "queries"),
    ("calibrated+", "aruc", "learned", "auc", "full", "found", "false", "construct", "queries"),
    ("calibrated+", "aruc", "auc", "found", "false", "construct", "queries"),
    ("calibrated+", "aruc", "found", "false", "construct", "queries"),
    ("calibrated+", "found", "false", "construct", "queries"),
    ("calibrated+", "found", "false", "construct"),
    ("calibrated+", "found", "false"),
)  # fmt: skip
"""Columns of the table of methods, for wide terminals first."""


def _method_table(methods: Sequence[MethodRecord], columns: Sequence[str]) -> Table:
    summaries = [method.summary for method in methods if method.summary]
    # Results of earlier schemas lack these numbers, and then their columns are left out.
    if not any(summary.aruc_learned is not None for summary in summaries):
        columns = [column for column in columns if column != "learned"]
    if not any(summary.found is not None for summary in summaries):
        columns = [column for column in columns if column not in ("found", "false")]
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("method")
    for column in columns:
        table.add_column(COLUMNS[column][0], justify="right")
    for method in methods:
        s = method.summary
        if s:
            cells = [COLUMNS[column][1](s) for column in columns]
        else:
            cells = ["[dim]n/a[/]" if method.refusal else "[red]failed[/]"]
        table.add_row(escape(method.method), *cells)
    return table


def make_notes(methods: Sequence[MethodRecord], weigh: Mapping[str, float]) -> list[str]:
    """Return notes that explain the numbers in the table of methods."""
    done = [(method.method, method.summary) for method in methods if method.summary]
    if not done:
        return []
    first = done[0][1]
    notes = [f"ARUC's ceiling is 100/101 = {first.aruc_ceiling:.3f}"]
    if first.aruc_ci:
        notes[0] += f"; in parentheses is the {first.interval_over}"
    if weigh:
        weights = ", ".join(f"{kind} {weight:g}" for kind, weight in weigh.items())
        notes.append(f"ARUC and calibrated ARUC weigh the kinds of suspects: {weights}")
    if first.fpr is not None:
        learners = [label for label, s in done if s.calibrated_on == "models learned from"]
        smallest = first.fpr > DEFAULT_FPR and first.fpr == first.smallest_p_value
        rates = " or ".join(f"{100 * fpr:.3g}" for fpr in sorted({s.fpr for _, s in done if s.fpr}))
        fixed = "fixed on models that are not judged"
        if learners:
            fixed += (
                f"; for {', '.join(learners)}, which learned from these, fixed on the other judged "
                "models"
            )
        notes.append(
            "found, false: the shares of positives and of negatives called stolen at a threshold "
            f"for {rates} % false positives"
            + (" (the smallest rate that the negatives support)" if smallest else "")
            + f", {fixed}"
        )
    return notes


def warn_of_overfitting(methods: Sequence[MethodRecord]) -> list[str]:
    """Return a sentence for each method that is much better on the models it learned from."""
    return [
        f"{m.method} is overfitted: ARUC {s.aruc_learned:.2f} on the models it learned from, "
        f"{s.aruc:.2f} on the judged ones"
        for m in methods
        if (s := m.summary) and s.overfitted
    ]


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
    different = [pair for pair in pairs if not pair.low <= 0 <= pair.high]
    similar = [
        pair.second if pair.first == best else pair.first for pair in pairs if pair not in different
    ]
    parts = []
    if different:
        part = f"significantly better than {len(different)} method{'s' * (len(different) > 1)}"
        if all(pair.p_holm is not None for pair in different):
            kept = sum((pair.p_holm or 0) <= 0.05 for pair in different)
            part += f" (than {kept} after Holm's correction for {len(comparisons.aruc)} pairs)"
        parts.append(part)
    if similar:
        parts.append(f"not significantly different from {', '.join(similar)}")
    zoos = f"over {pairs[0].zoos} zoos" if pairs[0].zoos > 1 else "over the suspects of one zoo"
    return f"{best} is {' and '.join(parts)} (calibrated ARUC, paired {zoos}, 95 %)"


def _why_not(method: MethodRecord) -> str | None:
    """Return why a method has no result, or lacks some of its results."""
    if method.refusal:
        return f"n/a: {method.refusal}"
    if method.errors:
        return f"{len(method.errors)} failed: {method.why_not}"
    return None if method.summary else f"failed: {method.why_not}"


def _show_kinds(
    models: Sequence[ModelRecord], done: Sequence[tuple[MethodRecord, Summary]], console: Console
) -> None:
    """Print, per kind of suspect, their number, mean utility and how many were called stolen."""
    measures = _measures(models)
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
        calls = [entry.called_of_judged if (entry := s.kinds.get(kind)) else "" for _, s in done]
        table.add_row(
            f"{'+' if positive else '-'} {escape(kind)}",
            str(len(members)),
            *("" if v is None else f"{v:.3f}" for v in means),
            *calls,
        )
    console.print()
    console.print(table)


def _measures(models: Sequence[ModelRecord]) -> list[str]:
    return list(next((model.utility for model in models if model.utility), {}))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


HEAD = ("method", "calibrated", "ARUC", "learned from", "AUC", "R at U = 1", "found",
        "false positives", "TPR at 5 % FPR", "behind the first", "construct", "verify",
        "queries")  # fmt: skip


def table_rows(record: RunRecord) -> list[list[str]]:
    """Return a row of texts per method that has results, the best first; HEAD names the columns.

    "learned from" is the ARUC on the models that a method learned from. "behind the first" is the
    difference in calibrated ARUC to the method with the highest one, with its 95 % interval.
    """
    best = _best_method(record.methods)
    return [
        [
            m.method,
            with_interval(s.aruc_calibrated, s.aruc_calibrated_ci),
            with_interval(s.aruc, s.aruc_ci),
            "" if s.aruc_learned is None else with_interval(s.aruc_learned, s.aruc_learned_ci),
            with_interval(s.auc, s.auc_ci),
            percent(s.robustness_at_full_uniqueness, s.robustness_at_full_uniqueness_ci),
            percent(s.found, s.found_ci),
            percent(s.false_positives, s.false_positives_ci),
            _tpr(s),
            _behind(record.comparisons, best, m.method),
            f"{s.construct_seconds:.2f} s",
            f"{s.verify_seconds:.2f} s",
            str(s.queries),
        ]
        for m in ranked(record.methods)
        if (s := m.summary)
    ]


def _tpr(s: Summary) -> str:
    if s.tpr_at_5_percent_fpr is None:
        return "n/a: fewer than 20 negatives"
    return percent(s.tpr_at_5_percent_fpr, s.tpr_at_5_percent_fpr_ci)


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
    ends = [f"{name}{end}" for name in WITH_INTERVALS for end in ("", "_low", "_high")]
    rows.writerow(["method", *ends, *PLAIN])
    for method in record.methods:
        row: list[object] = []
        if s := method.summary:
            for name in WITH_INTERVALS:
                row += [getattr(s, name), *(getattr(s, f"{name}_ci") or (None, None))]
            row += [getattr(s, name) for name in PLAIN]
        rows.writerow([method.method, *(row or [None] * (len(ends) + len(PLAIN)))])
    return out.getvalue()


def show_differences(differences: Sequence[Difference], metric: str) -> None:
    """Print the differences between methods of several runs."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("first", "second", "first - second", "95 %", "p", "p (Holm)"):
        left = name in ("first", "second")
        table.add_column(name, justify="left" if left else "right", overflow="fold")
    for d in differences:
        table.add_row(escape(d.first), escape(d.second), f"{d.value:+.3f}",
                      f"{d.low:+.3f} to {d.high:+.3f}", f"{d.p_value:.3f}",
                      "" if d.p_holm is None else f"{d.p_holm:.3f}")  # fmt: skip
    screen = Screen(highlight=False)
    if not screen.is_terminal:
        screen.width = 120  # the names of two runs fit into a line
    screen.print(f"{metric.replace('_', ' ')}, on the suspects that both judged")
    screen.print(table)
    zoos = sorted({d.zoos for d in differences})
    over = " or ".join(f"{n} zoos" if n > 1 else "the suspects of one zoo" for n in zoos)
    screen.print(f"intervals over {over}; p (Holm) is corrected for {len(differences)} pairs",
                 style="dim", markup=False)  # fmt: skip
