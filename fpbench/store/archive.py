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
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, BinaryIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load

from ..api.errors import SuiteError
from .checks import FILES, lineage_of, made_of, trial_of
from .files import NewerError, opened, read, sealed, sha256, write
from .inventory import MODEL, TRIAL, Item, items
from .store import Store

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


@dataclass
class Moved:
    """What was exported or imported.

    kept:     models that the store had.
    left_out: what is damaged, or of a later fpbench.
    """

    models: int = 0
    trials: int = 0
    bytes: int = 0
    kept: int = 0
    left_out: list[str] = field(default_factory=list)


def export(
    store: Store, archive: Path, wanted: Callable[[Item], bool], step: Callable[[], None]
) -> Moved:
    """Write an archive of what is wanted of a store and whole; `step` is called once per item.

    Raises SuiteError if something changes meanwhile.
    """
    found = [item for item in items(store) if item.what in (MODEL, TRIAL) and wanted(item)]
    moved = Moved()
    paths: dict[str, Path] = {}
    with store.using(item.name for item in found if item.what == MODEL):
        manifest = _manifest(found, paths, moved, step)
        archive.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=archive.parent, prefix=".tmp-export-")
        try:
            with os.fdopen(handle, "wb") as file:
                front = sealed({"schema": SCHEMA, **manifest.model_dump()})
                if len(front) > SMALL:
                    raise SuiteError("expected a zoo that one archive can hold; export it by suite")
                moved.bytes += append(file, "manifest.json", front)
                for name, entry in manifest.files():
                    content = read(paths[name]) or b""
                    if sha256(content) != entry.sha256:
                        raise SuiteError(
                            f"expected {paths[name]} to stay as it is while it is exported, found "
                            "it changed; export again"
                        )
                    moved.bytes += append(file, name, content)
                moved.bytes += file.write(bytes(2 * BLOCK))
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, archive)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    return moved


def _manifest(
    found: Iterable[Item], paths: dict[str, Path], moved: Moved, step: Callable[[], None]
) -> Manifest:
    """Verify everything; note where each member's content lies."""
    models, trials = [], []
    for item in found:
        inside = [item.path / file for file in FILES] if item.what == MODEL else [item.path]
        contents = [read(path) or b"" for path in inside]
        files = [{"size": len(raw), "sha256": sha256(raw)} for raw in contents]
        entry: Model | Trial
        try:
            if item.what == MODEL:
                version = int(item.path.parent.parent.name.rpartition("@")[2])
                named = dict(zip(("recipe", "made", "weights"), files, strict=True))
                entry = Model.model_validate({"digest": item.name, "version": version, **named})
                scenario_of(entry, contents)
                models.append(entry)
                paths |= dict(zip((name for name, _ in entry.files()), inside, strict=True))
            else:
                entry = Trial.model_validate({"key": item.name, "file": files[0]})
                checked_trial(entry, contents[0])
                trials.append(entry)
                paths[f"trials/{entry.key}.json"] = item.path
        except (SuiteError, ValueError):
            moved.left_out.append(str(item.path))
        step()
    moved.models, moved.trials = len(models), len(trials)
    models.sort(key=lambda model: (model.digest, model.version))
    return Manifest(models=models, trials=sorted(trials, key=lambda trial: trial.key))


def import_(store: Store, archive: Path, step: Callable[[], None]) -> Moved:
    """Put an archive's models and trials into a store, each whole or not at all.

    All of it is verified before anything is kept; a model that the store has stays. Interrupted,
    it goes on with the same call. `step` is called twice per model and trial. Raises SuiteError if
    the archive is not exactly what `export` would have written, ResourceError without disk for it.
    """
    if not archive.is_file():
        raise SuiteError(f"expected an archive at {archive}, found none")
    with archive.open("rb") as file:
        manifest = front(file)
        store.require(sum(entry.size for _, entry in manifest.files()))
        start = file.tell()
        try:
            for _ in members(file, manifest):
                step()
            file.seek(start)
            moved = Moved(bytes=os.fstat(file.fileno()).st_size)
            for entry, scenario, contents in members(file, manifest):
                if isinstance(entry, Trial):
                    moved.trials += _place_trial(store, entry, contents[0])
                else:
                    placed = _place_model(store, store.at(scenario, entry.digest), contents)
                    moved.models, moved.kept = moved.models + placed, moved.kept + (not placed)
                step()
        except NewerError:
            raise
        except SuiteError as error:
            raise SuiteError(str(error), str(archive)) from None
    return moved


def _place_model(store: Store, folder: Path, contents: list[bytes]) -> bool:
    """Whether the model was new to the store."""
    with store.lock(folder.name):
        try:
            if store.mend_at(folder, folder.name, contents[0]):
                return False
        except NewerError:
            return False
        with store.new(folder) as temporary:
            for name, raw in zip(FILES, contents, strict=True):
                write(temporary / name, raw)
    return True


def _place_trial(store: Store, trial: Trial, raw: bytes) -> bool:
    if store.trial(trial.key) is not None:
        return False
    store.save_trial(trial.key, trial_of(raw, Path(trial.key)) or {})
    return True
