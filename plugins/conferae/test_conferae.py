"""ConferAE beyond the contract: its ball, its members, what it keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fpbench_conferae import ConferAE, present

from fpbench import Access, Case, Ensemble, TrialError
from fpbench.testing import TOYS, toy_zoo

ZOO = toy_zoo(TOYS[0], size=12)
STEPS = 30


def case(method: ConferAE, **change) -> Case:
    given = ZOO.case(method, Access.LABEL)
    return replace(given, ensemble=replace(given.ensemble, **change))


def test_a_step_leaves_out_members_at_the_rate_asked_but_never_all_of_them() -> None:
    asked = present(3, 20_000, 0.9, torch.Generator().manual_seed(0))
    assert asked.any(0).all()
    # 2.7 of 3 are left out on average, but for the 0.729 of all draws that would leave none.
    assert float(asked.double().mean()) == pytest.approx((0.3 + 0.729) / 3, abs=0.01)


def test_without_dropout_everybody_is_asked() -> None:
    assert present(4, 100, 0.0, torch.Generator().manual_seed(0)).all()


@pytest.mark.parametrize("eps", [0.15, 0.4])
def test_queries_stay_in_the_ball_around_a_training_point_and_in_the_box(eps: float) -> None:
    method = ConferAE(n_queries=10, eps=eps, steps=STEPS, lr=0.1, pool=5)
    queries = method.construct(case(method)).queries
    inputs = ZOO.scenario.data("train").inputs
    nearest = (queries[:, None] - inputs[None]).abs().flatten(2).amax(2).amin(1)
    assert eps / 2 < float(nearest.max()) <= eps + 1e-6
    assert queries.min() >= 0
    assert queries.max() <= 1


def test_the_target_gives_the_labels_and_they_are_not_the_true_ones() -> None:
    method = ConferAE(n_queries=20, eps=0.3, steps=STEPS)
    fingerprint = method.construct(case(method))
    labels = fingerprint.evidence["labels"]
    assert torch.equal(ZOO.target(fingerprint.queries).argmax(1), labels)
    inputs, truth = ZOO.scenario.data("train")
    distance = (fingerprint.queries[:, None] - inputs[None]).abs().flatten(2).amax(2)
    assert (truth[distance.argmin(1)] != labels).all()


def test_unseen_students_agree_more_than_strangers_do() -> None:
    method = ConferAE(n_queries=40, eps=0.3, steps=STEPS)
    fingerprint = method.construct(case(method))
    students, strangers = (
        [method.verify(fingerprint, ZOO.oracle(model, Access.LABEL)) for model in side]
        for side in (ZOO.positives[7::2], ZOO.negatives[6:])
    )
    assert sum(students) / len(students) > sum(strangers) / len(strangers) + 0.1


def test_tau_is_lowered_to_the_least_conferrable_query_and_recorded() -> None:
    method = ConferAE(n_queries=40, steps=STEPS, eps=0.3, tau=0.99)
    evidence = method.construct(case(method)).evidence
    assert evidence["tau"] == evidence["conferrability"].min() < 0.99


def test_tau_stays_where_enough_points_reach_it() -> None:
    method = ConferAE(n_queries=10, steps=STEPS, eps=0.3, tau=0.05)
    evidence = method.construct(case(method)).evidence
    assert float(evidence["tau"]) == pytest.approx(0.05)
    assert evidence["conferrability"].min() > 0.05


def test_conferrability_is_what_surrogates_say_and_references_do_not() -> None:
    method = ConferAE(n_queries=10, steps=STEPS, eps=0.3)
    given = case(method)
    fingerprint = method.construct(given)
    students = given.ensemble.positives[1::2]
    surrogate, reference = (
        torch.stack([model(fingerprint.queries).softmax(1) for model in side]).mean(0)
        for side in (students, given.ensemble.negatives)
    )
    labels = fingerprint.evidence["labels"][:, None]
    expected = (surrogate * (1 - reference)).gather(1, labels).squeeze(1)
    torch.testing.assert_close(fingerprint.evidence["conferrability"], expected)


def test_fresh_points_are_tried_where_one_pool_is_not_enough() -> None:
    few = {"n_queries": 40, "steps": STEPS, "eps": 0.3, "pool": 1}
    with pytest.raises(TrialError, match="from 40 training points; give conferae more"):
        ConferAE(**few, refills=0).construct(case(ConferAE()))
    assert len(ConferAE(**few, refills=9).construct(case(ConferAE())).queries) == 40


def test_points_are_pushed_alike_in_small_batches() -> None:
    # Neither dropout nor noise: what is drawn depends on the batches.
    methods = [
        ConferAE(n_queries=10, steps=5, eps=0.3, lr=0.06, dropout=0, noise=0, batch_size=size)
        for size in (7, 1000)
    ]
    one, two = (method.construct(case(method)).queries for method in methods)
    torch.testing.assert_close(one, two, rtol=0, atol=1e-3)


def test_without_students_it_says_what_to_do() -> None:
    method = ConferAE(n_queries=10, steps=STEPS)
    with pytest.raises(TrialError, match="surrogates: all"):
        method.construct(case(method, positive_recipes=["finetune"] * 6))


def test_all_positives_may_be_surrogates_each_recipe_counting_alike() -> None:
    method = ConferAE(n_queries=10, steps=STEPS, eps=0.3, surrogates="all")
    given = case(method)
    copies = Ensemble(
        [*given.ensemble.positives, *given.ensemble.positives[::2] * 3],
        given.ensemble.negatives,
        [*given.ensemble.positive_recipes, *["finetune"] * 9],
        given.ensemble.negative_recipes,
    )
    # Without chance, more copies of the same fine-tuned models change nothing.
    method = replace(method, dropout=0, noise=0, steps=5, lr=0.06)
    one, two = (
        method.construct(replace(case(method), ensemble=e)) for e in (given.ensemble, copies)
    )
    torch.testing.assert_close(
        one.evidence["conferrability"], two.evidence["conferrability"], rtol=0, atol=1e-3
    )
