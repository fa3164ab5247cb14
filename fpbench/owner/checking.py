"""Check a verdict: compute it anew from the recorded answers and the fingerprint, and compare."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..api.errors import FpbenchError, InputError
from ..api.oracle import Access, Oracle, oracle_of, reply
from ..api.scenario import Scenario
from ..engine.registry import Registry
from ..engine.suite import Suite
from ..store.files import sha256
from ..store.network import make_network
from ..store.store import Store
from .adapter import Adapter
from .commitment import check_signature, commitment_of, read_record, reported_damage
from .comparable import profile_of
from .fingerprint_file import ForgedError, Saved, load_saved
from .journal import Journal
from .suspects import reader_of, reading_of
from .threshold import TOLERANCE
from .verdict import SCHEMA, conclude

RATE_TOLERANCE = 1e-3
"""Of the rates of stored models, which another machine may compute with other kernels."""


@dataclass(frozen=True)
class Check:
    """One thing that was checked. right: None if it could not be checked."""

    name: str
    right: bool | None
    text: str


def verdict_file(path: Path) -> Path:
    """Return the verdict's file, for the file or its folder."""
    return path / "verdict.json" if path.is_dir() else path


def check_verdict(
    path: Path, registry: Registry, *, fingerprint: Path | None = None,
    signer: Path | None = None, store: Path | None = None,
) -> list[Check]:  # fmt: skip
    """Check a verdict by its fingerprint, commitment and journal. Nothing is asked of the suspect.

    path:        the verdict's file, or its folder.
    fingerprint: its file, if it is neither beside the verdict nor where the verdict says.
    signer:      the public key that must have signed the commitment and the verdict.
    store:       the store with the known models, to rate them again.

    Raises InputError if the verdict, the fingerprint or the commitment cannot be read.
    """
    place = verdict_file(path)
    verdict = read_record(place, SCHEMA)
    with reported_damage(place):
        file = fingerprint or _find(place.parent, verdict["fingerprint"]["file"])
        try:
            saved = load_saved(file, registry)
        except ForgedError as error:
            return [Check("threshold", False, str(error))]
        journal, checks = _open_journal(verdict, place.parent)
        first = journal.times[0] if journal and journal.times else verdict["asked"]
        return [
            *_check_commitment(verdict, saved, file, first, signer),
            _check_signature("verdict", verdict, signer),
            *checks,
            *(_check_answers(verdict, saved, journal) if journal else ()),
            *_check_conclusion(verdict, saved),
            _check_population(saved, registry),
            _check_known_models(saved, store),
        ]


def _find(folder: Path, given: str) -> Path:
    beside = folder / Path(given).name
    return beside if beside.is_file() else Path(given)


def _check_commitment(
    verdict: Mapping[str, Any], saved: Saved, file: Path, first: str, signer: Path | None
) -> Iterator[Check]:
    same = saved.sha256 == verdict["fingerprint"]["sha256"]
    yield Check("fingerprint", same, f"{file} is {'' if same else 'not '}the file of the verdict")
    try:
        found = commitment_of(file, saved)
    except ForgedError as error:
        yield Check("commitment", False, str(error))
        return
    named = verdict["commitment"]
    if found is None:
        wrong = named is not None or signer is not None
        yield Check("commitment", False if wrong else None, f"there is none beside {file}")
        return
    same = named is None or _rounded(named) == _rounded(found)
    yield Check("commitment", same, f"it is {'' if same else 'not '}the one that the verdict names")
    before = found["made"] <= first
    yield Check("order", before, f"committed {found['made']}, first asked {first}")
    yield _check_signature("commitment", found, signer)


def _check_signature(what: str, content: Mapping[str, Any], signer: Path | None) -> Check:
    name = f"signature of the {what}"
    if "signature" not in content and signer is None:
        return Check(name, None, "it is not signed")
    fault = check_signature(content, signer)
    return Check(name, fault is None, fault or f"signed by {content['public_key']}")


def _open_journal(
    verdict: Mapping[str, Any], folder: Path
) -> tuple[Journal | None, Sequence[Check]]:
    """Return the journal of an API's answers if it is whole, and how it was checked."""
    suspect, named = verdict["suspect"], verdict["journal"]
    if "url" not in suspect:
        return None, [Check("journal", None, "a model file has none; its sha256 is in the verdict")]
    if named is None or not (file := folder / Path(named["file"]).name).is_file():
        return None, [Check("journal", False, "the answers of the API are not there")]
    try:
        with file.open("rb") as lines:
            journal = Journal(file, str(json.loads(lines.readline())["api"]), suspect["url"])
    except InputError as error:
        return None, [Check("journal", False, str(error))]
    same = _rounded(journal.summary()) == _rounded(named)
    ends = "is" if same else "is not"
    return journal, [Check("journal", same, f"its chain is whole and {ends} that of the verdict")]


