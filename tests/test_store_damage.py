"""Every kind of file, damaged in every way: found, set aside, made again, told; never used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from finished_runs import finished_run
from stores import DAMAGES, ask, copied, flip, models, prune, told

from conftest import SMALL, Desk, rates
from fpbench.cli import main
from fpbench.store.checks import lineage_of, made_of, trial_of
from fpbench.store.files import sealed, unsealed

KINDS = {
    "weights": "models/*/??/*/weights.safetensors",
    "made": "models/*/??/*/made.json",
    "recipe": "models/*/??/*/recipe.json",
    "trial": "trials/??/*.json",
}


@pytest.fixture
def desk(small, tmp_path) -> Desk:
    return copied(small, tmp_path)


def one(desk: Desk, kind: str) -> Path:
    return min((desk.folder / "store").glob(KINDS[kind]))


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_sets_damage_aside_tells_and_ends_with_equal_results(
    desk, small_results, caplog, monkeypatch, kind, how
):
    file = one(desk, kind)
    whole, damaged = file.read_bytes(), how(file.read_bytes())
    file.write_bytes(damaged)

    monkeypatch.setenv("TOYS_MADE", str(desk.folder / "made.txt"))
    assert rates(desk.run()) == rates(small_results)
    assert (desk.folder / "made.txt").exists() is (kind in ("weights", "made"))
    (aside,) = (desk.folder / "store").rglob("*.damaged-*")
    assert (aside / file.name if aside.is_dir() else aside).read_bytes() == damaged
    assert "was damaged in the store" in caplog.text
    if kind in ("weights", "recipe"):
        assert file.read_bytes() == whole
    assert told(desk, "verify")["damaged"] == {}


@pytest.mark.parametrize("kind", ["weights", "made", "recipe"])
def test_a_model_that_lacks_a_file_is_set_aside_or_mended(desk, small_results, kind):
    one(desk, kind).unlink()
    assert rates(desk.run()) == rates(small_results)
    assert len(models(desk)) == 5
    assert told(desk, "verify")["damaged"] == {}


@pytest.mark.parametrize("kind", KINDS)
def test_workers_set_it_aside_as_well(desk, small_results, kind):
    file = one(desk, kind)
    file.write_bytes(flip(file.read_bytes()))
    assert rates(desk.run("--workers", 2)) == rates(small_results)
    assert len([*(desk.folder / "store").rglob("*.damaged-*")]) == 1
    assert told(desk, "verify")["damaged"] == {}


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_verify_finds_it_sets_it_aside_and_exits_1(desk, kind, how):
    file = one(desk, kind)
    file.write_bytes(how(file.read_bytes()))
    found = told(desk, "verify", exit_code=1)
    assert (found["models"], found["trials"]) == (5, 1)
    broken = file.parent if kind in ("weights", "made") else file
    assert [*found["damaged"]] == [str(broken)]
    assert Path(found["damaged"][str(broken)]).exists()
    assert not broken.exists()
    assert told(desk, "verify")["damaged"] == {}
    assert told(desk, "list")["damaged"] == [*found["damaged"].values()]


@pytest.mark.parametrize("kind", ["made", "recipe", "trial"])
def test_every_flipped_bit_is_found_or_changes_nothing_that_is_read(desk, kind):
    file = one(desk, kind)
    look = {"made": made_of, "trial": trial_of, "recipe": lambda raw, _: lineage_of(raw, name)}[
        kind
    ]
    raw, name = file.read_bytes(), file.parent.name
    right = look(raw, file)
    assert right
    for k in range(8 * len(raw)):
        byte, bit = divmod(k, 8)
        flipped = raw[:byte] + bytes([raw[byte] ^ 1 << bit]) + raw[byte + 1 :]
        assert look(flipped, file) in (None, right), k


@pytest.mark.parametrize("kind", ["made", "trial"])
def test_what_a_later_fpbench_wrote_is_neither_used_nor_touched(desk, kind):
    file = one(desk, kind)
    data = unsealed(file.read_bytes())
    schema = {"made": "fpbench.model/2", "trial": "fpbench.trial/4"}[kind]
    file.write_bytes(sealed({**data, "schema": schema, "more": "of this"}))
    before = file.read_bytes()

    ran = desk("run")
    assert ran.exit_code == 2
    assert schema in ran.stderr
    assert "a later fpbench wrote; update fpbench, or give --store another folder" in ran.stderr
    found = told(desk, "verify")
    assert len(found["newer"]) == 1
    assert found["damaged"] == {}
    desk.write(SMALL.replace("name: small", "name: other\nseed: 1").replace("wide", "slim"))
    prune(desk)
    assert file.read_bytes() == before


def test_what_lock_files_hold_does_not_matter(desk, small_results):
    locks = [*(desk.folder / "store" / "locks").iterdir()]
    assert locks
    for lock in locks:
        lock.write_bytes(b"\xff" * 100)
    shutil.rmtree(models(desk)[0])
    assert rates(desk.run()) == rates(small_results)


def test_what_a_dead_run_said_it_used_does_not_matter_damaged_or_not(desk):
    running = desk.folder / "store" / "running"
    for name in ("dead.lock", "dead.json"):
        (running / name).write_bytes(b"\xff")
    prune(desk)
    assert [*running.iterdir()] == []


# ── the folder of a run ───────────────────────────────────────────────────────────

COMMANDS = (["report"], ["report", "--csv"], ["compare"], ["sync"])


def refused(folder: Path, words: list[str]) -> str:
    """The sentence with which a command refuses a run's folder."""
    folders = [str(folder)] * (1 + (words[0] == "compare"))
    result = CliRunner().invoke(main, [words[0], *folders, *words[1:]])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: expected")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Path:
    return finished_run(tmp_path_factory.mktemp("ran"))


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", ["results.json", "suite.yaml", "suspects.csv", "SHA256SUMS"])
def test_a_damaged_run_is_refused_in_a_sentence(ran, tmp_path, name, how):
    folder = tmp_path / "run"
    shutil.copytree(ran, folder)
    (folder / name).write_bytes(how((folder / name).read_bytes()))
    for words in COMMANDS:
        assert "damaged" in refused(folder, words), words


