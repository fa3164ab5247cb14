"""`fpbench doctor`: what this machine has, and what is wrong with it."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from . import cli_options


@click.command()
@cli_options.STORE
@cli_options.RUNS
@cli_options.JSON
def doctor(store_dir: Path, runs_dir: Path, as_json: bool) -> None:
    """Look at versions, devices, store, tracker, plugins, data; exit 1 if something is broken."""
    from .doctor import examine

    findings = examine(store_dir, runs_dir)
    broken = [finding for finding in findings if finding.state == "broken"]
    if as_json:
        cli_options.answer({"ok": not broken, "findings": [asdict(f) for f in findings]})
    else:
        colours = {"ok": "green", "missing": "yellow", "broken": "red"}
        for f in findings:
            click.echo(f"{click.style(f'{f.state:8}', fg=colours[f.state])} {f.part:8} {f.text}")
        click.echo(f"{len(broken)} broken" if broken else "nothing is broken")
    sys.exit(1 if broken else 0)
