"""The house: who may stand on whom, how large a room may be, what never comes in."""

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
MAX_LINES = 250


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path): path for path in OURS}


def type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def nodes(tree: ast.AST, *, lazy: bool):
    """Every node that runs: not those for type checkers, and with `lazy` those in functions too."""
    for child in ast.iter_child_nodes(tree):
        if type_checking(child):
            continue
        if not lazy and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield child
        yield from nodes(child, lazy=lazy)


def imports(path: Path, *, lazy: bool = True) -> set[str]:
    """The full names of all modules a file imports; ours down to the very module."""
    package = module(path) if path.stem == "__init__" else module(path).rpartition(".")[0]
    found: set[str] = set()
    for node in nodes(ast.parse(path.read_text()), lazy=lazy):
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


def inside(area: str) -> list[Path]:
    return [path for path in OURS if name(path).startswith(f"fpbench/{area}")]


def reaches(path: Path, *areas: str) -> set[str]:
    return {
        found
        for found in imports(path)
        if any(found == area or found.startswith(f"{area}.") for area in areas)
    }


@pytest.mark.parametrize("path", inside("api/"), ids=name)
def test_the_api_stands_on_the_ground(path):
    ours = {found for found in imports(path) if found.split(".")[0] == "fpbench"}
    assert all(found.startswith("fpbench.api") for found in ours), ours


@pytest.mark.parametrize("path", inside("engine/"), ids=name)
def test_the_engine_knows_no_plugin_and_no_screen(path):
    forbidden = ("fpbench.builtin", "fpbench.cli", "fpbench.testing", "rich", "click", "mlflow")
    assert not reaches(path, *forbidden)


@pytest.mark.parametrize("path", inside("builtin/"), ids=name)
def test_builtin_plugins_know_no_engine(path):
    assert not reaches(path, "fpbench.engine", "fpbench.cli")


@pytest.mark.parametrize("path", [*inside("training/"), ROOT / "fpbench/metrics.py"], ids=name)
def test_training_and_metrics_stand_on_the_api_alone(path):
    ours = {found for found in imports(path) if found.split(".")[0] == "fpbench"}
    assert all(found.startswith(("fpbench.api", "fpbench.training")) for found in ours), ours


@pytest.mark.parametrize("path", PLUGINS, ids=name)
def test_a_plugin_imports_fpbench_itself_and_nothing_behind_it(path):
    ours = {found for found in imports(path) if found.split(".")[0].startswith("fpbench")}
    assert ours == {"fpbench"}


def test_imports_run_in_no_circle():
    graph = {
        this: {found for found in imports(path, lazy=False) if found in MODULES} - {this}
        for this, path in MODULES.items()
    }
    while leaves := [this for this, needs in graph.items() if not needs & graph.keys()]:
        for leaf in leaves:
            del graph[leaf]
    assert not graph, f"these import each other: {sorted(graph)}"


@pytest.mark.parametrize("path", [*OURS, *PLUGINS], ids=name)
def test_no_room_is_too_large(path):
    assert len(path.read_text().splitlines()) <= MAX_LINES


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
    return {ast.unparse(node.func) for node in calls if not takes_weights_only(node)}


def takes_weights_only(call: ast.Call) -> bool:
    return ast.unparse(call.func) == "torch.load" and any(
        keyword.arg == "weights_only"
        and isinstance(keyword.value, ast.Constant)
        and keyword.value.value is True
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
    if name(path) != "fpbench/builtin/scenarios/iwpc.py":
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
