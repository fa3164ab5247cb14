"""A zoo as one file: out and in without loss; a hostile one is refused and leaves nothing."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from stores import ask, copied, models, told

from conftest import SMALL, TOYS, Desk, rates
from fpbench.store import archive as transfer
from fpbench.store.archive import SCHEMA
from fpbench.store.checks import MODEL
from fpbench.store.files import sealed, sha256, unsealed

FILES = ("recipe.json", "made.json", "weights.safetensors")


@pytest.fixture(scope="module")
def archive(small, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "zoo.tar"
    assert told(small, "export", path)["models"] == 5
    return path


@pytest.fixture
def empty(tmp_path) -> Desk:
    """The same suite over a store that is not there yet."""
    return Desk.of(tmp_path / "empty", SMALL)


def test_an_imported_zoo_is_used_as_if_it_had_been_made_here(
    archive, empty, small_results, monkeypatch
):
    moved = told(empty, "import", archive)
    assert (moved["models"], moved["trials"], moved["kept"]) == (5, 1, 0)
    assert told(empty, "verify")["damaged"] == {}
    monkeypatch.setenv("TOYS_MADE", str(empty.folder / "made.txt"))
    again = empty.run()
    assert not (empty.folder / "made.txt").exists()
    assert [trial["cached"] for trial in again["trials"]] == [True]
    assert rates(again) == rates(small_results)


def test_the_same_content_gives_the_same_bytes(archive, empty):
    told(empty, "import", archive)
    told(empty, "export", empty.folder / "again.tar")
    assert (empty.folder / "again.tar").read_bytes() == archive.read_bytes()


def test_it_is_a_plain_tar_archive(archive):
    with tarfile.open(archive) as tar:
        assert len(tar.getnames()) == 1 + 3 * 5 + 1
        assert tar.getnames()[0] == "manifest.json"


def test_of_some_suites_only_what_they_name_is_exported(small, tmp_path):
    desk = copied(small, tmp_path)
    less = desk.folder / "less.yaml"
    less.write_text(
        SMALL.replace("- {recipe: drawn, copies: 2}", "- {recipe: drawn, copies: 2, model: slim}")
        .replace("{recipe: nudged, copies: 2}", "{recipe: nudged, copies: 2, by: 0.01}")
    )  # fmt: skip
    more = desk.folder / "more.yaml"
    more.write_text(SMALL.replace("copies: 2", "copies: 3"))
    plugin = ("-p", TOYS)
    assert told(desk, "export", tmp_path / "a.tar", less, *plugin)["models"] == 5
    assert told(desk, "export", tmp_path / "b.tar", more, *plugin)["models"] == 5
    assert told(desk, "export", tmp_path / "b.tar", more, *plugin)["trials"] == 0


def test_what_is_damaged_is_left_out_and_told(small, tmp_path):
    desk = copied(small, tmp_path)
    (models(desk)[0] / "weights.safetensors").write_bytes(b"")
    moved = told(desk, "export", tmp_path / "a.tar", exit_code=1)
    assert moved["left_out"] == [str(models(desk)[0])]
    assert moved["models"] == 4


def test_what_the_store_has_stays_and_what_is_damaged_there_is_replaced(small, archive, tmp_path):
    desk = copied(small, tmp_path)
    broken, other = models(desk)[:2]
    whole = (broken / "made.json").read_bytes()
    (broken / "made.json").write_bytes(b"")
    other_made = unsealed((other / "made.json").read_bytes())
    (other / "made.json").write_bytes(sealed({**other_made, "device": "another"}))
    moved = told(desk, "import", archive)
    assert (moved["models"], moved["kept"], moved["trials"]) == (1, 4, 0)
    assert (broken / "made.json").read_bytes() == whole
    assert unsealed((other / "made.json").read_bytes())["device"] == "another"
    assert len([*(desk.folder / "store").rglob("*.damaged-*")]) == 1


def test_an_import_that_was_stopped_goes_on(archive, empty, monkeypatch):
    real, calls = transfer.write, []

    def write(path, data):
        calls.append(path)
        if len(calls) == 8:  # in the midst of the third model
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(transfer, "write", write)
    assert ask(empty, "import", archive).exit_code == 130
    assert len(models(empty)) == 2
    assert told(empty, "list")["temporary"]["count"] == 0
    monkeypatch.undo()
    moved = told(empty, "import", archive)
    assert (moved["models"], moved["kept"]) == (3, 2)


# ── hostile archives ──────────────────────────────────────────────────────────────


def members(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}


def tarred(content: dict[str, bytes], path: Path) -> None:
    """Write an archive of some files in their order."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, raw in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))


def rebuilt(content: dict[str, bytes], path: Path) -> None:
    """Write an archive of other content with a manifest that fits: who can seal can do this."""
    models: dict[str, list[str]] = {}
    trials = {}
    for name, raw in sorted(content.items(), key=lambda item: order(item[0])):
        if name.startswith("models/"):
            models.setdefault(name.split("/")[1], []).append(sha256(raw))
        elif name.startswith("trials/"):
            trials[name[7:-5]] = sha256(raw)
    manifest = sealed({"schema": SCHEMA, "models": models, "trials": trials})
    files = {name: content[name] for name in sorted(content, key=order)}
    tarred({"manifest.json": manifest, **files}, path)


