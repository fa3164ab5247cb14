"""A zoo as one file: a plain tar archive that begins with a manifest. Equal content, equal bytes.

manifest.json                           the sha256 of every other member, in their order; sealed
models/<digest>@<version>/<file>        recipe.json, made.json, weights.safetensors of each model
trials/<key>.json

An archive is read twice: everything is verified first, as the store verifies it, then kept. Nothing
can prove who trained a model: import archives only from people whom you believe.
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
SMALL = 16_000_000
"""Bytes that a manifest, a trial or a model's JSON may have."""

SCENARIO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ModelName = Annotated[str, Field(pattern=r"^[0-9a-f]{64}@[0-9]{1,6}$")]


class _Manifest(BaseModel):
    """The sha256 of each model's three files, by digest@version, and of each trial's, by key."""

    model_config = ConfigDict(extra="forbid", strict=True)

    models: dict[ModelName, Annotated[list[Digest], Field(min_length=3, max_length=3)]]
    trials: dict[Digest, Digest]

    def members(self) -> Iterator[dict[str, str]]:
        """Yield the members of each model and of each trial: names and sha256."""
        for name, sums in sorted(self.models.items()):
            yield {f"models/{name}/{file}": s for file, s in zip(FILES, sums, strict=True)}
        for key, content in sorted(self.trials.items()):
            yield {f"trials/{key}.json": content}


class _Member(tarfile.TarInfo):
    """A plain file; a link, a device or a header that extends another one is refused."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        found = super().frombuf(buf, encoding, errors)
        if found.type != tarfile.REGTYPE or found.size < 0:
            raise InputError(f"expected plain files, found {found.name[:100]!r}, which is none")
        return found


@dataclass
class Moved:
    """The numbers of models, trials and bytes that were exported or imported.

    kept:     models that the store had already.
    left_out: paths of what is damaged, or was written by a later fpbench.
    """

    models: int = 0
    trials: int = 0
    bytes: int = 0
    kept: int = 0
    left_out: list[str] = field(default_factory=list)


def export(
    store: Store, archive: Path, wanted: Callable[[Item], bool], step: Callable[[], None]
) -> Moved:
    """Write an archive of a store's wanted models and trials; leave out those that are damaged.

    `step` is called once per item. Raises InputError if something changes meanwhile.
    """
    found = [item for item in items(store) if item.what in (MODEL, TRIAL) and wanted(item)]
    manifest, moved, paths = _Manifest(models={}, trials={}), Moved(), dict[str, Path]()
    with store.using(item.name for item in found if item.what == MODEL):
        for item in found:
            files = [item.path / file for file in FILES] if item.what == MODEL else [item.path]
            contents = [read(file) or b"" for file in files]
            sums = [sha256(content) for content in contents]
            try:
                if item.what == MODEL:
                    name = f"{item.name}@{int(item.path.parents[1].name.rpartition('@')[2])}"
                    _scenario(name, contents)
                    manifest.models[name] = sums
                else:
                    _scenario(item.name, contents)
                    manifest.trials[item.name] = sums[0]
                paths |= zip(sums, files, strict=True)
            except (InputError, ValueError):
                moved.left_out.append(str(item.path))
            step()
        front = sealed({"schema": SCHEMA, **manifest.model_dump()})
        if len(front) > SMALL:
            raise InputError("expected a zoo that one archive can hold; export it by suite")
        with (
            replacing(archive) as file,
            tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar,
        ):
            _add(tar, MANIFEST, front)
            for members in manifest.members():
                for name, wanted_sum in members.items():
                    content = read(path := paths[wanted_sum]) or b""
                    if sha256(content) != wanted_sum:
                        raise InputError(
                            f"expected {path} to stay unchanged while it is exported, found it "
                            "changed; export again"
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
    """Put an archive's models and trials into a store, each whole or not at all.

    All of it is verified before anything is kept; a model that the store has stays. After an
    interruption the same call goes on. `step` is called twice per model and trial. Raises
    InputError for a file that is not an archive from `export`, ResourceError if the disk is full.
    """
    if not archive.is_file():
        raise InputError(f"expected an archive at {archive}, found none")
    moved = Moved(bytes=archive.stat().st_size)
    store.require(moved.bytes)
    try:
        with archive.open("rb") as file:
            for _ in _verified(file):
                step()
            for digest, scenario, contents in _verified(file):
                if not scenario:
                    moved.trials += _keep_trial(store, digest, contents[0])
                elif _keep_model(store, store.at(scenario, digest), contents):
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


def _verified(file: BinaryIO) -> Iterator[tuple[str, str, list[bytes]]]:
    """Yield each model's digest, its scenario and the contents of its files; trials have none.

    Raises InputError or TarError unless every member is the one in the manifest and whole.
    """
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:", tarinfo=_Member) as tar:
        try:
            data = opened(_content(tar, MANIFEST), SCHEMA, Path(file.name))
            manifest = _Manifest.model_validate(data)
        except ValidationError:
            raise InputError("expected a whole manifest, found it damaged") from None
        for members in manifest.members():
            contents = [_content(tar, name, wanted) for name, wanted in members.items()]
            name = next(iter(members)).split("/")[1].removesuffix(".json")
            yield name.partition("@")[0], _scenario(name, contents), contents
        if (member := tar.next()) is not None:
            raise InputError(f"expected nothing after the last member, found {member.name[:100]!r}")


def _content(tar: tarfile.TarFile, name: str, wanted: str | None = None) -> bytes:
    """Return the next member's content. Raises InputError unless name and sha256 are as wanted."""
    member = tar.next()
    if member is None or member.name != name:
        found = repr(member.name[:100]) if member else "the end"
        raise InputError(f"expected {name} next, found {found}")
    most = SMALL if name.endswith(".json") else os.stat(str(tar.name)).st_size
    if member.size > most:
        raise InputError(f"expected at most {most:,} bytes in {name}, found {member.size:,}")
    file = tar.extractfile(member)
    assert file is not None  # every member is a file
    content = file.read()
    if wanted and sha256(content) != wanted:
        raise InputError(f"expected {name} as it was exported, found it damaged")
    return content


