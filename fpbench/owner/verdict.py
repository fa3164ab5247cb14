"""The verdict on a suspect, as a record and as a sentence."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ..api.errors import InputError, TrialError
from ..api.oracle import Oracle
from ..engine.attempt import check_rate
from ..engine.environment import versions
from .comparable import reasons_not_to_judge
from .fingerprint_file import Saved
from .suspects import Suspect
from .tensor_layout import RefusedError
from .threshold import (
    Makings,
    Threshold,
    clopper_pearson,
    makings_of,
    p_value,
    recognised,
    worst_making_bound,
)

SCHEMA = "fpbench.verdict/2"

CONSISTENT, NOT_SHOWN, CANNOT = "consistent with a copy", "not shown", "cannot be judged"

FAR = 0.1
"""A rate is far above the threshold if it would be above that of a tenth of the level."""


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
    about = {"name": name, **suspect.about, "utility": suspect.utility(saved.scenario)}
    asked = {
        "suspect": about,
        "answers": [{"query": query, "answer": answer} for query, answer in suspect.answers],
        "journal": suspect.journal(),
        "asked": suspect.began.isoformat(timespec="seconds"),
    }
    found = conclude(saved, about, rate, suspect.profile(saved.scenario), oracle.queries)
    return {
        "schema": SCHEMA, **found, **asked,
        "summary": (inspect.getdoc(type(method)) or "").split("\n\n")[0],
        "notes": [*_notes_on_fingerprint(saved), *suspect.notes],
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }  # fmt: skip


def conclude(
    saved: Saved, suspect: Mapping[str, Any], rate: float, profile: Mapping[str, float],
    queries: int,
) -> dict[str, Any]:  # fmt: skip
    """Return every part of a verdict that follows from the fingerprint and the suspect's answers.

    `fpbench verdict check` compares all of it.

    suspect: its name, its utility and, of a file, its architecture.
    rate, profile, queries: the matching rate, the profile and the number of the answers.
    """
    makings, threshold = makings_of(saved.models), saved.threshold
    found, of = recognised(saved.models, threshold.rate)
    seen = {"arch": suspect.get("arch"), "utility": suspect["utility"], "rate": rate,
            "profile": profile}  # fmt: skip
    word, reasons = decide(saved.models, threshold, seen)
    if word != CONSISTENT and (reason := _lost_by_rounding(saved, suspect)):
        word, reasons = CANNOT, [reason, *reasons]
    verdict: dict[str, Any] = {
        "verdict": word,
        "reasons": reasons,
        "matching_rate": rate,
        "threshold": threshold.rate,
        "strength": _strength(rate, makings, threshold) if word == CONSISTENT else None,
        "p_value": p_value(rate, makings),
        "false_positive_rate": threshold.false_positive_rate,
        "left_out": {
            "false_positive_rate": threshold.left_out, "interval": list(threshold.interval),
            "worst_making": list(threshold.worst_making),
        },
        "makings": len(makings),
        "independent_models": sum(map(len, makings.values())),
        "caught": {"count": found, "of": of, "interval": list(clopper_pearson(found, of))},
        "reference": [
            {key: model[key] for key in ("making", "positive", "rate")} for model in saved.models
        ],
        "queries": queries,
        "access": str(saved.access),
        "quantised": saved.quantised,
        "fingerprint": {
            "sha256": saved.sha256,
            "case": saved.meta["case"],
            "target": saved.meta["target"],
            "scenario": saved.meta["scenario"],
            "method": saved.meta["method"],
        },
    }  # fmt: skip
    return {**verdict, "sentence": write_sentence({**verdict, "suspect": suspect})}


def decide(
    models: Sequence[Mapping[str, Any]], threshold: Threshold, suspect: Mapping[str, Any]
) -> tuple[str, list[str]]:
    """Return the verdict, and the reasons why the suspect cannot be judged.

    models:  the known models of the fingerprint.
    suspect: its `rate`, `arch`, `utility` and `profile`.
    """
    above = suspect["rate"] > threshold.rate
    if reasons := reasons_not_to_judge(models, suspect, above=above):
        return CANNOT, reasons
    return (CONSISTENT if above else NOT_SHOWN), []


def _lost_by_rounding(saved: Saved, suspect: Mapping[str, Any]) -> str | None:
    """Return why rounded scores hide a copy; None if they do not.

    They do if the target itself, with scores rounded as much, is not rated above the threshold.
    """
    step = suspect.get("rounded_to")
    rates = saved.meta["calibration"].get("rounded") or {}
    known = [(float(at), rate) for at, rate in rates.items() if step and float(at) > 0.999 * step]
    if not known or (rate := min(known)[1]) > saved.threshold.rate:
        return None
    return (
        f"its scores are rounded to {step:.3g}, and with such scores the target itself is rated "
        f"only {rate:.3f}; a fingerprint made with -o api=label does not depend on rounding"
    )


def _strength(rate: float, makings: Makings, threshold: Threshold) -> str:
    far = worst_making_bound(makings, FAR * threshold.false_positive_rate)
    return "far above" if rate > max(far, threshold.rate) else "near"


def _notes_on_fingerprint(saved: Saved) -> list[str]:
    now, then = versions(), saved.meta["versions"]
    if changed := [f"{k} {then.get(k)}, now {v}" for k, v in now.items() if then.get(k) != v]:
        return [f"the fingerprint was made with {'; '.join(changed)}"]
    return []


def write_sentence(verdict: Mapping[str, Any]) -> str:
    """Return a verdict in words: its figures, its limits and the condition under which it holds."""
    name, rate = verdict["suspect"]["name"], verdict["matching_rate"]
    threshold, makings = verdict["threshold"], verdict["makings"]
    target = verdict["fingerprint"]["target"]["name"]
    if verdict["verdict"] == CANNOT:
        return (
            f"{name} cannot be judged as a copy of {target}: it is unlike the "
            f"{verdict['independent_models']} independent models and the known copies that the "
            f"figures are based on, because {'; '.join(verdict['reasons'])}. Its matching rate is "
            f"{rate:.3f}, and the threshold {threshold:.3f}."
        )
    p = verdict["p_value"]
    if verdict["verdict"] == CONSISTENT:
        left_out = verdict["left_out"]
        low, high = left_out["interval"]
        where = "far above" if verdict["strength"] == "far above" else "above, but near,"
        return (
            f"{name} is consistent with a copy of {target}: its matching rate {rate:.3f} is "
            f"{where} the threshold {threshold:.3f} (p = {p:.3f}). The figures are based on "
            f"{verdict['independent_models']} independent models of {makings} makings. When each "
            f"making was left out in turn, {100 * left_out['false_positive_rate']:.1f} % of its "
            f"models were judged copies (95 % interval {100 * low:.1f} to {100 * high:.1f} %). "
            "This holds for the suspect if, were it innocent, the way it was made would be no more "
            "unusual than these makings."
        )
    caught = verdict["caught"]
    return (
        f"It is not shown that {name} is a copy of {target}: its matching rate {rate:.3f} is not "
        f"above the threshold {threshold:.3f} (p = {p:.3f}). It may still be a "
        f"copy: {caught['count']} of {caught['of']} known copies are above the threshold."
    )