def order(name: str) -> tuple[str, int]:
    folder, _, file = name.rpartition("/")
    return folder, FILES.index(file) if file in FILES else 0


def refused(desk: Desk, path: Path, exit_code: int = 2) -> str:
    """The sentence with which an archive is refused, leaving nothing."""
    result = ask(desk, "import", path)
    assert result.exit_code == exit_code, result.output
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    left = [p for p in desk.folder.rglob("*") if p.name != "suite.yaml"]
    assert left == []
    return result.stderr


def retarred(archive: Path, path: Path, change: Callable[[list], list]) -> None:
    """The archive with its members changed, written by tarfile."""
    with tarfile.open(archive) as tar:
        found = [(m, tar.extractfile(m).read()) for m in tar]
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for member, raw in change(found):
            tar.addfile(member, io.BytesIO(raw))


def renamed(name: str) -> Callable[[list], list]:
    def change(found: list) -> list:
        found[2][0].name = name
        return found

    return change


def retyped(kind: bytes, link: str = "/etc/passwd") -> Callable[[list], list]:
    def change(found: list) -> list:
        found[2][0].type, found[2][0].linkname, found[2][0].size = kind, link, 0
        return found

    return change


TAMPERED = {
    "a path that leads out": renamed("../../../evil"),
    "an absolute path": renamed("/tmp/evil"),  # noqa: S108
    "a long name": renamed("x" * 5000),
    "a symbolic link": retyped(tarfile.SYMTYPE),
    "a hard link": retyped(tarfile.LNKTYPE),
    "a device": retyped(tarfile.CHRTYPE),
    "a pipe": retyped(tarfile.FIFOTYPE),
    "a folder": retyped(tarfile.DIRTYPE),
    "a sparse file": retyped(tarfile.GNUTYPE_SPARSE),
    "a member twice": lambda found: [*found, found[3]],
    "a file that nobody declared": lambda found: [*found, (tarfile.TarInfo("more"), b"")],
    "a member less": lambda found: found[:-1],
    "another order": lambda found: [found[0], found[2], found[1], *found[3:]],
    "no manifest": lambda found: found[1:],
    "the manifest last": lambda found: [*found[1:], found[0]],
}


@pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED)
def test_an_archive_that_was_tampered_with_is_refused(archive, empty, tmp_path, change):
    retarred(archive, tmp_path / "bad.tar", change)
    refused(empty, tmp_path / "bad.tar")


def model_of(content: dict[str, bytes]) -> str:
    return next(name for name in content if name.startswith("models/")).rpartition("/")[0]


def resealed(raw: bytes, **changes: object) -> bytes:
    return sealed({"schema": MODEL, **unsealed(raw), **changes})


def another_lineage(content: dict[str, bytes], scenario: str) -> dict[str, bytes]:
    """A model whose lineage hashes to its digest and names another scenario."""
    old = model_of(content)
    entry = unsealed(content[f"{old}/recipe.json"])["lineage"][0]
    entry["fields"]["scenario"] = scenario
    body = {k: v for k, v in entry.items() if k != "digest"}
    digest = sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())
    lineage = [{**body, "digest": digest}]
    new = f"models/{digest}@1"
    return {
        f"{new}/recipe.json": sealed({"model": "x", "lineage": lineage}),
        f"{new}/made.json": resealed(content[f"{old}/made.json"], digest=digest),
        f"{new}/weights.safetensors": content[f"{old}/weights.safetensors"],
    }


def other_weights(raw: bytes) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    """Sealed all the way up."""

    def change(content: dict[str, bytes]) -> dict[str, bytes]:
        model = model_of(content)
        made = resealed(content[f"{model}/made.json"], weights_sha256=sha256(raw))
        return {**content, f"{model}/weights.safetensors": raw, f"{model}/made.json": made}

    return change


def with_trial(**changes: object) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    def change(content: dict[str, bytes]) -> dict[str, bytes]:
        name = next(name for name in content if name.startswith("trials/"))
        return {**content, name: sealed({**unsealed(content[name]), **changes})}

    return change


def swapped(content: dict[str, bytes]) -> dict[str, bytes]:
    """The weights of two models exchanged."""
    one, two = [name for name in content if name.endswith(".safetensors")][:2]
    return {**content, one: content[two], two: content[one]}


HEADER = b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'

FORGED = {
    "weights of another model": swapped,
    "weights that are a pickle": other_weights(b"\x80\x04\x8c\x05posix\x8c\x06system\x93."),
    "a header of 2**60 bytes": other_weights((2**60).to_bytes(8, "little") + b"{}"),
    "a tensor beyond the end": other_weights(len(HEADER).to_bytes(8, "little") + HEADER),
    "no weights": other_weights(b""),
    "a scenario that leads out": lambda c: another_lineage(c, "../../evil"),
    "a scenario without a name": lambda c: another_lineage(c, ""),
    "a rate of seven": with_trial(matching_rates={"0" * 64: 7.0}),
    "a rate that is no number": with_trial(matching_rates={"0" * 64: float("nan")}),
    "seconds without end": with_trial(verify_seconds=float("inf")),
    "a trial with more": with_trial(code="import os"),
    "queries that are words": with_trial(queries="many"),
}


