"""Export a zoo as one file, and import it. The file is a plain tar archive with these members:

manifest.json                           the sha256 of every other member, in their order; sealed
models/<digest>@<version>/<file>        recipe.json, made.json, weights.safetensors of each model
trials/<key>.json                       the result of each trial

Archives of equal content have equal bytes. `import_` reads an archive twice: it first verifies
everything as the store does, and then keeps it. Nothing can prove who trained a model: import
archives only from people whom you trust.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, BinaryIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load

from ..api.errors import InputError
from .checks import FILES, lineage_of, made_of, trial_of
from .files import NewerError, opened, read, replacing, sealed, sha256, write
from .inventory import MODEL, TRIAL, Item, items
from .store import Store

SCHEMA = "fpbench.archive/2"
MANIFEST = "manifest.json"
MAX_JSON_BYTES = 16_000_000
"""Bytes that a manifest, a trial or a model's JSON may have."""

SCENARIO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ModelName = Annotated[str, Field(pattern=r"^[0-9a-f]{64}@[0-9]{1,6}$")]


class _Manifest(BaseModel):
    """The checksums of an archive.

    models: by digest@version, the sha256 of the model's three files.
    trials: by key, the sha256 of the trial's file.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    models: dict[ModelName, Annotated[list[Digest], Field(min_length=3, max_length=3)]]
    trials: dict[Digest, Digest]

    def members(self) -> Iterator[dict[str, str]]:
        """Yield the members of each model and of each trial as their sha256 by name."""
        for name, sums in sorted(self.models.items()):
            yield {f"models/{name}/{file}": s for file, s in zip(FILES, sums, strict=True)}
        for key, checksum in sorted(self.trials.items()):
            yield {f"trials/{key}.json": checksum}


class _Member(tarfile.TarInfo):
    """A plain file. Links, devices and headers that extend another one are refused."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        member = super().frombuf(buf, encoding, errors)
        if member.type != tarfile.REGTYPE or member.size < 0:
            raise InputError(f"expected only plain files, found {member.name[:100]!r}")
        return member


@dataclass
class Moved:
    """The numbers of models, trials and bytes that were exported or imported.

    kept:     the number of models that the store had already.
    left_out: paths of models and trials that are damaged, or that a later fpbench wrote.
    """

    models: int = 0
    trials: int = 0
    bytes: int = 0
    kept: int = 0
    left_out: list[str] = field(default_factory=list)


def export(
    store: Store, archive: Path, selects: Callable[[Item], bool], step: Callable[[], None]
) -> Moved:
    """Write an archive of the selected models and trials of a store. Damaged ones are left out.

    `step` is called once per item. Raises InputError if a file changes during the export.
    """
    selected = [item for item in items(store) if item.kind in (MODEL, TRIAL) and selects(item)]
    manifest, moved, paths = _Manifest(models={}, trials={}), Moved(), dict[str, Path]()
    with store.using(item.name for item in selected if item.kind == MODEL):
        for item in selected:
            files = [item.path / file for file in FILES] if item.kind == MODEL else [item.path]
            contents = [read(file) or b"" for file in files]
            sums = [sha256(content) for content in contents]
            try:
                if item.kind == MODEL:
                    name = f"{item.name}@{int(item.path.parents[1].name.rpartition('@')[2])}"
                    _check_contents(name, contents)
                    manifest.models[name] = sums
                else:
                    _check_contents(item.name, contents)
                    manifest.trials[item.name] = sums[0]
                paths |= zip(sums, files, strict=True)
            except (InputError, ValueError):
                moved.left_out.append(str(item.path))
            step()
        front = sealed({"schema": SCHEMA, **manifest.model_dump()})
        if len(front) > MAX_JSON_BYTES:
            raise InputError(
                f"expected a manifest of at most {MAX_JSON_BYTES:,} bytes, got {len(front):,}; "
                "export one suite at a time"
            )
        with (
            replacing(archive) as file,
            tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar,
        ):
            _add(tar, MANIFEST, front)
            for members in manifest.members():
                for name, checksum in members.items():
                    content = read(path := paths[checksum]) or b""
                    if sha256(content) != checksum:
                        raise InputError(
                            f"expected {path} not to change during the export, found it changed; "
                            "export again"
                        )
                    _add(tar, name, content)
    archive.chmod(0o644)
    moved.models, moved.trials = len(manifest.models), len(manifest.trials)
    moved.bytes = archive.stat().st_size
    return moved


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def import_(store: Store, archive: Path, step: Callable[[], None]) -> Moved:
    """Put the models and trials of an archive into a store. None of them is stored in part.

    The whole archive is verified before anything is stored. Models that the store has already stay
    unchanged. After an interruption, call it again to continue. `step` is called twice per model
    and trial. Raises InputError for a file that is not an archive from `export`, and ResourceError
    if the disk has too little space.
    """
    if not archive.is_file():
        raise InputError(f"expected an archive at {archive}, found none")
    moved = Moved(bytes=archive.stat().st_size)
    store.require(moved.bytes)
    try:
        with archive.open("rb") as file:
            for _ in _read_verified(file):
                step()
            for digest, scenario, contents in _read_verified(file):
                if not scenario:
                    moved.trials += _keep_trial(store, digest, contents[0])
                elif _keep_model(store, store.folder_of(scenario, digest), contents):
                    moved.models += 1
                else:
                    moved.kept += 1
                step()
    except tarfile.TarError as error:
        raise InputError(
            f"expected an archive that `fpbench store export` wrote, found: {error}", str(archive)
        ) from None
    except NewerError:
        raise
    except InputError as error:
        raise InputError(str(error), str(archive)) from None
    return moved


