"""The commands that read finished runs: report, compare, leaderboard, ui, sync."""

from __future__ import annotations

from pathlib import Path

import click

from . import completion, options
from .options import FILE, PATH

_RUN = click.argument("run_folder", type=PATH, shell_complete=completion.runs)
_RUNS = click.argument(
    "run_folders", type=PATH, nargs=-1, required=True, shell_complete=completion.runs
)


@click.command()
@_RUN
@click.option("--md", "form", flag_value="md", help="Print the table in Markdown.")
@click.option("--latex", "form", flag_value="latex", help="Print the table in LaTeX (booktabs).")
@click.option("--csv", "form", flag_value="csv", help="Print the numbers, unrounded, as CSV.")
@click.option("--json", "form", flag_value="json", help="Print the methods as one JSON object.")
@click.option(
    "--out", type=FILE,
    help="Where the page goes.  [default: report.html in the run's folder]",
)  # fmt: skip
def report(run_folder: Path, form: str | None, out: Path | None) -> None:
    """Write a finished run as one web page that opens offline; or print its table."""
    from ..api.results import Report
    from ..reporting import tables
    from ..reporting.page import page
    from ..results.folder import read

    printed = {"md": tables.markdown, "latex": tables.latex, "csv": tables.as_csv}
    record = read(run_folder)
    if form == "json":
        options.answer(tables.run_as_json(Report(run_folder, record)))
    elif form:
        click.echo(printed[form](record), nl=False)
    else:
        file = out or run_folder / "report.html"
        file.write_text(page(record, run_folder), encoding="utf-8")
        click.echo(str(file))


@click.command()
@_RUNS
@click.option("--metric", type=click.Choice(["aruc_calibrated", "aruc", "auc"]),
              default="aruc_calibrated", show_default=True)  # fmt: skip
@options.JSON
def compare(run_folders: tuple[Path, ...], metric: str, as_json: bool) -> None:
    """Compare the methods of two runs or more on the suspects that both judged.

    A method that several runs have is compared with itself; where they share none, every method
    with every other.
    """
    from ..reporting.tables import show_differences
    from ..results.comparison import compare_runs
    from ..results.folder import read

    found = compare_runs({folder.name: read(folder) for folder in run_folders}, metric)
    if as_json:
        options.answer([difference.model_dump() for difference in found])
    else:
        show_differences(found, metric)


@click.command()
@_RUNS
@click.option("-o", "--out", type=FILE,
              default="leaderboard.html", show_default=True)  # fmt: skip
def leaderboard(run_folders: tuple[Path, ...], out: Path) -> None:
    """Write many runs as one web page, methods by suites, that opens offline."""
    from ..reporting.leaderboard import leaderboard as page
    from ..results.folder import read

    out.write_text(page([read(folder) for folder in run_folders]), encoding="utf-8")
    click.echo(str(out))


@click.command()
@click.argument("run_folder", type=PATH, required=False, shell_complete=completion.runs)
@options.RUNS
@click.option("--port", default=5000, show_default=True, help="On this machine only.")
def ui(run_folder: Path | None, runs_dir: Path, port: int) -> None:
    """Open MLflow over the local results: on loopback, until Ctrl-C."""
    from ..reporting.mlflow_ui import serve

    serve(runs_dir, run_folder, port)


@click.command()
@_RUN
@options.JSON
def sync(run_folder: Path, as_json: bool) -> None:
    """Send a run's results to MLflow; what is there already is not doubled."""
    from ..reporting.mlflow_hook import complete, send

    sent = send(run_folder)
    complete(run_folder.resolve().parents[1])
    if as_json:
        options.answer(sent)
    else:
        click.echo(f"in MLflow: {sent['url']}")


COMMANDS = (report, compare, leaderboard, ui, sync)
