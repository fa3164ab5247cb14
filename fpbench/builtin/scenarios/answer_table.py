"""Read tables of recorded answers, and tables that say which model descends from which."""

from __future__ import annotations

import csv
import hashlib
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fpbench import FieldError, ResourceError

from .arrays import read_arrays

Array = np.ndarray[Any, Any]

MOST_INPUTS = 2**24
"""Inputs of a pool. Positions are float32 numbers, which are exact up to here."""

SUM_TOLERANCE = 0.02
"""How far from 1 rounding may move the sum of a model's probabilities."""

TRUTH = "truth"
"""The name of the column, or the array, with the right answers."""


@dataclass(frozen=True, eq=False)
class AnswerTable:
    """The answers of models to the same inputs.

    models:  the models' names, in the order of rows.
    truth:   the right answers, int64, (inputs,).
    labels:  the most likely class, (models, inputs).
    probs:   probabilities (models, inputs, k); None if only labels are known.
    listed:  the classes that `probs` are of, (models, inputs, k). -1 stands for none. None if
             `probs` has all classes in their order.
    classes: the number of classes that the answers show.
    """

    models: tuple[str, ...]
    truth: Array
    labels: Array
    probs: Array | None
    listed: Array | None
    classes: int

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """The row of each model."""
        return {model: row for row, model in enumerate(self.models)}

    @cached_property
    def digests(self) -> Mapping[str, bytes]:
        """The sha256 of each model's answers. Models with equal answers have equal digests."""
        return {model: self._digest(row) for row, model in enumerate(self.models)}

    def _digest(self, row: int) -> bytes:
        whole = hashlib.sha256(self.labels[row].astype("<i8").tobytes())
        if self.probs is not None:
            whole.update(self.probs[row].astype("<f4").tobytes())
        if self.listed is not None:
            whole.update(self.listed[row].astype("<i8").tobytes())
        return whole.digest()

    def accuracy(self, model: str) -> float:
        """Return the share of a model's right answers."""
        return float((self.labels[self.rows[model]] == self.truth).mean())


class Ancestry(NamedTuple):
    """A model's parent, empty if it has none, and its kind in reports."""

    parent: str
    kind: str


# ── answers ───────────────────────────────────────────────────────────────────────


def digest_file(path: Path) -> str:
    """Return the sha256 of a file of answers. Raises FieldError if there is none."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FieldError(
            "file", f"expected recorded answers at {path}, could not read them: {error.strerror}"
        ) from None


def read_answers(path: Path, sha256: str) -> AnswerTable:
    """Read a file of answers: npz, parquet or CSV.

    Raises FieldError, with the place in the file. Raises ResourceError if the file's sha256 is
    another one.
    """
    if (found := digest_file(path)) != sha256:
        raise ResourceError(
            f"expected answers of sha256 {sha256} in {path}, found {found}: the file has changed"
        )
    readers = {".npz": _read_npz, ".csv": _read_csv, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise FieldError(
            "file", f"expected a file of the kind .npz, .parquet or .csv, got {path.name}"
        )
    return readers[path.suffix](path)


def _fault(path: Path, message: str) -> FieldError:
    return FieldError("file", f"{path}: {message}")


def _read_npz(path: Path) -> AnswerTable:
    arrays = read_arrays(path)
    answers, probs = arrays.get("answers"), arrays.get("probs")
    for name in ("models", TRUTH):
        if name not in arrays or arrays[name].ndim != 1:
            raise _fault(path, f"expected an array {name!r} of one dimension, found none")
    if answers is None and probs is None:
        raise _fault(path, "expected an array 'answers' or 'probs', found none")
    names, n = [str(name) for name in arrays["models"]], len(arrays[TRUTH])
    for name, array, dimensions in (("answers", answers, (2, 3)), ("probs", probs, (3,))):
        if array is None:
            continue
        if array.ndim not in dimensions or array.shape[:2] != (len(names), n):
            wanted = f"({len(names)}, {n}" + (", ...)" if name == "probs" else ")")
            raise _fault(
                path,
                f"expected {name} of shape {wanted}, models by right answers, got {array.shape}",
            )
    if answers is not None and not np.issubdtype(answers.dtype, np.integer):
        raise _fault(path, f"expected answers of whole numbers, got {answers.dtype}")
    if answers is not None and probs is not None and answers.shape != probs.shape:
        raise _fault(
            path, f"expected answers of the shape of probs, {probs.shape}, got {answers.shape}"
        )

    def place(row: int, position: int) -> str:
        return f"{path}: model {names[row]!r}, input {position}"

    if probs is None:
        assert answers is not None
        labels = answers if answers.ndim == 2 else answers[..., 0]
        return _checked(path, names, arrays[TRUTH], labels, None, None, place)
    return _checked(path, names, arrays[TRUTH], None, probs.astype(np.float32), answers, place)


def _read_csv(path: Path) -> AnswerTable:
    import pandas as pd

    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = next(csv.reader(file), [])
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(path, index_col=False, encoding="utf-8-sig", low_memory=False)
    except (OSError, ValueError, csv.Error, pd.errors.ParserWarning) as error:
        message, where = str(error), str(path)
        if cells := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", message):
            where = f"{path}:{cells[2]}:1"
            message = f"{cells[3]} cells for {cells[1]} columns"
        raise FieldError("file", f"{where}: expected a CSV of answers, got {message}") from None
    for i, name in enumerate(header):
        if name in header[:i]:
            raise _fault(path, f"expected every model once, got a column {name!r} twice")
    return _read_frame(path, frame.set_axis(header, axis=1), lambda i, j: _place(path, i, j))


def _place(path: Path, row: int, column: int) -> str:
    """Return file:line:col of a cell of a CSV; rows are counted from 0, without the header."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        lines = ((reader.line_num, cells) for cells in reader if any(map(str.strip, cells)))
        number, cells = next(line for i, line in enumerate(lines) if i == row + 1)
    return f"{path}:{number}:{1 + sum(len(cell) + 1 for cell in cells[:column])}"


