"""What users get wrong, and the one sentence that tells them where and what to do."""

# ruff: noqa: E501
# The tables are read row by row, and a row is easier to read than four lines.

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from conftest import Desk, install, method_file, method_text
from fpbench.cli import main

GOOD = """\
name: bad
scenario: blobs
api: probs
repeats: 1
recipes:
  finetune: {epochs: 2}
target: {recipe: train, model: wide}
zoo:
  split: 0.5
  positives:
    - {recipe: finetune, layers: all, copies: 2}
  negatives:
    - {recipe: train, model: slim, copies: 2}
methods:
  - {method: grid}
"""


def swap(old: str, new: str) -> str:
    assert old in GOOD, old
    return GOOD.replace(old, new)


def deep(levels: int) -> str:
    return GOOD + "deep: " + "[" * levels + "]" * levels + "\n"


# What the file says -> where the fault is (line:column), and a part of the sentence.
FILES = {
    # names
    "method": (swap("method: grid", "method: gird"), "15:6", "no method 'gird'; did you mean grid?"),
    "recipe": (
        swap("{recipe: finetune, layers: all", "{recipe: fintune, layers: all"), "11:8",
        "no recipe 'fintune'; did you mean finetune?",
    ),
    "scenario": (
        swap("scenario: blobs", "scenario: blob"), "2:1",
        "no scenario 'blob'; did you mean blobs?",
    ),
    "default for an unknown recipe": (
        swap("  finetune: {epochs", "  fintune: {epochs"), "6:3",
        "no recipe 'fintune'; did you mean finetune?",
    ),
    "architecture": (
        swap("model: slim", "model: slin"), "13:23",
        "no architecture 'slin' in blobs; did you mean slim?",
    ),
    "swept architecture": (
        swap("model: slim", "each: {model: [slin]}"), "13:30",
        "no architecture 'slin' in blobs; did you mean slim?",
    ),
    # keys
    "key": (swap("repeats:", "repeat:"), "4:1", "no key 'repeat' in a suite; did you mean repeats"),
    "key of the zoo": (swap("split:", "splt:"), "9:3", "no key 'splt' in a suite; did you mean split?"),
    "key of a recipe": (
        swap("layers: all", "layer: all"), "11:26", "no key 'layer' in finetune; did you mean layers?",
    ),
    "key of a default": (
        swap("{epochs: 2}", "{epoch: 2}"), "6:14", "no key 'epoch' in finetune; did you mean epochs?",
    ),
    "key of a sweep": (
        swap("layers: all", "layers: all, each: {epoch: [1]}"), "11:46",
        "no key 'epoch' in finetune; did you mean epochs?",
    ),
    "key of a method": (
        swap("method: grid", "method: grid, n_query: 3"), "15:20",
        "no key 'n_query' in grid; did you mean n_queries?",
    ),
    "a parent by hand": (swap("layers: all", "layers: all, parent: x"), "11:39", "no key 'parent'"),
    "missing key": (swap("api: probs\n", ""), "", "expected a key 'api', found none"),
    "missing field": (
        swap(", layers: all", ""), "11:7", "expected a key 'layers' for finetune, found none",
    ),
    "entry without a name": (
        swap("recipe: finetune, ", ""), "11:7", "expected a key 'recipe' that names a recipe",
    ),
    "key twice": (swap("repeats: 1", "api: probs"), "4:1", 'found duplicate key "api"'),
    "key fixed and swept": (
        swap("layers: all", "layers: all, each: {layers: [last]}"), "11:46",
        "expected 'layers' once, got it in `each:` too",
    ),
    "key that is no word": (GOOD + "7: x\n", "16:1", "expected a word as key, got 7"),
    # values
    "value of a choice": (
        swap("layers: all", "layers: most"), "11:26", "layers: expected 'last' or 'all', got 'most'",
    ),
    "api": (swap("api: probs", "api: prob"), "3:1", "api: expected 'label', 'probs' or 'output'"),
    "type of a key": (swap("repeats: 1", "repeats: many"), "4:1", "repeats: expected a valid integer"),
    "type of a field": (
        swap("layers: all", "layers: all, epochs: ten"), "11:39", "epochs: expected a valid integer",
    ),
    "type of a swept field": (
        swap("layers: all", "layers: all, each: {epochs: [1, ten]}"), "11:46",
        "epochs: expected a valid integer",
    ),
    "type of a default": (
        swap("{epochs: 2}", "{epochs: two}"), "6:14", "epochs: expected a valid integer",
    ),
    "true for a number": (
        swap("layers: all", "layers: all, epochs: true"), "11:39",
        "epochs: expected a whole number >= 1, got True",
    ),
    "value out of range": (
        swap("split: 0.5", "split: 1.5"), "9:3", "split: expected less than 1, got 1.5",
    ),
    "field out of range": (
        swap("layers: all", "layers: all, lr: -1"), "11:39", "lr: expected greater than 0, got -1",
    ),
    "not a number": (swap("layers: all", "layers: all, lr: .nan"), "11:39", "lr: expected "),
    "division by zero": (swap("layers: all", "layers: all, lr: 1/0"), "11:39", "lr: expected "),
    "repeats": (swap("repeats: 1", "repeats: 0"), "4:1", "repeats: expected greater than or equal to 1"),
    "copies": (swap("copies: 2}\n  neg", "copies: 0}\n  neg"), "11:39", "copies: expected a whole number"),
    "copies that are many": (
        swap("copies: 2}\n  neg", "copies: 1000}\n  neg"), "11:39", "from 1 to 999, got 1000",
    ),
    "a list for a value": (
        swap("layers: all", "layers: [all]"), "11:26", "layers: expected 'last' or 'all'",
    ),
    "each of one value": (
        swap("layers: all", "each: {layers: all}"), "11:33", "expected a list of values or {range:",
    ),
    "each of nothing": (
        swap("layers: all", "each: {layers: []}"), "11:33", "expected a list of values",
    ),
    "each that is a list": (
        swap("layers: all", "each: [all]"), "11:26", "each: expected keys with lists of values",
    ),
    "name": (swap("name: bad", "name: ../bad"), "1:1", "name: expected "),
    # zoos
    "a zoo twice": (
        swap("split: 0.5", "seeds: [0, 1, 0]"), "9:17", "seeds: expected every seed once, got 0 twice; remove one",
    ),
    "seed and seeds": (
        swap("split: 0.5", "seed: 1\n  seeds: [0, 1]"), "10:3",
        "expected `seed` or `seeds` for the zoo, got both; remove one",
    ),
    "seeds of one zoo": (
        swap("split: 0.5", "seeds: [3]"), "9:3",
        "seeds: expected two seeds or more, such as [0, 1, 2], got [3]; for one zoo write `seed: 3`",
    ),
    "seeds of no zoo": (swap("split: 0.5", "seeds: []"), "9:3", "seeds: expected two seeds or more"),
    "seeds that are no list": (swap("split: 0.5", "seeds: 3"), "9:3", "seeds: expected a valid list, got 3"),
    "a seed that is a word": (
        swap("split: 0.5", "seeds: [0, x]"), "9:14", "seeds: expected a valid integer, got 'x'",
    ),
    "a seed that is a fraction": (swap("split: 0.5", "seeds: [0, 1.5]"), "9:14", "seeds: expected a valid integer"),
    "a seed below zero": (
        swap("split: 0.5", "seeds: [0, -1]"), "9:14", "seeds: expected greater than or equal to 0, got -1",
    ),
    "a model of several zoos": (
        swap("split: 0.5", "seeds: [0, 1]").replace("model: slim, copies: 2", "model: slim, seed: 7"), "13:7",
        "an entry with a `seed:` makes one model for all zoos",
    ),
    "copies that cannot differ": (
        swap("finetune, layers: all,", "prune_weights, ratio: 0.1,"), "11:7",
        "expected models that differ, got train(wide)#0 > prune_weights(ratio=0.1)#1 and train(wide)#0 > "
        "prune_weights(ratio=0.1)#2, which differ only in a seed that has no effect (also at ",
    ),
    # ranges
    "range that never ends": (
        swap("layers: all", "layers: all, each: {lr: {range: [0.1, 0.9, 0]}}"), "11:46",
        "range: expected [first, last, step] that reaches its last value",
    ),
    "range of the wrong direction": (
        swap("layers: all", "layers: all, each: {lr: {range: [0.9, 0.1, 0.1]}}"), "11:46",
        "that reaches its last value",
    ),
    "range of two": (
        swap("layers: all", "layers: all, each: {lr: {range: [0.1, 0.9]}}"), "11:46",
        "expected [first, last, step]",
    ),
    "range without end": (
        swap("layers: all", "layers: all, each: {lr: {range: [0, .inf, 1]}}"), "11:46",
        "expected [first, last, step]",
    ),
    "range of a million": (
        swap("layers: all", "layers: all, each: {epochs: {range: [1, 1000000, 1]}}"), "11:46",
        "range: expected at most 10,000 values, got 1000000",
    ),
    "range of astronomic numbers": (
        swap("layers: all", 'layers: all, each: {lr: {range: [0, "1e9999999999", 1]}}'), "11:46",
        "range: expected ",
    ),
    "product of ranges": (
        swap("layers: all", "layers: all, each: {epochs: {range: [1, 9999, 1]}, "
                            "batch_size: {range: [1, 9999, 1]}}"), "11:39",
        "each: expected at most 200,000 combinations, got 199960002",
    ),
    "product of method variants": (
        swap("method: grid", "method: ipguard, each: {steps: {range: [1, 9999, 1]}, "
                             "pool: {range: [1, 9999, 1]}}"), "15:23",
        "each: expected at most 200,000 combinations",
    ),
    # sides
    "no negatives": (
        swap("  negatives:\n    - {recipe: train, model: slim, copies: 2}\n", "  negatives: []\n"),
        "12:3", "expected at least one negative suspect, got none",
    ),
    "no positives": (
        swap("  positives:\n    - {recipe: finetune, layers: all, copies: 2}\n", "  positives: []\n"),
        "10:3", "expected at least one positive suspect, got none",
    ),
    "no methods": (
        swap("methods:\n  - {method: grid}\n", "methods: []\n"), "14:1",
        "expected at least one method, got none",
    ),
    "one negative for two halves": (
        swap("model: slim, copies: 2", "model: slim"), "12:3",
        "expected enough negatives for both halves of the split, got 1",
    ),
    "a positive among the negatives": (
        swap("{recipe: train, model: slim,", "{recipe: finetune, layers: all,"), "13:7",
        "expected a recipe that starts from nothing among the negatives, got finetune",
    ),
    "a negative among the positives": (
        swap("{recipe: finetune, layers: all,", "{recipe: train, model: slim,"), "11:7",
        "expected a recipe that is made from the target among the positives, got train",
    ),
    "the same model twice": (
        swap("  negatives:\n", "  negatives:\n    - {recipe: train, model: slim, seed: 1}\n"),
        "14:7", "expected every model once, got train(slim)#1 twice (also at ",
    ),
    "the target among the negatives": (
        swap("  negatives:\n", "  negatives:\n    - {recipe: train, model: wide}\n"),
        "13:7", "expected every model once, got train(wide)#0 twice (also at ",
    ),
    "a target made from another": (
        swap("target: {recipe: train, model: wide}", "target: {recipe: finetune, layers: all}"),
        "7:1", "expected a recipe that starts from nothing, got finetune",
    ),
    "two targets": (
        swap("target: {recipe: train, model: wide}", "target: {recipe: train, model: wide, copies: 2}"),
        "7:1", "expected one target, got 2",
    ),
    "a swept target": (
        swap("target: {recipe: train, model: wide}", "target: {recipe: train, each: {model: [wide, slim]}}"),
        "7:1", "expected one target, got 2",
    ),
    # methods
    "the same method twice": (
        swap("  - {method: grid}\n", "  - {method: grid}\n  - {method: grid}\n"), "16:5",
        "expected every label once, got 'grid' twice (also at ",
    ),
    "ensemble too large": (
        swap("method: grid", "method: metav, ensemble: 40"), "15:5",
        "ensemble: expected at most 2 models, as many as the split leaves to learn from, got 40",
    ),
    "an odd ensemble": (
        swap("method: grid", "method: metav, ensemble: 3"), "15:21",
        "ensemble: expected an even number of models, 2 or more, half of them positive, got 3",
    ),
    "api that the task cannot offer": (
        swap("scenario: blobs\napi: probs", "scenario: line\napi: probs"), "3:1",
        "expected api: output for line, got probs",
    ),
    # text
    "not YAML": (swap("name: bad", "name: [bad"), "2:9", "expected YAML, got an error: "),
    "a tab": (swap("  split", "\tsplit"), "9:1", "expected YAML, got an error: "),
    "a list": ("- name: bad\n", "1:1", "expected a mapping with the keys of a suite"),
    "empty": ("", "1:1", "expected a mapping with the keys of a suite"),
    "only a comment": ("# nothing\n", "1:1", "expected a mapping with the keys of a suite"),
    "two documents": (GOOD + "---\n" + GOOD, "16:1", "expected YAML, got an error: "),
    "not UTF-8": (
        GOOD.encode().replace(b"bad", b"b\xe4d"), "1:8", "expected UTF-8 text, got byte 0xe4",
    ),
    "a null byte": (GOOD.replace("bad", "b\0d"), "1:8", "expected YAML, got '\\x00'"),
    "too large": (GOOD + "#" * 1_000_000, "", "expected at most 100,000 bytes, got more"),
    "too deep": (deep(60), "16:56", "expected at most 50 levels of nesting"),
    "far too deep": (deep(40_000), "16:56", "expected at most 50 levels of nesting"),
    "anchor": (swap("repeats: 1", "repeats: &a 1"), "4:10", "expected no YAML anchors or aliases"),
    "alias bomb": (
        "a: &a [x, x]\n" + "\n".join(f"k{i}: &k{i} [*a, *a]" for i in range(9)), "1:4",
        "expected no YAML anchors or aliases",
    ),
    "tag": (swap("name: bad", "name: !!python/name:os.system x"), "1:7", "expected no YAML tags"),
    "merge key": (swap("repeats: 1", "<<: {repeats: 1}"), "4:1", "expected no YAML merge keys"),
    "number of 5000 digits": (swap("repeats: 1", "repeats: " + "9" * 5000), "4:10", "expected "),
    "a key that is no word": (swap("api:", '"\\ud800":'), "3:1", "expected a word as key, got "),
    "a list as key": (swap("api:", "? [a]\n:"), "3:3", "expected a word as key, got a group or a list"),
    "a day that is none": (swap("repeats: 1", "repeats: 2001-99-99"), "4:10", "expected YAML, got "),
    "a fraction of 5000 digits": (
        swap("epochs: 2", "lr: 1/" + "9" * 5000), "6:14", "lr: expected a valid number",
    ),
    "a label that moves the cursor": (
        swap("method: grid", 'method: grid, label: "\\e[2Jgrid"'), "15:20",
        "label: expected 1 to 200 printable characters, got '\\x1b[2Jgrid'",
    ),
    "a label of 5000 letters": (
        swap("method: grid", "method: grid, label: " + 5000 * "g"), "15:20", "label: expected 1 to 200",
    ),
    "a base that never ends": ("base: /dev/zero\n" + GOOD, "1:1", "expected a suite at '/dev/zero'"),
    "a base of no name": ('base: "\\0"\n' + GOOD, "1:1", "base: expected a suite at "),
}  # fmt: skip


