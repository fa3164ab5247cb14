"""Forged and edited verdicts, fingerprints and journals are found by `fpbench verdict check`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from office import Api, Office, numbers, opened
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from fpbench.owner.tensor_layout import header
from fpbench.store.files import sealed, unsealed


def labels(out: Any) -> Any:
    return {"outputs": out.softmax(-1).tolist()}


@pytest.fixture
def case(office: Office, tmp_path: Path) -> Path:
    """A folder with a fingerprint, its commitment, a journal and the verdict on a copy."""
    for name in ("mine.fp", "mine.fp.commitment.json"):
        shutil.copy(office.folder / name, tmp_path / name)
    with opened(Api(office.copy, labels, numbers)) as api:
        done = office("verify", tmp_path / "mine.fp", api.url, "--out", tmp_path / "verdict.json")
    assert done.exit_code == 0, done.output
    return tmp_path


def journal(case: Path) -> Path:
    (file,) = case.glob("verdict.*.answers.jsonl")
    return file


def edit_json(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def edit_lines(file: Path, change: Callable[[list[str]], None]) -> None:
    lines = file.read_text().splitlines()
    change(lines)
    file.write_text("".join(f"{line}\n" for line in lines))


def forge(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a fingerprint's metadata, and seal it anew as if fpbench had written it."""
    text = header(file.read_bytes())[1]["fpbench"]
    meta = unsealed(text.encode())
    assert meta
    change(meta)
    tensors = load_file(file)
    file.write_bytes(to_bytes(tensors, metadata={"fpbench": sealed(meta).decode()}))


def test_an_honest_verdict_is_right_in_everything(office: Office, case: Path) -> None:
    done = office("verdict", "check", case, "--store", office.folder / "store")
    assert done.exit_code == 0, done.output
    lines = dict(line.split(": ", 1) for line in done.output.splitlines())
    right = {name.split(maxsplit=1)[1] for name in lines if name.startswith("right")}
    assert right == {
        "fingerprint", "commitment", "order", "journal", "queries", "answers", "threshold",
        "matching rate", "p-value", "verdict", "sentence", "known models",
    }  # fmt: skip


def relabel(lines: list[str]) -> None:
    """Give an answer of the journal another label."""
    entry = json.loads(lines[3])
    entry["answer"] = entry["answer"][::-1]
    lines[3] = json.dumps(entry)


def acquit(verdict: dict[str, Any]) -> None:
    verdict["verdict"], verdict["matching_rate"] = "not shown", 0.2


def invent(meta: dict[str, Any]) -> None:
    """Rate all independent models low."""
    for model in meta["calibration"]["models"]:
        if not model["positive"]:
            model["rate"] /= 2


def lower(meta: dict[str, Any]) -> None:
    meta["calibration"]["threshold"]["rate"] = 0.1