def _read_parquet(path: Path) -> AnswerTable:
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).split("\n")[0]
        raise _fault(path, f"expected a parquet file of answers, got {reason}") from None
    names = [str(name) for name in frame.columns]
    return _read_frame(path, frame, lambda i, j: f"{path}: row {i}, column {names[j]!r}")


def _read_frame(path: Path, frame: Any, place: Any) -> AnswerTable:
    """Return the answers of a table with a column `truth` and one for each model.

    place: gives the place of a cell by its row and column, for messages.
    """
    columns = [str(name) for name in frame.columns]
    if TRUTH not in columns:
        raise _fault(path, f"expected a column {TRUTH!r} with the right answers, found none")
    cells = [_cells(frame.iloc[:, j], j, place) for j in range(len(columns))]
    at = columns.index(TRUTH)
    names = [name for name in columns if name != TRUTH]
    answers = [column for j, column in enumerate(cells) if j != at]
    own_columns = [j for j in range(len(columns)) if j != at]

    def place_of(row: int, position: int) -> str:
        return str(place(position, own_columns[row]))

    truth = cells[at].first
    if any(column.probs is None for column in answers) or not answers:
        labels = np.stack([c.first for c in answers]) if answers else np.empty((0, len(truth)), int)
        return _checked(path, names, truth, labels, None, None, place_of)
    k = max(column.probs.shape[1] for column in answers if column.probs is not None)
    probs = np.stack([_padded(c.probs, k, 0) for c in answers])
    listed = np.stack([_padded(c.listed, k, -1) for c in answers])
    return _checked(path, names, truth, None, probs, listed, place_of)


def _padded(array: Array | None, k: int, value: int) -> Array:
    assert array is not None
    return np.pad(array, ((0, 0), (0, k - array.shape[1])), constant_values=value)


class _Cells(NamedTuple):
    """A column: the most likely classes (n,) and, if known, probabilities and classes (n, k)."""

    first: Array
    probs: Array | None = None
    listed: Array | None = None


def _cells(column: Any, j: int, place: Any) -> _Cells:
    """Read a column. A cell is a class, or classes with or without probabilities: 3:0.8 17:0.1."""
    empty = column.isna().to_numpy()
    if empty.any():
        i = int(empty.argmax())
        raise FieldError(
            "file", f"{place(i, j)}: expected an answer, found none in the column {column.name!r}"
        )
    if column.dtype.kind in "iu":
        return _Cells(column.to_numpy())
    found = [_pairs(str(cell).removesuffix(".0")) for cell in column]
    for i, pairs in enumerate(found):
        if pairs is None:
            raise FieldError(
                "file",
                f"{place(i, j)}: expected a class, such as 3, or classes with their probabilities, "
                f"such as 3:0.8 17:0.1, got {str(column.iloc[i])[:40]!r}",
            )
    listed = [[label for label, _ in pairs or ()] for pairs in found]
    probs = [[p for _, p in pairs or ()] for pairs in found]
    # Classes without probabilities are in their order, the most likely one first.
    first = np.array([c[p.index(max(p))] for p, c in zip(probs, listed, strict=True)])
    if any(np.isnan(each).any() for each in probs):
        return _Cells(first)
    k = max(map(len, listed))
    return _Cells(
        first,
        np.array([[*p, *[0.0] * (k - len(p))] for p in probs], np.float32),
        np.array([[*c, *[-1] * (k - len(c))] for c in listed]),
    )


def _pairs(cell: str) -> list[tuple[int, float]] | None:
    """Return the classes of a cell and their probabilities, or NaN; None if it is no such cell."""
    pairs: list[tuple[int, float]] = []
    for word in cell.split():
        label, colon, p = word.partition(":")
        if not label.isdecimal() or len(label) > 9:
            return None
        try:
            pairs.append((int(label), float(p) if colon else math.nan))
        except ValueError:
            return None
    return pairs or None


