"""Check a verdict: recompute everything in it from what it was made of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..api.errors import FpbenchError, InputError
from ..api.oracle import Oracle, oracle_of
from ..api.scenario import Scenario
from ..engine.registry import Registry
from ..store.files import sha256
from ..store.network import make_network
from ..store.store import Store
from .commitment import canonical, check_signature, place_of, read_commitment
from .comparable import profile_of
from .fingerprint_file import Saved, load_saved
from .fingerprinting import kinds_of
from .journal import Journal
from .threshold import find_threshold, p_value
from .verdict import SCHEMA, decide, write_sentence

TOLERANCE = 1e-6


@dataclass(frozen=True)
class Check:
    """One thing that was checked. right: None if it could not be checked."""

    name: str
    right: bool | None
    text: str


def read_verdict(path: Path) -> dict[str, Any]:
    """Read a verdict; of a folder its verdict.json. Raises InputError if there is none."""
    file = path / "verdict.json" if path.is_dir() else path
    try:
        found = json.loads(file.read_bytes())
        if not isinstance(found, dict) or found.get("schema") != SCHEMA:
            raise ValueError
    except (OSError, ValueError):
        raise InputError(f"expected a verdict of schema {SCHEMA}", str(file)) from None
    return found


def check_verdict(
    path: Path, registry: Registry, *, fingerprint: Path | None = None,
    signer: Path | None = None, store: Path | None = None,
) -> list[Check]:  # fmt: skip
    """Check a verdict by its fingerprint, commitment and journal. Nothing is asked of the suspect.

    fingerprint: its file, if it is neither beside the verdict nor where the verdict says.
    signer:      the public key that must have signed the commitment and, if it is signed, the
                 verdict.
    store:       the store with the known models, to rate them again.

    Raises InputError if the verdict or the fingerprint cannot be read.
    """
    verdict = read_verdict(path)
    folder = path if path.is_dir() else path.parent
    file = fingerprint or _find(folder, verdict["fingerprint"].get("file", ""))
    saved = load_saved(file, registry)
    return [
        *_check_fingerprint(verdict, saved, file, signer),
        *_check_signature(verdict, signer),
        *_check_journal(verdict, folder),
        *_check_figures(verdict, saved),
        _check_known_models(saved, store),
    ]


def _find(folder: Path, given: str) -> Path:
    beside = folder / Path(given).name
    return beside if beside.is_file() else Path(given)


def _check_fingerprint(
    verdict: Mapping[str, Any], saved: Saved, file: Path, signer: Path | None
) -> Iterator[Check]:
    same = saved.sha256 == verdict["fingerprint"]["sha256"]
    yield Check("fingerprint", same, f"{file} is {'' if same else 'not '}the file of the verdict")
    place = place_of(file)
    if not place.is_file():
        yield Check("commitment", None, f"there is none at {place}")
        return
    commitment = read_commitment(place)
    same = commitment["fingerprint_sha256"] == saved.sha256
    same &= commitment["calibration_sha256"] == sha256(canonical(saved.meta["calibration"]))
    yield Check("commitment", same, f"it names {'this' if same else 'another'} fingerprint")
    first = _first_time(verdict)
    before = commitment["made"] <= first
    yield Check("order", before, f"committed {commitment['made']}, first asked {first}")
    wrong = check_signature(commitment, signer)
    if "signature" in commitment or signer:
        key = f"signed by {commitment.get('public_key')}"
        yield Check("signature of the commitment", wrong is None, wrong or key)
    else:
        yield Check("signature of the commitment", None, "it is not signed")


def _first_time(verdict: Mapping[str, Any]) -> str:
    journal = verdict["journal"]
    return str(journal["times"][0] if journal else verdict["asked"])


def _check_signature(verdict: Mapping[str, Any], signer: Path | None) -> Iterator[Check]:
    if "signature" not in verdict:
        yield Check("signature of the verdict", None, "it is not signed")
        return
    wrong = check_signature(verdict, signer)
    yield Check("signature of the verdict", wrong is None,
                wrong or f"signed by {verdict['public_key']}")  # fmt: skip


def _check_journal(verdict: Mapping[str, Any], folder: Path) -> Iterator[Check]:
    if verdict["journal"] is None:
        yield Check("journal", None, "a model file has none; its sha256 is in the verdict")
        return
    file = folder / verdict["journal"]["file"]
    if not file.is_file():
        yield Check("journal", None, f"there is none at {file}")
        return
    try:
        first = json.loads(file.open("rb").readline())
        journal = Journal(file, str(first.get("api")))
    except (FpbenchError, ValueError, AttributeError) as error:
        yield Check("journal", False, str(error))
        return
    same = journal.head == verdict["journal"]["head"]
    ends = "ends as the verdict says" if same else "does not end as the verdict says"
    yield Check("journal", same, f"its chain is whole and {ends}")
    asked = {entry["query"] for entry in verdict["answers"]}
    known = asked <= journal.by_query.keys()
    where = "all in the journal" if known else "some of them not in the journal"
    yield Check("queries", known, f"{len(asked)} queries, {where}")
    same = all(_same(e["answer"], journal.by_query.get(e["query"])) for e in verdict["answers"])
    yield Check("answers", same, f"{'the' if same else 'other than the'} journal's")


def _check_figures(verdict: Mapping[str, Any], saved: Saved) -> Iterator[Check]:
    kinds = kinds_of(saved.models)
    threshold = find_threshold(kinds, saved.threshold.false_positive_rate)
    same = _close(threshold.rate, saved.threshold.rate) and _close(
        threshold.rate, verdict["threshold"]
    )
    same &= _close(threshold.left_out, verdict["left_out"]["false_positive_rate"])
    yield _compared("threshold", threshold.rate, verdict["threshold"], same)
    answers = {entry["query"]: entry["answer"] for entry in verdict["answers"]}
    if any(isinstance(answer, str) for answer in answers.values()):
        yield Check("matching rate", None, "the answers are too long to be in the verdict")
        return
    rate, profile = _replayed(answers, saved)
    if rate is None:
        yield Check("matching rate", False, "the verdict lacks answers to queries")
        return
    yield _compared("matching rate", rate, verdict["matching_rate"])
    p = p_value(rate, kinds)
    yield _compared("p-value", p, verdict["p_value"])
    seen = {"rate": rate, "arch": verdict["suspect"].get("arch"), "profile": profile,
            "utility": verdict["suspect"]["utility"]}  # fmt: skip
    word, _ = decide(saved.models, threshold, seen)
    text = f"{word} when recomputed, {verdict['verdict']} in the verdict"
    yield Check("verdict", word == verdict["verdict"], text)
    sentence = write_sentence(verdict) == verdict["sentence"]
    text = "what the figures say" if sentence else "something else than the figures say"
    yield Check("sentence", sentence, f"it says {text}")


def _compared(name: str, found: float, written: float, right: bool = True) -> Check:
    text = f"{found:.6f} when recomputed, {written:.6f} in the verdict"
    return Check(name, right and _close(found, written), text)


def _same(answer: Any, raw: Any) -> bool:
    """Return whether a verdict's answer has the label of the journal's: scores of an API are turned
    into probabilities, so only their order is compared."""
    if raw is None:
        return False
    labels = [x if isinstance(x, int) else x.index(max(x)) for x in (answer, raw)]
    return labels[0] == labels[1]


def _replayed(answers: Mapping[str, Any], saved: Saved) -> tuple[float | None, dict[str, float]]:
    """Return the matching rate and the profile that the recorded answers give."""
    replies: list[Tensor] = []

    def replay(x: Tensor) -> Tensor:
        reply = torch.tensor([answers[sha256(query.numpy().tobytes())] for query in x])
        replies.append(reply)
        return reply

    try:
        rate = float(saved.method.verify(saved.fingerprint, Oracle(replay, saved.access)))
    except KeyError:
        return None, {}
    return rate, profile_of(torch.cat(replies), saved.scenario)


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
            quantised=saved.quantised,
        )  # fmt: skip
        rate = float(saved.method.verify(saved.fingerprint, oracle))
        wrong += not _close(rate, model["rate"], 1e-3)
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


def _close(one: float, two: float, tolerance: float = TOLERANCE) -> bool:
    return abs(one - two) <= tolerance
