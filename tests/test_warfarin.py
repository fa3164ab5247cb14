"""The IWPC data, against a reference made elsewhere, and what happens without it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from fpbench import FieldError, ResourceError
from fpbench.builtin.scenarios import iwpc, warfarin

DATA = Path(os.environ.get("FPBENCH_DATA", "no FPBENCH_DATA")) / "iwpc"
needs_data = pytest.mark.skipif(
    not (DATA / "iwpc_31.npz").is_file(),
    reason="needs iwpc/ with the table and iwpc_31.npz in $FPBENCH_DATA",
)


@needs_data
@pytest.mark.parametrize("name", sorted(iwpc.SHA256))
def test_features_equal_the_reference(name: str) -> None:
    features, doses, names = iwpc.load(DATA / name)
    with np.load(DATA / "iwpc_31.npz") as reference:
        assert names == [str(n) for n in reference["feature_names"]]
        np.testing.assert_allclose(features, reference["X"], atol=1e-9, rtol=0)
        np.testing.assert_allclose(doses, reference["y"], atol=1e-9, rtol=0)


@needs_data
def test_a_linear_regression_does_as_well_as_published_ones() -> None:
    from sklearn.linear_model import LinearRegression
    from sklearn.model_selection import cross_val_predict

    features, doses, _ = iwpc.load(DATA / "iwpc_raw.csv.gz")
    predicted = cross_val_predict(LinearRegression(), features, doses, cv=10)
    error = np.abs(predicted - doses)
    assert error.mean() == pytest.approx(8.90, abs=0.01)
    assert (error <= 0.2 * doses).mean() == pytest.approx(0.449, abs=0.001)


@needs_data
def test_pools_fill_the_input_range_and_share_no_patient() -> None:
    scenario = warfarin.Warfarin()
    pools = {name: scenario.data(name) for name in ("train", "public", "test", "irrelevant")}
    for pool in pools.values():
        assert pool.inputs.shape[1:] == (31,)
        assert pool.truth.shape == (len(pool.inputs), 1)
        assert pool.inputs.abs().max() <= 1
    assert sum(len(pools[name].inputs) for name in ("train", "public", "test")) == 5741


@needs_data
def test_the_suite_sets_the_shares_of_owner_and_attacker() -> None:
    scenario = warfarin.Warfarin(train_share=0.45, public_share=0.40)
    sizes = [len(scenario.data(name).inputs) for name in ("train", "public", "test")]
    assert sizes == [2583, 2296, 862]
    usual = warfarin.Warfarin()
    owned = scenario.data("train").inputs[: len(usual.data("train").inputs)]
    assert owned.equal(usual.data("train").inputs)  # the order of the patients is the same


def test_shares_leave_patients_for_the_test_pool() -> None:
    with pytest.raises(FieldError, match="public_share: expected a hundredth of the patients"):
        warfarin.Warfarin(train_share=0.5, public_share=0.5)


@needs_data
def test_utility_is_in_mg_per_week() -> None:
    scenario = warfarin.Warfarin()
    truth = scenario.data("test").truth
    off = truth + 1.7 / warfarin.SPREAD
    assert scenario.utility(off, truth)["mae_mg_per_week"] == pytest.approx(1.7, abs=1e-5)
    assert scenario.utility(truth, truth)["within_20_percent"] == 1
    assert scenario.utility(torch.full_like(truth, 100.0), truth)["within_20_percent"] == 0


def test_a_file_that_is_not_the_table_is_never_read(tmp_path: Path) -> None:
    fake = tmp_path / "iwpc.pkl"
    fake.write_bytes(b"cposix\nsystem\n(S'touch owned'\ntR.")
    with pytest.raises(ValueError, match="is not the IWPC table"):
        iwpc.load(fake)
    assert not (tmp_path / "owned").exists()


def test_without_the_table_one_sentence_says_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.metadata

    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setenv("FPBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(ResourceError, match=r"in \$FPBENCH_DATA/iwpc or .*put it there"):
        warfarin.table()