def _checked(
    path: Path, names: Sequence[str], truth: Array, labels: Array | None, probs: Array | None,
    listed: Array | None, place: Any,
) -> AnswerTable:  # fmt: skip
    """Return a table, with the most likely class of each answer. Raises FieldError.

    labels: None if `probs` is there.
    """
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise _fault(path, f"expected every model once, got {twice!r} twice")
    if not names:
        raise _fault(path, "expected answers of at least one model, found none")
    if not 2 <= len(truth) <= MOST_INPUTS:
        raise _fault(path, f"expected answers to 2 to {MOST_INPUTS:,} inputs, got {len(truth):,}")
    if truth.dtype.kind not in "iu" or truth.min() < 0:
        found = truth.min() if truth.dtype.kind in "iu" else truth.dtype
        raise _fault(path, f"expected right answers of whole numbers from 0, got {found}")
    classes = int(truth.max()) + 1
    if probs is not None:
        missing = ~np.isfinite(probs).all(-1)
        sums = np.where(np.isfinite(probs), probs, 0).sum(-1, dtype=np.float64)
        wrong = (probs < 0).any(-1) | (sums > 1 + SUM_TOLERANCE)
        if listed is None:
            wrong |= sums < 1 - SUM_TOLERANCE
            labels = probs.argmax(-1)
            classes = max(classes, probs.shape[-1])
        else:
            ordered = np.sort(listed, -1)
            wrong |= ((ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] >= 0)).any(-1)
            best = probs.argmax(-1)[..., None]
            labels = np.take_along_axis(listed, best, -1)[..., 0]
            classes = max(classes, int(listed.max()) + 1)
        for bad, found in ((missing, "none"), (wrong, "others, with a sum of {:.4g}")):
            if bad.any():
                row, i = map(int, np.argwhere(bad)[0])
                raise FieldError(
                    "file",
                    f"{place(row, i)}: expected probabilities of different classes in [0, 1] that "
                    f"sum to 1, found {found.format(sums[row, i])}",
                )
    assert labels is not None
    if labels.min() < 0:
        row, i = map(int, np.argwhere(labels < 0)[0])
        raise FieldError("file", f"{place(row, i)}: expected an answer, found {labels[row, i]}")
    classes = max(classes, int(labels.max()) + 1)
    return AnswerTable(
        tuple(names), truth.astype(np.int64), labels.astype(np.min_scalar_type(classes)),
        probs, listed, classes,
    )  # fmt: skip


# ── ancestry ──────────────────────────────────────────────────────────────────────

COLUMNS = ("model", "parent", "kind")


def read_ancestry(path: Path, models: Sequence[str]) -> Mapping[str, Ancestry]:
    """Read a CSV with the columns model, parent and kind. Raises FieldError, with the place.

    models: all models with answers; each must have a row.
    """

    def fault(message: str, line: int, column: int, cells: Sequence[str]) -> FieldError:
        col = 1 + sum(len(cell) + 1 for cell in cells[:column])
        return FieldError("models", f"{path}:{line}:{col}: {message}")

    rows = _rows(path)
    _, header = next(rows, (1, []))
    for j, name in enumerate(header):
        if name not in COLUMNS or name in header[:j]:
            raise fault(f"expected the columns model, parent and kind, got {name!r}", 1, j, header)
    if "model" not in header:
        raise fault("expected a column 'model', found none", 1, 0, header)
    known, found = set(models), dict[str, Ancestry]()
    places: dict[str, tuple[int, int, Sequence[str]]] = {}
    for line, cells in rows:
        if len(cells) != len(header):
            raise fault(f"expected {len(header)} cells, got {len(cells)}", line, 0, cells)
        values = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
        model, parent = values["model"], values.get("parent", "")
        for column, name in (("model", model), ("parent", parent)):
            if name not in known and (name or column == "model"):
                raise fault(
                    f"expected a {column} with answers, got {name!r}, which has none",
                    line, header.index(column), cells,
                )  # fmt: skip
        if model in found:
            raise fault(f"expected every model once, got {model!r} twice", line, 0, cells)
        found[model] = Ancestry(parent, values.get("kind", ""))
        places[model] = line, header.index("parent") if "parent" in header else 0, cells
    for model in models:
        if model not in found:
            raise FieldError(
                "models", f"{path}: expected a row for every model, found none for {model!r}"
            )
        if model in ancestors(model, found)[1:]:
            raise fault("expected a model that does not descend from itself", *places[model])
    return found


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the cells of every row that is not empty."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield reader.line_num, cells
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FieldError("models", f"expected a CSV at {path}, got {error}") from None


def ancestors(model: str, ancestry: Mapping[str, Ancestry]) -> list[str]:
    """Return a model, its parent, and so on. A circle is walked once."""
    found = [model]
    while parent := ancestry[found[-1]].parent:
        found.append(parent)
        if parent in found[:-1]:
            break
    return found