def _check_answers(verdict: Mapping[str, Any], saved: Saved, journal: Journal) -> Iterator[Check]:
    """Compare the answers in the verdict with those that the API gave."""
    answers = verdict["answers"]
    if any(entry["query"] not in journal.by_query for entry in answers):
        yield Check("answers", False, "some of them are not in the journal")
        return
    adapter = Adapter(**verdict["suspect"]["adapter"])
    reader = reader_of(adapter, saved.scenario)
    rows = reader.rows([journal.by_query[entry["query"]] for entry in answers])
    reading = reading_of(adapter, reader, saved.access)
    reading.decide(rows)
    step = verdict["suspect"].get("rounded_to")
    if step is not None and abs(step - reading.step) > TOLERANCE * step:
        yield Check("rounding", False, f"{reading.step:g} in the journal, {step:g} in the verdict")
    given = reply(reading.read(rows), saved.access)
    wanted = torch.tensor([entry["answer"] for entry in answers])
    same = given.shape == wanted.shape and torch.allclose(
        given.double(), wanted.double(), atol=TOLERANCE
    )
    yield Check("answers", same, f"{len(answers)}, {'those' if same else 'other than those'} of "
                "the journal")  # fmt: skip


def _check_conclusion(verdict: Mapping[str, Any], saved: Saved) -> Iterator[Check]:
    """Compare each part of the verdict with what the answers and the fingerprint give."""
    suspect = verdict["suspect"]
    answers = {entry["query"]: entry["answer"] for entry in verdict["answers"]}
    if saved.access is not Access.LABEL and any(isinstance(a, str) for a in answers.values()):
        yield Check("matching rate", None, "the answers are too long to be in the verdict")
        return
    replies: list[Tensor] = []

    def replay(x: Tensor) -> Tensor:
        found = [answers.get(sha256(query.numpy().tobytes())) for query in x]
        if None in found:
            raise InputError("expected an answer to every query of the fingerprint, found none")
        replies.append(torch.tensor(found))
        return replies[-1]

    oracle = Oracle(replay, saved.access)
    try:
        rate = float(saved.method.verify(saved.fingerprint, oracle))
    except InputError as error:
        yield Check("matching rate", False, str(error))
        return
    profile = profile_of(torch.cat(replies), saved.scenario)
    found = conclude(saved, suspect, rate, profile, oracle.queries)
    given = {part: verdict[part] for part in found}
    given["fingerprint"] = {key: verdict["fingerprint"][key] for key in found["fingerprint"]}
    found["suspect's name"] = suspect["url"] if "url" in suspect else suspect["file"]
    given["suspect's name"] = suspect["name"]
    wrong = [part for part in found if _rounded(found[part]) != _rounded(given[part])]
    for part in wrong:
        texts = (json.dumps(parts[part])[:80] for parts in (found, given))
        text = "{} when computed again, {} in the verdict".format(*texts)
        yield Check(part.replace("_", " "), False, text)
    if not wrong:
        yield Check("contents", True, f"all {len(found)} parts are the same when computed again")


def _rounded(value: Any) -> Any:
    """Return JSON values with numbers as exact as machines agree."""
    return json.loads(json.dumps(value), parse_float=lambda text: round(float(text), 6))


def _check_population(saved: Saved, registry: Registry) -> Check:
    """Compare the independent models of the fingerprint with those that its case plans."""
    name, case = "reference population", saved.meta["suite"]
    overrides = [*case["overrides"]]
    if (digest := saved.meta["target"].get("file_sha256")) is not None:
        overrides.append(f"target.sha256={digest}")  # the target's file need not be here
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "case.yaml"
        file.write_text(case["text"])
        try:
            zoo = Suite.load(file, registry, overrides=overrides).zoos[0]
        except FpbenchError as error:
            return Check(name, None, f"the case cannot be read here: {error}")
    planned = {recipe.digest for recipe in zoo.negatives}
    known = {model["digest"] for model in saved.models if not model["positive"]}
    rest = {*saved.meta["calibration"].get("not_judged", ())}
    dropped, others = planned - known - rest, known - planned
    return Check(
        name, not dropped and not others,
        f"the case has {len(planned)} independent models: {len(planned & known)} are in the "
        f"fingerprint, {len(planned & rest)} were learned from or not made, {len(dropped)} are "
        f"missing, and {len(others)} others were added",
    )  # fmt: skip


def _check_known_models(saved: Saved, store: Path | None) -> Check:
    name = "known models"
    if store is None:
        return Check(name, None, "give --store to rate them again")
    scenario, missing, wrong = saved.scenario, 0, 0
    place = f"{scenario.name}@{scenario.version}"
    found = Store(store)
    for model in saved.models:
        network = _stored(found.folder_of(place, model["digest"]), model["arch"], scenario)
        if network is None:
            missing += 1
            continue
        oracle = oracle_of(
            network, saved.access, input_shape=scenario.input_shape,
            input_range=scenario.input_range, device=torch.device("cpu"),
            input_dtype=scenario.input_dtype,
            quantised=saved.quantised,
        )  # fmt: skip
        rate = float(saved.method.verify(saved.fingerprint, oracle))
        wrong += abs(rate - model["rate"]) > RATE_TOLERANCE
    total = len(saved.models)
    text = f"{total - missing} of {total} are in the store, {wrong} of them are rated otherwise"
    return Check(name, not wrong and not missing, text)


def _stored(folder: Path, arch: str, scenario: Scenario) -> nn.Module | None:
    """Return a model of the store; None if it is not there or is damaged."""
    try:
        state = load_file(folder / "weights.safetensors")
    except (OSError, SafetensorError):
        return None
    return make_network(scenario, arch, state, torch.device("cpu"))
