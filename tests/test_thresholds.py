"""What is called stolen, the weights of kinds, and intervals over zoos: from rates made up here."""

from __future__ import annotations

import dataclasses
import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from finished_runs import finished_run

import fpbench
from fpbench import Result
from fpbench.api.results import MethodRecord
from fpbench.api.work import Trial
from fpbench.cli import main
from fpbench.engine.plan import Plan
from fpbench.engine.registry import Registry
from fpbench.engine.suite import Suite
from fpbench.reporting.screen import Screen
from fpbench.reporting.tables import make_notes, show_methods, show_results
from fpbench.results import metrics
from fpbench.results.summary import compare_methods, summarise

SUITE = """\
name: made-up
scenario: digits
api: probs
repeats: 2
target: {recipe: train, model: mlp}
zoo:
  positives:
    - {recipe: finetune, layers: all, copies: 30}
    - {recipe: finetune, layers: last, copies: 10}
  negatives:
    - {recipe: train, model: mlp, copies: 30}
    - {recipe: train, model: cnn, copies: 10}
methods:
  - {method: metav}
  - {method: akh}
"""
NEGATIVE = ("independent mlp (train)", "independent cnn (train)")


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    file = tmp_path / "made-up.yaml"
    file.write_text(SUITE)
    return file


@pytest.fixture
def trials(suite: Path) -> list[Trial]:
    """Trials of metav, then of akh: two repeats, in each of which 20 + 20 suspects are judged."""
    return list(Plan.of(Suite.load(suite, Registry.load())).trials)


def judged_by(trial: Trial, rate: Callable[[Any], float], **changes: Any) -> Result:
    """A result whose models have the rates that `rate` gives to their recipes."""
    return Result(
        dataclasses.replace(trial, **changes),
        {recipe.digest: rate(recipe) for recipe in trial.suspects},
        {recipe.digest: rate(recipe) for recipe in trial.calibration},
    )


def dice(trial: Trial, seed: int, lead: float = 0.3) -> Callable[[Any], float]:
    rolled = random.Random(seed)  # noqa: S311
    return lambda recipe: rolled.uniform(0, 0.7) + lead * recipe.descends_from(trial.target)


# ── called stolen ─────────────────────────────────────────────────────────────────


def test_a_suspect_is_called_stolen_if_at_most_a_share_fpr_of_innocents_is_rated_as_high(
    trials: list[Trial],
) -> None:
    results = [judged_by(trial, dice(trial, k)) for k, trial in enumerate(trials[2:])]
    s = summarise(results, fpr=0.1)
    shares: dict[bool, list[float]] = {True: [], False: []}
    kinds: dict[str, list[bool]] = {}
    for result in results:
        known = sorted(result.known_rates(positive=False), reverse=True)
        assert len(known) == 20
        for positive in (True, False):
            # (1 + k) / 21 <= 0.1 holds for no more than one innocent model rated as high.
            called = [rate > known[1] for rate in result.rates(positive)]
            shares[positive].append(sum(called) / len(called))
        for suspect in result.trial.suspects:
            rate = result.matching_rates[suspect.digest]
            kinds.setdefault(suspect.kind, []).append(rate > known[1])
    assert s.fpr == 0.1
    assert s.found == pytest.approx(sum(shares[True]) / 2)
    assert s.false_positives == pytest.approx(sum(shares[False]) / 2)
    assert s.found_ci is not None
    assert 0 <= s.found_ci[0] <= s.found <= s.found_ci[1] <= 1
    for kind, called in kinds.items():
        assert (s.kinds[kind].judged, s.kinds[kind].called) == (
            len(called),
            sum(called) / len(called),
        )


def test_a_method_that_learned_is_judged_by_models_that_it_has_not_learned_from(
    trials: list[Trial],
) -> None:
    trial = trials[0]
    assert trial.method.name == "metav"
    assert trial.ensemble

    def rate(recipe: Any) -> float:
        if recipe in trial.calibration:  # learned from: a threshold of 0 would accuse everybody
            return 1.0 if recipe.descends_from(trial.target) else 0.0
        return 0.9 if recipe.descends_from(trial.target) else 0.1 + recipe.seed / 100

    result = judged_by(trial, rate)
    s = summarise([result], fpr=0.05)
    negatives = result.rates(positive=False)
    assert len(negatives) == 20
    assert s.smallest_p_value == s.fpr == 1 / 20
    highest = sum(value == max(negatives) for value in negatives)
    assert s.false_positives == pytest.approx(1 / 20 if highest == 1 else 0)
    assert s.found == 1


