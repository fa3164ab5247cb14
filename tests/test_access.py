"""More access does not make a method worse: label, then probs, then output."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from scipy.stats import ttest_1samp
from sklearn.metrics import roc_auc_score

from fpbench import Access, Fingerprinter, run
from fpbench.engine.registry import Registry
from fpbench.testing import TOYS, toy_zoo

METHODS = {
    name: offer.cls
    for name, offer in Registry.load().methods.items()
    if len(offer.cls.accepts) > 1 and offer.cls().declines(TOYS[0]) is None
}
QUICKSTART = Path(__file__).parent.parent / "suites/quickstart.yaml"


def not_worse(more: Sequence[float], less: Sequence[float]) -> bool:
    """Return whether `more` is not below `less` beyond the noise of the seeds.

    The scores are paired by seed. They are below beyond noise if a one-sided paired t-test rejects
    equal means at 1 %.
    """
    gaps = [a - b for a, b in zip(more, less, strict=True)]
    if len(set(gaps)) == 1:
        return gaps[0] >= 0
    return float(ttest_1samp(gaps, 0, alternative="less").pvalue) > 0.01


def test_the_bound_is_that_of_the_noise() -> None:
    assert not_worse([0.90, 0.93, 0.96], [0.91, 0.95, 0.93])
    assert not not_worse([0.90, 0.93, 0.96], [0.95, 0.98, 1.00])


@pytest.mark.parametrize("name", METHODS)
def test_more_access_is_not_worse_on_the_toys(name: str) -> None:
    method = METHODS[name](**{"n_queries": 30, **METHODS[name].quick})
    scores = {
        level: [toy_auc(method, level, seed) for seed in range(4)]
        for level in sorted(method.accepts)
    }
    for less, more in pairwise(scores):
        assert not_worse(scores[more], scores[less]), (
            f"{less}: {scores[less]}, {more}: {scores[more]}"
        )


@pytest.mark.slow
def test_more_access_is_not_worse_on_quickstart(tmp_path: Path) -> None:
    # As many repeats as fit into the time; metav with fewer steps for the same reason.
    found: dict[str, dict[Access, list[float]]] = {name: {} for name in METHODS}
    for level in Access:
        report = run(
            QUICKSTART, store=tmp_path / "store", runs=tmp_path / "runs", tracking=False,
            quiet=True, only=[name for name in METHODS if level in METHODS[name].accepts],
            overrides={"api": str(level), "repeats": 4, "methods.metav.steps": 200},
        )  # fmt: skip
        positive = {model.digest: model.positive for model in report.record.models}
        for trial in report.record.trials:
            truth = [positive[digest] for digest in trial.matching_rates]
            auc = float(roc_auc_score(truth, list(trial.matching_rates.values())))
            found[trial.method].setdefault(level, []).append(auc)
    worse = [
        f"{name}: {more} {scores[more]} below {less} {scores[less]}"
        for name, scores in found.items()
        for less, more in pairwise(scores)
        if not not_worse(scores[more], scores[less])
    ]
    assert not worse


def toy_auc(method: Fingerprinter, access: Access, seed: int) -> float:
    """Return the method's AUC on the half of the toy classifiers that it does not learn from."""
    zoo = toy_zoo(TOYS[0], size=8)
    fingerprint = method.construct(zoo.case(method, access, seed))
    rates = [
        [method.verify(fingerprint, zoo.oracle(model, access)) for model in side[4:]]
        for side in (zoo.positives, zoo.negatives)
    ]
    truth = torch.tensor([1] * 4 + [0] * 4)
    return float(roc_auc_score(truth, rates[0] + rates[1]))
