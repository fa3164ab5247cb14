"""Several methods in one fingerprint: one plan, one rate, one verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from office import CASE, Office

import fpbench
from fpbench.engine.registry import Registry
from fpbench.owner.fingerprint_file import load_saved

METHODS = ("  - {method: akh, n_queries: 50}\n"
           "  - {method: modeldiff, n_queries: 20}\n")  # fmt: skip


@pytest.fixture(scope="module")
def plans(office: Office) -> Office:
    """An office with a fingerprint of two methods, by each rule, on probabilities."""
    text = CASE.replace("mine.safe", f"{office.folder}/mine.safe").replace("label", "probs")
    start = text.index("  - {method: akh")
    (office.folder / "two.yaml").write_text(text[:start] + METHODS)
    for rule in ("mean", "least"):
        made = make(office, rule)
        assert made.exit_code == 0, made.output
    return office


def make(office: Office, rule: str, *words: object):
    return office(
        "fingerprint", office.folder / "two.yaml", "--combine", rule, "--store",
        office.folder / "store", "--out", office.folder / f"{rule}.fp", *words,
    )  # fmt: skip


@pytest.mark.parametrize(("rule", "combine"), [("mean", lambda r: sum(r) / len(r)), ("least", min)])
def test_the_rate_is_what_the_rule_makes_of_the_methods_rates(plans, rule, combine):
    verdict = plans.verify(plans.folder / "copy.safetensors", name=f"{rule}.fp")
    saved = load_saved(plans.folder / f"{rule}.fp", Registry.load())
    rates = []
    for part, level, own in saved.method._parts(saved.fingerprint):
        oracle = fpbench.Oracle(lambda x: plans.copy(x), fpbench.Access.OUTPUT)
        rates.append(part.match(own, oracle(own.queries, level)))
    assert verdict["matching_rate"] == pytest.approx(combine(rates), abs=1e-6)
    assert verdict["queries"] == 70
    assert [part["access"] for part in verdict["fingerprint"]["method"]["parts"]] == [
        "label", "probs",
    ]  # fmt: skip


def test_a_copy_is_caught_and_another_model_is_not(plans):
    copy, other = (
        plans.verify(plans.folder / f"{name}.safetensors", name="mean.fp")
        for name in ("copy", "other")
    )
    assert copy["verdict"] == "consistent with a copy"
    assert other["verdict"] == "not shown"


def test_a_verdict_of_several_methods_is_checked_like_any_other(plans):
    plans.verify(plans.folder / "copy.safetensors", name="mean.fp")
    place = plans.folder / "verdict.json"
    good = plans("verdict", "check", place, "--store", plans.folder / "store")
    assert good.exit_code == 0, good.output
    assert "0 of them are rated otherwise" in good.output
    verdict = json.loads(place.read_text())
    verdict["matching_rate"] += 0.01
    place.write_text(json.dumps(verdict))
    assert plans("verdict", "check", place).exit_code == 1


def test_answers_match_as_they_do_in_rounds(plans):
    saved = load_saved(plans.folder / "least.fp", Registry.load())
    oracle = fpbench.Oracle(lambda x: plans.other(x).softmax(-1), saved.access)
    rate = saved.method.verify(saved.fingerprint, oracle)
    with torch.no_grad():
        replies = plans.other(saved.fingerprint.queries).softmax(-1)
    assert saved.method.match(saved.fingerprint, replies) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("words", "said"),
    [(("--method", "akh"), "--combine: expected two methods or more"),
     (("--method", "akh", "--method", "metav", "-o", "api=label"), "got none of metav: metav")],
)  # fmt: skip
def test_what_cannot_be_combined_is_told(plans, tmp_path: Path, words, said):
    result = make(plans, "mean", *words, "--out", tmp_path / "x.fp")
    assert result.exit_code == 2, result.output
    assert said in result.output