@pytest.mark.parametrize("name", ["suite.yaml", "suspects.csv"])
def test_a_run_that_lacks_a_file_is_refused(ran, tmp_path, name):
    folder = tmp_path / "run"
    shutil.copytree(ran, folder)
    (folder / name).unlink()
    assert name in refused(folder, ["report"])


def test_a_run_of_before_there_were_checksums_is_read(ran, tmp_path):
    shutil.copy(ran / "results.json", tmp_path)
    result = CliRunner().invoke(main, ["report", str(tmp_path), "--csv"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("words", COMMANDS)
def test_even_without_checksums_damage_is_told_in_a_sentence(ran, tmp_path, words):
    data = json.loads((ran / "results.json").read_text())
    for method in data["methods"]:
        method.pop("summary")
    data["trials"] = 7
    (tmp_path / "results.json").write_text(json.dumps(data))
    refused(tmp_path, words)


@pytest.mark.parametrize("words", COMMANDS)
def test_results_of_a_later_fpbench_are_told_from_damage(ran, tmp_path, words):
    data = json.loads((ran / "results.json").read_text())
    (tmp_path / "results.json").write_text(json.dumps({**data, "schema": "fpbench.results/4"}))
    assert "a later fpbench wrote; update fpbench" in refused(tmp_path, words)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_note_of_where_a_run_is_in_mlflow_is_not_believed(ran, monkeypatch, how):
    uri = "http://127.0.0.1:1"  # nobody answers there
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    note = json.dumps({"chart": "/#/chart", "tracking_uri": uri, "overlay": "/#/overlay"}).encode()
    (ran / "mlflow.json").write_bytes(note)
    found = CliRunner().invoke(main, ["ui", str(ran)])
    assert found.stdout.split() == ["charts", f"{uri}/#/chart", "overlay", f"{uri}/#/overlay"]
    (ran / "mlflow.json").write_bytes(how(note))
    sends = CliRunner().invoke(main, ["ui", str(ran)])
    assert sends.exit_code == 3
    assert f"expected an MLflow server at {uri}" in sends.stderr


def test_sums_are_those_of_sha256sum(ran):
    listed = dict(line.split("  ")[::-1] for line in (ran / "SHA256SUMS").read_text().splitlines())
    assert listed.keys() == {"results.json", "suite.yaml", "suspects.csv"}


def test_list_and_verify_of_no_store_at_all_find_nothing(tmp_path):
    desk = Desk(tmp_path)
    assert told(desk, "list")["models"] == []
    assert told(desk, "verify")["models"] == 0
    assert not ask(desk, "list").exit_code
    assert not (tmp_path / "store").exists()
