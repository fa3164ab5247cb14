"""What makes a stored model or trial whole: checksums, and a lineage that hashes to its name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .files import opened, read, sealed, sha256, sha256_of, unsealed

MODEL = "fpbench.model/1"
TRIAL = "fpbench.trial/3"
FILES = ("recipe.json", "made.json", "weights.safetensors")
"""What a model's folder holds."""

DIGEST = re.compile(r"[0-9a-f]{64}")

Rates = dict[str, Annotated[float, Field(ge=0, le=1)]]


class Kept(BaseModel):
    """What is kept of a trial."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    matching_rates: Rates
    calibration_rates: Rates
    queries: Annotated[int, Field(ge=0)]
    construct_seconds: float
    verify_seconds: float
    device: str
    threads: int = 1
    construct_cpu_seconds: float | None = None
    verify_cpu_seconds: float | None = None
    losses: list[Annotated[list[Any], Field(min_length=3, max_length=3)]] = []


def trial_of(raw: bytes, place: Path) -> dict[str, Any] | None:
    """A trial's file as what is kept of it, or None if it is damaged. Raises NewerError."""
    data = opened(raw, TRIAL, place)
    try:
        Kept.model_validate(data)
    except ValidationError:
        return None
    return data


def made_of(raw: bytes, place: Path) -> dict[str, Any] | None:
    """A made.json's content, or None if it is damaged. Raises NewerError."""
    data = opened(raw, MODEL, place)
    if data is None or not isinstance(data.get("code", {}), dict):
        return None
    return data if isinstance(data.get("weights_sha256"), str) else None


def lineage_as_json(model: str, lineage: list[dict[str, Any]]) -> bytes:
    """A recipe.json."""
    return sealed({"model": model, "lineage": lineage})


def lineage_of(raw: bytes, digest: str) -> list[dict[str, Any]] | None:
    """The lineage in a recipe.json, oldest first; None unless it is the one of that digest.

    A digest is the sha256 of what it is the name of, so a lineage proves itself. The seal covers
    the rest; the first stores had none.
    """
    data = unsealed(raw)
    try:
        if data is None:
            data = json.loads(raw)
            if data.keys() != {"model", "lineage"}:
                return None
        lineage: list[dict[str, Any]] = data["lineage"]
        above = None
        for step in lineage:
            entry = {key: value for key, value in step.items() if key != "digest"}
            text = json.dumps(entry, sort_keys=True, separators=(",", ":"))
            if entry["parent"] != above or step["digest"] != sha256(text.encode()):
                return None
            if not all(isinstance(s, str) for s in (entry["recipe"], entry["fields"]["scenario"])):
                return None
            above = step["digest"]
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None
    return lineage if above == digest else None


def fault(folder: Path) -> str | None:
    """The first file of a model's folder that is damaged or missing, None if every byte is right.

    Raises NewerError.
    """
    made = made_of(read(folder / "made.json") or b"", folder / "made.json")
    if made is None or made.get("digest") != folder.name:
        return "made.json"
    if made["weights_sha256"] != sha256_of(folder / "weights.safetensors"):
        return "weights.safetensors"
    if lineage_of(read(folder / "recipe.json") or b"", folder.name) is None:
        return "recipe.json"
    return None
