"""The commands that read finished runs: report, compare, leaderboard, ui, sync."""

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
    from .builtin.reporters.folder import whole
    from .report import page, rows

    if form == "json":
        from . import python
        from .builtin.reporters.tables import run_as_json

        with whole(run_folder):
            click.echo(json.dumps(run_as_json(python.read(run_folder))))
        return
    printed = {"md": rows.markdown, "latex": rows.latex, "csv": rows.as_csv}
    with whole(run_folder) as (data,):
        text = printed[form](data) if form else page.page(data, run_folder)
    if form is not None:
        click.echo(text, nl=False)
        return
    file = out or run_folder / "report.html"
    file.write_text(text, encoding="utf-8")
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

    from .builtin.reporters.folder import whole
    from .report.across import across, show

    with whole(*run_folders) as runs:
        names = [folder.name for folder in run_folders]
        found = across(dict(zip(names, runs, strict=True)), metric)
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


@click.command()
@click.argument("run_folder", type=click.Path(path_type=Path), required=False,
                shell_complete=cli_complete.runs)  # fmt: skip
@click.option(
    "--runs", "runs_dir", type=click.Path(path_type=Path, file_okay=False), default="runs",
    envvar="FPBENCH_RUNS", show_default=True, help="Where results go.",
)  # fmt: skip
@click.option("--port", default=5000, show_default=True, help="On this machine only.")
def ui(run_folder: Path | None, runs_dir: Path, port: int) -> None:
    """Open MLflow over the local results: on loopback, until Ctrl-C."""
    from .builtin.reporters.server import serve

    serve(runs_dir, run_folder, port)


@click.command()
@click.argument("run_folder", type=click.Path(path_type=Path), shell_complete=cli_complete.runs)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def sync(run_folder: Path, as_json: bool) -> None:
    """Send a run's results to MLflow; what is there already is not doubled."""
    from .builtin.reporters.tracking import send

    sent = send(run_folder)
    click.echo(json.dumps(sent, default=str)) if as_json else click.echo(
        f"in MLflow: {sent['url']}"
    )
