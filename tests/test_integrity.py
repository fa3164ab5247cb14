"""Forged and edited verdicts, fingerprints and journals are found by `fpbench verdict check`."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from datetime import datetime
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
from fpbench.owner.threshold import find_threshold, makings_of
from fpbench.owner.verdict import write_sentence
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
        "fingerprint", "commitment", "order", "journal", "answers", "contents", "known models",
        "reference population",
    }  # fmt: skip
    assert {name.split(maxsplit=2)[2] for name in lines if name.startswith("not checked")} == {
        "signature of the commitment", "signature of the verdict",
    }  # fmt: skip


def relabel(lines: list[str]) -> None:
    """Give an answer of the journal another label."""
    entry = json.loads(lines[3])
    entry["answer"] = entry["answer"][::-1]
    lines[3] = json.dumps(entry)


def invent(meta: dict[str, Any]) -> None:
    """Rate all independent models low, and lower the threshold to fit."""
    calibration = meta["calibration"]
    for model in calibration["models"]:
        if not model["positive"]:
            model["rate"] /= 2
    level = calibration["threshold"]["false_positive_rate"]
    found = find_threshold(makings_of(calibration["models"]), level)
    calibration["threshold"] = dataclasses.asdict(found)


def lower(meta: dict[str, Any]) -> None:
    meta["calibration"]["threshold"]["rate"] = 0.1


def in_verdict(**parts: Any) -> Callable[[Path], None]:
    """Return a forger that changes parts of a verdict, and its sentence to fit."""

    def change(verdict: dict[str, Any]) -> None:
        for name, value in parts.items():
            if isinstance(value, dict):
                verdict[name] |= value
            else:
                verdict[name] = value
        if "sentence" not in parts:
            verdict["sentence"] = write_sentence(verdict)

    return lambda case: edit_json(case / "verdict.json", change)


def backdate(case: Path) -> None:
    """Commit after the suspect was asked, and have the verdict say that it was asked later."""
    late = ["2999-01-01T00:00:00.000+00:00"] * 2
    for file in (case / "mine.fp.commitment.json", case / "verdict.json"):
        made = {"made": "2998-01-01T00:00:00+00:00"}
        edit_json(file, lambda x, made=made: x.update(made) if "verdict" not in x
                  else (x["journal"].update(times=late), x["commitment"].update(made)))  # fmt: skip


def relabelled(verdict: dict[str, Any]) -> None:
    """Change every answer, a label."""
    for entry in verdict["answers"]:
        entry["answer"] = (entry["answer"] + 1) % 10


def flatter(verdict: dict[str, Any]) -> None:
    for model in verdict["reference"]:
        model["rate"] = 0.01


FORGERIES: dict[str, tuple[Callable[[Path], None], str]] = {
    "an edited answer": (lambda c: edit_lines(journal(c), relabel), "journal"),
    "a removed answer": (lambda c: edit_lines(journal(c), lambda x: x.pop(4)), "journal"),
    "answers cut off at the end": (lambda c: edit_lines(journal(c), lambda x: x.pop()), "journal"),
    "a removed journal": (lambda c: journal(c).unlink(), "journal"),
    "a verdict without its journal": (in_verdict(journal=None), "journal"),
    "answers of the verdict": (lambda c: edit_json(c / "verdict.json", relabelled), "answers"),
    "a lower rate": (in_verdict(verdict="not shown", matching_rate=0.2), "matching rate"),
    "another sentence": (in_verdict(sentence="Guilty."), "sentence"),
    "another level": (in_verdict(false_positive_rate=1e-6), "false positive rate"),
    "more models": (in_verdict(makings=1000, independent_models=9999), "independent models"),
    "a narrow interval": (in_verdict(left_out={"interval": [0, 1e-3]}), "left out"),
    "more copies": (in_verdict(caught={"count": 99, "of": 99}), "caught"),
    "lower references": (lambda c: edit_json(c / "verdict.json", flatter), "reference"),
    "fewer queries": (in_verdict(queries=1), "queries"),
    "more access": (in_verdict(access="output"), "access"),
    "another target": (
        in_verdict(fingerprint={"target": {"name": "another"}}), "fingerprint"
    ),
    "another suspect": (in_verdict(suspect={"name": "http://x.y/", "url": "http://x.y/"}),
                        "journal"),
    "another name": (in_verdict(suspect={"name": "http://x.y/"}), "suspect's name"),
    "another fingerprint": (lambda c: forge(c / "mine.fp", lambda m: m.update(case="x")),
                            "fingerprint"),
    "a lowered threshold": (lambda c: forge(c / "mine.fp", lower), "threshold"),
    "a removed commitment": (lambda c: (c / "mine.fp.commitment.json").unlink(), "commitment"),
    "a commitment made afterwards": (
        lambda c: edit_json(c / "mine.fp.commitment.json",
                            lambda m: m.update(made="2999-01-01T00:00:00+00:00")), "order",
    ),
    "a commitment made afterwards, and other times": (backdate, "order"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_found(office: Office, case: Path, name: str) -> None:
    change, what = FORGERIES[name]
    change(case)
    done = office("verdict", "check", case)
    assert done.exit_code == 1, done.output
    assert f"WRONG        {what}: " in done.output


def test_scores_that_keep_their_order_are_compared_too(office: Office, tmp_path: Path) -> None:
    made = office(
        "fingerprint", office.folder / "case.yaml", "--method", "zest", "-o", "api=probs",
        "--store", office.folder / "store", "--out", tmp_path / "zest.fp",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    with opened(Api(office.copy, labels, numbers)) as api:
        done = office("verify", tmp_path / "zest.fp", api.url, "--out", tmp_path / "verdict.json")
    assert done.exit_code == 0, done.output
    assert "right        answers: " in office("verdict", "check", tmp_path).output

    def soften(verdict: dict[str, Any]) -> None:
        for entry in verdict["answers"]:
            entry["answer"] = [0.9 * p + 0.01 for p in entry["answer"]]

    edit_json(tmp_path / "verdict.json", soften)
    assert "WRONG        answers: " in office("verdict", "check", tmp_path).output


def test_invented_negatives_are_found_by_the_store(office: Office, case: Path) -> None:
    forge(case / "mine.fp", invent)
    (case / "mine.fp.commitment.json").unlink()
    done = office("verdict", "check", case, "--store", office.folder / "store")
    assert done.exit_code == 1
    assert "20 of them are rated otherwise" in done.output


def drop(meta: dict[str, Any]) -> None:
    """Leave out the independent models that are rated highest, and lower the threshold to fit."""
    calibration = meta["calibration"]
    negatives = [model for model in calibration["models"] if not model["positive"]]
    # As few as leave the makings that the level needs.
    worst = sorted(negatives, key=lambda model: -model["rate"])[: len(negatives) - 19]
    calibration["models"] = [model for model in calibration["models"] if model not in worst]
    level = calibration["threshold"]["false_positive_rate"]
    found = find_threshold(makings_of(calibration["models"]), level)
    calibration["threshold"] = dataclasses.asdict(found)


def test_dropped_negatives_are_found_by_the_case(office: Office, case: Path) -> None:
    forge(case / "mine.fp", drop)
    (case / "mine.fp.commitment.json").unlink()
    done = office("verdict", "check", case)
    assert done.exit_code == 1
    assert (
        "WRONG        reference population: the case has 20 independent models: 19" in done.output
    )


@pytest.mark.parametrize(("change", "sentence"), [
    (lower, "which the rates of the known models give, got 0.100000"),
    (lambda meta: meta.update(case="x"), "expected a commitment to this fingerprint, got one to"),
])  # fmt: skip
def test_a_forged_fingerprint_accuses_nobody(
    office: Office, case: Path, change: Callable[[dict[str, Any]], None], sentence: str
) -> None:
    forge(case / "mine.fp", change)
    words = (case / "mine.fp", office.folder / "other.safetensors", "--out", case / "v2.json")
    done = office("verify", *words)
    assert done.exit_code == 2
    assert sentence in done.output
    assert not (case / "v2.json").exists()


DAMAGED: dict[str, Callable[[dict[str, Any]], object]] = {
    "no parts": lambda verdict: [verdict.pop(key) for key in [*verdict] if key != "schema"],
    "an answer that is missing": lambda verdict: verdict["answers"][0].pop("answer"),
    "an answer that is null": lambda verdict: verdict["answers"][0].update(answer=None),
    "no place of the fingerprint": lambda verdict: verdict["fingerprint"].pop("file"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_verdict_ends_in_one_sentence(office: Office, case: Path, name: str) -> None:
    edit_json(case / "verdict.json", DAMAGED[name])
    done = office("verdict", "check", case)
    assert done.exit_code in (1, 2)
    assert isinstance(done.exception, SystemExit)
    assert "WRONG" in done.output or "expected a whole record, found it damaged" in done.output


def test_a_damaged_commitment_ends_in_one_sentence(office: Office, case: Path) -> None:
    edit_json(case / "mine.fp.commitment.json", lambda commitment: commitment.pop("made"))
    done = office("verdict", "check", case)
    assert done.exit_code == 2
    assert "expected a whole record, found it damaged" in done.output


def test_a_changed_journal_is_not_gone_on_with(office: Office, case: Path) -> None:
    edit_lines(journal(case), relabel)
    url = json.loads((case / "verdict.json").read_text())["suspect"]["url"]
    done = office("verify", case / "mine.fp", url, "--answers", journal(case), "--out", case / "v2")
    assert done.exit_code == 2
    assert "jsonl:5: expected the line that follows the one before it" in done.output


def test_a_clock_that_runs_backwards_is_found(
    office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Early(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime(2001, 1, 1, tzinfo=tz)

    with opened(Api(office.copy, labels, numbers, troubles=[200, 404])) as api:
        words = ("verify", office.folder / "mine.fp", api.url, "--out", tmp_path / "verdict.json",
                 "--budget", 500)  # fmt: skip
        assert office(*words).exit_code == 3
        monkeypatch.setattr("fpbench.owner.journal.datetime", Early)
        done = office(*words)
    assert done.exit_code == 2
    assert "the clock ran backwards" in done.output
    assert api.requests == 2


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
    edit_json(out, lambda verdict: verdict.update(notes=["x"]))
    changed = office(*check, "--public-key", tmp_path / "mine.pub")
    assert "WRONG        signature of the verdict: the content is not what was signed" in (
        changed.output
    )
    edit_json(out, lambda verdict: [verdict.pop(key) for key in ("signature", "public_key")])
    stripped = office(*check, "--public-key", tmp_path / "mine.pub")
    assert stripped.exit_code == 1
    assert "WRONG        signature of the verdict: there is no signature" in stripped.output


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
    assert "expected a file of schema fpbench.verdict/2" in done.output
