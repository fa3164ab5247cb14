"""The grammar of suites: what `each:`, `copies:`, `range:` and the rest expand to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from conftest import TOYS
from fpbench import Access, SuiteError
from fpbench.engine.plan import Plan
from fpbench.engine.registry import Registry
from fpbench.engine.suite import Suite

REGISTRY = Registry.load([TOYS])


@dataclass
class Draft:
    """A suite to be written into a folder and read back; a test changes what it is about."""

    folder: Path
    data: dict[str, Any] = field(
        default_factory=lambda: {
            "name": "draft",
            "scenario": "digits",
            "api": "probs",
            "target": {"recipe": "train", "model": "resnet"},
            "zoo": {
                "positives": [{"recipe": "finetune", "layers": "all", "copies": 2}],
                "negatives": [{"recipe": "train", "model": "mlp", "copies": 2}],
            },
            "methods": [{"method": "random"}],
        }
    )

    def write(self) -> Path:
        path = self.folder / "draft.yaml"
        with path.open("w") as file:
            YAML().dump(self.data, file)
        return path

    def read(self, *overrides: str, only: tuple[str, ...] = ()) -> Suite:
        return Suite.load(self.write(), REGISTRY, overrides=overrides, only=only)

    def positives(self, *entries: dict[str, Any]) -> tuple[Any, ...]:
        self.data["zoo"]["positives"] = list(entries)
        return self.read().zoos[0].positives

    def methods(self, *entries: dict[str, Any]) -> list[tuple[str, Any]]:
        self.data["methods"] = list(entries)
        return [(v.label, v.method) for v in self.read().methods]


@pytest.fixture
def draft(tmp_path: Path) -> Draft:
    return Draft(tmp_path)


def test_each_is_a_product_with_the_last_key_fastest(draft):
    found = draft.positives(
        {"recipe": "prune_weights", "each": {"ratio": [0.1, 0.2], "recover": [0, 1]}}
    )
    assert [(r.ratio, r.recover) for r in found] == [(0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1)]


def test_a_suite_may_have_more_models_than_anybody_has_trained(draft):
    lrs = {"range": ["1/1000", "100/1000", "1/1000"]}
    entry = {"recipe": "finetune", "layers": "all", "each": {"lr": lrs}, "copies": 250}
    assert len(draft.positives(entry)) == 25_000


def test_copies_are_seeds_from_one(draft):
    found = draft.positives({"recipe": "finetune", "layers": "all", "copies": 3})
    assert [r.seed for r in found] == [1, 2, 3]


def test_an_entry_without_copies_has_the_zoos_own_seed(draft):
    (found,) = draft.positives({"recipe": "finetune", "layers": "all"})
    assert found.seed == 0


def test_another_zoo_has_other_models_from_target_to_last(draft):
    first = draft.read()
    other = draft.read("zoo.seed=1")
    digests = [{r.digest for r in s.zoos[0].models} for s in (first, other)]
    assert not digests[0] & digests[1]


def test_an_override_of_one_zoo_replaces_several_and_back(draft):
    draft.data["zoo"]["seeds"] = [4, 5]
    for overrides, seeds in (
        ((), [4, 5]),
        (("zoo.seed=2",), [2]),
        (("zoo.seed=2", "zoo.seeds=[1, 0]"), [1, 0]),
        (("zoo.seeds.0=7",), [7, 5]),
    ):
        assert [zoo.seed for zoo in draft.read(*overrides).zoos] == seeds


@pytest.mark.parametrize(
    ("written", "values"),
    [
        ([0.1, 0.9, 0.1], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
        (["1/16", "3/16", "1/16"], [1 / 16, 2 / 16, 3 / 16]),
        (["1/3", "2/3", "1/3"], [1 / 3, 2 / 3]),
        ([0.5, 0.5, 1], [0.5]),
        ([0.9, 0.1, -0.4], [0.9, 0.5, 0.1]),
        ([0.1, 0.5, 0.3], [0.1, 0.4]),
    ],
)
def test_a_range_has_exact_values_and_includes_its_last(draft, written, values):
    found = draft.positives({"recipe": "prune_weights", "each": {"ratio": {"range": written}}})
    assert [r.ratio for r in found] == values


def test_a_range_of_whole_numbers_stays_whole(draft):
    entry = {"recipe": "finetune", "layers": "all", "each": {"epochs": {"range": [1, 7, 3]}}}
    assert [r.epochs for r in draft.positives(entry)] == [1, 4, 7]


def test_fractions_are_numbers_wherever_a_value_stands(draft):
    (fixed,) = draft.positives({"recipe": "prune_weights", "ratio": "3/16"})
    (swept,) = draft.positives({"recipe": "prune_weights", "each": {"ratio": ["3/16"]}})
    assert fixed.ratio == swept.ratio == 3 / 16


def test_defaults_reach_every_recipe_of_their_name_and_an_entry_wins(draft):
    draft.data["recipes"] = {"train": {"epochs": 3}, "finetune": {"epochs": 4}}
    plain, own = draft.positives(
        {"recipe": "finetune", "layers": "all"},
        {"recipe": "finetune", "layers": "last", "epochs": 5},
    )
    (zoo,) = draft.read().zoos
    assert zoo.target.epochs == 3
    assert [r.epochs for r in zoo.negatives] == [3, 3]
    assert (plain.epochs, own.epochs) == (4, 5)


def test_methods_sweep_like_models_and_say_so_in_their_labels(draft):
    found = draft.methods(
        {"method": "random", "each": {"n_queries": [10, 20]}},
        {"method": "random", "label": "control", "n_queries": 5},
    )
    assert [(label, m.n_queries) for label, m in found] == [
        ("random(n_queries=10)", 10),
        ("random(n_queries=20)", 20),
        ("control", 5),
    ]


def test_the_size_of_the_ensemble_may_be_swept_too(draft):
    draft.methods({"method": "metav", "each": {"ensemble": [2, 4]}})
    assert [(v.label, v.ensemble) for v in draft.read().methods] == [
        ("metav(ensemble=2)", 2),
        ("metav(ensemble=4)", 4),
    ]


def test_a_scenario_may_be_named_alone_or_with_its_fields(draft):
    plain = draft.read().scenario
    draft.data["scenario"] = {"scenario": "digits"}
    assert draft.read().scenario == plain


def test_expansion_loads_no_data(draft, monkeypatch):
    def load(self):
        raise AssertionError("nobody may ask for data while planning")

    monkeypatch.setattr(REGISTRY.scenarios["digits"].cls, "load", load)
    assert Plan.of(draft.read()).trials


@pytest.mark.parametrize(
    ("setting", "read", "value"),
    [
        ("api=label", lambda s: s.api, Access.LABEL),
        ("seed=7", lambda s: s.seed, 7),
        ("repeats=2", lambda s: s.repeats, 2),
        ("zoo.split=0.25", lambda s: s.split, 0.25),
        ("zoo.stratify=false", lambda s: s.stratify, False),
        ("recipes.train.epochs=2", lambda s: s.zoos[0].target.epochs, 2),
        ("target.model=cnn", lambda s: s.zoos[0].target.model, "cnn"),
        ("methods.random.n_queries=7", lambda s: s.methods[0].method.n_queries, 7),
        ("methods.0.n_queries=7", lambda s: s.methods[0].method.n_queries, 7),
        ("zoo.positives.0.copies=1", lambda s: len(s.zoos[0].positives), 1),
        ("zoo.positives.finetune.layers=last", lambda s: s.zoos[0].positives[0].layers, "last"),
        ("zoo.negatives.train.each={model: [mlp]}", lambda s: s.zoos[0].negatives[0].model, "mlp"),
    ],
)
def test_an_override_is_typed_by_what_it_sets(draft, setting, read, value):
    if "each" in setting:
        del draft.data["zoo"]["negatives"][0]["model"]
    found = read(draft.read(setting))
    assert found == value
    assert type(found) is type(value)


def test_a_later_override_wins(draft):
    assert draft.read("seed=1", "seed=2").seed == 2


def test_a_plus_appends_to_a_list(draft):
    recipe = "zoo.positives.+={recipe: prune_weights, ratio: 0.5}"
    suite = draft.read(recipe, "methods.+={method: akh}", "methods.akh.n_queries=7")
    assert suite.zoos[0].positives[-1].name == "prune_weights"
    assert [(v.label, v.method.n_queries) for v in suite.methods] == [("random", 100), ("akh", 7)]


def test_what_is_appended_is_checked_like_the_file(draft):
    with pytest.raises(SuiteError, match=r"^-o methods\.\+=.*: no key 'size' in akh"):
        draft.read("methods.+={method: akh, size: 3}")


def test_only_takes_any_installed_method_and_says_so_in_the_overrides(draft):
    suite = draft.read("methods.akh.n_queries=9", only=("akh", "akh"))
    assert [(v.label, v.method.n_queries) for v in suite.methods] == [("akh", 9)]
    assert suite.overrides[0] == "methods.+={method: akh}"
    assert draft.read(only=("random",)).overrides == ()
    # As it used to be written: an entry turned into another method.
    renamed = draft.read("methods.random.method=akh", only=("akh",))
    assert [v.label for v in renamed.methods] == ["akh"]


def test_an_override_reaches_every_entry_of_a_name(draft):
    draft.methods({"method": "random"}, {"method": "random", "label": "again"})
    suite = draft.read("methods.random.n_queries=3")
    assert [v.method.n_queries for v in suite.methods] == [3, 3]


def test_only_keeps_methods_by_label_or_by_name(draft):
    draft.methods(
        {"method": "random", "each": {"n_queries": [1, 2]}}, {"method": "akh", "label": "errors"}
    )
    for only, expected in (
        (("random",), ["random(n_queries=1)", "random(n_queries=2)"]),
        (("errors",), ["errors"]),
        (("akh", "random(n_queries=2)"), ["random(n_queries=2)", "errors"]),
    ):
        assert [v.label for v in draft.read(only=only).methods] == expected


# ── any suite ─────────────────────────────────────────────────────────────────────

SWEEPS = {
    "epochs": st.integers(1, 9),
    "lr": st.sampled_from([0.1, 0.01, 0.001]),
    "batch_size": st.integers(1, 9),
    "cosine": st.booleans(),
}
POSITIVES = [{"recipe": "finetune", "layers": "last"}, {"recipe": "retrain", "layers": "all"}]
NEGATIVES = [{"recipe": "train", "model": name} for name in ("mlp", "cnn", "resnet")]


@st.composite
def entries(draw, base):
    """One entry and how many models it stands for."""
    keys = draw(st.lists(st.sampled_from(sorted(SWEEPS)), unique=True))
    values = {k: draw(st.lists(SWEEPS[k], min_size=1, max_size=3, unique=True)) for k in keys}
    copies = draw(st.none() | st.integers(1, 4))
    entry = {**base, **({"each": values} if values else {})}
    if copies:
        entry["copies"] = copies
    return entry, math.prod(map(len, values.values())) * (copies or 1)


def sides(bases):
    """Some of the entries, each at most once so that no model stands twice."""
    return st.tuples(*map(entries, bases)).flatmap(
        lambda drawn: st.lists(st.sampled_from(drawn), min_size=1, unique_by=lambda pair: str(pair))
    )


@settings(max_examples=30)
@given(sides(POSITIVES), sides(NEGATIVES), st.integers(0, 3))
def test_any_suite_has_as_many_models_as_its_products_and_copies_say(
    tmp_path_factory, positives, negatives, zoo_seed
):
    draft = Draft(tmp_path_factory.mktemp("any"))
    # No epochs in the sweeps reach so far, so the target is none of the negatives.
    draft.data["target"]["epochs"] = 99
    draft.data["zoo"] = {
        "seed": zoo_seed,
        "positives": [entry for entry, _ in positives],
        "negatives": [entry for entry, _ in negatives],
    }
    (zoo,) = draft.read().zoos
    assert len(zoo.positives) == sum(count for _, count in positives)
    assert len(zoo.negatives) == sum(count for _, count in negatives)
    assert all(r.descends_from(zoo.target) for r in zoo.positives)
    assert not any(r.descends_from(zoo.target) for r in zoo.negatives)
    assert len({r.digest for r in zoo.models}) == len(zoo.models)


@settings(max_examples=15)
@given(
    sides(POSITIVES),
    sides(NEGATIVES),
    st.lists(st.integers(0, 9), min_size=2, max_size=4, unique=True),
    st.integers(1, 3),
)
def test_any_zoo_of_several_is_planned_as_if_it_were_alone(
    tmp_path_factory, positives, negatives, seeds, repeats
):
    draft = Draft(tmp_path_factory.mktemp("several"))
    draft.data["target"]["epochs"] = 99
    draft.data |= {"repeats": repeats, "methods": [{"method": "random"}, {"method": "metav"}]}
    # Each side gets two kinds that no sweep has, so that both halves of the split have models.
    draft.data["zoo"] = {
        "seeds": seeds,
        "positives": [entry for entry, _ in positives]
        + [{"recipe": "finetune", "layers": "all", "copies": 2}],
        "negatives": [entry for entry, _ in negatives]
        + [{"recipe": "train", "model": "cnn", "epochs": 98, "copies": 2}],
    }
    several = Plan.of(draft.read())
    assert [zoo.seed for zoo in several.suite.zoos] == seeds
    assert len({model.digest for model in several.models}) == len(several.models)
    cohorts = several.cohorts(several.models)
    for zoo in several.suite.zoos:
        alone = Plan.of(draft.read(f"zoo.seed={zoo.seed}"))
        assert alone.suite.zoos == (zoo,)
        assert list(alone.trials) == [trial for trial in several.trials if trial.zoo == zoo.seed]
        own = [cohort for cohort in cohorts if cohort[0] in zoo.models]
        assert own == alone.cohorts(alone.models)


# ── the split ─────────────────────────────────────────────────────────────────────


@settings(max_examples=20)
@given(st.integers(2, 9), st.integers(2, 9), st.floats(0.3, 0.7), st.booleans(), st.integers(0, 99))
def test_a_split_judges_and_teaches_disjoint_models_and_uses_them_all(
    tmp_path_factory, n_finetuned, n_retrained, split, stratify, seed
):
    draft = Draft(tmp_path_factory.mktemp("split"))
    draft.data |= {"seed": seed, "repeats": 3, "methods": [{"method": "metav"}]}
    draft.data["zoo"] |= {
        "split": split,
        "stratify": stratify,
        "positives": [
            {"recipe": "finetune", "layers": "all", "copies": n_finetuned},
            {"recipe": "retrain", "layers": "all", "copies": n_retrained},
        ],
        "negatives": [{"recipe": "train", "model": "mlp", "copies": 6}],
    }
    suite = draft.read()
    (zoo,) = suite.zoos
    for trial in Plan.of(suite).trials:
        learned, judged = set(trial.ensemble), set(trial.suspects)
        assert not learned & judged
        assert learned | judged == {*zoo.positives, *zoo.negatives}
        assert zoo.target not in learned | judged
        assert abs(sum(r in learned for r in zoo.positives)
                   - split * (n_finetuned + n_retrained)) < 1  # fmt: skip
        if stratify:
            finetuned = sum(r.kind == "FTAL" for r in learned)
            assert abs(finetuned - split * n_finetuned) < 1


def test_a_repeat_redraws_the_split_and_never_the_zoo(draft):
    draft.data["zoo"]["positives"][0]["copies"] = 8
    draft.data["methods"] = [{"method": "metav"}, {"method": "random"}]
    trials = Plan.of(draft.read("repeats=4")).trials
    judged = [frozenset(t.suspects) for t in trials if t.label == "random"]
    assert len(set(judged)) > 1
    assert judged == [frozenset(t.suspects) for t in trials if t.label == "metav"]
    assert len({t.seed for t in trials}) == 4


def test_a_method_without_an_ensemble_learns_from_nobody(draft):
    assert all(trial.ensemble == () for trial in Plan.of(draft.read()).trials)


def test_an_ensemble_of_a_given_size_is_half_positive(draft):
    draft.data["zoo"]["positives"][0]["copies"] = 8
    draft.data["zoo"]["negatives"][0]["copies"] = 8
    draft.methods({"method": "metav", "ensemble": 4})
    suite = draft.read()
    (zoo,) = suite.zoos
    for trial in Plan.of(suite).trials:
        assert [r in zoo.positives for r in trial.ensemble] == [True, True, False, False]


@pytest.mark.parametrize(
    ("api", "method", "access"),
    [
        ("label", "random", Access.LABEL),
        ("output", "random", Access.LABEL),
        ("probs", "metav", Access.PROBS),
        ("output", "metav", Access.OUTPUT),
    ],
)
def test_a_method_gets_the_richest_access_it_accepts_and_the_suite_gives(
    draft, api, method, access
):
    draft.methods({"method": method})
    assert {t.access for t in Plan.of(draft.read(f"api={api}")).trials} == {access}


def test_a_method_that_needs_more_than_the_api_gives_is_refused_with_a_reason(draft):
    draft.methods({"method": "metav"}, {"method": "random"})
    plan = Plan.of(draft.read("api=label"))
    assert plan.refusals == {"metav": "metav needs probs or output; the suite's api gives label"}
    assert {t.label for t in plan.trials} == {"random"}


def test_parents_are_built_before_their_children(draft):
    generations = Plan.of(draft.read()).generations()
    done: set[str] = set()
    for generation in generations:
        assert all(r.parent is None or r.parent.digest in done for r in generation)
        done |= {r.digest for r in generation}


def based(draft, text):
    """Write the draft, and a suite beside it; return the path of that."""
    draft.write()
    path = draft.folder / "based.yaml"
    path.write_text(text)
    return path


def test_a_suite_takes_from_its_base_what_it_does_not_say(draft):
    path = based(draft, "name: more\nbase: draft.yaml\nmethods: [{method: akh}]\n")
    suite, base = Suite.load(path, REGISTRY), draft.read()
    assert (suite.name, suite.scenario) == ("more", base.scenario)
    assert suite.zoos == base.zoos
    assert [v.label for v in suite.methods] == ["akh"]


def test_the_text_of_a_based_suite_stands_alone(draft):
    path = based(draft, "name: more\nbase: draft.yaml\nmethods: [{method: akh}]\n")
    suite = Suite.load(path, REGISTRY)
    alone = draft.folder / "elsewhere" / "alone.yaml"
    alone.parent.mkdir()
    alone.write_text(suite.source.text)
    again = Suite.load(alone, REGISTRY)
    assert again.zoos == suite.zoos
    assert [v.method for v in again.methods] == [v.method for v in suite.methods]


def test_a_mistake_is_told_where_it_stands_in_the_base(draft):
    draft.data["methods"] = [{"method": "akk"}]
    path = based(draft, "name: more\nbase: draft.yaml\n")
    with pytest.raises(SuiteError, match=r"draft\.yaml:\d+:\d+: no method 'akk'"):
        Suite.load(path, REGISTRY)


def test_a_circle_of_bases_is_refused(draft):
    draft.data["base"] = "based.yaml"
    path = based(draft, "name: more\nbase: draft.yaml\n")
    with pytest.raises(SuiteError, match=r"a circle at based\.yaml"):
        Suite.load(path, REGISTRY)


def test_a_base_that_is_not_there_is_told(draft):
    with pytest.raises(SuiteError, match=r"expected a suite at .*nowhere\.yaml"):
        Suite.load(based(draft, "name: more\nbase: nowhere.yaml\n"), REGISTRY)
    with pytest.raises(SuiteError, match=r"based\.yaml:2:1: base: expected the path of a suite"):
        Suite.load(based(draft, "name: more\nbase: 3\n"), REGISTRY)