@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED)
def test_an_archive_with_forged_content_is_refused(archive, empty, tmp_path, change):
    content = members(archive)
    content.pop("manifest.json")
    rebuilt(change(content), tmp_path / "bad.tar")
    refused(empty, tmp_path / "bad.tar")


def test_a_lineage_under_the_name_of_another_is_refused(archive, empty, tmp_path):
    content = members(archive)
    content.pop("manifest.json")
    digest = model_of(content).split("/")[1].split("@")[0]
    wrong = {name.replace(digest, digest[::-1]): raw for name, raw in content.items()}
    rebuilt(wrong, tmp_path / "bad.tar")
    assert "lineage" in refused(empty, tmp_path / "bad.tar")


def test_a_forged_archive_made_well_is_what_the_forgeries_differ_from(archive, empty, tmp_path):
    content = members(archive)
    content.pop("manifest.json")
    rebuilt(content, tmp_path / "good.tar")
    assert told(empty, "import", tmp_path / "good.tar")["models"] == 5


MANIFESTS = {
    "not JSON": b"{",
    "nested without end": b"[" * 100_000,
    "not sealed": b'{"schema": "fpbench.archive/2", "models": {}, "trials": {}}',
    "a path for a digest": sealed(
        {"schema": SCHEMA, "models": {}, "trials": {"../../../evil": "0" * 64}}
    ),
    "a path for a version": sealed(
        {"schema": SCHEMA, "models": {"0" * 64 + "@../1": 3 * ["0" * 64]}, "trials": {}}
    ),
    "a model of one file": sealed(
        {"schema": SCHEMA, "models": {"0" * 64 + "@1": ["0" * 64]}, "trials": {}}
    ),
    "a trial that is not there": sealed(
        {"schema": SCHEMA, "models": {}, "trials": {"0" * 64: "0" * 64}}
    ),
}  # fmt: skip


@pytest.mark.parametrize("manifest", MANIFESTS.values(), ids=MANIFESTS)
def test_a_hostile_manifest_is_refused(empty, tmp_path, manifest):
    tarred({"manifest.json": manifest}, tmp_path / "bad.tar")
    refused(empty, tmp_path / "bad.tar")


def test_more_than_the_disk_can_hold_is_refused_before_anything_is_read(empty, tmp_path):
    with (tmp_path / "bad.tar").open("wb") as file:
        file.truncate(2**43)  # a hole: eight terabytes that take no room
    assert "free disk" in refused(empty, tmp_path / "bad.tar", exit_code=3)


@pytest.mark.parametrize("place", [0, 1, 3], ids=["manifest", "JSON", "weights"])
def test_a_member_longer_than_the_archive_takes_no_memory(archive, empty, tmp_path, place):
    with tarfile.open(archive) as tar:
        found = [(m, tar.extractfile(m).read()) for m in tar][: place + 1]
    found[place][0].size = 2**45
    raw = b"".join(m.tobuf(tarfile.GNU_FORMAT) + r + bytes(-len(r) % 512) for m, r in found)
    (tmp_path / "bad.tar").write_bytes(raw)
    assert "found 35,184,372,088,832" in refused(empty, tmp_path / "bad.tar")


def test_an_archive_of_a_later_fpbench_is_told_from_damage(empty, tmp_path):
    tarred({"manifest.json": sealed({"schema": "fpbench.archive/3"})}, tmp_path / "new.tar")
    assert "a later fpbench wrote; update fpbench" in refused(empty, tmp_path / "new.tar")


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b" + bytes(600), b"PK\3\4" + bytes(600)])
def test_what_is_no_archive_is_refused(empty, tmp_path, content):
    (tmp_path / "bad.tar").write_bytes(content)
    refused(empty, tmp_path / "bad.tar")


def test_no_archive_at_all_is_told(empty, tmp_path):
    assert "found none" in refused(empty, tmp_path / "bad.tar")


@pytest.mark.slow
def test_a_flipped_bit_or_a_cut_never_changes_what_is_imported(archive, tmp_path):
    """It is refused, or it is in bytes that tar does not read, such as the padding of a file."""
    raw, whole = archive.read_bytes(), members(archive)
    for at in range(0, len(raw), 101):
        for bad in (raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :], raw[:at]):
            (tmp_path / "bad.tar").write_bytes(bad)
            desk = Desk(tmp_path / str(at))
            desk.folder.mkdir(exist_ok=True)
            if ask(desk, "import", tmp_path / "bad.tar").exit_code == 0:
                told(desk, "export", tmp_path / "again.tar")
                assert members(tmp_path / "again.tar") == whole
            else:
                refused(desk, tmp_path / "bad.tar")
            shutil.rmtree(desk.folder)
