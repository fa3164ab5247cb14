"""The options of `run` that say where its work is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

_OPTIONS = (
    click.option("--device", metavar="DEVICES",
                 help="cpu, cuda, or several: cuda:0,cuda:1  [default: cuda if any]"),
    click.option("--workers", type=click.IntRange(1, 10_000), metavar="N",
                 help="Work in N processes at a time; on one machine they share its cores."),
    click.option("--limit", type=click.IntRange(1, 10_000_000), metavar="SECONDS",
                 help="A trial that takes longer is stopped and has failed.  [default: none]"),
    click.option("--executor", metavar="NAME",
                 help="inline: this process. local: a process per device. ray: a cluster.  "
                      "[default: local for several devices, --workers or --limit, else inline]"),
)  # fmt: skip


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
