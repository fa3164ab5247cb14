"""The wheels of fpbench and of every plugin, installed from a folder and without an index."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*words: object, cwd: Path) -> str:
    done = subprocess.run([*map(str, words)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def required(wheel: Path) -> set[str]:
    """Return the distributions of ours that a wheel requires."""
    with zipfile.ZipFile(wheel) as file:
        (name,) = (n for n in file.namelist() if n.endswith(".dist-info/METADATA"))
        text = file.read(name).decode()
    return set(re.findall(r"^Requires-Dist: (fpbench[\w-]*)", text, re.MULTILINE))


@pytest.mark.slow
def test_wheels_from_a_local_folder_run_quickstart(tmp_path: Path) -> None:
    wheels, env = tmp_path / "wheels", tmp_path / "env"
    run("uv", "build", "--all-packages", "--wheel", "--out-dir", wheels, ROOT, cwd=tmp_path)
    names = {w.name.split("-")[0].replace("_", "-") for w in wheels.glob("*.whl")}
    plugins = {folder.name for folder in (ROOT / "plugins").iterdir() if folder.is_dir()}
    assert names == {"fpbench-core", *(f"fpbench-{name}" for name in plugins)}
    for wheel in wheels.glob("*.whl"):
        # Nothing of ours may come from an index, where `fpbench` is another project.
        assert required(wheel) <= names
    run("uv", "venv", "--python", sys.executable, env, cwd=tmp_path)
    run("uv", "pip", "install", "--python", env, "--no-index", "--no-deps", "--find-links", wheels,
        *sorted(names), cwd=tmp_path)  # fmt: skip
    # Packages of others come from the environment of this test.
    (site,) = env.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    command = env / "bin" / "fpbench"
    code = "import fpbench; print(fpbench.__file__)"
    assert run(env / "bin" / "python", "-c", code, cwd=tmp_path).startswith(str(site))
    assert len(re.findall("^method ", run(command, "list", cwd=tmp_path), re.MULTILINE)) == 17
    out = run(command, "run", ROOT / "suites" / "quickstart.yaml", "--only", "random",
              "--only", "ibsf", "--no-tracking", cwd=tmp_path)  # fmt: skip
    assert "ibsf" in out
    assert "random" in out
