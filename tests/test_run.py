"""A whole run, from a suite to its results."""

from __future__ import annotations

import csv
import json
from collections import Counter
from itertools import combinations
from pathlib import Path
from statistics import fmean

import pytest
from sklearn.metrics import roc_auc_score

from conftest import TINY, UNTRAINED, Desk, rates

LISTENER = """\
import fpbench
from pathlib import Path

def told(what):
    with Path({log!r}).open("a") as file:
        file.write(what + "\\n")

@fpbench.hookimpl
def fpbench_planned(plan):
    told("planned " + plan.suite)

@fpbench.hookimpl
def fpbench_built(built):
    told("built")

@fpbench.hookimpl
def fpbench_attempted(result):
    told("attempted " + result.trial.label)
    {attempted}

@fpbench.hookimpl
def fpbench_reported(report):
    assert (report.folder / "results.json").exists()
    assert (report.folder / "suspects.csv").exists()
    told("reported")
"""


def listener(folder: Path, attempted: str = "") -> tuple[Path, Path]:
    """A plugin that writes what it hears into a file."""
    log, path = folder / "heard.txt", folder / "listener.py"
    path.write_text(LISTENER.format(log=str(log), attempted=attempted))
    log.write_text("")
    return path, log


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Desk:
    """A desk with the tiny suite, for all tests of this file; `results` run it first."""
    return Desk.of(tmp_path_factory.mktemp("ran"), TINY)


@pytest.fixture(scope="module")
def results(ran):
    return ran.run()


def test_results_carry_everything_a_reader_needs(results):
    assert results["schema"] == "fpbench.results/3"
    assert results.keys() == {
        "schema", "run", "suite", "scenario", "targets", "models", "methods", "comparisons",
        "trials", "failures", "twins",
    }  # fmt: skip
    assert results["suite"]["text"] == TINY
    assert results["failures"] == {}
    assert {"torch", "python", "fpbench"} <= results["run"]["versions"].keys()
    assert len(results["models"]) == 17
    assert len(results["trials"]) == 6
    assert all(0 <= m["utility"]["accuracy"] <= 1 for m in results["models"])


def test_a_run_leaves_the_suite_beside_its_results(ran, results):
    assert (ran.run_folder(results) / "suite.yaml").read_text() == TINY


