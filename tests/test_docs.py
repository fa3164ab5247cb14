"""What the documents say is so: their commands run, their examples work, nothing is left out."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

import fpbench
import fpbench.testing
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


def test_every_public_name_has_an_entry_in_the_plugins_page() -> None:
    text = (ROOT / "docs/plugins.md").read_text()
    section = text.partition("## Public names\n")[2]
    entries = [row.split("|")[1] for row in section.splitlines() if row.startswith("| `")]
    entries += [line for line in section.splitlines() if line.startswith("From Python")]
    named = re.findall(r"`(\w+)`", " ".join(entries))
    assert sorted(named) == sorted([*fpbench.__all__, *fpbench.testing.__all__])


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


def test_every_page_is_in_the_sites_navigation() -> None:
    site = YAML(typ="safe").load((ROOT / "mkdocs.yml").read_text())
    listed = set(re.findall(r"[\w-]+\.md", str(site["nav"])))
    assert listed == {path.name for path in ROOT.glob("docs/*.md")}


def generator() -> Any:
    """Return docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec
    assert spec.loader
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    return generate


def test_the_default_of_each_method_is_the_choice_of_the_rule() -> None:
    settings = generator().settings
    for method, tried in settings.by_method(settings.kept()).items():
        assert settings.choose(tried).is_default, (method, tried)


def test_generated_documents_are_what_methods_and_results_say() -> None:
    generate = generator()
    files = {"methods": "docs/methods.md", "reproduction": "docs/reproduction.md",
             "readme": "README.md"}  # fmt: skip
    for name, file in files.items():
        written = (ROOT / file).read_text()
        assert getattr(generate, name)() == written, "run: uv run python docs/generate.py"
