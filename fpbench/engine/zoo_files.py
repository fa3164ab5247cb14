"""Model files as members of a zoo: entries that list them, and the files that others start from.

An entry of a recipe with a field `file`, such as `given`, may name many files: by
`each: {file: [...]}`, by a pattern at `files:`, or by a table at `table:`. They are replaced by one
entry per file before the suite is read. Every new entry has a place in the suite or in the table.
"""

from __future__ import annotations

import csv
import glob
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..api.errors import SuiteError, clipped, did_you_mean
from ..api.fields import field_types
from ..api.recipe import Recipe
from .registry import Offer
from .source import KeyPath, Source

LABELS = {"target": "target", "positives": "positive", "negatives": "negative"}
"""The label of a table's rows, by the key of the suite that takes them."""

COLUMNS = {"file": "file", "architecture": "model", "label": "label", "kind": "kind",
           "parent": "parent", "sha256": "sha256"}  # fmt: skip
"""The columns of a table, and the keys of an entry that they fill. Other fields of the recipe may
be columns too, under their own names."""

MAX_BYTES = 100_000_000
"""The longest table: a row of 500 characters for each of 200,000 models."""


CELL = re.compile(r'(?:^|,)\s*("(?:[^"]|"")*"|[^,]*)')
"""A cell of a line of CSV."""


@dataclass
class _Item:
    """An entry of a suite, and the places of its values by their paths within the entry."""

    entry: Any
    places: dict[KeyPath, str] = field(default_factory=dict)

    def where(self, *path: str | int) -> str:
        return self.places.get(path) or self.places.get(path[:1]) or self.places.get((), "")

    def with_file(self, file: str, place: str) -> _Item:
        """Return the same entry for one file."""
        entry = {k: v for k, v in self.entry.items() if k != "files"} | {"file": file}
        if isinstance(entry.get("each"), dict):
            each = {k: v for k, v in entry.pop("each").items() if k != "file"}
            entry |= {"each": each} if each else {}
        return _Item(entry, {**self.places, ("file",): place})


def expand_files(source: Source, recipes: Mapping[str, Offer[type[Recipe]]]) -> None:
    """Replace the entries of a suite that name many files by one entry per file.

    Malformed entries stay, because the reader of the suite refuses them. Raises SuiteError.
    """
    tables: dict[str, list[_Item]] = {}
    zoo = source.data.get("zoo")
    for side in ("positives", "negatives"):
        if isinstance(zoo, dict) and isinstance(entries := zoo.get(side), list):
            items = _cut(source, ("zoo", side), dict(enumerate(entries)))
            made = [one for item in items for one in _expand(item, side, recipes, tables)]
            zoo[side] = _put(source, ("zoo", side), dict(enumerate(made)))
    if "target" in source.data:
        (item,) = _cut(source, (), {"target": source.data["target"]})
        targets = [*_expand(item, "target", recipes, tables)]
        if len(targets) > 1:
            raise SuiteError(f"expected one target, got {len(targets)}", targets[1].where())
        (source.data["target"],) = _put(source, (), {"target": targets[0]})


def _cut(source: Source, path: KeyPath, entries: Mapping[Any, Any]) -> list[_Item]:
    """Return the entries at a path, by key or index, and take their places out of a source."""
    items = {key: _Item(entry, {(): source.where((*path, key))}) for key, entry in entries.items()}
    depth = len(path)
    for place in [p for p in source.places if len(p) > depth and p[:depth] == path]:
        if place[depth] in items:
            items[place[depth]].places[place[depth + 1 :]] = source.places.pop(place)
    return [*items.values()]


def _put(source: Source, path: KeyPath, items: Mapping[Any, _Item]) -> list[Any]:
    """Return the entries of items, and put their places into a source."""
    for key, item in items.items():
        source.places |= {(*path, key, *rest): place for rest, place in item.places.items()}
    return [item.entry for item in items.values()]


def _expand(
    item: _Item,
    side: str,
    recipes: Mapping[str, Offer[type[Recipe]]],
    tables: dict[str, list[_Item]],
) -> Iterator[_Item]:
    """Yield one item per file that an entry names; the item itself if it names none.

    tables: the rows of the tables that have been read, by path.
    """
    entry = item.entry
    offer = recipes.get(str(entry.get("recipe"))) if isinstance(entry, dict) else None
    known = field_types(offer.cls) if offer else {}
    words = [w for w in ("files", "table") if offer and w in entry and w not in known]
    if "file" not in known:
        yield item
        return
    each = entry.get("each")
    named = [w for w in ("file", *words) if w in entry]
    if isinstance(each, dict) and "file" in each:
        named.append("each")
    if words and len(named) > 1:
        raise SuiteError(
            f"expected one of the keys file, files, table and each: {{file: ...}}, got "
            f"{' and '.join(named)}",
            item.where(words[0]),
        )
    if words == ["files"]:
        for file in _matches(entry["files"], item.where("files")):
            yield item.with_file(file, item.where("files"))
    elif words == ["table"]:
        more = {name: name for name in known if name not in {"scenario", "seed", *COLUMNS.values()}}
        yield from _rows(item, side, tables, {**COLUMNS, **more})
    elif isinstance(each, dict) and list(each) == ["file"] and _are_texts(each["file"]):
        for i, file in enumerate(each["file"]):
            yield item.with_file(file, item.where("each", "file", i))
    else:
        yield item


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


