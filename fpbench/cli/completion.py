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
    made = get_completion_class(shell)
    assert made is not None
    click.echo(
        made(
            click.get_current_context().find_root().command, {}, "fpbench", "_FPBENCH_COMPLETE"
        ).source()
    )


def suites(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Suites and the folders on the way to them; before a letter is typed, those in suites/."""
    typed = Path(incomplete)
    folder = typed if incomplete.endswith("/") else typed.parent
    start = "" if incomplete.endswith("/") else typed.name
    here = [f for f in _inside(folder) if f.name.startswith(start)]
    found = [str(f) for f in here if f.suffix in (".yaml", ".yml")]
    found += [f"{f}/" for f in here if f.is_dir() and not f.name.startswith(".")]
    if not incomplete:
        found = [*map(str, Path("suites").glob("*.yaml")), *found]
    return [CompletionItem(name) for name in sorted(found)]


def names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What is installed, or its methods alone, and those of the suite on the line.

    As long as nobody asked what plugins offer, which takes seconds, it is what they are called:
    their method's name more often than not.
    """
    from . import answers

    rows = answers.known()
    found = {row["name"] for row in rows if param.name == "name" or row["what"] == "method"}
    if not rows:
        found = set(entry_points(group="fpbench").names) - {"builtin", "figures", "mlflow"}
    # A line that ends in an option without its value is left unread: its words are in `args`.
    suite = ctx.params.get("suite") or ctx.params.get("case") or next(iter(ctx.args), None)
    if suite and ctx.command.name in ("run", "plan", "fingerprint"):
        found |= set(_listed(Path(suite)))
    return [CompletionItem(name) for name in sorted(found) if name.startswith(incomplete)]


def runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Finished runs, the newest first."""
    root = ctx.params.get("runs_dir") or Path(os.environ.get("FPBENCH_RUNS", "runs"))
    found = sorted(root.glob("*/*/results.json"), key=lambda f: f.parent.name, reverse=True)
    names = [str(file.parent) for file in found]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _listed(suite: Path) -> list[str]:
    from ..api.errors import SuiteError
    from ..engine.source import Source, method_names

    try:
        return method_names(Source.read(suite))
    except SuiteError:
        return []


def _inside(folder: Path) -> list[Path]:
    try:
        return [*folder.iterdir()]
    except OSError:
        return []


COMMANDS = (completion,)
