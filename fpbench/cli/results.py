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
    from ..reporting import page
    from ..reporting import tables as rows
    from ..reporting.tables import run_as_json
    from ..results.folder import whole

    printed = {"md": rows.markdown, "latex": rows.latex, "csv": rows.as_csv}
    with whole(run_folder) as (data,):
        if form == "json":
            options.answer(run_as_json(Report(data["suite"]["name"], run_folder, data)))
        elif form:
            click.echo(printed[form](data), nl=False)
        else:
            text = page.page(data, run_folder)
            file = out or run_folder / "report.html"
            file.write_text(text, encoding="utf-8")
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
    from dataclasses import asdict

    from ..reporting.tables import show_differences
    from ..results.comparison import across
    from ..results.folder import whole

    with whole(*run_folders) as runs:
        names = [folder.name for folder in run_folders]
        found = across(dict(zip(names, runs, strict=True)), metric)
    if as_json:
        options.answer([asdict(difference) for difference in found])
    else:
        show_differences(found, metric)


@click.command()
@_RUNS
@click.option("-o", "--out", type=FILE,
              default="leaderboard.html", show_default=True)  # fmt: skip
def leaderboard(run_folders: tuple[Path, ...], out: Path) -> None:
    """Write many runs as one web page, methods by suites, that opens offline."""
    from ..reporting.leaderboard import leaderboard as page
    from ..results.folder import whole

    with whole(*run_folders) as runs:
        text = page(runs)
    out.write_text(text, encoding="utf-8")
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
