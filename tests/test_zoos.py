"""Suites with several zoos, and zoos with twins: suspects that have the same weights."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from stores import prune, told

from conftest import TINY, UNTRAINED, Desk, rates
from fpbench.api.results import RunRecord
from fpbench.cli import main
from fpbench.reporting.mlflow_entries import make_entries

PLUGIN = """\
from dataclasses import dataclass

import torch
from torch import nn

import fpbench
from fpbench.testing import ToyClassification


@dataclass(frozen=True)
class OneLayer(ToyClassification):
    '''The toy classification, for a network in which one layer is all layers.'''

    name = "one-layer"
    architectures = {"linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 5))}


@dataclass(frozen=True, kw_only=True)
class Brittle(fpbench.Recipe):
    '''A network as it was initialised; none in zoo 1.'''

    name = "brittle"
    needs_parent = False
    model: str = "slim"

    def make(self, lab):
        if self.seed == 1000:
            raise RuntimeError("no luck today")
        return lab.new(self, self.model)


@dataclass(frozen=True, kw_only=True)
class Fixed(fpbench.Recipe):
    '''A network with given weights, as another recipe may make it too.'''

    name = "fixed"
    needs_parent = False
    model: str = "slim"
    weight: float = 0.5

    def make(self, lab):
        model = lab.new(self, self.model)
        for p in model.parameters():
            nn.init.constant_(p, self.weight)
        return model


@dataclass(frozen=True, kw_only=True)
class Replaced(fpbench.Recipe):
    '''The parent with given weights.'''

    name = "replaced"
    weight: float = 0.5

    def make(self, lab):
        model = lab.parent(self)
        for p in model.parameters():
            nn.init.constant_(p, self.weight)
        return model


@fpbench.hookimpl
def fpbench_scenarios():
    return [OneLayer]


@fpbench.hookimpl
def fpbench_recipes():
    return [Brittle, Fixed, Replaced]
"""

TWINS = """\
name: twins
scenario: one-layer
api: probs
repeats: 2
target: {recipe: train, model: linear, epochs: 1}
zoo:
  positives:
    - {recipe: prune_weights, each: {scope: [layer, global], ratio: {range: [0.1, 0.4, 0.1]}}}
    - {recipe: finetune, layers: all, epochs: 1, copies: 2}
  negatives:
    - {recipe: train, model: linear, pool: public, epochs: 1, copies: 4}
methods:
  - {method: grid}
  - {method: metav, n_queries: 5, steps: 2}
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("plugin") / "zoo_toys.py"
    path.write_text(PLUGIN)
    return path


# ── several zoos ──────────────────────────────────────────────────────────────────

TWO = ("-o", "zoo.seeds=[1, 0]")


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Desk:
    return Desk.of(tmp_path_factory.mktemp("zoos"), TINY)


@pytest.fixture(scope="module")
def two(desk) -> dict[str, Any]:
    """The results of the tiny suite on zoos 1 and 0."""
    return desk.run(*TWO)


def of_zoo(results: dict[str, Any], zoo: int) -> tuple[list[Any], list[Any]]:
    """Return the models and the rates of one zoo."""
    models = [(m["digest"], m["weights_sha256"]) for m in results["models"] if m["zoo"] == zoo]
    return models, [t["matching_rates"] for t in results["trials"] if t["zoo"] == zoo]


@pytest.mark.parametrize("zoo", [0, 1])
def test_each_zoo_equals_the_zoo_that_its_seed_gives(desk, two, zoo):
    alone = desk.run("-o", f"zoo.seed={zoo}", "--store", desk.folder / f"store{zoo}")
    assert of_zoo(two, zoo) == of_zoo(alone, zoo)
    assert not any(trial["cached"] for trial in alone["trials"])


def test_the_store_serves_one_zoo_and_several(desk, two):
    one = desk.run("-o", "zoo.seed=1")
    assert all(trial["cached"] for trial in one["trials"])
    assert rates(one) == of_zoo(two, 1)[1]


def test_results_say_which_zoo_models_and_trials_belong_to(desk, two):
    targets = [m for m in two["models"] if m["kind"] == "target"]
    assert [m["digest"] for m in targets] == two["targets"]
    assert [m["zoo"] for m in targets] == [1, 0]
    assert [m["zoo"] for m in two["models"]] == 17 * [1] + 17 * [0]
    found = [(t["method"], t["zoo"], t["repeat"]) for t in two["trials"]]
    methods = ("grid", "random", "metav")
    assert found == [(m, zoo, repeat) for m in methods for zoo in (1, 0) for repeat in (0, 1)]
    zoo_of = {m["digest"]: m["zoo"] for m in two["models"]}
    for trial in two["trials"]:
        assert {zoo_of[digest] for digest in trial["matching_rates"]} == {trial["zoo"]}


def test_suspects_csv_names_the_zoo(desk, two):
    with (desk.run_folder(two) / "suspects.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    zoo_of = {m["digest"]: str(m["zoo"]) for m in two["models"]}
    assert len(rows) == 3 * 2 * 2 * 8
    assert all(row["zoo"] == zoo_of[row["digest"]] for row in rows)


def test_a_plan_of_several_zoos_counts_them_and_describes_one(desk, tmp_path):
    empty = ("--store", tmp_path / "store")
    text = desk("plan", *TWO, *empty).stdout
    assert "2 zoos x (1 + 8 + 8) models · 0 in the store · 34 to build" in text
    plan = json.loads(desk("plan", *TWO, *empty, "--json").stdout)
    assert plan["zoos"] == [1, 0]
    assert plan["trials"] == {"grid": 4, "random": 4, "metav": 4}
    assert sum(plan["missing"].values()) == 34
    one = json.loads(desk("plan", *empty, "--json").stdout)
    for key in ("positives", "negatives", "judged", "ensemble", "repeats"):
        assert plan[key] == one[key]
    assert plan["bytes"] == 2 * one["bytes"]


def test_a_run_of_one_zoo_prints_no_zoo(desk, two):
    text = desk("run").stdout
    assert "17 models · 17 in the store" in text
    assert "zoo 0" not in text


def test_prune_keeps_all_zoos_of_a_suite(desk, two):
    text = (desk.folder / "suite.yaml").read_text()
    (desk.folder / "suite.yaml").write_text(text.replace("zoo:\n", "zoo:\n  seeds: [1, 0]\n"))
    try:
        assert prune(desk, "--dry-run")["found"] == 0
    finally:
        (desk.folder / "suite.yaml").write_text(text)


def test_mlflow_gets_a_run_for_each_repeat_of_each_zoo(desk, two):
    entries = make_entries(RunRecord.of(two, "here"), desk.run_folder(two))
    assert len({entry.key for entry in entries}) == len(entries) == 1 + 3 + 12
    assert entries[0].params["zoos"] == "1, 0"
    names = [entry.name for entry in entries if entry.kind == "repeat"]
    assert names[:4] == ["grid zoo 1 #0", "grid zoo 1 #1", "grid zoo 0 #0", "grid zoo 0 #1"]


def test_other_zoos_are_reported_if_the_target_of_one_cannot_be_made(tmp_path, plugin):
    desk = Desk.of(tmp_path, UNTRAINED.replace("{recipe: drawn, model: wide}", "{recipe: brittle}"))
    found = desk.run("-o", "zoo.seeds=[1, 2]", plugins=(plugin,), exit_code=1)
    assert [trial["zoo"] for trial in found["trials"]] == [2]
    assert found["methods"][0]["summary"]["repeats"] == 1
    assert found["failures"].keys() == {
        m["digest"] for m in found["models"] if m["zoo"] == 1 and m["positive"]
    }
    done = CliRunner().invoke(main, ["report", str(desk.run_folder(found))])
    assert done.exit_code == 0, done.output


def test_a_fingerprint_is_of_one_zoo(tmp_path):
    desk = Desk.of(tmp_path, UNTRAINED)
    result = desk("fingerprint", *TWO, "--out", tmp_path / "out.fp")
    assert result.exit_code == 2
    assert "-o zoo.seeds=[1, 0]: expected one zoo, got 2; choose one by -o zoo.seed=SEED" in (
        result.stderr
    )


# ── twins ─────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def paired(tmp_path_factory, plugin) -> tuple[Desk, dict[str, Any]]:
    """A desk with pruned twins in its zoo, and the results of the run."""
    desk = Desk.of(tmp_path_factory.mktemp("twins"), TWINS)
    return desk, desk.run(plugins=(plugin,))


def named(results: dict[str, Any]) -> dict[str, str]:
    """Return the names of twins, without the target's: of those left out, and of those kept."""
    names = {m["digest"]: m["name"].split(" > ")[-1] for m in results["models"]}
    return {names[twin]: names[kept] for twin, kept in results["twins"].items()}


def test_of_pruned_twins_the_first_stays(paired):
    _, results = paired
    assert named(results) == {
        f"prune_weights(ratio={r},scope=global)#0": f"prune_weights(ratio={r})#0"
        for r in (0.1, 0.2, 0.3, 0.4)
    }
    for trial in results["trials"]:
        used = {*trial["matching_rates"], *trial["calibration_rates"], *trial["ensemble"]}
        assert not used & results["twins"].keys()
        assert used >= set(results["twins"].values())


def test_suspects_csv_leaves_twins_out(paired):
    desk, results = paired
    text = (desk.run_folder(results) / "suspects.csv").read_text()
    assert not any(twin in text for twin in results["twins"])


def test_twins_are_named_in_the_log_below_the_table_and_on_the_page(paired, plugin, caplog):
    desk, results = paired
    result = desk("run", plugins=(plugin,))
    assert "have the same weights as others are left out (4)" in caplog.text
    note = "prune_weights(ratio=0.1,scope=global)#0 is left out, because it has the same weights as"
    assert note in " ".join(result.stdout.split())
    folder = desk.run_folder(results)
    assert CliRunner().invoke(main, ["report", str(folder)]).exit_code == 0
    assert note in (folder / "report.html").read_text()


def test_a_second_run_and_prune_know_trials_without_twins(paired, plugin):
    desk, _ = paired
    again = desk.run(plugins=(plugin,))
    assert all(trial["cached"] for trial in again["trials"])
    assert prune(desk, "--dry-run", "-p", plugin)["found"] == 0


def test_the_order_of_the_suite_and_not_of_work_says_which_twin_stays(paired, plugin, tmp_path):
    _, results = paired
    desk = Desk.of(tmp_path, TWINS)
    desk.run("-o", "zoo.positives.prune_weights.each.scope=[global]", plugins=(plugin,))
    later = desk.run(plugins=(plugin,))
    assert (later["twins"], rates(later)) == (results["twins"], rates(results))
    turned = desk.run(
        "-o", "zoo.positives.prune_weights.each.scope=[global, layer]", plugins=(plugin,)
    )
    assert named(turned) == {kept: twin for twin, kept in named(results).items()}


ZOO = """\
name: given
scenario: blobs
api: label
repeats: 1
target: {recipe: fixed}
zoo:
  positives:
    - {recipe: nudged, copies: 4}
  negatives:
    - {recipe: drawn, copies: 4}
methods:
  - {method: grid}
"""


def test_a_positive_with_the_targets_weights_is_a_verbatim_copy(tmp_path, plugin):
    entry = "nudged, each: {by: [0.1, 0]}, copies: 2"
    desk = Desk.of(tmp_path, ZOO.replace("nudged, copies: 4", entry))
    results = desk.run(plugins=(plugin,))
    assert named(results) == {"nudged(by=0.0)#2": "nudged(by=0.0)#1"}
    text = " ".join(desk("run", plugins=(plugin,)).stdout.split())
    assert "nudged(by=0.0)#1 is a verbatim copy of the target" in text
    assert "nudged(by=0.0)#2 is a verbatim copy" not in text


@pytest.mark.parametrize(
    ("negative", "found"),
    [("0.5", "fixed#0 and fixed#1"), ("0.25", "replaced(weight=0.25)#0 and fixed(weight=0.25)#1")],
    ids=["of the target", "of a positive"],
)
def test_a_negative_with_the_weights_of_the_other_side_is_refused(
    tmp_path, plugin, negative, found
):
    text = ZOO.replace("  negatives:", "    - {recipe: replaced, weight: 0.25}\n  negatives:")
    entry = f"    - {{recipe: fixed, weight: {negative}, copies: 1}}\n"
    desk = Desk.of(tmp_path, text.replace("methods:", f"{entry}methods:"))
    path = desk.folder / "suite.yaml"
    result = desk("run", plugins=(plugin,))
    assert result.exit_code == 2
    assert f"error: {path}:12:7: expected other weights from negatives" in result.stderr
    assert found in result.stderr.replace("fixed#0 > ", "")


def test_a_side_that_twins_leave_empty_is_told(tmp_path, plugin):
    desk = Desk.of(tmp_path, ZOO.replace("nudged, copies: 4", "nudged, by: 0, copies: 2"))
    results = desk.run(plugins=(plugin,), exit_code=1)
    (trial,) = results["trials"]
    assert trial["error"].startswith("expected at least one positive suspect in each half")


def test_a_fingerprint_is_made_without_twins(tmp_path, plugin, caplog):
    out = tmp_path / "out.fp"
    words = ("--method", "grid", "--out", out, "--false-positive-rate", 0.4)
    one = Desk.of(tmp_path, TWINS)("fingerprint", *words, plugins=(plugin,))
    assert one.exit_code == 2
    assert "expected independent models of two makings or more, got 1" in one.output
    longer = "    - {recipe: train, model: linear, epochs: 2, copies: 2}\nmethods:"
    desk = Desk.of(tmp_path, TWINS.replace("methods:", longer))
    result = desk("fingerprint", *words, plugins=(plugin,))
    assert result.exit_code == 0, result.output
    assert "left out (4)" in caplog.text


def test_a_file_is_one_model_of_a_zoo_and_may_be_in_each(tmp_path, plugin):
    (tmp_path / "other.safetensors").write_bytes(b"not read by a plan")
    entry = f"given, file: {tmp_path}/other.safetensors, model: slim, copies: 1"
    desk = Desk.of(
        tmp_path, ZOO.replace("  negatives:\n", f"  negatives:\n    - {{recipe: {entry}}}\n")
    )
    assert desk("plan", *TWO, plugins=(plugin,)).exit_code == 0
    twice = desk("plan", "-o", "zoo.negatives.given.copies=2", plugins=(plugin,))
    assert twice.exit_code == 2
    assert "which differ only in a seed that has no effect" in twice.stderr


def test_list_counts_the_models_of_several_zoos(desk, two):
    assert sum(group["count"] for group in told(desk, "list")["models"]) == 34
