"""The commands that work on a suite: run, plan."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .. import session
from . import completion, options, process


@click.command()
@options.SUITE
@options.STORE
@options.RUNS
@options.ONLY
@options.WITH
@options.work
@click.option(
    "--fresh",
    multiple=True,
    metavar="METHOD",
    shell_complete=completion.names,
    help="Try this method of the suite anew and replace its kept results. Repeatable.",
)
@click.option("--fresh-all", is_flag=True, help="Try every method anew.")
@click.option("--tracking/--no-tracking", default=True, help="Log to MLflow.  [default: tracking]")
@click.option("--details", is_flag=True,
              help="Show results by kind of suspect, and what the numbers mean.")  # fmt: skip
@options.SET
@options.PLUGIN
@options.JSON
def run(
    suite: Path, store_dir: Path, runs_dir: Path, only: tuple[str, ...], more: tuple[str, ...],
    device: str | None, workers: int | None, limit: int | None, executor: str | None,
    fresh: tuple[str, ...], fresh_all: bool, tracking: bool, details: bool,
    overrides: tuple[str, ...], plugins: tuple[Path, ...], as_json: bool,
) -> None:  # fmt: skip
    """Build a suite's zoo, try every method on it, write and show the results.

    Work that is in the store is not repeated. The same command continues an interrupted run.
    """
    click.get_current_context().with_resource(process.stoppable())
    from ..engine.run import Setting
    from ..engine.run import run as run_suite
    from ..reporting.tables import run_as_json
    from ..reporting.terminal import Terminal
    from ..store.store import Store

    registry, loaded = session.load_suite(suite, plugins, (*more, *overrides), only)
    if not tracking and registry.manager.has_plugin("mlflow"):
        registry.manager.unregister(name="mlflow")
    terminal = Terminal(as_json=as_json, details=details)
    registry.manager.register(terminal, "terminal")
    devices = session.find_devices(device)
    setting = Setting(
        store=Store(store_dir), folder=session.new_folder(runs_dir / loaded.name),
        executor=session.find_executor(registry, executor, devices, workers=workers, limit=limit),
        hook=registry.manager.hook, device=devices[0], limit=limit,
        fresh=session.find_fresh(registry, loaded, fresh_all or fresh),
    )  # fmt: skip
    with terminal:
        report = run_suite(loaded, setting)
    terminal.finish(report)
    if as_json:
        options.answer(run_as_json(report))
    sys.exit(1 if report.failed else 0)


@click.command()
@options.SUITE
@options.STORE
@options.ONLY
@options.WITH
@options.DEVICE
@options.SET
@options.PLUGIN
@options.JSON
def plan(
    suite: Path, store_dir: Path, only: tuple[str, ...], more: tuple[str, ...],
    device: str | None, overrides: tuple[str, ...], plugins: tuple[Path, ...], as_json: bool,
) -> None:  # fmt: skip
    """Show what `run` would do: models to build, trials, refusals, disk space and time."""
    from ..engine.plan import Plan
    from ..reporting.tables import plan_as_json, show_cohorts, show_plan
    from ..store.store import Store

    _, loaded = session.load_suite(suite, plugins, (*more, *overrides), only)
    summary = Plan.of(loaded).summary(Store(store_dir), session.find_device(device))
    if as_json:
        options.answer(plan_as_json(summary))
    else:
        show_plan(summary)
        show_cohorts(summary)


COMMANDS = (run, plan)