def test_the_default_rate_is_5_percent_or_the_smallest_that_the_negatives_support(
    trials: list[Trial], tmp_path: Path
) -> None:
    results = [judged_by(trial, dice(trial, 0)) for trial in trials[2:]]
    assert summarise(results).fpr == 0.05  # 20 negatives support 1/21
    few = fpbench.read(finished_run(tmp_path))  # 4 of 8 negatives are known
    assert few.summary("akh")["fpr"] == 1 / 5
    out = io.StringIO()
    show_results(few.record, Screen(file=out, width=120), details=True)
    assert "20 % false positives" in out.getvalue()
    assert "smallest rate that the negatives support" in " ".join(out.getvalue().split())


def test_kinds_are_shown_by_how_many_were_called_stolen(tmp_path: Path) -> None:
    report = fpbench.read(finished_run(tmp_path))
    out = io.StringIO()
    show_results(report.record, Screen(file=out, width=120), details=True)
    lines = {line.split("  ")[0].strip(): line.split() for line in out.getvalue().splitlines()}
    rows = report.rates("akh")
    for kind, line in (
        ("FTAL", "+ FTAL"),
        ("independent mlp (train)", "- independent mlp (train)"),
    ):
        of_kind = [row["called"] for row in rows if row["kind"] == kind]
        assert f"{sum(of_kind)}/{len(of_kind)}" in lines[line]


def test_an_unsupported_rate_is_refused_where_it_stands(suite: Path) -> None:
    suite.write_text(SUITE + "fpr: 0.04\n")
    done = CliRunner().invoke(main, ["plan", str(suite)])
    assert done.exit_code == 2
    assert "made-up.yaml:16:1" in done.stderr
    assert "fpr: expected at least 1/(1 + 20) = 0.0476" in done.stderr
    suite.write_text(SUITE + "fpr: 0.048\n")
    assert CliRunner().invoke(main, ["plan", str(suite)]).exit_code == 0


def test_a_true_positive_rate_that_cannot_be_measured_is_none(trials: list[Trial]) -> None:
    s = summarise([judged_by(trial, dice(trial, 0)) for trial in trials[2:]])
    assert s.tpr_at_1_percent_fpr is None
    assert s.tpr_at_1_percent_fpr_ci is None
    assert s.tpr_at_5_percent_fpr is not None  # 20 negatives: one of them is 5 %


# ── overfitting ───────────────────────────────────────────────────────────────────


def test_a_method_that_knows_only_what_it_learned_from_is_called_overfitted(
    trials: list[Trial],
) -> None:
    def rates(trial: Trial, seed: int, known: bool) -> Callable[[Any], float]:
        learned = {recipe.digest for recipe in trial.ensemble} if known else set()
        rolled = dice(trial, seed, lead=0.1)

        def rate(recipe: Any) -> float:
            positive = recipe.descends_from(trial.target)
            return float(positive) if recipe.digest in learned else rolled(recipe)

        return rate

    metav = [r for r in trials if r.label == "metav"]
    overfitted, fair = (
        summarise([judged_by(trial, rates(trial, k, known)) for k, trial in enumerate(metav)])
        for known in (True, False)
    )
    assert overfitted.aruc_learned == pytest.approx(metrics.ARUC_CEILING)
    assert overfitted.overfitted
    assert fair.aruc_learned is not None
    assert not fair.overfitted
    assert (
        summarise([judged_by(t, dice(t, 0)) for t in trials if t.label == "akh"]).aruc_learned
        is None
    )


# ── weights ───────────────────────────────────────────────────────────────────────


def test_weights_decide_how_much_a_kind_counts_in_aruc(trials: list[Trial]) -> None:
    def rate(recipe: Any) -> float:
        return {"FTAL": 1.0, "FTLL": 0.0}.get(recipe.kind, 0.0)

    results = [judged_by(trial, rate) for trial in trials[2:]]
    assert summarise(results).aruc == pytest.approx(0.75 * metrics.ARUC_CEILING)
    even = {"FTAL": 1.0, "FTLL": 1.0} | dict.fromkeys(NEGATIVE, 1.0)
    weighted = summarise(results, weigh=even)
    assert weighted.aruc == pytest.approx(0.5 * metrics.ARUC_CEILING)
    assert weighted.robustness[50] == 0.5
    assert summarise(results, weigh=even | {"FTLL": 0.0}).aruc == pytest.approx(
        metrics.ARUC_CEILING
    )


def test_comparisons_and_notes_use_the_weights(trials: list[Trial]) -> None:
    def result(trial: Trial) -> Result:
        found = "FTAL" if trial.label == "akh" else "FTLL"
        return judged_by(trial, lambda recipe: float(recipe.kind == found))

    results = [result(trial) for trial in trials]
    even = dict.fromkeys(("FTAL", "FTLL", *NEGATIVE), 1.0)
    for weigh, ahead in (({}, -0.5), (even, 0.0)):
        (found,) = compare_methods(results, weigh=weigh).aruc
        assert found.value == pytest.approx(ahead * metrics.ARUC_CEILING)
    (note,) = [n for n in make_notes(_methods(results), even) if "weigh" in n]
    assert "FTLL 1" in note


