"""Check stored models and trials: checksums, and lineages that hash to the model's digest."""

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
"""The files in a model's folder."""

DIGEST = re.compile(r"[0-9a-f]{64}")

Rates = dict[str, Annotated[float, Field(ge=0, le=1)]]


class KeptTrial(BaseModel):
    """The part of a trial's result that the store keeps."""

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
    """Return the content of a trial's file, or None if it is damaged. Raises NewerError."""
    data = opened(raw, TRIAL, place)
    try:
        KeptTrial.model_validate(data)
    except ValidationError:
        return None
    return data


def made_of(raw: bytes, place: Path) -> dict[str, Any] | None:
    """Return the content of a made.json, or None if it is damaged. Raises NewerError."""
    data = opened(raw, MODEL, place)
    if data is None or not isinstance(data.get("code", {}), dict):
        return None
    return data if isinstance(data.get("weights_sha256"), str) else None


def lineage_as_json(model: str, lineage: list[dict[str, Any]]) -> bytes:
    """Return the content of a recipe.json file."""
    return sealed({"model": model, "lineage": lineage})


def lineage_of(raw: bytes, digest: str) -> list[dict[str, Any]] | None:
    """Return the lineage in a recipe.json, oldest first; None unless it is the lineage of `digest`.

    A digest is the sha256 of a lineage, so a lineage can be checked without a seal. The seal covers
    the other keys. The oldest stores have no seals.
    """
    data = unsealed(raw)
    try:
        if data is None:
            data = json.loads(raw)
            if data.keys() != {"model", "lineage"}:
                return None
        lineage: list[dict[str, Any]] = data["lineage"]
        parent = None
        for step in lineage:
            entry = {key: value for key, value in step.items() if key != "digest"}
            text = json.dumps(entry, sort_keys=True, separators=(",", ":"))
            if entry["parent"] != parent or step["digest"] != sha256(text.encode()):
                return None
            if not all(isinstance(s, str) for s in (entry["recipe"], entry["fields"]["scenario"])):
                return None
            parent = step["digest"]
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None
    return lineage if parent == digest else None


def damaged_file(folder: Path) -> str | None:
    """Return the first file of a model's folder that is damaged or missing; None if all are right.

    Every byte is read. Raises NewerError.
    """
    made = made_of(read(folder / "made.json") or b"", folder / "made.json")
    if made is None or made.get("digest") != folder.name:
        return "made.json"
    if made["weights_sha256"] != sha256_of(folder / "weights.safetensors"):
        return "weights.safetensors"
    if lineage_of(read(folder / "recipe.json") or b"", folder.name) is None:
        return "recipe.json"
    return None
