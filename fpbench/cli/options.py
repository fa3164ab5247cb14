"""The options that several commands share, and the output of --json."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .. import session
from . import completion, process

PATH = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)

SUITE = click.argument("suite", type=PATH, shell_complete=completion.suites)
STORE = click.option(
    "--store", "store_dir", type=FOLDER, default="store", envvar="FPBENCH_STORE",
    show_default=True, help="Where finished models and trials are kept.",
)  # fmt: skip
RUNS = click.option(
    "--runs", "runs_dir", type=FOLDER, default="runs", envvar="FPBENCH_RUNS",
    show_default=True, help="Where results go.",
)  # fmt: skip
DEVICE = click.option(
    "--device", metavar="DEVICE", help="cpu, cuda, cuda:1 ...  [default: cuda if any]"
)
SET = click.option(
    "-o", "overrides", multiple=True, metavar="KEY=VALUE",
    help="Set a key of the suite, such as methods.metav.n_queries=50. Repeatable.",
)  # fmt: skip
ONLY = click.option(
    "--only", multiple=True, metavar="METHOD", shell_complete=completion.names,
    help="Run this method of the suite, or any other that is installed. Repeatable.",
)  # fmt: skip
WITH = click.option(
    "--with", "more", multiple=True, metavar="METHOD", shell_complete=completion.names,
    callback=lambda _, __, methods: session.additions(methods) if methods else (),
    help="Run this method too, with its defaults. Repeatable.",
)  # fmt: skip
PLUGIN = click.option(
    "-p", "plugins", multiple=True, type=PATH, metavar="FILE.py",
    help="Load a plugin from a file. Repeatable.",
)  # fmt: skip
JSON = click.option(
    "--json", "as_json", is_flag=True, callback=process.reserve_stdout, is_eager=True,
    help="Print one JSON object.",
)  # fmt: skip

_WORK = (
    click.option("--device", metavar="DEVICES",
                 help="cpu, cuda, or several: cuda:0,cuda:1  [default: cuda if any]"),
    click.option("--workers", type=click.IntRange(1, 10_000), metavar="N",
                 help="Work in N processes.  [default: as many as cores and memory allow]"),
    click.option("--limit", type=click.IntRange(1, 10_000_000), metavar="SECONDS",
                 help="Stop a trial after this time; it counts as failed.  [default: none]"),
    click.option("--executor", metavar="NAME",
                 help="local: worker processes. inline: this process, for breakpoints. ray: a "
                      "cluster. All give the same table.  [env: FPBENCH_EXECUTOR; default: local]"),
)  # fmt: skip


def work(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose devices, workers and executor to a command."""
    for option in reversed(_WORK):
        command = option(command)
    return command


def answer(value: Any) -> None:
    """Print a value as one JSON object, for --json."""
    click.echo(json.dumps(value, default=str, allow_nan=False), file=process.stdout())