def assert_one_sentence(result, *parts: str, exit_code: int = 2) -> None:
    assert result.exit_code == exit_code, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    for part in parts:
        assert part in line


@pytest.mark.parametrize("name", FILES)
def test_a_bad_suite_is_refused_where_it_is_bad(desk, name):
    text, place, fragment = FILES[name]
    path = desk.write(text)
    result = desk("plan")
    assert_one_sentence(result, f"error: {path}:{place}: " if place else str(path), fragment)
    assert len(result.stderr) < 1000


def test_the_suite_that_all_the_bad_ones_are_made_from_is_good(desk):
    desk.write(GOOD)
    assert desk("plan").exit_code == 0


OPTIONS = {
    "unknown key": ("-o", "repeat=2", "no key 'repeat' in a suite; did you mean repeats"),
    "unknown group": ("-o", "zo.split=0.4", "no key 'zo' in a suite; did you mean zoo?"),
    "unknown key in a group": ("-o", "zoo.splt=0.4", "no key 'splt' in a suite; did you mean split?"),
    "unknown recipe": ("-o", "recipes.trian.lr=1", "no recipe 'trian'; did you mean train"),
    "unknown method": ("-o", "methods.gird.n_queries=1", "no 'gird' in methods; did you mean grid?"),
    "unknown field": ("-o", "methods.grid.n_query=1", "no key 'n_query' in grid"),
    "unknown item": ("-o", "methods.7.n_queries=1", "no '7' in methods; expected one of grid"),
    "no value": ("-o", "repeats", "expected key=value"),
    "no key": ("-o", "=3", "expected key=value"),
    "empty value": ("-o", "repeats=", "repeats: expected "),
    "value out of range": ("-o", "repeats=-3", "repeats: expected greater than or equal to 1"),
    "value of another type": ("-o", "methods.grid.n_queries=x", "n_queries: expected a valid integer"),
    "value that is no YAML": ("-o", "repeats=[", "expected YAML, got an error: "),
    "below a value": ("-o", "name.first=x", "expected a group of keys before 'first'"),
    "one zoo": ("-o", "zoo.seeds=[3]", "seeds: expected two seeds or more"),
    "a zoo twice": ("-o", "zoo.seeds=[3, 3]", "seeds: expected every seed once, got 3 twice"),
    "unknown only": ("--only", "gird", "no method 'gird'; did you mean grid?"),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_a_bad_option_is_refused_by_its_own_name(desk, name):
    desk.write(GOOD)
    option, value, fragment = OPTIONS[name]
    assert_one_sentence(desk("plan", option, value), f"error: {option} {value}", fragment)


def test_a_missing_file_is_named(desk):
    result = CliRunner().invoke(main, ["plan", "nowhere.yaml"])
    assert_one_sentence(result, "expected a suite at nowhere.yaml", "No such file")


def test_a_folder_is_no_suite(desk):
    result = CliRunner().invoke(main, ["plan", str(desk.folder)])
    assert_one_sentence(result, f"expected a suite at {desk.folder}", "Is a directory")


def test_an_unknown_executor_is_refused(desk):
    assert_one_sentence(desk("run", "--executor", "cloud"), "--executor", "no executor 'cloud'")


def test_a_device_that_is_not_there_is_no_crash(desk):
    result = desk("run", "--device", "warp:9")
    assert_one_sentence(result, "--device warp:9: expected a device of this machine", exit_code=3)


# ── methods that break their contract ─────────────────────────────────────────────


def plugin(folder: Path, text: str) -> Path:
    path = folder / "plugin.py"
    path.write_text(text)
    return path


def bad_method(folder: Path, **parts: str) -> Path:
    return method_file(folder / "plugin.py", "bad", **parts)


BREACHES = {
    "raises": ({"construct": "raise KeyError('lost')"}, "KeyError: 'lost'"),
    "exits": ({"construct": "sys.exit(0)"}, "SystemExit: 0"),
    "returns nan": (
        {"verify": "return float('nan')"}, "expected a matching rate in [0, 1], got nan from bad on",
    ),
    "returns too much": (
        {"verify": "return 1.7"}, "expected a matching rate in [0, 1], got 1.7 from bad on train(",
    ),
    "returns less than nothing": ({"verify": "return -0.1"}, "in [0, 1], got -0.1 from bad on"),
    "returns no number": ({"verify": "return None"}, "in [0, 1], got None from bad on"),
    "asks too often": (
        {"verify": "oracle(fingerprint.queries); oracle(fingerprint.queries); return 0.5"},
        "expected at most 12 queries per suspect, got 24 from bad on train(",
    ),
    "asks for more access": (
        {"verify": "oracle(fingerprint.queries, Access.OUTPUT); return 0.5"},
        "expected a query at access level label or less, got one at output",
    ),
    "asks outside the input range": (
        {"verify": "oracle(0 * fingerprint.queries + 9); return 0.5"},
        "expected queries inside the input range [-1.0, 1.0], got [9, 9]",
    ),
    "asks in another shape": (
        {"verify": "oracle(torch.zeros(5, 3)); return 0.5"}, "expected queries of shape (n, 2)",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Desk:
    """A store that has the models already, so that each breach costs its own trial alone."""
    desk = Desk.of(tmp_path_factory.mktemp("built"), GOOD)
    desk.run()
    return desk


@pytest.mark.parametrize("name", BREACHES)
def test_a_method_that_breaks_its_contract_fails_alone(built, name):
    code, sentence = BREACHES[name]
    path = bad_method(built.folder, **code)
    built.write(swap("  - {method: grid}\n", "  - {method: bad}\n  - {method: grid}\n"))
    data = built.run(exit_code=1, plugins=(path,))

    bad, grid = data["methods"]
    assert bad["summary"] is None
    assert sentence in bad["errors"][0]
    assert grid["summary"]["aruc"] >= 0
    assert grid["errors"] == []

    shown = built("run", plugins=(path,))
    assert shown.exit_code == 1
    assert "failed bad #0: " in shown.stdout


def test_a_trial_that_failed_is_tried_again(built):
    built.write(swap("method: grid", "method: bad"))
    built.run(exit_code=1, plugins=(bad_method(built.folder, verify="return 2"),))
    built.run(exit_code=0, plugins=(bad_method(built.folder),))


def test_a_method_that_was_edited_is_tried_again(built):
    built.write(swap("method: grid", "method: bad"))
    rates = []
    for rate in (0.25, 0.75):
        path = bad_method(built.folder, verify=f"return {rate}")
        (trial,) = built.run(plugins=(path,))["trials"]
        rates.append(set(trial["matching_rates"].values()))
    assert rates == [{0.25}, {0.75}]


MUTATIONS = {
    "its target": "for p in case.target.parameters(): p.fill_(9)",
    "its generator": "torch.manual_seed(1); torch.rand(99, generator=case.rng)",
    "the data": "case.scenario.data('test').inputs.zero_()",
    "the data through numpy": "case.scenario.data('test').inputs.numpy()[:] = 0",
    "the data through .data": "case.scenario.data('public').truth.data.zero_()",
    "the data by exchange": "t = case.scenario.data('test').inputs; t.data = torch.zeros_like(t)",
    "the data's gradients": "case.scenario.data('test').inputs.requires_grad_()",
    "the data, and raises": "case.scenario.data('test').inputs.zero_(); 1 / 0",
}


@pytest.mark.parametrize("what", MUTATIONS)
def test_a_method_that_changes_what_it_was_given_harms_nobody_else(tmp_path, what):
    desk = Desk(tmp_path)
    others = "  - {method: random, n_queries: 9}\n  - {method: grid}\n"
    desk.write(swap("  - {method: grid}\n", others))
    alone = desk.run()["trials"]

    path = bad_method(tmp_path, construct=MUTATIONS[what])
    desk.write(swap("  - {method: grid}\n", "  - {method: bad}\n" + others))
    # A trial that is looked up could not be harmed.
    for trial in (tmp_path / "store" / "trials").rglob("*.json"):
        trial.unlink()
    # Who changes data or target is told, and its trial does not count.
    told = "data" in what or "target" in what
    together = desk.run(plugins=(path,), exit_code=int(told))["trials"]
    assert bool(together[0]["error"]) is told
    assert [t["matching_rates"] for t in together[1:]] == [t["matching_rates"] for t in alone]


# ── recipes that fail ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("raises", "RuntimeError: no luck today"),
        ("exits", "SystemExit"),
        ("nan", "its weights are not finite"),
        ("another", "expected a network of architecture slim, got another"),
    ],
)
def test_a_model_that_cannot_be_made_is_named_and_the_others_are_judged(desk, trouble, reason):
    desk.write(
        swap("  negatives:\n", f"  negatives:\n    - {{recipe: drawn, trouble: {trouble}}}\n")
    )
    data = desk.run(exit_code=1)
    ((digest, told),) = data["failures"].items()
    assert told.startswith(f"drawn(trouble={trouble})#0: ")
    assert reason in told
    (trial,) = data["trials"]
    assert trial["error"] is None
    assert digest not in trial["matching_rates"]


def test_a_run_whose_negatives_all_fail_says_so(desk):
    desk.write(swap("{recipe: train, model: slim", "{recipe: drawn, trouble: raises"))
    data = desk.run(exit_code=1)
    assert len(data["failures"]) == 2
    assert "expected at least one negative" in data["methods"][0]["errors"][0]


def test_a_run_whose_target_fails_tries_nothing(desk):
    desk.write(swap("{recipe: train, model: wide}", "{recipe: drawn, trouble: raises}"))
    data = desk.run(exit_code=1)
    assert data["trials"] == []
    reasons = sorted(reason.splitlines()[-1] for reason in data["failures"].values())
    assert reasons[0] == "RuntimeError: no luck today"
    assert all("its parent could not be made" in reason for reason in reasons[1:])
    assert data["methods"][0]["summary"] is None


# ── plugins that do not load ──────────────────────────────────────────────────────

BROKEN = {
    "raises": ("raise RuntimeError('oh no')", "RuntimeError: oh no"),
    "exits": ("import sys\nsys.exit(0)", "SystemExit: 0"),
    "is no Python": ("def (", "SyntaxError"),
    "imports what is not there": ("import nonsense_of_mine", "No module named 'nonsense_of_mine'"),
    "misspells an import": ("from fpbench import Fingerprintr", "Fingerprintr"),
    "has an unknown hook": (
        "import fpbench\n@fpbench.hookimpl\ndef fpbench_fingerprinter(): return []",
        "unknown hook 'fpbench_fingerprinter'",
    ),
    "returns no list": (
        "import fpbench\n@fpbench.hookimpl\ndef fpbench_fingerprinters(): return None",
        "'NoneType' object is not iterable",
    ),
    "offers no class": (
        "import fpbench\n@fpbench.hookimpl\ndef fpbench_fingerprinters(): return [42]", "42",
    ),
    "offers a class of another kind": (
        "import fpbench\n@fpbench.hookimpl\ndef fpbench_fingerprinters(): return [dict]", "dict",
    ),
    "offers a class without a name": (
        method_text("bad").replace('    name = "bad"\n', ""), "expected Mine",
    ),
    "misspells a field's type": (
        method_text("bad").replace("n_queries: int", 'n_queries: "itn"'),
        "name 'itn' is not defined",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_file_is_refused(desk, name):
    text, fragment = BROKEN[name]
    path = plugin(desk.folder, text)
    assert_one_sentence(desk("plan", plugins=(path,)), str(path), "did not load", fragment)


def test_a_plugin_file_that_is_not_there_is_refused(desk):
    result = desk("plan", plugins=(desk.folder / "nothing.py",))
    assert_one_sentence(result, "expected a Python file at", "nothing.py, found none")


def test_two_plugins_with_one_name_are_refused_and_both_named(desk):
    path = method_file(desk.folder / "plugin.py", "random")
    result = desk("plan", plugins=(path,))
    assert_one_sentence(result, "one plugin to offer random, got two", "fpbench-core 0", str(path))


@pytest.fixture
def site(monkeypatch, tmp_path) -> Path:
    """A folder of installed plugins, beside all others; one is broken."""
    folder = tmp_path / "site"
    folder.mkdir()
    install(folder, "gone", None)
    monkeypatch.syspath_prepend(folder)
    return folder


def test_broken_plugins_are_listed_and_stop_nobody_who_does_not_need_them(desk, site):
    installed = {"gone"}
    for i, (text, _) in enumerate(BROKEN.values()):
        install(site, f"broken_{i}", text)
        installed.add(f"broken_{i}")
    result = CliRunner().invoke(main, ["list", "--json"])
    assert result.exit_code == 0
    rows = {row["name"]: row["what"] for row in json.loads(result.stdout)}
    assert {name for name, what in rows.items() if what == "broken plugin"} == installed
    assert {"train", "finetune", "akh", "metav"} <= rows.keys()
    desk.write(swap("train, model: slim", "drawn"))
    desk.run()


@pytest.mark.usefixtures("site")
def test_a_broken_plugin_is_named_when_a_name_is_missing(desk):
    desk.write(swap("method: grid", "method: gone"))
    assert_one_sentence(desk("plan"), "no method 'gone'", "plugin gone (gone 1.0) did not load")


def test_an_unknown_name_is_not_described():
    result = CliRunner().invoke(main, ["describe", "metv"])
    assert_one_sentence(result, "no scenario, recipe or method 'metv'; did you mean metav?")


def test_an_unknown_command_is_not_run():
    result = CliRunner().invoke(main, ["rnu"])
    assert result.exit_code == 2
    assert "no command 'rnu'; did you mean run" in result.stderr
