"""The command line. Help costs click alone: torch, mlflow and rich load when they are used."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from . import (
    __version__,
    answers,
    cli_complete,
    cli_doctor,
    cli_new,
    cli_options,
    cli_owner,
    cli_results,
    cli_store,
    launch,
    process,
)

_GOES_ON = "what is finished is kept, and the same command goes on from there"


class _Group(click.Group):
    """Shows every expected error as one sentence, with the exit code of its kind."""

    def invoke(self, ctx: click.Context) -> Any:
        from .api.errors import FpbenchError, did_you_mean
        from .api.text import printable

        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            if isinstance(error, click.exceptions.NoSuchCommand):
                raise click.UsageError(
                    f"no command {error.command_name!r}; "
                    f"{did_you_mean(str(error.command_name), self.commands)}"
                ) from None
            raise
        except FpbenchError as error:
            click.echo(f"error: {printable(str(error), also='')}", err=True)
            ctx.exit(error.exit_code)
        except (OSError, MemoryError, RuntimeError) as error:
            from .engine.shortage import shortage

            reason = str(error) if isinstance(error, PermissionError) else shortage(error)
            if not reason:
                raise
            click.echo(f"error: {reason}; {_GOES_ON}", err=True)
            ctx.exit(3)
        except KeyboardInterrupt as error:
            click.echo(f"\n{process.STOPPED}", err=True)
            ctx.exit(getattr(error, "exit_code", 130))


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fpbench")
def main() -> None:
    """Benchmark neural network fingerprinting: who can tell a stolen model from its like?

    Start with: fpbench run suites/quickstart.yaml
    """
    process.log_to_stderr()


@main.command()
@cli_options.SUITE
@cli_options.STORE
@cli_options.RUNS
@cli_options.ONLY
@cli_options.WITH
@cli_options.work
@click.option("--tracking/--no-tracking", default=True, help="Log to MLflow.  [default: tracking]")
@cli_options.SET
@cli_options.PLUGIN
@cli_options.JSON
def run(
    suite: Path, store_dir: Path, runs_dir: Path, only: tuple[str, ...], more: tuple[str, ...],
    device: str | None, workers: int | None, limit: int | None, executor: str | None,
    tracking: bool, overrides: tuple[str, ...], plugins: tuple[Path, ...], as_json: bool,
) -> None:  # fmt: skip
    """Build a suite's zoo, try every method on it, write and show the results.

    What is in the store is not done again; an interrupted run goes on with the same command.
    """
    click.get_current_context().with_resource(process.stoppable())
    from .builtin.reporters.tables import run_as_json
    from .builtin.reporters.terminal import Terminal
    from .engine.run import Setting
    from .engine.run import run as run_suite
    from .engine.store import Store

    registry, loaded = launch.load(suite, plugins, (*more, *overrides), only)
    if not tracking and registry.manager.has_plugin("mlflow"):
        registry.manager.unregister(name="mlflow")
    terminal = Terminal(as_json=as_json)
    registry.manager.register(terminal, "terminal")
    where = launch.devices(device)
    setting = Setting(
        store=Store(store_dir), folder=launch.new_folder(runs_dir / loaded.name),
        executor=launch.executor(
            registry, executor, where, workers=workers, limit=limit, plugins=plugins
        ),
        hook=registry.manager.hook, device=where[0], limit=limit,
    )  # fmt: skip
    with terminal:
        report = run_suite(loaded, setting)
    terminal.finish(report)
    if as_json:
        cli_options.answer(run_as_json(report))
    sys.exit(1 if report.failed else 0)


@main.command()
@cli_options.SUITE
@cli_options.STORE
@cli_options.ONLY
@cli_options.WITH
@cli_options.DEVICE
@cli_options.SET
@cli_options.PLUGIN
@cli_options.JSON
def plan(
    suite: Path, store_dir: Path, only: tuple[str, ...], more: tuple[str, ...],
    device: str | None, overrides: tuple[str, ...], plugins: tuple[Path, ...], as_json: bool,
) -> None:  # fmt: skip
    """Say what `run` would do: models to build, trials, who declines and why, disk and time."""
    from .builtin.reporters.tables import plan_as_json, show_cohorts, show_plan, show_ways
    from .engine.inventory import trained
    from .engine.store import Store

    words = (*more, *overrides), only
    summary = answers.planned(suite, store_dir, device, plugins, *words)
    ways = trained(Store(store_dir), summary.scenario.partition("(")[0])
    if as_json:
        cli_options.answer({**plan_as_json(summary), "ways": ways})
    else:
        show_plan(summary)
        show_cohorts(summary)
        show_ways(ways)


@main.command("list")
@cli_options.PLUGIN
@cli_options.JSON
def list_(plugins: tuple[Path, ...], as_json: bool) -> None:
    """List the scenarios, recipes and methods that are installed, and plugins that are broken."""
    from .builtin.reporters.tables import show_list

    rows = answers.listed(plugins)
    cli_options.answer(rows) if as_json else show_list(rows)


@main.command()
@click.argument("name", shell_complete=cli_complete.names)
@cli_options.PLUGIN
@cli_options.JSON
def describe(name: str, plugins: tuple[Path, ...], as_json: bool) -> None:
    """Describe a scenario, recipe or method: what it does, its fields, where it comes from."""
    from .builtin.reporters.tables import show_description

    entry = answers.described(name, plugins)
    cli_options.answer(entry) if as_json else show_description(entry)


@main.command()
@click.argument("method", shell_complete=cli_complete.names)
@cli_options.PLUGIN
@cli_options.JSON
def check(method: str, plugins: tuple[Path, ...], as_json: bool) -> None:
    """Check that a method keeps the contract; the tests of `fpbench.testing`, in words."""
    from .api.errors import PluginError
    from .builtin.reporters.tables import show_checks
    from .testing import run_checks

    registry = launch.registry(plugins)
    if method not in registry.methods:
        raise PluginError(registry.missing("method", method, registry.methods))
    outcomes = run_checks(registry.methods[method].cls)
    cli_options.answer(outcomes) if as_json else show_checks(method, outcomes)
    sys.exit(0 if all(o["passed"] for o in outcomes) else 1)


main.add_command(cli_results.report)
main.add_command(cli_results.compare)
main.add_command(cli_results.ui)
main.add_command(cli_results.sync)
main.add_command(cli_store.store)
main.add_command(cli_owner.fingerprint)
main.add_command(cli_owner.verify)
main.add_command(cli_results.leaderboard)
main.add_command(cli_new.new)
main.add_command(cli_doctor.doctor)
main.add_command(cli_complete.completion)


if __name__ == "__main__":
    main()
