"""What the documents say is so: their commands run, their examples work, nothing is left out."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import fpbench
from fpbench.api import hooks
from fpbench.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def block(path: str, language: str) -> str:
    """The first block of code in a document."""
    found = re.search(rf"```{language}\n(.*?)```", (ROOT / path).read_text(), re.DOTALL)
    assert found, f"no {language} block in {path}"
    return found.group(1)


def test_readme_sets_up_with_two_commands_that_ci_runs_too() -> None:
    assert "uv run fpbench run suites/quickstart.yaml\n" in README
    assert "uv run pytest\n" in README
    assert "\nuv run pytest\n" in (ROOT / ".ci/run").read_text()


def test_every_hook_is_documented_with_its_arguments() -> None:
    text = (ROOT / "docs/hooks.md").read_text()
    for name, spec in vars(hooks).items():
        if name.startswith("fpbench_"):
            arguments = ", ".join(inspect.signature(spec).parameters)
            assert f"### `{name}({arguments})`" in text


def test_every_public_name_has_a_docstring() -> None:
    for name in fpbench.__all__:
        value = getattr(fpbench, name)
        # A type alias has no docstring of its own at run time.
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{name} has no docstring"


def test_the_example_plugin_keeps_the_contract(tmp_path: Path) -> None:
    plugin = tmp_path / "noise.py"
    plugin.write_text(block("docs/plugins.md", "python"))
    result = CliRunner().invoke(main, ["check", "noise", "-p", str(plugin)])
    assert result.exit_code == 0, result.output


def test_the_example_suite_plans(tmp_path: Path) -> None:
    suite = tmp_path / "small.yaml"
    suite.write_text(block("docs/suites.md", "yaml"))
    result = CliRunner().invoke(main, ["plan", str(suite), "--json"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/*.md")),
                         ids=lambda p: p.name)  # fmt: skip
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if "://" not in link:
            assert (path.parent / link).exists(), f"{path.name} links to {link}"


def test_every_command_and_option_in_the_readme_exists() -> None:
    for line in re.findall(r"^(?:uv run )?fpbench (\w+)", README, re.MULTILINE):
        assert line in main.commands


def test_generated_documents_are_what_methods_and_results_say() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec
    assert spec.loader
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for name in ("methods", "reproduction"):
        written = (ROOT / f"docs/{name}.md").read_text()
        assert getattr(generate, name)() == written, "run: uv run python docs/generate.py"
