"""The commands that read finished runs: report, compare, leaderboard, ui, sync."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import completion, options
from .options import FILE, PATH

if TYPE_CHECKING:
    from ..api.results import Metric

_RUN = click.argument("run_folder", type=PATH, shell_complete=completion.runs)
_RUNS = click.argument(
    "run_folders", type=PATH, nargs=-1, required=True, shell_complete=completion.runs
)


@click.command()
@_RUN
@click.option("--details", "form", flag_value="details",
              help="Print all tables, as `run --details` does.")  # fmt: skip
@click.option("--md", "form", flag_value="md", help="Print the table in Markdown.")
@click.option("--latex", "form", flag_value="latex", help="Print the table in LaTeX (booktabs).")
@click.option("--csv", "form", flag_value="csv", help="Print the numbers, unrounded, as CSV.")
@click.option("--json", "form", flag_value="json", help="Print the methods as one JSON object.")
@click.option(
    "--out", type=FILE,
    help="Where to write the page.  [default: report.html in the run's folder; for a verdict, "
    "its name with .html]",
)  # fmt: skip
@click.option("--pdf", type=FILE, help="Print the page of a verdict to this PDF too.")
def report(run_folder: Path, form: str | None, out: Path | None, pdf: Path | None) -> None:
    """Write a finished run as one web page that opens offline, or print its table.

    RUN_FOLDER may be a verdict of `fpbench verify` too.
    """
    if run_folder.is_file() or (run_folder / "verdict.json").is_file():
        _report_verdict(run_folder, out, pdf)
        return
    from ..api.results import Report
    from ..reporting import tables
    from ..reporting.page import render_page
    from ..reporting.screen import Screen
    from ..results.folder import read

    formats = {"md": tables.as_markdown, "latex": tables.as_latex, "csv": tables.as_csv}
    record = read(run_folder)
    if form == "json":
        options.answer(tables.run_as_json(Report(run_folder, record)))
    elif form == "details":
        tables.show_results(record, Screen(highlight=False), details=True)
    elif form:
        click.echo(formats[form](record), nl=False)
    else:
        file = out or run_folder / "report.html"
        file.write_text(render_page(record, run_folder), encoding="utf-8")
        click.echo(str(file))


def _report_verdict(path: Path, out: Path | None, pdf: Path | None) -> None:
    from ..owner.checking import verdict_file
    from ..owner.commitment import read_record, reported_damage
    from ..owner.verdict import SCHEMA
    from ..owner.verdict_page import print_pdf, render_verdict

    place = verdict_file(path)
    verdict = read_record(place, SCHEMA)
    with reported_damage(place):
        page = render_verdict(verdict)
    file = out or place.with_suffix(".html")
    file.write_text(page, encoding="utf-8")
    click.echo(str(file))
    if pdf:
        print_pdf(file, pdf)
        click.echo(str(pdf))


@click.command()
@_RUNS
@click.option("--metric", type=click.Choice(["aruc_calibrated", "aruc", "auc"]),
              default="aruc_calibrated", show_default=True)  # fmt: skip
@options.JSON
def compare(run_folders: tuple[Path, ...], metric: Metric, as_json: bool) -> None:
    """Compare the methods of two or more runs on the suspects that both runs judged.

    A method that two runs share is compared with itself. Two runs that share no method are
    compared by every pair of their methods.
    """
    from ..reporting.tables import show_differences
    from ..results.comparison import compare_runs
    from ..results.folder import read

    differences = compare_runs({folder.name: read(folder) for folder in run_folders}, metric)
    if as_json:
        options.answer([difference.model_dump() for difference in differences])
    else:
        show_differences(differences, metric)


@click.command()
@_RUNS
@click.option("-o", "--out", type=FILE,
              default="leaderboard.html", show_default=True)  # fmt: skip
def leaderboard(run_folders: tuple[Path, ...], out: Path) -> None:
    """Write many runs as one web page that opens offline: a row per method, a column per suite."""
    from ..reporting.leaderboard import render_leaderboard
    from ..results.folder import read

    html = render_leaderboard([read(folder) for folder in run_folders])
    out.write_text(html, encoding="utf-8")
    click.echo(str(out))


@click.command()
@click.argument("run_folder", type=PATH, required=False, shell_complete=completion.runs)
@options.RUNS
@click.option("--port", default=5000, show_default=True, help="The port of the local server.")
def ui(run_folder: Path | None, runs_dir: Path, port: int) -> None:
    """Serve the local results with MLflow's pages, for this machine only, until Ctrl-C."""
    from ..reporting.mlflow_ui import serve

    serve(runs_dir, run_folder, port)


@click.command()
@_RUN
@options.JSON
def sync(run_folder: Path, as_json: bool) -> None:
    """Send a run's results to MLflow, except the parts that MLflow has already."""
    from ..reporting.mlflow_hook import complete, send

    sent = send(run_folder)
    complete(run_folder.resolve().parents[1])
    if as_json:
        options.answer(sent)
    else:
        click.echo(f"in MLflow: {sent['url']}")


COMMANDS = (report, compare, leaderboard, ui, sync)
