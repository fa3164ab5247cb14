"""Inputs that are not pictures: ids such as the tokens of a text, and rows with categories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from conftest import Desk
from fpbench import Access, Classification, Pool, ResourceError, TrialError
from fpbench.builtin.scenarios import reviews
from fpbench.builtin.scenarios.text import Text
from fpbench.engine.registry import Registry
from fpbench.testing import ToyClassification, ToyTokens, toy_zoo

FROM_POOLS = {"akh", "fbi", "random", "sac", "zest"}
"""Methods that only take inputs from the pools."""

METHODS = {name: offer.cls for name, offer in Registry.load().methods.items()}

SUITE = """\
name: inputs
scenario: {scenario}
api: probs
repeats: 1
recipes: {{train: {{epochs: 1}}, distill: {{epochs: 1}}}}
target: {{recipe: train, model: {arch}}}
zoo:
  positives: [{{recipe: distill, model: {arch}, copies: 2}}]
  negatives: [{{recipe: train, model: {arch}, pool: public, copies: 2}}]
methods:
{methods}
"""

PLUGIN = """\
from dataclasses import dataclass
from fpbench import Pool, hookimpl
from fpbench.testing import ToyClassification, ToyTokens

@dataclass(frozen=True)
class Given({base}):
    name = "given"
{body}

@hookimpl
def fpbench_scenarios():
    return [Given]
