"""The commands that read finished runs: report, compare, leaderboard."""

from __future__ import annotations

import json
from pathlib import Path

import click

from . import cli_complete

_RUN = click.Path(path_type=Path)
_RUNS = click.argument(
    "run_folders", type=_RUN, nargs=-1, required=True, shell_complete=cli_complete.runs
)


@click.command()
@click.argument("run_folder", type=_RUN, shell_complete=cli_complete.runs)
@click.option("--md", "form", flag_value="md", help="Print the table in Markdown.")
@click.option("--latex", "form", flag_value="latex", help="Print the table in LaTeX (booktabs).")
@click.option("--csv", "form", flag_value="csv", help="Print the numbers, unrounded, as CSV.")
@click.option("--json", "form", flag_value="json", help="Print the methods as one JSON object.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False),
    help="Where the page goes.  [default: report.html in the run's folder]",
)  # fmt: skip
def report(run_folder: Path, form: str | None, out: Path | None) -> None:
    """Write a finished run as one web page that opens offline; or print its table."""
    from .builtin.reporters.folder import read
    from .report import page, rows

    data = read(run_folder)
    if form == "json":
        from . import python
        from .builtin.reporters.tables import run_as_json

        click.echo(json.dumps(run_as_json(python.read(run_folder))))
        return
    if form is not None:
        printed = {"md": rows.markdown, "latex": rows.latex, "csv": rows.as_csv}[form](data)
        click.echo(printed, nl=False)
        return
    file = out or run_folder / "report.html"
    file.write_text(page.page(data), encoding="utf-8")
    click.echo(str(file))


@click.command()
@_RUNS
@click.option("--metric", type=click.Choice(["aruc_calibrated", "aruc", "auc"]),
              default="aruc_calibrated", show_default=True)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def compare(run_folders: tuple[Path, ...], metric: str, as_json: bool) -> None:
    """Compare the methods of two runs or more on the suspects that both judged.

    A method that several runs have is compared with itself; where they share none, every method
    with every other.
    """
    from dataclasses import asdict

    from .builtin.reporters.folder import read
    from .report.across import across, show

    found = across({folder.name: read(folder) for folder in run_folders}, metric)
    if as_json:
        click.echo(json.dumps([asdict(difference) for difference in found]))
    else:
        show(found, metric)


@click.command()
@_RUNS
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False),
              default="leaderboard.html", show_default=True)  # fmt: skip
def leaderboard(run_folders: tuple[Path, ...], out: Path) -> None:
    """Write many runs as one web page, methods by suites, that opens offline."""
    from .builtin.reporters.folder import read
    from .report.leaderboard import leaderboard as page

    out.write_text(page([read(folder) for folder in run_folders]), encoding="utf-8")
    click.echo(str(out))