FORGERIES: dict[str, tuple[Callable[[Path], None], str]] = {
    "an edited answer": (lambda c: edit_lines(journal(c), relabel), "journal"),
    "a removed answer": (lambda c: edit_lines(journal(c), lambda x: x.pop(4)), "journal"),
    "answers cut off at the end": (lambda c: edit_lines(journal(c), lambda x: x.pop()), "journal"),
    "an edited verdict": (lambda c: edit_json(c / "verdict.json", acquit), "matching rate"),
    "an edited sentence": (
        lambda c: edit_json(c / "verdict.json", lambda v: v.update(sentence="Guilty.")), "sentence",
    ),
    "another fingerprint": (lambda c: forge(c / "mine.fp", lambda m: m.update(case="x")),
                            "fingerprint"),
    "a lowered threshold": (lambda c: forge(c / "mine.fp", lower), "threshold"),
    "a commitment made afterwards": (
        lambda c: edit_json(c / "mine.fp.commitment.json",
                            lambda m: m.update(made="2999-01-01T00:00:00+00:00")), "order",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_found(office: Office, case: Path, name: str) -> None:
    change, what = FORGERIES[name]
    change(case)
    done = office("verdict", "check", case)
    assert done.exit_code == 1, done.output
    assert f"WRONG        {what}: " in done.output


def test_invented_negatives_are_found_by_the_store(office: Office, case: Path) -> None:
    forge(case / "mine.fp", invent)
    (case / "mine.fp.commitment.json").unlink()
    done = office("verdict", "check", case, "--store", office.folder / "store")
    assert done.exit_code == 1
    assert "20 of them are rated otherwise" in done.output


def test_a_changed_journal_is_not_gone_on_with(office: Office, case: Path) -> None:
    edit_lines(journal(case), relabel)
    url = json.loads((case / "verdict.json").read_text())["suspect"]["url"]
    done = office("verify", case / "mine.fp", url, "--answers", journal(case), "--out", case / "v2")
    assert done.exit_code == 2
    assert "jsonl:5: expected the line that follows the one before it" in done.output


def test_a_clock_that_runs_backwards_is_found(
    office: Office, case: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fpbench.owner import journal as module

    class Early(module.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return module.datetime(2001, 1, 1, tzinfo=tz)

    edit_lines(journal(case), lambda lines: lines.pop())
    monkeypatch.setattr(module, "datetime", Early)
    with opened(Api(office.copy, labels, numbers)) as api:
        kept = module.Journal(journal(case), json.loads(journal(case).open().readline())["api"])
        with pytest.raises(module.InputError, match="the clock ran backwards"):
            kept.record_sent(1)
        assert api.requests == 0


def test_a_verdict_is_never_overwritten(office: Office, case: Path) -> None:
    before = (case / "verdict.json").read_bytes()
    done = office("verify", case / "mine.fp", office.folder / "other.safetensors",
                  "--out", case / "verdict.json")  # fmt: skip
    assert done.exit_code == 2
    assert "a verdict is never overwritten: name another place by --out" in done.output
    assert (case / "verdict.json").read_bytes() == before


def test_a_signature_shows_who_signed_and_that_nothing_changed(
    office: Office, tmp_path: Path
) -> None:
    keys = {}
    for name in ("mine", "other"):
        private = Ed25519PrivateKey.generate()
        keys[name] = tmp_path / f"{name}.pem"
        keys[name].write_bytes(
            private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / f"{name}.pub").write_bytes(public)
    out = tmp_path / "verdict.json"
    words = ("verify", office.folder / "mine.fp", office.folder / "copy.safetensors", "--out", out)
    said = office(*words, "--key", tmp_path / "mine.pub")
    assert said.exit_code == 2
    assert "expected an Ed25519 private key as PEM or OpenSSH" in said.output
    assert office(*words, "--key", keys["mine"]).exit_code == 0
    check = ("verdict", "check", out, "--fingerprint", office.folder / "mine.fp")
    assert "right        signature of the verdict: signed by" in office(*check).output
    other = office(*check, "--public-key", tmp_path / "other.pub")
    assert "WRONG        signature of the verdict: another key than that in" in other.output
    edit_json(out, acquit)
    changed = office(*check, "--public-key", tmp_path / "mine.pub")
    assert "WRONG        signature of the verdict: the content is not what was signed" in (
        changed.output
    )


def test_a_verdict_is_a_page_that_says_everything_without_scripts(
    office: Office, case: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = office("report", case / "verdict.json")
    assert done.exit_code == 0, done.output
    page = (case / "verdict.html").read_text()
    verdict = json.loads((case / "verdict.json").read_text())
    assert "<script" not in page
    assert "http-equiv" in page
    for text in (
        "Verdict: consistent with a copy", "The question", "The method", "What was asked",
        "The reference population", "Limits", "Chain of custody", "How to repeat it",
        verdict["fingerprint"]["sha256"], verdict["journal"]["head"],
    ):  # fmt: skip
        assert text in page
    assert page.count("<circle") == len(verdict["reference"]) == 20 + 8
    monkeypatch.setenv("PATH", "")
    without = office("report", case / "verdict.json", "--pdf", case / "verdict.pdf")
    assert without.exit_code == 3
    assert "to print a PDF, found none" in without.output


def test_a_file_that_is_no_verdict_is_refused(office: Office, tmp_path: Path) -> None:
    (tmp_path / "verdict.json").write_text("{}")
    done = office("report", tmp_path / "verdict.json")
    assert done.exit_code == 2
    assert "expected a verdict of schema fpbench.verdict/2" in done.output