def _scenario(name: str, contents: list[bytes]) -> str:
    """Return the name@version of a model's scenario, or nothing for a trial.

    name: the model's digest@version, or the trial's key. Raises InputError unless the contents
    are those of the whole model or trial of that name.
    """
    digest, _, version = name.partition("@")
    if not version:
        if trial_of(contents[0], Path(f"trials/{name}.json")) is None:
            raise InputError(f"expected a trial's result in trials/{name}.json")
        return ""
    recipe, made, weights = contents
    place = Path("models", name)
    lineage, facts = lineage_of(recipe, digest), made_of(made, place / "made.json") or {}
    if lineage is None:
        raise InputError(f"expected the lineage of that model in {place}/recipe.json")
    if (facts.get("digest"), facts.get("weights_sha256")) != (digest, sha256(weights)):
        raise InputError(f"expected how that model was made in {place}/made.json")
    try:
        load(weights)
    except SafetensorError as error:
        raise InputError(f"expected safetensors in {place}, got {error}") from None
    scenario = str(lineage[-1]["fields"].get("scenario")).split("(")[0]
    if not SCENARIO.fullmatch(scenario):
        raise InputError(f"expected a scenario's name in {place}/recipe.json, got {scenario!r}")
    return f"{scenario}@{version}"


def _keep_model(store: Store, folder: Path, contents: list[bytes]) -> bool:
    """Put a model into the store; return whether it was new to it."""
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
    """Put a trial's result into the store; return whether it was new to it."""
    if store.trial(key) is not None:
        return False
    store.save_trial(key, trial_of(content, Path(key)) or {})
    return True