def _matches(patterns: Any, where: str) -> list[str]:
    """Return the files that a pattern, or one of several patterns, matches, sorted by path."""
    patterns = [patterns] if isinstance(patterns, str) else patterns
    if not _are_texts(patterns):
        raise SuiteError(
            f"files: expected a pattern such as zoo/*.safetensors, got {clipped(patterns)}", where
        )
    found: set[str] = set()
    for pattern in patterns:
        files = [f for f in glob.glob(pattern, recursive=True) if Path(f).is_file()]
        if not files:
            raise SuiteError(
                f"files: expected files that match {clipped(pattern)} in {Path.cwd()}, found none",
                where,
            )
        found.update(files)
    return sorted(found)


# ── tables ────────────────────────────────────────────────────────────────────────


def _rows(
    item: _Item, side: str, tables: dict[str, list[_Item]], columns: Mapping[str, str]
) -> Iterator[_Item]:
    """Yield the rows of an entry's table that have the label of a side. Parents come first.

    The entry's other keys are defaults for the rows.

    columns: the known columns, and the keys that they fill.
    """
    name = item.entry["table"]
    if not isinstance(name, str):
        raise SuiteError(f"table: expected a CSV file, got {clipped(name)}", item.where("table"))
    if name not in tables:
        tables[name] = _read_table(Path(name), item.where("table"), columns)
    rows = [row for row in tables[name] if row.entry["label"] == LABELS[side]]
    if not rows:
        raise SuiteError(
            f"table: expected at least one row with the label {LABELS[side]} in {name}, found none",
            item.where("table"),
        )
    defaults = {k: v for k, v in item.entry.items() if k != "table"}
    for row in _parents_first(rows):
        own = {k: v for k, v in row.entry.items() if k != "label"}
        yield _Item({**defaults, **own}, {**item.places, **row.places})


def _read_table(path: Path, where: str, columns: Mapping[str, str]) -> list[_Item]:
    """Read a table of model files. Raises SuiteError, with the place in the table.

    Paths in the table are relative to its folder.

    where:   the place that names the table.
    columns: the known columns, and the keys that they fill.
    """
    if not path.is_file():
        raise SuiteError(f"table: expected a CSV file at {path.absolute()}, found none", where)
    if (size := path.stat().st_size) > MAX_BYTES:
        raise SuiteError(f"expected at most {MAX_BYTES:,} bytes, got {size:,}", str(path))
    try:
        raw = path.read_bytes()
        lines = _cells(raw.decode("utf-8-sig"), path)
    except OSError as error:
        raise SuiteError(f"table: could not read {path}: {error.strerror}", where) from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SuiteError(
            f"expected UTF-8 text, got byte {raw[error.start]:#04x}", f"{path}:{line}:1"
        ) from None
    header, place_of_header = next(lines, ([], lambda _: f"{path}:1:1"))
    for i, column in enumerate(header):
        if column not in columns or column in header[:i]:
            expected = "every column once" if column in columns else "columns of a table of models"
            raise SuiteError(
                f"expected {expected}, got {clipped(column)}; {did_you_mean(column, columns)}",
                place_of_header(i),
            )
    for needed in ("file", "label"):
        if needed not in header:
            raise SuiteError(f"expected a column {needed!r}, found none", place_of_header(0))
    rows = []
    for cells, place in lines:
        if len(cells) != len(header):
            raise SuiteError(
                f"expected {len(header)} cells, as in the first line, got {len(cells)}; a path "
                'with a comma needs quotes: "a,b.pth"',
                place(0),
            )
        row = _Item({}, {(): place(0)})
        for i, (column, cell) in enumerate(zip(header, cells, strict=True)):
            if column == "label" and cell not in LABELS.values():
                raise SuiteError(
                    f"label: expected positive, negative or target, got {clipped(cell)}", place(i)
                )
            if column == "file" and not cell:
                raise SuiteError("expected a file in every row, found none", place(i))
            if cell:
                is_path = column == "file" or (column == "parent" and cell != "target")
                row.entry[columns[column]] = (
                    os.path.normpath(path.parent / cell) if is_path else cell
                )
                row.places[(columns[column],)] = place(i)
        rows.append(row)
    return rows


