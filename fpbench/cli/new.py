"""`fpbench new`: a plugin of one's own, whole from the start, with a test that passes."""

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
    help="The folder that the plugin's own folder goes into.",
)  # fmt: skip


@click.group()
def new() -> None:
    """Write the files of a new plugin: a method, a recipe or a scenario that works at once."""


def _command(what: str, summary: str) -> None:
    @new.command(what, help=summary)
    @click.argument("name")
    @_INTO
    def write(name: str, into: Path) -> None:
        folder = _written(what, name, into)
        module = folder / f"fpbench_{name}.py"
        tried = (
            f"fpbench check {name} -p {module}\n"
            f"  fpbench run suites/quickstart.yaml --only {name} -p {module}"
            if what == "method"
            else f"fpbench run {folder / name}.yaml -p {module}"
        )
        click.echo(
            f"{folder} has a {what} that works; make it yours in {module.name}\n"
            f"  {tried}\n"
            f"installed, it needs no -p\n"
            f"  uv pip install -e {folder}      # or: pip install -e {folder}\n"
            f"  pytest {folder}"
        )


_command("method", "Write a fingerprinting method, with tests.")
_command("recipe", "Write a recipe, a way to obfuscate a model, and a suite that tries it.")
_command("scenario", "Write a scenario, data and architectures, and a suite on it.")


def _written(what: str, name: str, into: Path) -> Path:
    """The new plugin's folder. Raises InputError for a name that cannot be, or is taken."""
    from ..api.errors import InputError

    where = f"new {what} {name}"
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name) or keyword.iskeyword(name):
        raise InputError(
            "expected a name of small letters, digits and _ that begins with a letter and is no "
            "word of Python, such as near_boundary",
            where,
        )
    if name in _taken():
        raise InputError(f"expected a new name, {name} is installed; choose another", where)
    folder = into / name
    if folder.exists():
        raise InputError(f"expected no {folder}, it is there; nothing was changed", where)
    cls = "".join(part.capitalize() for part in name.split("_"))
    words = {
        "what": what,
        "name": name,
        "module": f"fpbench_{name}",
        "dist": f"fpbench-{name.replace('_', '-')}",
        # A class of a name that the module imports would hide what it imports.
        "cls": f"{cls}{what.capitalize()}" if cls in __all__ else cls,
    }
    # No name that a tool would take for its own: templates are neither Python nor TOML yet.
    files = {"pyproject.toml.txt": "pyproject.toml", "module.py.txt": f"{words['module']}.py",
             "test.py.txt": f"test_{name}.py", "suite.yaml": f"{name}.yaml"}  # fmt: skip
    templates = resources.files("fpbench.cli") / "templates"
    folder.mkdir(parents=True)
    for template in (templates / "pyproject.toml.txt", *(templates / what).iterdir()):
        text = Template(template.read_text(encoding="utf-8")).substitute(words)
        (folder / files.get(template.name, template.name)).write_text(text, encoding="utf-8")
    return folder


def _taken() -> set[str]:
    return {*entry_points(group="fpbench").names, *(row["name"] for row in answers.listed(()))}


COMMANDS = (new,)
