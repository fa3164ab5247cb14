"""Commitments and signatures: what a fingerprint was before any suspect was asked.

A commitment is a public file. It names the fingerprint by hashes and reveals none of its queries.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..api.errors import InputError
from ..store.files import sha256, write

SCHEMA = "fpbench.commitment/1"


def canonical(value: object) -> bytes:
    """Return JSON with sorted keys and without spaces: the bytes that are hashed and signed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def place_of(file: Path) -> Path:
    """Return where the commitment of a fingerprint's file is."""
    return file.with_name(f"{file.name}.commitment.json")


def commit(file: Path, meta: Mapping[str, Any], key: Any) -> Path:
    """Write the commitment of a fingerprint's file beside it, and return its path.

    key: the Ed25519 private key that signs it; None for none.
    """
    content = {
        "schema": SCHEMA,
        "fingerprint_sha256": sha256(file.read_bytes()),
        "calibration_sha256": sha256(canonical(meta["calibration"])),
        "case_sha256": meta["suite"]["sha256"],
        "method": meta["method"],
        "target_sha256": meta["target"]["weights_sha256"],
        "versions": meta["versions"],
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    place = place_of(file)
    write(place, json.dumps(signed(content, key), indent=1).encode())
    return place


def read_commitment(place: Path) -> dict[str, Any]:
    """Read a commitment. Raises InputError if the file is none."""
    try:
        found = json.loads(place.read_bytes())
        if not isinstance(found, dict) or found.get("schema") != SCHEMA:
            raise ValueError
    except (OSError, ValueError):
        raise InputError(f"expected a commitment of schema {SCHEMA}", str(place)) from None
    return found


def signed(content: Mapping[str, Any], key: Any) -> dict[str, Any]:
    """Return content with its signature and the public key; without a key, the content alone."""
    if key is None:
        return dict(content)
    body = {**content, "public_key": key.public_key().public_bytes_raw().hex()}
    return {**body, "signature": key.sign(canonical(body)).hex()}


def check_signature(content: Mapping[str, Any], signer: Path | None) -> str | None:
    """Return what is wrong with the signature of some content; None if it is right.

    signer: the file of the public key that must have signed. Raises InputError if it is none.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if "signature" not in content:
        return "there is no signature"
    body = {name: value for name, value in content.items() if name != "signature"}
    if signer is not None and _public_key(signer) != body.get("public_key"):
        return f"another key than that in {signer} signed"
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(str(body.get("public_key"))))
        public.verify(bytes.fromhex(str(content["signature"])), canonical(body))
    except (InvalidSignature, ValueError):
        return "the content is not what was signed"
    return None


def private_key(file: Path | None) -> Any:
    """Read an Ed25519 private key; None for None. Raises InputError for another kind of file."""
    if file is None:
        return None
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = _load(file, private=True)
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError("expected an Ed25519 private key, got another kind of key", str(file))
    return key


def _public_key(file: Path) -> str:
    """Return an Ed25519 public key in hexadecimal digits."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key = _load(file, private=False)
    if not isinstance(key, Ed25519PublicKey):
        raise InputError("expected an Ed25519 public key, got another kind of key", str(file))
    return key.public_bytes_raw().hex()


def _load(file: Path, *, private: bool) -> Any:
    """Read a key in the form of PEM or OpenSSH, without a password."""
    try:
        from cryptography.hazmat.primitives import serialization
    except ImportError:
        raise InputError(
            "a signature needs the package cryptography: pip install 'fpbench-core[sign]'",
            str(file),
        ) from None
    try:
        raw = file.read_bytes()
        openssh = raw.startswith((b"-----BEGIN OPENSSH", b"ssh-"))
        if private:
            load = (
                serialization.load_ssh_private_key
                if openssh
                else serialization.load_pem_private_key
            )
            return load(raw, None)
        load_public = (
            serialization.load_ssh_public_key if openssh else serialization.load_pem_public_key
        )
        return load_public(raw)
    except (OSError, ValueError, TypeError) as error:
        side = "private" if private else "public"
        raise InputError(
            f"expected an Ed25519 {side} key as PEM or OpenSSH, without a password: {error}",
            str(file),
        ) from None