def _cells(text: str, path: Path) -> Iterator[tuple[list[str], Any]]:
    """Yield the cells of each row that is not empty, and a function from a cell's index to its
    place."""
    lines = [*io.StringIO(text, newline="")]
    reader = csv.reader(lines, strict=True, skipinitialspace=True)
    last = 0
    try:
        for cells in reader:
            first, last = last + 1, reader.line_num
            line = lines[first - 1].rstrip("\r\n")
            starts = [m.start(1) + 1 for m in CELL.finditer(line)] if first == last else []

            def place(i: int, first: int = first, starts: list[int] = starts) -> str:
                return f"{path}:{first}:{starts[i] if i < len(starts) else 1}"

            if any(cell.strip() for cell in cells):
                yield [cell.strip() for cell in cells], place
    except csv.Error as error:
        raise SuiteError(f"expected CSV, got an error: {error}", f"{path}:{last + 1}:1") from None


def _parents_first(rows: list[_Item]) -> Iterator[_Item]:
    """Yield rows in their order, but a parent before the models that start from it."""
    by_file = {row.entry["file"]: row for row in rows}
    done: set[int] = set()
    for row in rows:
        chain: dict[int, _Item] = {}
        step: _Item | None = row
        while step is not None and id(step) not in done:
            if id(step) in chain:
                raise SuiteError(
                    "parent: expected a model that does not descend from itself, got a circle",
                    row.where("parent"),
                )
            chain[id(step)] = step
            step = by_file.get(step.entry.get("parent", ""))
        done |= chain.keys()
        yield from reversed(chain.values())


# ── lineage ───────────────────────────────────────────────────────────────────────


@dataclass
class ModelFiles:
    """The models of one zoo that come from files, so that entries can name them as parents.

    target:  the target of the zoo, when it has been read.
    by_path: the models by the absolute path of their file.
    """

    target: Recipe | None = None
    by_path: dict[str, Recipe] = field(default_factory=dict)

    def add(self, recipe: Recipe) -> None:
        """Note a model, if it comes from a file. The first model of a zoo is its target."""
        self.target = self.target or recipe
        if isinstance(file := getattr(recipe, "file", None), str):
            self.by_path.setdefault(os.path.abspath(file), recipe)

    def words(self, cls: type[Recipe]) -> set[str]:
        """Return `parent` if entries of a recipe may have this key: suspects, not the target."""
        return {"parent"} if cls.needs_parent is None and self.target else set()

    def parent(
        self, cls: type[Recipe], entry: Mapping[str, Any], default: Recipe | None, where: str
    ) -> Recipe | None:
        """Return the model that an entry names as its parent. Raises SuiteError.

        default: the parent of entries that name none: the target for positives, None for negatives.
        where:   the place of the name.
        """
        if "parent" not in entry or not self.words(cls):
            return default
        assert self.target is not None
        name = str(entry["parent"])
        found = self.by_path.get(os.path.abspath(name)) if name != "target" else self.target
        side = "positive" if default else "negative"
        if found is None:
            known = [os.path.relpath(path) for path in self.by_path]
            raise SuiteError(
                f"parent: expected {'target or ' if default else ''}the file of an earlier {side}, "
                f"got {clipped(name)}; {did_you_mean(name, known)}",
                where,
            )
        if found.descends_from(self.target) is (default is None):
            does = "descends" if default else "does not descend"
            raise SuiteError(
                f"parent: expected a model that {does} from the target for a {side}, got {found}",
                where,
            )
        return found


def refuse_missing_files(recipes: Iterable[Recipe], places: Mapping[str, str]) -> None:
    """Raise SuiteError for a model that the store lacks and that has no file to take it from."""
    for recipe in recipes:
        file = getattr(recipe, "file", None)
        if recipe.source_sha256 and isinstance(file, str) and not Path(file).is_file():
            raise SuiteError(
                f"file: expected a model file at {Path(file).absolute()}, or its model in the "
                "store, found neither",
                places.get(recipe.digest),
            )


def refuse_shared_kinds(
    positives: tuple[Recipe, ...], negatives: tuple[Recipe, ...], places: Mapping[str, str]
) -> None:
    """Raise SuiteError if a negative from a file has the kind of a positive, or the reverse.

    Results are reported by kind, so a kind must not mix positives and negatives.
    """
    kinds = {recipe.kind: recipe for recipe in reversed(positives)}
    for recipe in negatives:
        other = kinds.get(recipe.kind)
        if other and None in (recipe.needs_parent, other.needs_parent):
            raise SuiteError(
                f"kind: expected other kinds for negatives than for positives, got "
                f"{clipped(recipe.kind)} for both (also at {places[other.digest]}); give one of "
                "them another `kind:`",
                places[recipe.digest],
            )