def _read_verified(file: BinaryIO) -> Iterator[tuple[str, str, list[bytes]]]:
    """Yield the name, the scenario and the contents of the files of each model and trial.

    The name is a model's digest or a trial's key. The scenario is name@version, or empty for a
    trial. Raises InputError or TarError unless the members are exactly those of the manifest.
    """
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:", tarinfo=_Member) as tar:
        try:
            data = opened(_read_member(tar, MANIFEST), SCHEMA, Path(file.name))
            manifest = _Manifest.model_validate(data)
        except ValidationError:
            raise InputError(
                f"expected a manifest of {SCHEMA}, found it damaged or of an older fpbench; export "
                "the zoo again"
            ) from None
        for members in manifest.members():
            contents = [_read_member(tar, name, checksum) for name, checksum in members.items()]
            name = next(iter(members)).split("/")[1].removesuffix(".json")
            yield name.partition("@")[0], _check_contents(name, contents), contents
        if (member := tar.next()) is not None:
            raise InputError(f"expected nothing after the last member, found {member.name[:100]!r}")


def _read_member(tar: tarfile.TarFile, name: str, checksum: str | None = None) -> bytes:
    """Return the content of the next member. Raises InputError for another name or sha256."""
    member = tar.next()
    if member is None or member.name != name:
        next_name = repr(member.name[:100]) if member else "the end"
        raise InputError(f"expected {name} next, found {next_name}")
    most = MAX_JSON_BYTES if name.endswith(".json") else os.stat(str(tar.name)).st_size
    if member.size > most:
        raise InputError(f"expected at most {most:,} bytes in {name}, found {member.size:,}")
    file = tar.extractfile(member)
    assert file is not None  # every member is a file
    content = file.read()
    if checksum and sha256(content) != checksum:
        raise InputError(f"expected {name} as it was exported, found it damaged")
    return content


def _check_contents(name: str, contents: list[bytes]) -> str:
    """Return the name@version of a model's scenario; an empty text for a trial.

    Raises InputError unless the contents are a complete model or trial of that name.

    name:     the model's digest@version, or the trial's key.
    contents: the model's three files, or the trial's one file.
    """
    digest, _, version = name.partition("@")
    if not version:
        if trial_of(contents[0], Path(f"trials/{name}.json")) is None:
            raise InputError(f"expected a trial's result in trials/{name}.json")
        return ""
    raw_recipe, raw_made, weights = contents
    place = Path("models", name)
    lineage, made = lineage_of(raw_recipe, digest), made_of(raw_made, place / "made.json") or {}
    if lineage is None:
        raise InputError(f"expected the lineage of that model in {place}/recipe.json")
    if (made.get("digest"), made.get("weights_sha256")) != (digest, sha256(weights)):
        raise InputError(f"expected the record of that model's making in {place}/made.json")
    try:
        load(weights)
    except SafetensorError as error:
        raise InputError(f"expected safetensors in {place}, got {error}") from None
    scenario = str(lineage[-1]["fields"].get("scenario")).split("(")[0]
    if not SCENARIO.fullmatch(scenario):
        raise InputError(f"expected a scenario's name in {place}/recipe.json, got {scenario!r}")
    return f"{scenario}@{version}"


def _keep_model(store: Store, folder: Path, contents: list[bytes]) -> bool:
    """Put a model into the store; return False if the store had it already."""
    with store.lock(folder.name):
        try:
            if store.mend_at(folder, folder.name, contents[0]):
                return False
        except NewerError:
            return False
        with store.new(folder) as temporary:
            for file, content in zip(FILES, contents, strict=True):
                write(temporary / file, content)
    return True


def _keep_trial(store: Store, key: str, content: bytes) -> bool:
    """Put a trial's result into the store; return False if the store had it already."""
    if store.trial(key) is not None:
        return False
    store.save_trial(key, trial_of(content, Path(key)) or {})
    return True
