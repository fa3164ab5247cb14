"""`fpbench doctor`: what this machine has, and what is wrong with it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click


@click.command()
@click.option("--store", type=click.Path(path_type=Path), default="store", envvar="FPBENCH_STORE",
              show_default=True)  # fmt: skip
@click.option("--runs", type=click.Path(path_type=Path), default="runs", envvar="FPBENCH_RUNS",
              show_default=True)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(store: Path, runs: Path, as_json: bool) -> None:
    """Look at versions, devices, store, tracker, plugins, data; exit 1 if something is broken."""
    from .doctor import examine

    findings = examine(store, runs)
    broken = [finding for finding in findings if finding.state == "broken"]
    if as_json:
        click.echo(json.dumps({"ok": not broken, "findings": [asdict(f) for f in findings]}))
    else:
        colours = {"ok": "green", "missing": "yellow", "broken": "red"}
        for f in findings:
            click.echo(f"{click.style(f'{f.state:8}', fg=colours[f.state])} {f.part:8} {f.text}")
        click.echo(f"{len(broken)} broken" if broken else "nothing is broken")
    sys.exit(1 if broken else 0)
