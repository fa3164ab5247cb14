"""A store's models and trials into an archive, and out of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..api.errors import SuiteError
from . import archive as form
from .files import NewerError, read, sealed, sha256, write
from .inventory import MODEL, TRIAL, Item, items
from .store import Store
from .whole import FILES, trial_of


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
                front = sealed({"schema": form.SCHEMA, **manifest.model_dump()})
                if len(front) > form.SMALL:
                    raise SuiteError("expected a zoo that one archive can hold; export it by suite")
                moved.bytes += form.append(file, "manifest.json", front)
                for name, entry in manifest.files():
                    content = read(paths[name]) or b""
                    if sha256(content) != entry.sha256:
                        raise SuiteError(
                            f"expected {paths[name]} to stay as it is while it is exported, found "
                            "it changed; export again"
                        )
                    moved.bytes += form.append(file, name, content)
                moved.bytes += file.write(bytes(2 * form.BLOCK))
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
) -> form.Manifest:
    """Verify everything; note where each member's content lies."""
    models, trials = [], []
    for item in found:
        inside = [item.path / file for file in FILES] if item.what == MODEL else [item.path]
        contents = [read(path) or b"" for path in inside]
        files = [{"size": len(raw), "sha256": sha256(raw)} for raw in contents]
        entry: form.Model | form.Trial
        try:
            if item.what == MODEL:
                version = int(item.path.parent.parent.name.rpartition("@")[2])
                named = dict(zip(("recipe", "made", "weights"), files, strict=True))
                entry = form.Model.model_validate(
                    {"digest": item.name, "version": version, **named}
                )
                form.scenario_of(entry, contents)
                models.append(entry)
                paths |= dict(zip((name for name, _ in entry.files()), inside, strict=True))
            else:
                entry = form.Trial.model_validate({"key": item.name, "file": files[0]})
                form.checked_trial(entry, contents[0])
                trials.append(entry)
                paths[f"trials/{entry.key}.json"] = item.path
        except (SuiteError, ValueError):
            moved.left_out.append(str(item.path))
        step()
    moved.models, moved.trials = len(models), len(trials)
    models.sort(key=lambda model: (model.digest, model.version))
    return form.Manifest(models=models, trials=sorted(trials, key=lambda trial: trial.key))


def import_(store: Store, archive: Path, step: Callable[[], None]) -> Moved:
    """Put an archive's models and trials into a store, each whole or not at all.

    All of it is verified before anything is kept; a model that the store has stays. Interrupted,
    it goes on with the same call. `step` is called twice per model and trial. Raises SuiteError if
    the archive is not exactly what `export` would have written, ResourceError without disk for it.
    """
    if not archive.is_file():
        raise SuiteError(f"expected an archive at {archive}, found none")
    with archive.open("rb") as file:
        manifest = form.front(file)
        store.require(sum(entry.size for _, entry in manifest.files()))
        start = file.tell()
        try:
            for _ in form.members(file, manifest):
                step()
            file.seek(start)
            moved = Moved(bytes=os.fstat(file.fileno()).st_size)
            for entry, scenario, contents in form.members(file, manifest):
                if isinstance(entry, form.Trial):
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


def _place_trial(store: Store, trial: form.Trial, raw: bytes) -> bool:
    if store.trial(trial.key) is not None:
        return False
    store.save_trial(trial.key, trial_of(raw, Path(trial.key)) or {})
    return True
