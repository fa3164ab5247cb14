"""The terminal during a run: the plan, the progress, the results."""

from __future__ import annotations

import time
from typing import Any, Self

from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..api.errors import last_line, printable
from ..api.hooks import hookimpl
from ..api.results import Report
from ..api.work import Built, PlanSummary, Result
from .screen import Screen
from .tables import show_plan, show_results

PAUSE = 30.0
"""Seconds between two lines of progress in a log."""


class Terminal:
    """Shows the progress of a run: as live bars in a terminal, else as lines of a log.

    as_json: print everything to stderr, because stdout is for one JSON object.
    details: print the results by kind of suspect, and what the numbers mean.
    """

    def __init__(self, as_json: bool = False, details: bool = False) -> None:
        self.details = details
        self.console = Screen(stderr=as_json, highlight=False, soft_wrap=False)
        if not self.console.is_terminal:
            self.console.width = 120  # lines of a log need not fit a terminal
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[last]}"),
            console=self.console,
            disable=not self.console.is_terminal,
            # Cohorts differ in their time, so the estimate takes all of them into account.
            speed_estimate_period=3600,
        )
        self.began = time.perf_counter()
        self.last_line_at = self.began - PAUSE

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    @hookimpl
    def fpbench_planned(self, plan: PlanSummary) -> None:
        show_plan(plan, self.console)
        self.has_several_zoos = len(plan.zoos) > 1
        missing, trials = sum(plan.missing.values()), sum(plan.trials.values())
        self.zoo = self.progress.add_task("zoo", total=missing, last="", visible=bool(missing))
        self.trials = self.progress.add_task("trials", total=trials, last="", start=False)
        self.todo = {self.zoo: missing, self.trials: trials}
        self.done = {self.zoo: 0, self.trials: 0}
        self.since = dict.fromkeys((self.zoo, self.trials), time.perf_counter())

    @hookimpl
    def fpbench_built(self, built: Built) -> None:
        what = f"{len(built.recipes)} x {built.recipes[0].kind}"
        self._advance(self.zoo, len(built.recipes), what, built.seconds)
        self.since[self.trials] = time.perf_counter()  # trials begin when the zoo is complete
        for reason in built.failures.values():
            self.console.print(f"[red]failed[/] {escape(last_line(reason))}")

    @hookimpl
    def fpbench_attempted(self, result: Result) -> None:
        if not self.progress.tasks[self.trials].started:
            self.progress.start_task(self.trials)
        trial = result.trial
        zoo = f" zoo {trial.zoo}" if self.has_several_zoos else ""
        what = f"{trial.label}{zoo} #{trial.repeat}" + (" (in the store)" if result.cached else "")
        self._advance(self.trials, 1, what, result.construct_seconds + result.verify_seconds)
        if result.error:
            self.console.print(f"[red]failed[/] {escape(what)}: {escape(last_line(result.error))}")

    def _advance(self, task: Any, count: int, what: str, seconds: float) -> None:
        # The bars interpret markup, and `Screen` does not see their texts.
        self.progress.update(task, advance=count, last=escape(printable(what, also="")))
        self.done[task] += count
        now = time.perf_counter()
        if self.console.is_terminal or (
            now - self.last_line_at < PAUSE and self.done[task] < self.todo[task]
        ):
            return
        self.last_line_at = now
        elapsed = now - self.since[task]
        left = elapsed / self.done[task] * (self.todo[task] - self.done[task])
        name = "zoo" if task == self.zoo else "trials"
        self.console.print(
            f"{name} {self.done[task]}/{self.todo[task]}  {what}  {seconds:.1f} s  "
            f"about {left:.0f} s of {name} left",
            markup=False,
        )

    @hookimpl(tryfirst=True)
    def fpbench_reported(self, report: Report) -> None:
        self.progress.stop()
        show_results(report.record, self.console, details=self.details)
        self.console.print(f"results   {report.folder}", markup=False, soft_wrap=True)

    def finish(self, report: Report) -> None:
        """Print how to open the results and how long the run took, after all reporters."""
        for word, command in (("details", "report --details"), ("compare", "ui")):
            self.console.print(f"{word:<9} fpbench {command} {report.folder}", markup=False,
                               soft_wrap=True)  # fmt: skip
        self.console.print(f"took      {time.perf_counter() - self.began:.0f} s", markup=False)


class Bars(Terminal):
    """Shows only the progress of a run, for Python and notebooks."""

    @hookimpl(tryfirst=True)
    def fpbench_reported(self, report: Report) -> None:
        self.progress.stop()
