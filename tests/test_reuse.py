"""A kept result is reused only if it would be the same; models of other code cause a warning."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import fpbench
from conftest import TOYS, UNTRAINED, Desk, method_file
from fpbench import api
from fpbench.cli import main
from fpbench.engine import key
from fpbench.store.files import sealed, unsealed


def method(folder: Path, rate: object = 0.5, **parts: str) -> Path:
    """Write a plugin with a method that gives every suspect the same rate."""
    return method_file(folder / "mine.py", "fixed", rate=rate, **parts)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A suite of the method `fixed` alone, which trains nothing."""
    return Desk.of(tmp_path, UNTRAINED.replace("method: grid", "method: fixed"))


@pytest.fixture
def beside(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that modules are imported from, as from a clone."""
    folder = desk.folder / "clone"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.fixture(autouse=True)
def _compile_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile every module anew: Python does not notice an edit that leaves a file's size and
    second of change."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


def forget(*modules: str) -> None:
    """Have modules imported anew, as in a new process."""
    for module in modules:
        sys.modules.pop(module, None)


def found(data: dict[str, Any]) -> list[tuple[str, float, bool]]:
    """Every trial's method, the rate of all its suspects, and whether it was kept."""
    return [
        (trial["method"], *set(trial["matching_rates"].values()), trial["cached"])
        for trial in data["trials"]
    ]


# ── code ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("imports", "file"),
    [
        ("from near_helper import RATE", "near_helper.py"),
        ("from near_caller import RATE", "near_helper.py"),
        ("from near_package.inner import RATE", "near_package/deeper.py"),
    ],
    ids=["imported", "imported by what is imported", "relatively imported"],
)
def test_a_method_is_tried_anew_after_a_module_it_imports_was_edited(desk, beside, imports, file):
    calls = "def rate():\n    import near_helper\n    return near_helper.RATE\n\nRATE = rate()\n"
    (beside / "near_caller.py").write_text(calls)
    (beside / "near_package").mkdir()
    (beside / "near_package" / "__init__.py").write_text("")
    (beside / "near_package" / "inner.py").write_text("from .deeper import RATE\n")
    plugin = method(desk.folder, "RATE", imports=imports)
    rates = []
    for text in ("RATE = 0.25\n", "RATE = 0.75\n", "# as before\nRATE = 0.75\n"):
        (beside / file).write_text(text)
        forget("near_helper", "near_caller", *(m for m in [*sys.modules] if "near_package" in m))
        rates += found(desk.run(plugins=(plugin,)))
    assert rates == [("fixed", 0.25, False), ("fixed", 0.75, False), ("fixed", 0.75, True)]


def test_results_are_of_the_code_that_was_loaded_not_of_the_file_that_was_edited_since(
    desk, beside
):
    (beside / "near_helper.py").write_text("RATE = 0.25\n")
    plugin = method(desk.folder, "RATE", imports="from near_helper import RATE")
    assert found(desk.run(plugins=(plugin,))) == [("fixed", 0.25, False)]
    (beside / "near_helper.py").write_text("RATE = 0.75\n")
    assert found(desk.run(plugins=(plugin,))) == [("fixed", 0.25, True)]


EDITED_MEANWHILE = """
@fpbench.hookimpl
def fpbench_planned(plan):
    path = Path(__file__)
    path.write_text(path.read_text().replace("return 0.25", "return 0.75"))
"""


def test_an_edit_during_a_run_does_not_keep_old_results_as_those_of_the_new_code(desk):
    plugin = method(desk.folder, 0.25, more=EDITED_MEANWHILE)
    assert found(desk.run(plugins=(plugin,))) == [("fixed", 0.25, False)]
    assert found(desk.run(plugins=(plugin,))) == [("fixed", 0.75, False)]


def test_a_worker_that_loaded_other_code_than_the_run_fails_the_trial(desk):
    plugin = method(desk.folder, 0.25, more=EDITED_MEANWHILE)
    (trial,) = desk.run("--workers", 1, plugins=(plugin,), exit_code=1)["trials"]
    assert trial["error"].startswith("expected the code of fixed, and the files that its fields")
    assert found(desk.run(plugins=(plugin,))) == [("fixed", 0.75, False)]


def test_code_that_is_imported_late_and_was_edited_just_before_fails_the_trial(desk, beside):
    (beside / "late_helper.py").write_text("RATE = 0.25\n")
    write = f"Path({str(beside)!r}, 'late_helper.py').write_text('RATE = 0.75')"
    late = "__import__('late_helper').RATE"
    plugin = method(desk.folder, late, construct=f"{write}; import late_helper")
    (trial,) = desk.run(plugins=(plugin,), exit_code=1)["trials"]
    assert "run it again to use the new ones" in trial["error"]
    assert found(desk.run(plugins=(plugin,))) == [("fixed", 0.75, False)]


