"""`fpbench store list` and `prune`: what is kept, what goes, and who is never disturbed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from stores import ask, copied, models, prune, told

from conftest import SMALL, TOYS, Desk, rates

OTHER = SMALL.replace("name: small", "name: other").replace("copies: 2", "copies: 3")
"""The same zoo and two models more."""


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Desk:
    """A desk on which both suites were run; its suite is the smaller one."""
    desk = Desk(tmp_path_factory.mktemp("both"))
    for text in (OTHER, SMALL):
        desk.write(text)
        desk.run()
    return desk


@pytest.fixture
def desk(both, tmp_path) -> Desk:
    return copied(both, tmp_path)


def content(desk: Desk) -> dict[str, bytes]:
    root = desk.folder / "store"
    files = [*(root / "models").rglob("*"), *(root / "trials").rglob("*")]
    return {str(path.relative_to(root)): path.read_bytes() for path in files if path.is_file()}


def test_list_counts_models_by_scenario_and_kind(desk):
    found = told(desk, "list")
    counts = {(g["scenario"], g["kind"]): g["count"] for g in found["models"]}
    assert counts == {
        ("blobs@1", "drawn wide"): 1, ("blobs@1", "drawn slim"): 3, ("blobs@1", "nudged wide"): 3,
    }  # fmt: skip
    assert found["trials"]["count"] == 2
    sizes = sum(len(raw) for raw in content(desk).values())
    assert sum(g["bytes"] for g in found["models"]) + found["trials"]["bytes"] == sizes
    assert "nudged wide" in ask(desk, "list").stdout


def test_prune_removes_what_no_kept_suite_names_and_nothing_else(desk):
    before = content(desk)
    removed = prune(desk)
    after = content(desk)
    assert removed["removed"] == 2 + 1
    assert removed["bytes"] == sum(len(raw) for name, raw in before.items() if name not in after)
    assert all(before[name] == raw for name, raw in after.items())
    assert len(models(desk)) == 5
    assert [trial["cached"] for trial in desk.run()["trials"]] == [True]
    assert prune(desk)["found"] == 0


def test_a_dry_run_says_the_same_and_removes_nothing(desk):
    before = content(desk)
    found = prune(desk, "--dry-run")
    assert (found["found"], found["removed"]) == (3, 0)
    assert content(desk) == before
    assert prune(desk)["bytes"] == found["bytes"]


def test_all_suites_after_keep_are_kept(desk):
    other = desk.folder / "other.yaml"
    other.write_text(OTHER)
    assert prune(desk, other)["found"] == 0


def test_it_asks_first_and_takes_silence_for_no(desk):
    before = content(desk)
    keep = ("--keep", desk.folder / "suite.yaml", "-p", TOYS)
    asked = ask(desk, "prune", *keep)
    assert asked.exit_code == 1
    assert "2 models, " in asked.output
    assert "remove them?" in asked.output
    assert content(desk) == before


def test_without_a_suite_to_keep_it_refuses(desk):
    result = ask(desk, "prune", "--yes")
    assert result.exit_code == 2
    assert "expected --keep SUITE" in result.stderr


def test_a_suite_that_cannot_be_read_costs_nothing(desk):
    before = content(desk)
    desk.write("name: [")
    result = ask(desk, "prune", "--yes", "--keep", desk.folder / "suite.yaml")
    assert result.exit_code == 2
    assert content(desk) == before


def test_what_was_set_aside_and_what_dead_runs_left_goes_too(desk):
    prune(desk)
    folder = models(desk)[0]
    (folder.with_name(f"{folder.name}.damaged-ab")).mkdir()
    half = folder.with_name(f".tmp-{'0' * 64}-xyz")
    half.mkdir()
    (half / "weights.safetensors").write_bytes(b"12345")
    (folder / "recipe.json.damaged-ab").write_bytes(b"123")
    found = told(desk, "list")
    assert (found["set_aside"]["count"], found["temporary"]["bytes"]) == (2, 5)
    assert prune(desk)["bytes"] == 5 + 3
    assert [*(desk.folder / "store" / "models").rglob("*.damaged-*")] == []
    assert not half.exists()


def test_what_is_not_of_fpbench_is_left_alone(desk):
    notes = models(desk)[0].parent / "notes.txt"
    notes.write_text("mine")
    prune(desk)
    assert notes.exists()


def spare(desk: Desk) -> list[Path]:
    """The models that `prune` would remove."""
    kept = copied(desk, desk.folder)
    prune(kept)
    return [f for f in models(desk) if f.name not in {g.name for g in models(kept)}]


PRUNES = """\
import json
from pathlib import Path
from click.testing import CliRunner
import fpbench
from fpbench.cli import main

@fpbench.hookimpl
def fpbench_attempted(result):
    for lease in Path({store!r}, "running").glob("*.json"):
        {act}
    pruned = CliRunner().invoke(main, {words})
    Path({said!r}).write_text(json.dumps([pruned.exit_code, pruned.stdout, pruned.stderr]))
"""


def pruned_during_a_run(desk: Desk, act: str) -> tuple[int, str, str]:
    """Run the larger suite, and prune what the smaller one does not name before the run ends."""
    small = copied(desk, desk.folder)
    keep = ["--keep", str(small.folder / "suite.yaml"), "-p", str(TOYS)]
    store, said = str(desk.folder / "store"), str(desk.folder / "said.json")
    words = ["store", "prune", *keep, "--yes", "--json", "--store", store]
    plugin = desk.folder / "prunes.py"
    plugin.write_text(PRUNES.format(store=store, act=act, words=words, said=said))
    desk.write(OTHER)
    desk.run("--fresh-all", plugins=(plugin,))
    exit_code, stdout, stderr = json.loads(Path(said).read_text())
    return exit_code, stdout, stderr


def test_models_that_a_run_in_progress_uses_stay(desk):
    exit_code, stdout, _ = pruned_during_a_run(desk, "pass")
    assert exit_code == 0
    assert json.loads(stdout)["in_use"] == 2
    assert len(models(desk)) == 7
    desk.write(SMALL)
    assert prune(desk)["in_use"] == 0
    assert len(models(desk)) == 5


def test_where_it_cannot_be_told_what_a_run_uses_nothing_goes(desk):
    before = content(desk)
    exit_code, _, stderr = pruned_during_a_run(desk, "lease.write_bytes(b'{')")
    assert exit_code == 3
    assert "prune when that run has ended" in stderr
    assert content(desk).keys() == before.keys()


def test_models_that_are_being_made_stay(desk):
    used, unused = spare(desk)
    half = used.with_name(f".tmp-{used.name}-xyz")
    half.mkdir()
    with FileLock(desk.folder / "store" / "locks" / f"{used.name}.lock"):
        assert prune(desk)["in_use"] == 2
        assert used.exists()
        assert half.exists()
        assert not unused.exists()


def test_a_trial_without_the_models_that_could_not_be_made_is_named_too(desk):
    suite = SMALL.replace("copies: 2}\nm", "copies: 2}\n    - {recipe: drawn, trouble: raises}\nm")
    desk.write(suite)
    shutil.rmtree(desk.folder / "store" / "trials")
    first = desk.run(exit_code=1)
    prune(desk)
    again = desk.run(exit_code=1)
    assert [trial["cached"] for trial in again["trials"]] == [True]
    assert rates(again) == rates(first)


def test_a_run_leaves_no_word_of_what_it_used(desk):
    shutil.rmtree(desk.folder / "store")
    desk.run()
    assert [*(desk.folder / "store" / "running").iterdir()] == []
