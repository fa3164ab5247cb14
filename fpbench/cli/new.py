"""`fpbench new`: write a new plugin that works at once, with a test that passes."""

from __future__ import annotations

import keyword
import re
from importlib import resources
from importlib.metadata import entry_points
from pathlib import Path
from string import Template

import click

from .. import __all__
from . import answers

_INTO = click.option(
    "--into", type=click.Path(path_type=Path, file_okay=False), default=".", show_default="here",
    help="Where to make the plugin's folder.",
)  # fmt: skip


@click.group()
def new() -> None:
    """Write the files of a new plugin: a method, a recipe or a scenario that works at once."""


def _command(what: str, summary: str) -> None:
    @new.command(what, help=summary)
    @click.argument("name")
    @_INTO
    def write(name: str, into: Path) -> None:
        folder = _write_plugin(what, name, into)
        module = folder / f"fpbench_{name}.py"
        commands = (
            f"fpbench check {name} -p {module}\n"
            f"  fpbench run suites/quickstart.yaml --only {name} -p {module}"
            if what == "method"
            else f"fpbench run {folder / name}.yaml -p {module}"
        )
        click.echo(
            f"{folder} has a {what} that works; change it in {module.name}\n"
            f"  {commands}\n"
            f"after an installation no -p is needed\n"
            f"  uv pip install -e {folder}      # or: pip install -e {folder}\n"
            f"  pytest {folder}"
        )


_command("method", "Write a fingerprinting method, with tests.")
_command("recipe", "Write a recipe, a way to obfuscate a model, and a suite that tries it.")
_command("scenario", "Write a scenario, data and architectures, and a suite on it.")


def _write_plugin(what: str, name: str, into: Path) -> Path:
    """Write a new plugin and return its folder. Raises InputError for a bad or used name."""
    from ..api.errors import InputError

    where = f"new {what} {name}"
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name) or keyword.iskeyword(name):
        raise InputError(
            "expected a name of lower-case letters, digits and _ that begins with a letter and is "
            f"not a keyword of Python, such as near_boundary; got {name!r}",
            where,
        )
    if name in _used_names():
        raise InputError(
            f"expected a new name, got {name}, which is installed; choose another", where
        )
    folder = into / name
    if folder.exists():
        raise InputError(
            f"expected no {folder}, found one; nothing was changed, choose another name", where
        )
    cls = "".join(part.capitalize() for part in name.split("_"))
    words = {
        "what": what,
        "name": name,
        "module": f"fpbench_{name}",
        "dist": f"fpbench-{name.replace('_', '-')}",
        # A class with the name of something that the module imports would hide it.
        "cls": f"{cls}{what.capitalize()}" if cls in __all__ else cls,
    }
    # Templates end in .txt, so that no tool reads them as Python or TOML.
    files = {"pyproject.toml.txt": "pyproject.toml", "module.py.txt": f"{words['module']}.py",
             "test.py.txt": f"test_{name}.py", "suite.yaml": f"{name}.yaml"}  # fmt: skip
    templates = resources.files("fpbench.cli") / "templates"
    folder.mkdir(parents=True)
    for template in (templates / "pyproject.toml.txt", *(templates / what).iterdir()):
        text = Template(template.read_text(encoding="utf-8")).substitute(words)
        (folder / files.get(template.name, template.name)).write_text(text, encoding="utf-8")
    return folder


def _used_names() -> set[str]:
    rows = answers.list_offers(())
    return {*entry_points(group="fpbench").names, *(row["name"] for row in rows)}


COMMANDS = (new,)