def test_comments_documents_and_layout_of_a_method_leave_its_results(desk):
    plugin = method(desk.folder, 0.25)
    desk.run(plugins=(plugin,))
    text = plugin.read_text().replace("'''Give every suspect the same rate.'''", '"""Rate."""')
    plugin.write_text("# A comment.\n" + text.replace("return 0.25", "return (\n   0.25)"))
    assert found(desk.run(plugins=(plugin,))) == [("fixed", 0.25, True)]


def test_a_comment_in_our_own_api_leaves_results_and_a_new_contract_does_not(desk, monkeypatch):
    plugin = method(desk.folder, 0.25)
    assert found(desk.run(plugins=(plugin,))) == [("fixed", 0.25, False)]
    copy = desk.folder / "copy" / "fpbench"
    shutil.copytree(Path(fpbench.__file__).parent, copy)
    for file in (copy / "api").glob("*.py"):
        file.write_text(file.read_text() + "\n# A comment.\n")
    words = desk.words("run", "--json", plugins=(plugin,))
    ended = subprocess.run(
        [sys.executable, "-c", "import fpbench, sys; print(fpbench.__file__, file=sys.stderr); "
         "from fpbench.cli import main; main()", *words],
        env={**os.environ, "PYTHONPATH": str(copy.parent)}, cwd=desk.folder,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert str(copy) in ended.stderr
    data = fpbench.read(json.loads(ended.stdout)["run"]).data
    assert found(data) == [("fixed", 0.25, True)]

    monkeypatch.setattr(api, "CONTRACT", api.CONTRACT + 1)
    assert found(desk.run(plugins=(plugin,))) == [("fixed", 0.25, False)]


def test_another_version_of_a_package_that_a_method_imports_has_it_tried_anew(desk, monkeypatch):
    desk.write(UNTRAINED.replace("method: grid", "method: fixed") + "  - {method: grid}\n")
    plugin = method(desk.folder, 0.25, imports="import scipy")
    desk.run(plugins=(plugin,))
    real = key.version
    monkeypatch.setattr(key, "version", lambda name: "99" if name == "scipy" else real(name))
    again = desk.run(plugins=(plugin,))["trials"]
    assert [(t["method"], t["cached"]) for t in again] == [("fixed", False), ("grid", True)]


# ── files that fields name ────────────────────────────────────────────────────────


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_method_is_tried_anew_after_a_file_that_a_field_names_was_exchanged(desk, what):
    place = desk.folder / "given"
    file = place / "rate.txt" if what == "folder" else place
    file.parent.mkdir(exist_ok=True)
    read = "float((self.file / 'rate.txt' if self.file.is_dir() else self.file).read_text())"
    plugin = method(desk.folder, read)
    wanted = ("-o", f"methods.fixed.file={place}")
    rates = []
    for rate in ("0.25", "0.75", "0.75"):
        file.write_text(rate)
        rates += found(desk.run(*wanted, plugins=(plugin,)))
    assert rates == [("fixed", 0.25, False), ("fixed", 0.75, False), ("fixed", 0.75, True)]


def test_a_field_that_is_a_path_is_described_as_one(desk):
    plugin = method(desk.folder)
    refused = desk("run", "-o", "methods.fixed.file=5", plugins=(plugin,))
    assert refused.exit_code == 2
    assert "file: expected a path, got 5" in refused.stderr
    said = CliRunner().invoke(main, ["describe", "fixed", "--json", "-p", str(plugin)])
    types = {field["name"]: field["type"] for field in json.loads(said.stdout)["fields"]}
    assert types["file"] == "a path or null"


# ── recipes and scenarios ─────────────────────────────────────────────────────────

MODELS = """\
import torch
from dataclasses import dataclass
import fpbench
from toys import Blobs, Drawn

@dataclass(frozen=True)
class Clouds(Blobs):
    name = "clouds"

    def load(self):
        return super().load()

@dataclass(frozen=True, kw_only=True)
class Plain(Drawn):
    name = "plain"

    def make(self, lab):
        return lab.new(self, self.model)

@fpbench.hookimpl
def fpbench_scenarios():
    return [Clouds]

@fpbench.hookimpl
def fpbench_recipes():
    return [Plain]
"""


def test_changed_code_under_an_old_version_causes_one_warning_per_class(tmp_path, caplog):
    suite = UNTRAINED.replace("blobs", "clouds").replace("recipe: drawn", "recipe: plain")
    desk = Desk.of(tmp_path, suite)
    plugin = tmp_path / "models.py"

    def warned(text: str) -> list[str]:
        plugin.write_text(text)
        caplog.clear()
        desk.run(plugins=(plugin,))
        return [line for line in caplog.messages if "made by other code" in line]

    assert warned(MODELS) == []
    assert warned(MODELS.replace("import torch\n", "# A comment.\nimport torch\n")) == []
    edited = MODELS.replace("lab.new(self, self.model)", "lab.new(self, self.model).eval()")
    sentence = (
        "{} models in the store were made by other code of version 1 than is loaded now, and are "
        "reused; raise its `version` to make them again"
    )
    assert warned(edited) == [
        f"recipe plain: {sentence.format(5)}", f"scenario clouds: {sentence.format(9)}"
    ]  # fmt: skip
    for name in ("plain", "clouds"):
        edited = edited.replace(f'name = "{name}"', f'name = "{name}"\n    version = 2')
    assert warned(edited) == []


def test_models_without_a_digest_of_their_code_are_reused_without_a_warning(desk, caplog):
    plugin = method(desk.folder)
    desk.run(plugins=(plugin,))
    for file in (desk.folder / "store" / "models").rglob("made.json"):
        made = unsealed(file.read_bytes())
        del made["code"]  # as fpbench 0.1.0 had it
        file.write_bytes(sealed(made))
    assert found(desk.run(plugins=(plugin,))) == [("fixed", 0.5, True)]
    assert "made by other code" not in caplog.text


# ── to try anew ───────────────────────────────────────────────────────────────────


@pytest.fixture
def twice(desk: Desk) -> tuple[Desk, Path]:
    """A suite of two methods that was run; `fixed` says what the environment says."""
    desk.write(UNTRAINED.replace("method: grid", "method: fixed") + "  - {method: grid}\n")
    return desk, method(desk.folder, "float(os.environ.get('FIXED_RATE', '0.25'))")


def cached(data: dict[str, Any]) -> dict[str, bool]:
    return {trial["method"]: trial["cached"] for trial in data["trials"]}


def test_fresh_tries_a_method_anew_and_its_results_replace_the_kept_ones(twice, monkeypatch):
    desk, plugin = twice
    desk.run(plugins=(plugin,))
    monkeypatch.setenv("FIXED_RATE", "0.75")
    assert found(desk.run(plugins=(plugin,)))[0] == ("fixed", 0.25, True)
    again = desk.run("--fresh", "fixed", plugins=(plugin,))
    assert found(again)[0] == ("fixed", 0.75, False)
    assert cached(again) == {"fixed": False, "grid": True}
    assert found(desk.run(plugins=(plugin,)))[0] == ("fixed", 0.75, True)


def test_a_fresh_trial_that_fails_leaves_the_kept_result(twice, monkeypatch):
    desk, plugin = twice
    desk.run(plugins=(plugin,))
    monkeypatch.setenv("FIXED_RATE", "2")
    desk.run("--fresh", "fixed", plugins=(plugin,), exit_code=1)
    assert found(desk.run(plugins=(plugin,)))[0] == ("fixed", 0.25, True)


def test_fresh_all_tries_every_method_anew_and_makes_no_model(twice, monkeypatch):
    desk, plugin = twice
    desk.run(plugins=(plugin,))
    log = desk.folder / "made.txt"
    monkeypatch.setenv("TOYS_MADE", str(log))
    assert cached(desk.run("--fresh-all", plugins=(plugin,))) == {"fixed": False, "grid": False}
    assert not log.exists()


def test_fresh_refuses_a_method_that_the_suite_does_not_have(twice):
    desk, plugin = twice
    refused = desk("run", "--fresh", "fixt", plugins=(plugin,))
    assert refused.exit_code == 2
    assert "--fresh fixt: no method 'fixt'; did you mean fixed?" in refused.stderr


def test_fresh_from_python(twice):
    desk, plugin = twice

    def run(**wanted: Any) -> dict[str, bool]:
        report = fpbench.run(
            desk.folder / "suite.yaml", store=desk.folder / "store", runs=desk.folder / "runs",
            plugins=[TOYS, plugin], tracking=False, quiet=True, **wanted,
        )  # fmt: skip
        return cached(report.data)

    assert run() == {"fixed": False, "grid": False}
    assert run(fresh=["grid"]) == {"fixed": True, "grid": False}
    assert run(fresh=True) == {"fixed": False, "grid": False}
    assert run(fresh=False) == {"fixed": True, "grid": True}
    with pytest.raises(fpbench.InputError, match="no method 'gird'; did you mean grid"):
        run(fresh=["gird"])
    with pytest.raises(TypeError, match="fresh: expected a list of words"):
        run(fresh="grid")
