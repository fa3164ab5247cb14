"""The verdict on a suspect, as a record and as a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ..api.errors import InputError, TrialError
from ..api.fields import fields_as_json
from ..api.oracle import Oracle
from ..engine.attempt import check_rate
from ..engine.environment import versions
from ..results.metrics import binomial_p_values, p_value
from .comparable import note_on_model, note_on_rate
from .fingerprint_file import Saved
from .suspects import Suspect
from .tensor_layout import RefusedError

SCHEMA = "fpbench.verdict/1"

CONSISTENT, NOT_SHOWN = "consistent with a copy", "not shown"


def judge(saved: Saved, suspect: Suspect, name: str) -> dict[str, Any]:
    """Ask a suspect and return the verdict; docs/verify.md explains its content.

    Raises TrialError if the method breaks its contract, InputError if the suspect's file is
    refused, and ResourceError if an API does not answer.
    """
    method = saved.method
    oracle = Oracle(suspect, saved.access)
    try:
        rate = check_rate(method.verify(saved.fingerprint, oracle), method.name, name)
    except RefusedError as error:
        raise InputError(str(error), name) from None
    if oracle.queries > method.n_queries:
        raise TrialError(
            f"expected at most {method.n_queries} queries, got {oracle.queries} from {method.name}"
        )
    p = p_value(rate, saved.negatives)
    copy, utility = rate > saved.threshold.rate, suspect.utility(saved.scenario)
    calibration = saved.meta["calibration"]
    verdict: dict[str, Any] = {
        "schema": SCHEMA,
        "verdict": CONSISTENT if copy else NOT_SHOWN,
        "matching_rate": rate,
        "threshold": saved.threshold.rate,
        "p_value": p,
        "p_value_binomial": None,
        "false_positive_rate": saved.threshold.false_positive_rate,
        "false_positive_interval": list(saved.threshold.interval),
        "negatives": len(saved.negatives),
        "caught": calibration["caught"],
        "queries": oracle.queries,
        "access": str(saved.access),
        "quantised": saved.quantised,
        "suspect": {"name": name, **suspect.about, "utility": utility},
        "fingerprint": {
            "sha256": saved.sha256,
            "case": saved.meta["case"],
            "target": saved.meta["target"],
            "scenario": saved.meta["scenario"],
            "method": {**saved.meta["method"], "fields": fields_as_json(method)},
        },
        "notes": [
            *note_on_rate(rate, saved.negatives, calibration["positives"]),
            *note_on_model(
                calibration.get("models", []), suspect.about.get("arch"), utility, copy=copy
            ),
            *_notes_on_fingerprint(saved), *suspect.notes,
        ],
        "answers": [{"query": query, "answer": answer} for query, answer in suspect.answers],
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }  # fmt: skip
    if method.counts_agreement:
        (binomial,) = binomial_p_values([rate], oracle.queries, saved.negatives)
        verdict["p_value_binomial"] = binomial
    return {**verdict, "sentence": write_sentence(verdict)}


def _notes_on_fingerprint(saved: Saved) -> list[str]:
    notes = []
    if saved.method.judges_data:
        notes.append(f"{saved.method.name} judges every model of the owner's data a copy")
    now, then = versions(), saved.meta["versions"]
    if changed := [f"{k} {then.get(k)}, now {v}" for k, v in now.items() if then.get(k) != v]:
        notes.append(f"the fingerprint was made with {'; '.join(changed)}")
    return notes


def write_sentence(verdict: Mapping[str, Any]) -> str:
    """Return the verdict as a sentence that says what it shows and what it does not show."""
    name, rate = verdict["suspect"]["name"], verdict["matching_rate"]
    threshold = verdict["threshold"]
    target, n = verdict["fingerprint"]["target"]["name"], verdict["negatives"]
    low, high = verdict["false_positive_interval"]
    caught = verdict["caught"]
    if verdict["verdict"] == CONSISTENT:
        return (
            f"{name} is consistent with a copy of {target}: its matching rate {rate:.3f} is above "
            f"the threshold {threshold:.3f} (p = {verdict['p_value']:.3f}). About "
            f"{100 * verdict['false_positive_rate']:.1f} % of independent models are above it too "
            f"(95 % interval {100 * low:.1f} to {100 * high:.1f} %, from {n} independent models)."
        )
    return (
        f"It is not shown that {name} is a copy of {target}: its matching rate {rate:.3f} is not "
        f"above the threshold {threshold:.3f} (p = {verdict['p_value']:.3f}). It may still be a "
        f"copy: {caught['count']} of {caught['of']} known copies are above the threshold."
    )
