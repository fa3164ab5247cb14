"""Verify a suspect: read the fingerprint, ask, judge, sign, write."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..api.errors import InputError
from ..engine.registry import Registry
from ..store.files import write
from .commitment import commitment_of, private_key, signed
from .fingerprint_file import load_saved
from .remote import checked_url
from .suspects import Request, open_suspect
from .verdict import judge

PathLike = str | os.PathLike[str]


def verify(
    fingerprint: PathLike, suspect: str, *, out: PathLike = "verdict.json",
    request: Request | None = None, key: PathLike | None = None,
    plugins: Sequence[PathLike] = (),
) -> dict[str, Any]:  # fmt: skip
    """Judge a suspect by a fingerprint, as `fpbench verify` does, and return the verdict.

    fingerprint: the file that `fpbench fingerprint` wrote.
    suspect:     a model's file, or the URL of a prediction API.
    out:         where the verdict goes. A verdict is never overwritten.
    request:     how to open the suspect: its architecture, or its API's adapter and limits.
    key:         an Ed25519 private key that signs the verdict.
    plugins:     plugin files to load.

    Raises InputError for files, options and keys that cannot be used, TrialError if the method
    breaks its contract, ForgedError if the fingerprint contradicts itself or the commitment beside
    it, and ResourceError if an API does not answer.
    """
    place = Path(out)
    if place.exists():
        raise InputError(
            "expected no file at the verdict's place, found one; a verdict is never overwritten: "
            "name another place by --out",
            str(place),
        )
    signer = private_key(Path(key) if key else None)  # before anything is asked
    saved = load_saved(Path(fingerprint), Registry.load([Path(file) for file in plugins]))
    commitment = commitment_of(Path(fingerprint), saved)
    request = replace(request or Request(), out=place)
    name = checked_url(suspect)[1] if "://" in suspect else suspect
    verdict = judge(saved, open_suspect(suspect, saved, request), name)
    verdict["fingerprint"]["file"], verdict["commitment"] = str(fingerprint), commitment
    verdict = signed(verdict, signer)
    write(place, json.dumps(verdict, indent=1).encode())
    return verdict
