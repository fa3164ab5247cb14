"""Every command that the documents show is one that the command line takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from fpbench.cli import main

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("plugins/*/README.md")])
CHEAP = {"list", "describe", "completion"}


def commands(document: Path) -> list[list[str]]:
    """The words after `fpbench` of every line of a console block that runs it."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", document.read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            ours = re.match(r"(?:\$ )?(?:uv run (?:--\S+ \w+ )*)?fpbench\b(?! \w+ =)(.*)", line)
            if ours:
                found.append(shlex.split(ours.group(1), comments=True))
    return found


SHOWN = [(document, words) for document in DOCUMENTS for words in commands(document)]


def parse(words: list[str]) -> None:
    """What click does before it runs anything. Raises click.UsageError."""
    group: click.Command = main
    context, name, left = None, "fpbench", words
    while isinstance(group, click.Group):
        context = click.Context(group, info_name=name, parent=context)
        left = group.parse_args(context, left)
        name, command, left = group.resolve_command(context, [*context._protected_args, *left])
        assert command is not None
        group = command
    group.make_context(name, left, parent=context)


@pytest.mark.parametrize(
    ("document", "words"), SHOWN, ids=[f"{d.stem}: {' '.join(w)}" for d, w in SHOWN]
)
def test_a_command_in_a_document_is_understood(document: Path, words: list[str]) -> None:
    if words:
        parse(words)


def test_a_command_that_is_not_there_would_be_found() -> None:
    for words in (["rum", "x.yaml"], ["run", "x.yaml", "--onyl", "metav"], ["new", "metod", "x"]):
        with pytest.raises(click.UsageError):
            parse(words)


@pytest.mark.parametrize(
    "words",
    [w for w in {tuple(w) for _, w in SHOWN if w and w[0] in CHEAP} if "-p" not in w],
    ids=" ".join,
)
def test_a_cheap_command_in_a_document_works(words: tuple[str, ...]) -> None:
    if "NAME" not in words:
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, result.output
