"""The scripts in `benchmarks/` that compare fpbench with others, and that measure a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
DATA = Path(os.environ.get("FPBENCH_DATA", "no FPBENCH_DATA"))
needs_skin = pytest.mark.skipif(
    not (DATA / "ham10000-28/ham10000_28.npz").is_file(),
    reason="needs ham10000-28/ham10000_28.npz in $FPBENCH_DATA",
)

ZOO = """\
name: few
scenario: digits
api: probs
recipes: {train: {epochs: 3}}
target: {recipe: train, model: mlp}
zoo:
  positives:
    - {recipe: finetune, layers: all, epochs: 1, copies: 2}
  negatives:
    - {recipe: train, model: mlp, copies: 2}
methods:
  - {method: random}
"""

PEER = '''\
"""The names of QuRD that the script uses, with test images as the queries of every method."""

import torch


class Sampler:
    def sample(self, dataset, budget, source_model=None, source_transform=None):
        return torch.stack([dataset[i][0] for i in range(budget)])


class Representation:
    hard_labels = False

    def __call__(self, queries, model, transform):
        if not isinstance(queries, torch.Tensor):
            queries = torch.cat(queries)
        with torch.no_grad():
            return model(transform(queries)).argmax(1).double()


def make_fingerprint(name, batch_size, device, **given):
    return Sampler(), Representation(), lambda one, other: float((one != other).float().mean())
'''


def script(name: str, *words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script of `benchmarks/` to its end, with some variables of the environment."""
    command = [*map(str, (sys.executable, BENCHMARKS / name, *words))]
    environment = {**os.environ, **variables}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.fixture
def peer(tmp_path: Path) -> Path:
    """A checkout that offers what QuRD offers."""
    package = tmp_path / "checkout" / "qurd" / "fingerprint"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(PEER)
    return tmp_path / "checkout"


def assert_sentence(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Assert that a script ended with one sentence and exit code 2."""
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    for part in parts:
        assert part in line
    assert done.stdout == ""


def test_a_folder_that_is_no_checkout_is_said_in_a_sentence(tmp_path):
    done = script("peers.py", "--qurd", tmp_path)
    assert_sentence(done, f"--qurd {tmp_path}: expected a checkout of QuRD")


def test_a_package_that_qurd_lacks_is_said_in_a_sentence(peer):
    (peer / "qurd" / "fingerprint" / "__init__.py").write_text("import no_such_package")
    assert_sentence(script("peers.py", "--qurd", peer), "no_such_package", "uv run --with")


def test_both_sides_rate_the_same_suspects(peer, tmp_path):
    suite = tmp_path / "few.yaml"
    suite.write_text(ZOO)
    done = script("peers.py", "--qurd", peer, "--suite", suite, "--seeds", 2, "--zoo-seed", 3)
    assert done.stdout, done.stderr
    rows = [line.split("│")[1:-1] for line in done.stdout.splitlines() if line.startswith("│")]
    methods = ["random", "akh", "sac", "modeldiff", "zest", "ipguard"]
    assert [(row[0].strip(), row[1].strip()) for row in rows] == [
        ("3", method) for method in methods
    ]
    for row in rows:
        for cell in row[2:6]:
            assert 0 <= float(cell.split("±")[0]) <= 1
    # This peer compares labels in every method, so it agrees only with the methods that do too.
    gaps = [line.split() for line in done.stdout.splitlines() if line.startswith("  zoo")]
    agreeing = [gap[2].strip(",") for gap in gaps if "expected" not in gap]
    assert {"random", "akh", "ipguard"} <= set(agreeing)
    assert done.returncode == int(len(agreeing) < len(gaps))


# ── a GPU ──────────────────────────────────────────────────────────────────────────


def test_a_machine_without_a_gpu_is_said_in_a_sentence(tmp_path):
    done = script("gpu.py", "--out", tmp_path, CUDA_VISIBLE_DEVICES="")
    assert_sentence(done, "expected a GPU, torch finds none; give --tiny")


def test_packages_that_are_missing_are_named(tmp_path):
    # -S leaves out all that is installed.
    command = [sys.executable, "-S", BENCHMARKS / "gpu.py", "--out", tmp_path, "--tiny"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert_sentence(done, "expected the packages", "pydantic", "scipy", "give --packages PACKAGES")
    assert "mlflow" not in done.stderr


@pytest.mark.long
@needs_skin
def test_every_step_works_on_the_cpu_and_is_kept(tmp_path):
    """It takes two minutes on an idle machine. Neither MLflow nor what draws figures is there."""
    packages = tmp_path / "packages"
    packages.mkdir()
    absent = ("mlflow", "matplotlib", "plotly", "ray")
    (packages / "sitecustomize.py").write_text(
        f"import sys\nsys.modules.update(dict.fromkeys({absent}))\n"
    )
    out = tmp_path / "out"
    done = script("gpu.py", "--out", out, "--tiny", "--seconds", 1200, "--packages", packages)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads((out / "gpu.json").read_text())
    steps = {step["name"]: step for step in found["steps"]}
    assert [*steps] == ["tests", "training", "construction", "limit", "cohorts", "metav", "skin-32"]
    for name in ("tests", "training", "limit", "cohorts", "metav"):
        assert steps[name]["status"] == "finished", steps[name]
    assert any("passed" in str(row) for row in steps["tests"]["rows"])
    *architectures, zoo = steps["cohorts"]["rows"]
    assert zoo["models"] == 141
    assert zoo["hours_of_zoo"] == pytest.approx(sum(row["hours_of_zoo"] for row in architectures))
    assert {row["architecture"] for row in architectures} == {
        "alexnet", "densenet161", "resnet18", "squeezenet", "vgg16",
    }  # fmt: skip
    assert steps["metav"]["rows"][-1]["construct_seconds"] > 0
    made = [*(out / "store").rglob("made.json")]
    assert steps["skin-32"]["rows"][-1]["models_in_store"] == len(made)


@pytest.mark.slow
def test_steps_that_the_time_cuts_off_are_recorded_with_their_rows(tmp_path):
    done = script("gpu.py", "--out", tmp_path, "--tiny", "--seconds", 30)
    assert done.returncode == 0, done.stderr
    steps = json.loads(done.stdout)["steps"]
    assert {step["status"] for step in steps} <= {"finished", "cut off", "not begun"}
    assert steps[-1]["status"] == "not begun"
    assert "were over" in steps[-1]["reason"]


@pytest.mark.slow
def test_verdicts_on_innocents_and_copies_are_counted(tmp_path):
    done = script("verdicts.py", "--case", "digits", "--innocents", 1, "--copies", 1, "--epochs", 3,
                  "--methods", "akh", "zest", "--json", tmp_path / "out.json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "76 independent models of 38 makings" in done.stdout
    (case,) = json.loads((tmp_path / "out.json").read_text())
    assert {row["method"] for row in case["rows"]} == {"akh", "zest"}
    for row in case["rows"]:
        assert (row["innocents"], row["copies"]) == (15, 8)
        assert row["accused"] <= 2
        assert row["found"] == sum(list(row["shares"].values())[15:])