def test_every_judged_suspect_has_a_row(ran, results):
    with (ran.run_folder(results) / "suspects.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert Counter(row["method"] for row in rows) == {"grid": 16, "random": 16, "metav": 16}
    positive = {m["digest"]: m["positive"] for m in results["models"]}
    by_trial = {(t["method"], str(t["repeat"])): t["matching_rates"] for t in results["trials"]}
    for row in rows:
        assert positive[row["digest"]] is bool(int(row["positive"]))
        expected = by_trial[row["method"], row["repeat"]][row["digest"]]
        assert float(row["matching_rate"]) == expected


def test_json_is_one_object_on_the_last_line(ran):
    found = json.loads(ran("run", "--json").stdout.splitlines()[-1])
    assert {"suite", "run", "methods", "refusals"} <= found.keys()
    assert found["suite"] == "tiny"
    assert found["refusals"] == {"picky": "picky does not like blobs"}
    assert [m["method"] for m in found["methods"]] == ["grid", "random", "metav"]
    for method in found["methods"]:
        assert method.keys() == {
            "method", "fpr", "construct_seconds", "verify_seconds", "queries", "zoos", "repeats",
        } | {
            f"{name}{end}"
            for name in (
                "aruc", "aruc_learned", "aruc_calibrated", "auc", "robustness_at_full_uniqueness",
                "tpr_at_1_percent_fpr", "tpr_at_5_percent_fpr", "found", "false_positives",
            )
            for end in ("", "_ci")
        }  # fmt: skip


def test_json_alone_goes_to_stdout(ran):
    assert len(ran("run", "--json").stdout.splitlines()) == 1


def test_a_log_gets_a_line_now_and_then_with_the_time_left(desk):
    lines = [line for line in desk("run").stdout.splitlines() if " left" in line]
    assert any(line.startswith("zoo 17/17") for line in lines)
    assert lines[-1].startswith("trials 6/6")
    assert len(lines) < 17 + 6


def aruc(positives: list[float], negatives: list[float]) -> float:
    """Average min{R, U} over 101 thresholds."""
    return fmean(
        min(fmean(r > k / 100 for r in positives), fmean(r <= k / 100 for r in negatives))
        for k in range(101)
    )


def auc(positives: list[float], negatives: list[float]) -> float:
    truth = [1] * len(positives) + [0] * len(negatives)
    return float(roc_auc_score(truth, positives + negatives))


def robustness_at_full_uniqueness(positives: list[float], negatives: list[float]) -> float:
    return fmean(r > max(negatives) for r in positives)


def test_the_summary_is_what_the_rates_say(results):
    positive = {m["digest"]: m["positive"] for m in results["models"]}
    for method in results["methods"][:3]:
        halves = [
            [[r for d, r in t["matching_rates"].items() if positive[d] is s] for s in (True, False)]
            for t in results["trials"]
            if t["method"] == method["method"]
        ]
        summary = method["summary"]
        for metric in (aruc, auc, robustness_at_full_uniqueness):
            name = metric.__name__
            assert summary[name] == pytest.approx(fmean(metric(p, n) for p, n in halves)), name
        assert summary["smallest_fpr"] == 1 / 4
        assert len(summary["robustness"]) == len(summary["uniqueness"]) == 101


def test_methods_ask_as_many_queries_as_they_say(results):
    asked = {m["method"]: m["summary"]["queries"] for m in results["methods"] if m["summary"]}
    assert asked == {"grid": 40, "random": 20, "metav": 5}


def test_a_method_that_declines_is_not_applicable_and_no_zero(ran, results):
    picky = results["methods"][3]
    assert picky["summary"] is None
    assert picky["refusal"] == "picky does not like blobs"
    assert "picky" not in {t["method"] for t in results["trials"]}
    line = next(line for line in ran("run").stdout.splitlines()[::-1] if "picky" in line)
    assert "n/a" in line


def test_judged_and_learned_from_are_disjoint_halves_of_every_kind(results):
    kinds = {m["digest"]: m["kind"] for m in results["models"]}
    for trial in results["trials"]:
        if trial["method"] != "metav":
            assert trial["ensemble"] == []
            continue
        learned, judged = set(trial["ensemble"]), set(trial["matching_rates"])
        assert not learned & judged
        assert learned | judged == kinds.keys() - {*results["targets"]}
        halves = [Counter(kinds[d] for d in half) for half in (learned, judged)]
        for kind in halves[0].keys() | halves[1].keys():
            assert abs(halves[0][kind] - halves[1][kind]) <= 1, kind


def test_a_suspect_is_compared_with_negatives_that_nobody_learned_from(results):
    positive = {m["digest"]: m["positive"] for m in results["models"]}
    for trial in results["trials"]:
        known = trial["calibration_rates"]
        assert not known.keys() & trial["matching_rates"].keys()
        # Metav has learned from those, so a suspect is compared with the other judged negatives.
        source = trial["matching_rates"] if trial["method"] == "metav" else known
        for digest, rate in trial["matching_rates"].items():
            innocent = [r for d, r in source.items() if not positive[d] and d != digest]
            higher = sum(other >= rate for other in innocent)
            assert trial["p_values"][digest] == pytest.approx((1 + higher) / (1 + len(innocent)))
        counts = trial["method"] == "random"
        assert trial["binomial_p_values"].keys() == (
            trial["matching_rates"].keys() if counts else set()
        )


def test_the_calibrated_aruc_is_that_of_the_calibrated_rates(results):
    positive = {m["digest"]: m["positive"] for m in results["models"]}
    for method in results["methods"][:3]:
        found = [
            aruc(
                *([r for d, r in t["calibrated_rates"].items() if positive[d] is s]
                  for s in (True, False))
            )
            for t in results["trials"]
            if t["method"] == method["method"]
        ]  # fmt: skip
        assert method["summary"]["aruc_calibrated"] == pytest.approx(fmean(found))


def test_a_loss_that_a_method_tells_is_kept_and_found_again(ran, results):
    losses = {t["method"]: t["losses"] for t in results["trials"]}
    assert losses["grid"] == []
    steps, seconds, _ = zip(*losses["metav"], strict=True)
    assert list(steps) == list(range(10))
    assert list(seconds) == sorted(seconds)
    last = [t for t in results["trials"] if t["method"] == "metav"][-1]
    assert 0 < seconds[0] <= seconds[-1] <= last["construct_seconds"] + 1e-4
    again = ran.run()["trials"]
    assert [t["losses"] for t in again] == [t["losses"] for t in results["trials"]]


def test_every_pair_of_methods_is_compared(results):
    summaries = {m["method"]: m["summary"] for m in results["methods"] if m["summary"]}
    for metric, pairs in results["comparisons"].items():
        assert [(p["first"], p["second"]) for p in pairs] == [*combinations(summaries, 2)]
        for p in pairs:
            ahead = summaries[p["first"]][metric] - summaries[p["second"]][metric]
            assert p["value"] == pytest.approx(ahead)


def test_all_methods_of_a_repeat_are_judged_on_the_same_suspects(results):
    for repeat in range(2):
        judged = [set(t["matching_rates"]) for t in results["trials"] if t["repeat"] == repeat]
        assert judged[0] == judged[1] == judged[2]


def test_a_second_run_makes_nothing_and_finds_the_same(ran, results):
    path, log = listener(ran.folder)
    again = ran.run(plugins=(path,))
    assert "built" not in log.read_text().splitlines()
    assert all(trial["cached"] for trial in again["trials"])
    assert rates(again) == rates(results)


def test_a_plan_of_finished_work_has_nothing_to_build(ran, results):
    plan = json.loads(ran("plan", "--json").stdout)
    assert plan["cohorts"] == []
    assert plan["missing"] == {}
    assert plan["bytes"] == 0


def test_an_empty_store_and_the_same_seed_give_the_same_to_the_bit(ran, results):
    again = ran.run("--store", ran.folder / "another")
    assert not any(trial["cached"] for trial in again["trials"])
    assert rates(again) == rates(results)
    assert [m["weights_sha256"] for m in again["models"]] == [
        m["weights_sha256"] for m in results["models"]
    ]


def test_the_order_of_methods_changes_no_rates(ran, results):
    again = ran.run("--only", "metav", "--store", ran.folder / "third")
    assert rates(again) == rates(results)[-2:]  # metav's come last


def test_another_seed_judges_others_of_the_same_zoo(ran, results):
    other = ran.run("-o", "seed=1")
    assert [m["digest"] for m in other["models"]] == [m["digest"] for m in results["models"]]
    assert [set(r) for r in rates(other)] != [set(r) for r in rates(results)]


def test_less_access_refuses_who_needs_more_and_nobody_else(ran):
    data = ran.run("-o", "api=label")
    refusals = {m["method"]: m["refusal"] for m in data["methods"]}
    assert refusals["metav"] == "metav needs probs or output; the suite's api gives label"
    assert refusals["grid"] is None


# ── what plugins hear, and what stops in the middle ───────────────────────────────


@pytest.fixture
def untrained(tmp_path) -> Desk:
    return Desk.of(tmp_path, UNTRAINED + "  - {method: random}\n")


def test_plugins_hear_what_happens_in_its_order(untrained):
    path, log = listener(untrained.folder)
    untrained.run(plugins=(path,))
    assert log.read_text().splitlines() == [
        "planned untrained", *9 * ["built"], "attempted grid", "attempted random", "reported",
    ]  # fmt: skip


def test_a_run_that_was_stopped_goes_on_with_the_same_command(untrained):
    path, log = listener(untrained.folder, attempted="raise KeyboardInterrupt")
    stopped = untrained("run", plugins=(path,))
    assert stopped.exit_code == 130
    assert "stopped; the same command goes on from here" in stopped.stderr
    assert log.read_text().splitlines()[-1] == "attempted grid"

    path, log = listener(untrained.folder)
    data = untrained.run(plugins=(path,))
    assert [t["cached"] for t in data["trials"]] == [True, False]
    assert "built" not in log.read_text().splitlines()


def test_every_run_has_a_folder_of_its_own(untrained):
    folders = {untrained.run()["run"]["id"] for _ in range(3)}
    assert len(folders) == 3


def test_another_suite_reuses_the_models_it_shares(untrained, monkeypatch):
    untrained.run()
    log = untrained.folder / "made.txt"
    monkeypatch.setenv("TOYS_MADE", str(log))
    untrained.run("-o", "name=other", "-o", "zoo.negatives.drawn.copies=5")
    assert log.read_text() == "drawn#5\n"
