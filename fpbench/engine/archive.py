"""A zoo as one file: a tar archive with a manifest at its front; the same content, the same bytes.

manifest.json                           what follows, with sizes and sha256; sealed
models/<digest>@<version>/<file>        recipe.json, made.json, weights.safetensors of each model
trials/<key>.json

What is imported is verified as the store verifies it, before the first byte is kept. There is no
way to prove who trained a model: import what you would believe.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load

from ..api.errors import SuiteError
from .files import opened, sealed, sha256
from .whole import FILES, lineage_of, made_of, trial_of

SCHEMA = "fpbench.archive/1"
BLOCK = tarfile.BLOCKSIZE
SMALL = 16_000_000
"""Bytes that a manifest, a trial or a model's JSON may have."""

SCENARIO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _File(_Part):
    size: Annotated[int, Field(ge=0, lt=2**40)]
    sha256: Digest


class _Small(_File):
    size: Annotated[int, Field(ge=0, le=SMALL)]


class Model(_Part):
    digest: Digest
    version: Annotated[int, Field(ge=0, lt=10**6)]
    recipe: _Small
    made: _Small
    weights: _File

    def files(self) -> Iterator[tuple[str, _File]]:
        for file, entry in zip(FILES, (self.recipe, self.made, self.weights), strict=True):
            yield f"models/{self.digest}@{self.version}/{file}", entry


class Trial(_Part):
    key: Digest
    file: _Small


class Manifest(_Part):
    models: list[Model]
    trials: list[Trial]

    def files(self) -> Iterator[tuple[str, _File]]:
        for model in self.models:
            yield from model.files()
        for trial in self.trials:
            yield f"trials/{trial.key}.json", trial.file


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def append(file: BinaryIO, name: str, content: bytes) -> int:
    """Write one member; returns the bytes that it takes."""
    return file.write(_header(name, len(content)) + content + bytes(-len(content) % BLOCK))


def front(file: BinaryIO) -> Manifest:
    """The manifest of an archive that has exactly the size which that declares."""
    path = Path(file.name)
    block = file.read(BLOCK)
    try:
        size = tarfile.TarInfo.frombuf(block, "ascii", "strict").size
    except (tarfile.HeaderError, UnicodeError):
        size = -1
    if not 0 <= size <= SMALL or block != _header("manifest.json", size):
        raise SuiteError(
            f"expected an archive that `fpbench store export` wrote, found no manifest at the "
            f"front of {path}"
        )
    raw = file.read(size + -size % BLOCK)
    data = opened(raw[:size], SCHEMA, path)
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as error:
        place = error.errors(include_url=False)[0]["loc"]
        where = f" at {'.'.join(map(str, place))}" if place else ""
        raise SuiteError(f"expected a whole manifest in {path}, found it damaged{where}") from None
    if raw != sealed({"schema": SCHEMA, **manifest.model_dump()}) + bytes(-size % BLOCK):
        raise SuiteError(f"expected a whole manifest in {path}, found it damaged")
    names = [name for name, _ in manifest.files()]
    if len(set(names)) < len(names):
        raise SuiteError(f"expected every model and trial once in {path}, found some twice")
    declared = file.tell() + 2 * BLOCK
    declared += sum(BLOCK + f.size + -f.size % BLOCK for _, f in manifest.files())
    if (found := os.fstat(file.fileno()).st_size) != declared:
        raise SuiteError(
            f"expected {declared:,} bytes in {path} by its manifest, found {found:,}; it is "
            f"{'incomplete' if found < declared else 'not only what was exported'}"
        )
    return manifest


def members(file: BinaryIO, manifest: Manifest) -> Iterator[tuple[Model | Trial, str, list[bytes]]]:
    """Every model and trial, the scenario of a model, and what their files hold; verified."""
    for model in manifest.models:
        contents = [_content(file, name, entry) for name, entry in model.files()]
        yield model, scenario_of(model, contents), contents
    for trial in manifest.trials:
        raw = _content(file, f"trials/{trial.key}.json", trial.file)
        checked_trial(trial, raw)
        yield trial, "", [raw]
    if any(file.read()):
        raise SuiteError("expected nothing after the last trial, found more")


def _content(file: BinaryIO, name: str, entry: _File) -> bytes:
    """One member's content. Its header must be the very one that `export` writes: a file of that
    name and size, no link, no device, nothing that leads elsewhere."""
    block = file.read(BLOCK)
    if block != _header(name, entry.size):
        try:
            other = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
            what = f"{other.name!r} of type {other.type!r} and {other.size} bytes"
        except tarfile.HeaderError:
            what = "no header"
        raise SuiteError(f"expected {name} with {entry.size} bytes next, found {what}")
    raw = file.read(entry.size)
    if sha256(raw) != entry.sha256 or any(file.read(-entry.size % BLOCK)):
        raise SuiteError(f"expected {name} as it was exported, found it damaged")
    return raw


def scenario_of(model: Model, contents: list[bytes]) -> str:
    """The scenario, as name@version, of a model whose every file is right. Raises SuiteError."""
    recipe, made, weights = contents
    place = Path(f"models/{model.digest}@{model.version}")
    lineage = lineage_of(recipe, model.digest)
    facts = made_of(made, place / "made.json")
    if lineage is None:
        raise SuiteError(f"expected the lineage of that model in {place}/recipe.json")
    if not facts or (facts.get("digest"), facts["weights_sha256"]) != (
        model.digest, model.weights.sha256,
    ):  # fmt: skip
        raise SuiteError(f"expected how that model was made in {place}/made.json")
    try:
        load(weights)
    except SafetensorError as error:
        raise SuiteError(f"expected safetensors in {place}, got {error}") from None
    name = str(lineage[-1]["fields"].get("scenario")).split("(")[0]
    if not SCENARIO.fullmatch(name):
        raise SuiteError(f"expected the name of a scenario in {place}/recipe.json, got {name!r}")
    return f"{name}@{model.version}"


def checked_trial(trial: Trial, raw: bytes) -> None:
    """Raise SuiteError unless these bytes are a trial's file."""
    if trial_of(raw, Path(f"trials/{trial.key}.json")) is None:
        raise SuiteError(f"expected a trial's result in trials/{trial.key}.json")
