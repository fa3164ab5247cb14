"""Fingerprint files: safetensors, with the method and the calibration in the metadata.

Tensors: `queries` and `evidence/NAME`. Metadata: the key `fpbench` with sealed JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load
from safetensors.torch import save as to_bytes
from torch import Tensor

from ..api.errors import FieldError, InputError
from ..api.fingerprinter import Fingerprint, Fingerprinter
from ..api.oracle import Access
from ..api.scenario import Scenario
from ..engine.registry import Registry
from ..store.files import sealed, sha256, unsealed, write
from .combined import Combined
from .model_file import kind_of, read
from .tensor_layout import RefusedError, header
from .threshold import TOLERANCE, Threshold, find_threshold, makings_of

SCHEMA = "fpbench.fingerprint/2"
MAX_BYTES = 4 * 2**30


class ForgedError(InputError):
    """A fingerprint's file contradicts itself."""


@dataclass(frozen=True)
class Saved:
    """A fingerprint that was read from a file, ready to verify suspects.

    quantised: round the queries to 8 bits, as the calibration did.
    models:    the known models of the calibration, with their makings, rates and profiles.
    meta:      the file's metadata.
    sha256:    the sha256 of the file.
    """

    fingerprint: Fingerprint
    method: Fingerprinter
    scenario: Scenario
    access: Access
    quantised: bool
    threshold: Threshold
    models: tuple[Mapping[str, Any], ...]
    meta: Mapping[str, Any]
    sha256: str


def save(path: Path, fingerprint: Fingerprint, meta: Mapping[str, Any]) -> None:
    """Write a fingerprint's file, either completely or not at all."""
    tensors = {"queries": fingerprint.queries}
    tensors |= {f"evidence/{name}": t for name, t in fingerprint.evidence.items()}
    tensors = {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}
    body = sha256(_body(to_bytes(tensors)))
    text = sealed({"schema": SCHEMA, **meta, "tensors_sha256": body}).decode()
    write(path, to_bytes(tensors, metadata={"fpbench": text}))


def _body(raw: bytes) -> bytes:
    """Return the part of a safetensors file that holds the tensors."""
    return raw[8 + int.from_bytes(raw[:8], "little") :]


def load_saved(path: Path, registry: Registry) -> Saved:
    """Read a fingerprint's file.

    The threshold is computed anew from the rates of the known models. Raises ForgedError if it is
    another one than the file's; InputError if the file is damaged or another kind of file, or if
    its method or scenario is not installed.
    """
    where = str(path)
    raw = read(path, MAX_BYTES, "fingerprint")
    try:
        if kind_of(raw) != "safetensors":
            raise RefusedError(f"expected a fingerprint, got {kind_of(raw)}")
        text = header(raw)[1].get("fpbench")
    except RefusedError as error:
        raise InputError(str(error), where) from None
    meta = unsealed(text.encode()) if text else None
    if meta is None or meta.get("schema") != SCHEMA:
        schema = f"schema {meta.get('schema')}" if meta else "no or damaged metadata"
        raise InputError(f"expected a fingerprint of schema {SCHEMA}, found {schema}", where)
    if meta["tensors_sha256"] != sha256(_body(raw)):
        raise InputError("expected the tensors that were written, found changed ones", where)
    try:
        return _saved(meta, load(raw), registry, where, sha256(raw))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"expected a fingerprint of schema {SCHEMA}, found it damaged: {error!r}", where
        ) from None


def _saved(
    meta: Mapping[str, Any], tensors: Mapping[str, Tensor], registry: Registry, where: str,
    digest: str,
) -> Saved:  # fmt: skip
    evidence = {
        name.removeprefix("evidence/"): t
        for name, t in tensors.items()
        if name.startswith("evidence/")
    }
    models, written = meta["calibration"]["models"], meta["calibration"]["threshold"]
    threshold = find_threshold(makings_of(models), written["false_positive_rate"])
    if abs(threshold.rate - written["rate"]) > TOLERANCE:
        raise ForgedError(
            f"expected the threshold {threshold.rate:.6f}, which the rates of the known models "
            f"give, got {written['rate']:.6f}",
            where,
        )
    return Saved(
        fingerprint=Fingerprint(tensors["queries"], evidence),
        method=_method(meta["method"], registry, where),
        scenario=_scenario(meta, registry, where),
        access=Access[meta["access"].upper()],
        quantised=meta["quantised"],
        threshold=threshold,
        models=tuple(models),
        meta=meta,
        sha256=digest,
    )  # fmt: skip


def _scenario(meta: Mapping[str, Any], registry: Registry, where: str) -> Scenario:
    scenario: Scenario = _instance(
        registry.scenarios, "scenario", meta["scenario"], registry, where
    )
    if scenario.version != meta["scenario"]["version"]:
        raise InputError(
            f"expected {scenario.name} of version {meta['scenario']['version']}, found version "
            f"{scenario.version}; make the fingerprint anew",
            where,
        )
    return scenario


def _method(entry: Mapping[str, Any], registry: Registry, where: str) -> Fingerprinter:
    if "parts" in entry:
        parts = tuple(_method(part, registry, where) for part in entry["parts"])
        levels = tuple(Access[part["access"].upper()] for part in entry["parts"])
        return Combined(parts=parts, levels=levels, rule=entry["fields"]["rule"])
    method: Fingerprinter = _instance(registry.methods, "method", entry, registry, where)
    return method


def _instance(
    offers: Mapping[str, Any], what: str, entry: Mapping[str, Any], registry: Registry, where: str
) -> Any:
    """Return an instance of the installed class that the file names, with the file's fields."""
    if entry["name"] not in offers:
        text = registry.missing(what, entry["name"], offers)
        raise InputError(f"{text}; -p FILE.py loads a plugin file of your own", where)
    try:
        return offers[entry["name"]].cls(**entry["fields"])
    except (FieldError, TypeError) as error:
        raise InputError(
            f"expected the {entry['name']} that made the fingerprint, found another installed: "
            f"{error}",
            where,
        ) from None
