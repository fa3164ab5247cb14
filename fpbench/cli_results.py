"""The commands that read finished runs: report, compare."""

from __future__ import annotations

import json
from pathlib import Path

import click

_RUN = click.Path(path_type=Path)


@click.command()
@click.argument("run_folder", type=_RUN)
@click.option("--md", "form", flag_value="md", help="Print the table in Markdown.")
@click.option("--latex", "form", flag_value="latex", help="Print the table in LaTeX (booktabs).")
@click.option("--csv", "form", flag_value="csv", help="Print the numbers, unrounded, as CSV.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False),
    help="Where the page goes.  [default: report.html in the run's folder]",
)  # fmt: skip
def report(run_folder: Path, form: str | None, out: Path | None) -> None:
    """Write a finished run as one web page that opens offline; or print its table."""
    from .builtin.reporters.folder import whole
    from .report import page, rows

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
@click.argument("run_folders", type=_RUN, nargs=-1, required=True)
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
