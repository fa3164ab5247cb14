"""The commands about installed plugins: list, describe, check."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .. import session
from . import answers, completion, options


@click.command("list")
@options.PLUGIN
@options.JSON
def list_(plugins: tuple[Path, ...], as_json: bool) -> None:
    """List the scenarios, recipes and methods that are installed, and plugins that are broken."""
    from ..reporting.tables import show_list

    rows = answers.list_offers(plugins)
    options.answer(rows) if as_json else show_list(rows)


@click.command()
@click.argument("name", shell_complete=completion.names)
@options.PLUGIN
@options.JSON
def describe(name: str, plugins: tuple[Path, ...], as_json: bool) -> None:
    """Describe a scenario, recipe or method: its purpose, its fields, its origin."""
    from ..reporting.tables import show_description

    entry = answers.describe(name, plugins)
    options.answer(entry) if as_json else show_description(entry)


@click.command()
@click.argument("method", shell_complete=completion.names)
@options.PLUGIN
@options.JSON
def check(method: str, plugins: tuple[Path, ...], as_json: bool) -> None:
    """Check that a method keeps the contract, with the tests of `fpbench.testing`."""
    from ..api.errors import PluginError
    from ..reporting.tables import show_checks
    from ..testing import run_checks

    registry = session.load_plugins(plugins)
    if method not in registry.methods:
        raise PluginError(registry.missing("method", method, registry.methods))
    outcomes = run_checks(registry.methods[method].cls)
    options.answer(outcomes) if as_json else show_checks(method, outcomes)
    sys.exit(0 if all(o["passed"] for o in outcomes) else 1)


COMMANDS = (list_, describe, check)