def _methods(results: list[Result]) -> Any:
    by_method: dict[str, list[Result]] = {}
    for result in results:
        by_method.setdefault(result.trial.label, []).append(result)
    facts = {"source": "here", "fields": {}, "ensemble": None, "access": "probs", "refusal": None}
    return [
        MethodRecord(method=name, name=name, errors=(), summary=summarise(own), **facts)
        for name, own in by_method.items()
    ]


@pytest.mark.parametrize(
    ("lines", "place", "message"),
    [
        ("weigh: {WP: 1}", "16:9", "no kind 'WP' in this zoo, which has FTAL, FTLL"),
        ("weigh: {FTAL: 1}", "16:1", "at least one kind of the negatives"),
        ("weigh: {FTAL: -1}", "16:9", "expected a number that is 0 or more for FTAL, got -1"),
        ("weigh: {FTAL: much}", "16:9", "expected a number that is 0 or more for FTAL, got 'much'"),
        (f"weigh: {{FTAL: 0, {NEGATIVE[0]}: 1}}", "16:1", "at least one kind of the positives"),
        ("weigh: table3", "16:1", "expected weights for digits, got table3"),
        ("weigh: table4", "16:1", "expected table3 or kinds with their weights, got 'table4'"),
        ("weigh: [1]", "16:1", "weigh: expected"),
    ],
)
def test_weights_that_a_zoo_cannot_have_are_refused(
    suite: Path, lines: str, place: str, message: str
) -> None:
    suite.write_text(f"{SUITE}{lines}\n")
    done = CliRunner().invoke(main, ["plan", str(suite)])
    assert done.exit_code == 2
    assert f"made-up.yaml:{place}" in done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_papers_counts_are_the_weights_of_the_kinds_that_the_zoo_has(suite: Path) -> None:
    text = SUITE.replace("scenario: digits", "scenario: warfarin").replace("probs", "output")
    suite.write_text(text.replace("model: mlp", "model: s").replace("cnn", "l") + "weigh: table3\n")
    assert Suite.load(suite, Registry.load()).weigh == {
        "FTAL": 2, "FTLL": 2, "independent s (train)": 10, "independent l (train)": 10
    }  # fmt: skip


# ── zoos ──────────────────────────────────────────────────────────────────────────


def test_with_several_zoos_intervals_and_differences_are_over_zoos(trials: list[Trial]) -> None:
    results = [
        judged_by(trial, dice(trial, 10 * zoo + k, 0.3 + 0.1 * (trial.label == "akh")), zoo=zoo)
        for zoo in (0, 1, 2)
        for k, trial in enumerate(trials)
    ]
    by_method = {
        label: [r for r in results if r.trial.label == label] for label in ("metav", "akh")
    }
    s = summarise(by_method["akh"])
    means = [
        sum(metrics.roc_auc(r.rates(True), r.rates(False)) for r in by_method["akh"][i : i + 2]) / 2
        for i in (0, 2, 4)
    ]
    assert (s.zoos, s.repeats) == (3, 6)
    assert s.auc == pytest.approx(sum(means) / 3)
    assert s.auc_ci == pytest.approx(metrics.mean_interval([[mean] for mean in means], 0, 1)[1])
    assert s.interval_over == "95 % interval over 3 zoos"
    (found,) = compare_methods(results).auc
    assert found.zoos == 3
    assert found.value == pytest.approx(summarise(by_method["metav"]).auc - s.auc)


# ── the width of the table ────────────────────────────────────────────────────────


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_the_table_of_methods_fits_the_terminal(trials: list[Trial], width: int) -> None:
    results = [judged_by(trial, dice(trial, k)) for k, trial in enumerate(trials)]
    methods = _methods(results)
    out = io.StringIO()
    show_methods(methods, compare_methods(results), Screen(file=out, width=width))
    head, *lines = out.getvalue().splitlines()
    assert max(map(len, (head, *lines))) <= width
    assert {"calibrated", "ARUC", "found", "false", "construct", "queries"} <= set(head.split())
    assert ("learned" in head) is (width >= 100)
    rows = [line for line in lines if line.split()[:1] in (["metav"], ["akh"])]
    best_first = sorted(methods, key=lambda m: -m.summary.aruc_calibrated)
    assert [row.split()[0] for row in rows[: len(methods)]] == [m.method for m in best_first]
    assert all(f"{m.summary.aruc:.3f}" in row for m, row in zip(best_first, rows, strict=False))