"""


@dataclass(frozen=True)
class Mixed(ToyClassification):
    """Rows of two measurements and a category, 0, 1 or 2."""

    name = "mixed"
    input_shape = (3,)
    output_shape = (2,)
    input_range = (0.0, 2.0)
    input_kind = "mixed"
    architectures = {"mlp": lambda: nn.Linear(3, 2)}  # noqa: RUF012

    def load(self) -> Mapping[str, Pool]:
        rng = torch.Generator().manual_seed(0)
        x = torch.cat([torch.rand(60, 2, generator=rng), torch.arange(60)[:, None] % 3], 1)
        return dict.fromkeys(
            ("train", "public", "irrelevant", "test"), Pool(x, x[:, 0].round().long())
        )


def given(desk: Desk, base: str, body: str) -> Desk:
    """Return the desk with a suite of a scenario that changes a toy."""
    desk.write(SUITE.format(scenario="given", arch="mlp", methods="  - {method: random}"))
    (desk.folder / "given.py").write_text(PLUGIN.format(base=base, body=body))
    return desk


def said(desk: Desk, *words: Any) -> str:
    """Return the one line with which a command refuses."""
    result = desk(*words, "-p", desk.folder / "given.py")
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.strip().splitlines()
    return str(line)


@pytest.mark.parametrize("scenario", [ToyTokens(), Mixed()], ids=str)
def test_methods_that_move_inputs_decline_what_has_no_steps(scenario: Classification) -> None:
    reasons = {name: cls().declines(scenario) for name, cls in METHODS.items()}
    assert {name for name, reason in reasons.items() if reason is None} == FROM_POOLS
    kind = scenario.input_kind
    for name in METHODS.keys() - FROM_POOLS - {"metav"}:
        assert reasons[name] == f"{name} needs continuous inputs; those of {scenario} are {kind}"
    assert "query_lr: 0 and data_share: 1" in str(reasons["metav"])


def test_metav_asks_public_inputs_as_they_are() -> None:
    scenario = ToyTokens()
    zoo, method = toy_zoo(scenario), METHODS["metav"](query_lr=0, objective="full", steps=200)
    assert method.declines(scenario) is None
    fingerprint = method.construct(zoo.case(method, Access.PROBS))
    public = {tuple(row) for row in scenario.data("public").inputs.tolist()}
    assert {tuple(row) for row in fingerprint.queries.tolist()} <= public
    rate = method.verify(fingerprint, zoo.oracle(zoo.target, Access.PROBS))
    assert rate > max(
        method.verify(fingerprint, zoo.oracle(m, Access.PROBS)) for m in zoo.negatives
    )


def test_zest_hides_a_token_by_padding_and_a_category_by_the_most_frequent_one() -> None:
    for scenario, allowed in ((ToyTokens(), {0}), (Mixed(), {0.0, 1.0, 2.0})):
        zoo, method = toy_zoo(scenario), METHODS["zest"](n_queries=24, masks=12, segments=8)
        fingerprint = method.construct(zoo.case(method, Access.PROBS))
        x = fingerprint.queries.unflatten(0, (2, 12))
        changed = x[x != x[:, :1]]
        assert len(changed)
        if scenario.input_kind == "categorical":
            assert set(changed.tolist()) == allowed
        else:
            assert set(x[..., 2].flatten().tolist()) <= allowed


def test_an_api_of_ids_takes_no_other_numbers() -> None:
    scenario = ToyTokens()
    oracle = toy_zoo(scenario).oracle(toy_zoo(scenario).target, Access.LABEL)
    assert len(oracle(torch.ones(2, 8, dtype=torch.int64))) == 2
    with pytest.raises(
        TrialError, match=r"expected queries of ids, torch\.int64, got torch\.float"
    ):
        oracle(torch.ones(2, 8))
    with pytest.raises(TrialError, match="inside the input range"):
        oracle(torch.full((2, 8), 20))


@pytest.mark.parametrize(
    ("base", "body", "expected"),
    [
        ("ToyTokens", '    input_kind = "continuous"',
         "of torch.float32 in 'train', got torch.int64; if they are ids, such as tokens, set"),
        ("ToyClassification", '    input_kind = "categorical"',
         "expected inputs of torch.int64 in 'train', got torch.float32, and the scenario's inputs "
         "are categorical; convert them"),
        ("ToyTokens", "    def load(self):\n        return {name: Pool({'ids': x}, y) "
         "for name, (x, y) in ToyTokens().load().items()}",
         "expected a tensor of inputs in 'train', got dict; an input is one tensor"),
    ],
    ids=["undeclared", "floats", "mapping"],
)  # fmt: skip
def test_data_of_another_kind_ends_a_run_before_training(
    desk: Desk, base: str, body: str, expected: str
) -> None:
    line = said(given(desk, base, body), "run")
    assert expected in line
    assert not list((desk.folder / "store").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('    input_shape = {"ids": (8,), "mask": (8,)}', "; an input is one tensor: put several"),
        ("    input_shape = ((8,), (8,))", "; an input is one tensor: put several"),
        ("    input_shape = (8.5,)", "expected input_shape, the size of one tensor"),
        ('    input_kind = "tokens"', "expected an input_kind of categorical, continuous, mixed"),
    ],
    ids=["mapping", "several", "fraction", "kind"],
)
def test_what_is_no_input_is_refused_at_planning(desk: Desk, body: str, expected: str) -> None:
    assert expected in said(given(desk, "ToyTokens", body), "plan")


def test_ids_are_no_pixels_and_take_no_noise(desk: Desk) -> None:
    given(desk, "ToyTokens", "")
    line = said(desk, "plan", "-o", "quantised=true")
    assert "quantised: expected false, for the inputs of given are categorical" in line
    line = said(desk, "run", "-o", "recipes.train.augment=noise")
    assert "augment: expected none for categorical inputs" in line


def test_ids_of_words_leave_out_what_is_rare() -> None:
    known = reviews.vocabulary(["Good tea, good tea!", "bad TEA"], 4)
    assert known == {"tea": 2, "good": 3}
    assert reviews.ids(["good coffee", ""], known, 3).tolist() == [[3, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("arch", Text.architectures)
def test_networks_of_texts_answer_a_text_without_words_and_ignore_padding(arch: str) -> None:
    torch.manual_seed(0)
    network = Text.architectures[arch]().eval()
    text = torch.randint(2, 2000, (2, 64))
    text[1] = 0
    with torch.no_grad():
        assert network(text).isfinite().all()
        network.embed.weight[0] += 1
        longer = text.clone()
        longer[0, 10:] = 0
        before = network(longer)[0]
        network.embed.weight[0] += 1
        torch.testing.assert_close(network(longer)[0], before)


def test_a_suite_of_texts_runs_and_says_who_declined(desk: Desk) -> None:
    try:
        Text().data("train")
    except ResourceError as error:
        pytest.skip(str(error))
    tried = ["random", "akh", "fbi", "sac", "zest", "ipguard"]
    methods = "".join(f"  - {{method: {name}}}\n" for name in tried)
    metav = "  - {method: metav, query_lr: 0, data_share: 1, steps: 20}"
    desk.write(SUITE.format(scenario="text", arch="bag", methods=methods + metav))
    results = desk.run("--workers", 1)
    refusals = {m["name"]: m["refusal"] for m in results["methods"] if m["refusal"]}
    assert refusals == {"ipguard": "ipguard needs continuous inputs; those of text are categorical"}
    assert all(t["error"] is None for t in results["trials"])
    assert {t["method"] for t in results["trials"]} == {*tried, "metav"} - {"ipguard"}


def test_innocents_of_an_owners_texts_are_made_without_noise(desk: Desk) -> None:
    given(desk, "ToyTokens", "")
    save_file(toy_zoo(ToyTokens()).target.state_dict(), desk.folder / "mine.safetensors")
    desk.write(
        "name: mine\nscenario: given\napi: probs\nmethods: [{method: akh}]\n"
        f"target: {{recipe: given, file: {desk.folder}/mine.safetensors, model: mlp}}\n"
    )
    result = desk("plan", "-p", desk.folder / "given.py")
    assert result.exit_code == 0, result.output
    assert "smoothing" in result.output
    assert "noise" not in result.output
    assert "mixup" not in result.output
