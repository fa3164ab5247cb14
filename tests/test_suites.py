"""The suites that come with fpbench: they plan, and hold what the paper's tables say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from fpbench import Fingerprinter
from fpbench.engine.plan import Plan
from fpbench.engine.registry import Registry
from fpbench.engine.suite import Suite

SUITES = Path(__file__).parent.parent / "suites"


def load(path: Path) -> Suite:
    return Suite.load(path, Registry.load())


@pytest.mark.parametrize("path", sorted(SUITES.rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_suite_plans(path: Path) -> None:
    suite = load(path)
    assert suite.name == path.stem
    assert Plan.of(suite).trials


def test_every_method_has_four_settings_to_choose_from_its_default_among_them() -> None:
    tried: dict[str, list[Fingerprinter]] = {}
    for variant in load(SUITES / "paper/settings.yaml").methods:
        tried.setdefault(variant.method.name, []).append(variant.method)
    controls = {"akh", "random", "ibsf"}
    assert tried.keys() == Registry.load().methods.keys() - controls
    for settings in tried.values():
        assert len(set(settings)) == 4
        assert type(settings[0])() in settings


def test_settings_are_tried_on_another_zoo_of_quickstarts_recipes() -> None:
    quickstart, settings = (
        load(SUITES / f"{name}.yaml").zoos[0] for name in ("quickstart", "paper/settings")
    )
    assert settings.seed not in (0, 1, 2)
    assert [r.kind for r in settings.models] == [r.kind for r in quickstart.models]


def test_warfarin_is_the_papers_table_3() -> None:
    suite = load(SUITES / "warfarin.yaml")
    kinds = Counter(r.kind for r in suite.zoos[0].models[1:])
    assert kinds == {
        "FTLL": 2, "FTAL": 2, "RTLL": 2, "RTAL": 2, "WP": 36,
        "distilled s": 10, "distilled m": 10, "distilled l": 6,
        **{f"independent {m} ({pool})": 10 for m in "sml" for pool in ("train", "public")},
        "irrelevant": 10,
    }  # fmt: skip
    assert len(suite.zoos[0].positives) == len(suite.zoos[0].negatives) == 70
    digests = {r.digest for r in suite.zoos[0].models}
    assert len(digests) == 141


def test_fashion_is_the_papers_table_3() -> None:
    suite = load(SUITES / "fashion.yaml")
    kinds = Counter(r.kind for r in suite.zoos[0].models[1:])
    assert kinds == {
        "FTLL": 2, "FTAL": 2, "RTLL": 2, "RTAL": 2, "WP": 18, "FP": 30,
        "distilled s": 6, "distilled m": 6, "distilled l": 2,
        **{f"independent {m} ({pool})": 10 for m in ("s", "xl") for pool in ("train", "public")},
        **{f"independent {m} ({pool})": 5 for m in "ml" for pool in ("train", "public")},
        "irrelevant": 10,
    }  # fmt: skip
    assert len(suite.zoos[0].positives) == len(suite.zoos[0].negatives) == 70
    digests = {r.digest for r in suite.zoos[0].models}
    assert len(digests) == 141


def test_warfarin_is_for_methods_of_any_task() -> None:
    plan = Plan.of(load(SUITES / "warfarin.yaml"))
    assert {t.label for t in plan.trials} == {"metav-paper", "metav", "modeldiff", "zest"}
    assert set(plan.refusals) == {"ipguard", "akh", "random"}


@pytest.mark.parametrize("study", ["skin-queries", "skin-time", "fashion-queries"])
def test_a_study_in_small_sweeps_what_the_full_one_does(study: str) -> None:
    small, full = (
        load(SUITES / "paper" / f"{name}.yaml") for name in (study.replace("-", "-cpu-", 1), study)
    )
    assert [v.label for v in small.methods] == [v.label for v in full.methods]
    assert full.smaller == (small.name,)


def test_fashion_for_a_cpu_has_every_kind_of_suspect() -> None:
    small, whole = (load(SUITES / f"{name}.yaml") for name in ("fashion-cpu", "fashion"))
    kinds = [{r.kind for r in s.zoos[0].models[1:]} for s in (small, whole)]
    assert kinds[0] == kinds[1]


def test_fashion_is_for_methods_of_any_task() -> None:
    plan = Plan.of(load(SUITES / "fashion.yaml"))
    assert {trial.label for trial in plan.trials} == {"metav", "modeldiff", "sac", "zest"}
    assert set(plan.refusals) == {"ipguard", "deepfoolfp", "akh", "random"}


PAPERS = ("squeezenet", "resnet18", "densenet161", "alexnet", "vgg16")
SMALL = ("small_squeezenet", "small_resnet", "small_densenet", "small_alexnet", "small_vgg")


@pytest.mark.parametrize(
    ("name", "sizes"), [("skin", PAPERS), ("skin-32", PAPERS), ("skin-cpu", SMALL)]
)
def test_skin_is_the_papers_table_3(name: str, sizes: tuple[str, ...]) -> None:
    zoo = load(SUITES / f"{name}.yaml").zoos[0]
    distilled = dict(zip(sizes, (4, 4, 2, 2, 2), strict=True))
    independent = dict(zip(sizes, (10, 10, 6, 2, 2), strict=True))
    assert Counter(r.kind for r in zoo.models[1:]) == {
        "FTLL": 2, "FTAL": 2, "RTLL": 2, "RTAL": 2, "WP": 18, "FP": 30, "irrelevant": 10,
        **{f"distilled {m}": n for m, n in distilled.items()},
        **{f"independent {m} ({pool})": n
           for m, n in independent.items() for pool in ("train", "public")},
    }  # fmt: skip
    assert len(zoo.positives) == len(zoo.negatives) == 70
    assert zoo.target.arch == sizes[1]


def test_smaller_suites_are_there() -> None:
    for path in SUITES.rglob("*.yaml"):
        for name in load(path).smaller:
            assert [*SUITES.rglob(f"{name}.yaml")]


def test_quickstart_has_every_obfuscation_and_three_architectures() -> None:
    suite = load(SUITES / "quickstart.yaml")
    assert {r.name for r in suite.zoos[0].positives} == {
        "finetune", "retrain", "prune_weights", "prune_filters", "distill",
    }  # fmt: skip
    assert len({r.arch for r in suite.zoos[0].negatives}) >= 3
    assert min(len(suite.zoos[0].positives), len(suite.zoos[0].negatives)) >= 12
    assert suite.repeats == 3
