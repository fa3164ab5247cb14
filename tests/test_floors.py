"""The house: which rooms may import which, and what never comes in."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import HERE

ROOT = HERE.parent
OURS = sorted((ROOT / "fpbench").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").rglob("fpbench_*.py"))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path): path for path in OURS}


def type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def nodes(tree: ast.AST):
    """Yield every node that runs, so not those for type checkers."""
    for child in ast.iter_child_nodes(tree):
        if not type_checking(child):
            yield child
            yield from nodes(child)


def imports(path: Path) -> set[str]:
    """Return the full names of all modules that a file imports."""
    package = module(path) if path.stem == "__init__" else module(path).rpartition(".")[0]
    found: set[str] = set()
    for node in nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) + 1 - node.level]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                found.add(whole if whole in MODULES else base)
    return found


def reaches(path: Path, *areas: str) -> set[str]:
    return {
        found
        for found in imports(path)
        if any(found == area or found.startswith(f"{area}.") for area in areas)
    }


def test_rooms_stand_on_those_below():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", PLUGINS, ids=name)
def test_a_plugin_imports_fpbench_itself_and_nothing_behind_it(path):
    ours = {found for found in imports(path) if found.split(".")[0].startswith("fpbench")}
    assert ours == {"fpbench"}


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["--version"]], ids=" ".join)
def test_help_waits_for_nothing_heavy(words):
    code = (
        "import sys; from click.testing import CliRunner; from fpbench.cli import main;"
        f"assert CliRunner().invoke(main, {words}).exit_code == 0;"
        "print(*sorted(m for m in sys.modules if '.' not in m))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(out.stdout.split())
    assert "click" in loaded
    assert not loaded & {"torch", "mlflow", "rich", "numpy", "pandas", "pydantic", "matplotlib"}


def called(path: Path) -> set[str]:
    """What a file calls, as it is written: `eval`, `torch.load`, `YAML`.

    A `torch.load` that takes weights only is no call of that name.
    """
    tree = ast.parse(path.read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {ast.unparse(node.func) for node in calls if not safe(node)}


def safe(call: ast.Call) -> bool:
    """Whether a call is told to unpickle nothing."""
    return takes_weights_only(call) or unpickles_no_arrays(call)


def takes_weights_only(call: ast.Call) -> bool:
    return ast.unparse(call.func) == "torch.load" and any(
        keyword.arg == "weights_only"
        and isinstance(keyword.value, ast.Constant)
        and keyword.value.value is True
        for keyword in call.keywords
    )


def unpickles_no_arrays(call: ast.Call) -> bool:
    return ast.unparse(call.func) == "np.load" and any(
        keyword.arg == "allow_pickle"
        and isinstance(keyword.value, ast.Constant)
        and keyword.value.value is False
        for keyword in call.keywords
    )


FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "os.system",
    "torch.load", "torch.save", "torch.jit.load", "torch.export.load", "torch.hub.load",
    "torch.package.PackageImporter", "onnx.load", "onnx.external_data_helper.load_external_data",
    "joblib.load", "pickle.load", "pickle.loads", "runpy.run_path", "numpy.load",
    "np.load", "yaml.load", "yaml.unsafe_load", "marshal.loads",
}  # fmt: skip


@pytest.mark.parametrize("path", [*OURS, *PLUGINS], ids=name)
def test_nothing_can_run_what_it_reads(path):
    calls = called(path)
    assert not calls & FORBIDDEN
    assert not reaches(path, "pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal")
    # These two read files whose bytes are known.
    if path.stem not in ("iwpc", "reviews"):
        assert not any(call.endswith("read_pickle") for call in calls)


def test_yaml_is_read_without_constructing_objects():
    kinds = [
        keyword.value.value
        for path in OURS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("YAML")
        for keyword in node.keywords
        if keyword.arg == "typ"
    ]
    assert kinds
    assert set(kinds) <= {"rt", "safe"}
