"""Shell completion: suites, methods and runs, without importing torch."""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print a shell's completion script; `source <(fpbench completion bash)` switches it on."""
    completion_of_shell = get_completion_class(shell)
    assert completion_of_shell is not None
    command = click.get_current_context().find_root().command
    click.echo(completion_of_shell(command, {}, "fpbench", "_FPBENCH_COMPLETE").source())


def suites(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the file of a suite or a folder; an empty word offers the files in suites/ too."""
    typed = Path(incomplete)
    folder = typed if incomplete.endswith("/") else typed.parent
    start = "" if incomplete.endswith("/") else typed.name
    here = [f for f in _files_in(folder) if f.name.startswith(start)]
    found = [str(f) for f in here if f.suffix in (".yaml", ".yml")]
    found += [f"{f}/" for f in here if f.is_dir() and not f.name.startswith(".")]
    if not incomplete:
        found = [*map(str, Path("suites").glob("*.yaml")), *found]
    return [CompletionItem(name) for name in sorted(found)]


def names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a method, or for `describe` of anything that is installed.

    The methods of the suite on the command line are offered too. If `answers` keeps no names, the
    names of the plugins are offered: a plugin usually has the name of its method.
    """
    from . import answers

    rows = answers.kept_rows()
    found = {row["name"] for row in rows if param.name == "name" or row["what"] == "method"}
    if not rows:
        plugins = entry_points(group="fpbench")
        own = "fpbench-core"
        found = {entry.name for entry in plugins if entry.dist and entry.dist.name != own}
    # click does not parse a line that ends in an option without a value: its words are in `args`.
    suite = ctx.params.get("suite") or ctx.params.get("case") or next(iter(ctx.args), None)
    if suite and ctx.command.name in ("run", "plan", "fingerprint"):
        found |= set(_methods_of(Path(suite)))
    return [CompletionItem(name) for name in sorted(found) if name.startswith(incomplete)]


def runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the folder of a finished run, the newest first."""
    root = ctx.params.get("runs_dir") or Path(os.environ.get("FPBENCH_RUNS", "runs"))
    found = sorted(root.glob("*/*/results.json"), key=lambda f: f.parent.name, reverse=True)
    names = [str(file.parent) for file in found]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _methods_of(suite: Path) -> list[str]:
    """Return the names of a suite's methods, without loading plugins."""
    from ..api.errors import SuiteError
    from ..engine.source import Source, method_names

    try:
        return method_names(Source.read(suite))
    except SuiteError:
        return []


def _files_in(folder: Path) -> list[Path]:
    try:
        return [*folder.iterdir()]
    except OSError:
        return []


COMMANDS = (completion,)
