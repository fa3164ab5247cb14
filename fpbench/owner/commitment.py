"""Commitments, which fix a fingerprint before any suspect is asked, and signatures.

A commitment is a public file. It names the fingerprint by hashes and reveals none of its queries.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors.torch import load

from ..api.errors import InputError
from ..store.files import sha256, write
from .fingerprint_file import ForgedError, Saved

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
        "fingerprint_sha256": sha256(raw := file.read_bytes()),
        # One can be shown without the other.
        "queries_sha256": sha256(load(raw)["queries"].numpy().tobytes()),
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


def read_record(file: Path, schema: str) -> dict[str, Any]:
    """Read a JSON file of a schema. Raises InputError for any other file."""
    try:
        found = json.loads(file.read_bytes())
        if not isinstance(found, dict) or found.get("schema") != schema:
            raise ValueError
    except (OSError, ValueError):
        raise InputError(f"expected a file of schema {schema}", str(file)) from None
    return found


@contextmanager
def reported_damage(file: Path) -> Iterator[None]:
    """Raise InputError where a record of the right schema lacks a part or has another type."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        reason = f"expected a whole record, found it damaged: {error!r}"
        raise InputError(reason, str(file)) from None


def commitment_of(file: Path, saved: Saved) -> dict[str, Any] | None:
    """Return the commitment beside a fingerprint's file; None if there is none.

    Raises ForgedError if it names another fingerprint, InputError if it is damaged.
    """
    place = place_of(file)
    if not place.is_file():
        return None
    found = read_record(place, SCHEMA)
    with reported_damage(place):
        if found["fingerprint_sha256"] != saved.sha256:
            raise ForgedError("expected a commitment to this fingerprint, got one to another",
                              str(place))  # fmt: skip
        datetime.fromisoformat(found["made"])
    return found


def signed(content: Mapping[str, Any], key: Any) -> dict[str, Any]:
    """Return content with its signature and the public key; without a key, the content alone."""
    if key is None:
        return dict(content)
    body = {**content, "public_key": key.public_key().public_bytes_raw().hex()}
    return {**body, "signature": key.sign(canonical(body)).hex()}


def check_signature(content: Mapping[str, Any], signer: Path | None) -> str | None:
    """Return the fault of a signature as a phrase; None if the signature is right.

    signer: the file of the public key that must have signed. Raises InputError if it is none.
    """
    if "signature" not in content:
        return "there is no signature"
    _require_cryptography()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

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
    _require_cryptography()
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


def _require_cryptography() -> None:
    """Raise InputError if the package that signs is not installed."""
    if find_spec("cryptography") is None:
        raise InputError(
            "a signature needs the package cryptography: pip install 'fpbench-core[sign]'"
        )


def _load(file: Path, *, private: bool) -> Any:
    """Read a key in the form of PEM or OpenSSH, without a password."""
    from cryptography.hazmat.primitives import serialization

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
