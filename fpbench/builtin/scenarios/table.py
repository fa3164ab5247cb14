"""The scenario `table`: a user's own rows, in a CSV file."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from fpbench import Classification, FieldError, Pool, Regression

from .own_data import OwnData, index_classes

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Table(OwnData):
    """Your own table: a CSV file in which a column is to be predicted from the others.

    A column of numbers is mapped to [-1, 1], from its extremes in the pool `train`; values beyond
    them are cut off. A column of texts becomes a yes/no input, 1 or -1, for each of its values.
    The networks are s, m and l, with one to three hidden layers of 100, and those of your own
    Python file.

    file:    the CSV file with a header, relative to the current folder.
    target:  the column to predict.
    labels:  "classes", or "values" for a regression. Values are standardised by the mean and the
             deviation of the pool `train`.
    columns: the columns to predict from; by default all others.
    parts:   the column that names each row's part, such as train or test.
    classes: the names of the classes in the order of the network's outputs; by default numbers by
             size, texts by alphabet.
    train, public, test, irrelevant, seed: the parts or shares of the data that are pools; if unset,
             what the parts are called (docs/data.md).
    sha256:  the digest of the data; other data are then refused.
    """

    name = "table"
    task = "classification or regression"
    output_shape: ClassVar[tuple[int, ...]] = ()
    input_range = (-1.0, 1.0)

    file: str = field(kw_only=True)
    target: str = field(kw_only=True)
    labels: Literal["classes", "values"] = "classes"
    columns: tuple[str, ...] | None = None
    parts: str | None = None
    classes: tuple[str, ...] | None = None

    def __new__(cls, *_: Any, labels: Any = "classes", **__: Any) -> Table:
        if cls is Table:
            cls = TableValues if labels == "values" else TableClasses
        return object.__new__(cls)

    def __post_init__(self) -> None:
        super().__post_init__()
        rows = self._rows()
        self.identify()
        pools = self._pools(rows)
        self.describe_data(
            pools["train"].inputs.shape[1:], {name: len(p.truth) for name, p in pools.items()}
        )

    @property
    def summary(self) -> str:
        total = sum(self.pool_sizes.values())
        return (
            f"{Path(self.file).name}: {total:,} rows, {self.input_shape[0]} inputs, "
            f"{self.target!r} to predict, sha256 {self.sha256[:16]}"
        )

    def load(self) -> Mapping[str, Pool]:
        self.require_unchanged()
        return self.with_other_domain(self._pools(self._rows()))

    def _pools(self, rows: pd.DataFrame) -> dict[str, Pool]:
        """Return the pools that come from the table."""
        names = rows[self.parts].astype(str) if self.parts else np.full(len(rows), "")
        index = {part: np.flatnonzero(names == part) for part in sorted({*names})}
        truth = self._truth(rows)
        dealt = {
            pool: index[part][chosen.numpy()]
            for pool, (part, chosen) in self.deal({p: truth[i] for p, i in index.items()}).items()
        }
        inputs = self._encoded(rows, dealt["train"])
        truth = self._scaled(truth, dealt["train"])
        return {pool: Pool(inputs[i], truth[i]) for pool, i in dealt.items()}

    @abstractmethod
    def _truth(self, rows: pd.DataFrame) -> Tensor:
        """Return the labels or values of the rows, and set the output's shape."""

    def _scaled(self, truth: Tensor, train: np.ndarray[Any, Any]) -> Tensor:
        del train
        return truth

    def _encoded(self, rows: pd.DataFrame, train: np.ndarray[Any, Any]) -> Tensor:
        """Return the inputs (n, features) in [-1, 1]."""
        from sklearn.preprocessing import MinMaxScaler, OneHotEncoder

        encoded = []
        for name in self._inputs(rows):
            column = rows[[name]]
            if _is_number(column[name]):
                scaler = MinMaxScaler(feature_range=(-1, 1), clip=True).fit(column.iloc[train])
                encoded.append(scaler.transform(column))
            else:
                encoder = OneHotEncoder(sparse_output=False, drop="if_binary").fit(column)
                encoded.append(2 * encoder.transform(column) - 1)
        return torch.tensor(np.concatenate(encoded, 1), dtype=torch.float32)

    def _inputs(self, rows: pd.DataFrame) -> list[str]:
        others = [name for name in rows.columns if name not in (self.target, self.parts)]
        return list(self.columns or others)

    def _rows(self) -> pd.DataFrame:
        """Read the table. Raises FieldError for a missing file, column or value."""
        import pandas as pd

        path = self.path
        if not path.is_file():
            raise FieldError("file", f"expected a CSV file at {path}, found none")
        try:
            rows = pd.read_csv(path)
        except (OSError, ValueError) as error:
            raise FieldError(
                "file", f"expected a CSV file in {path}: {' '.join(str(error).split())}"
            ) from None
        used = [("target", self.target), ("parts", self.parts)]
        used += [("columns", name) for name in self.columns or ()]
        for key, name in used:
            if name is not None and name not in rows.columns:
                known = ", ".join(map(str, rows.columns))
                raise FieldError(key, f"no column {name!r} in {path}, which has {known}")
        if self.target in (self.columns or ()):
            raise FieldError("columns", f"expected no target among them, got {self.target!r}")
        for name in [*self._inputs(rows), *(name for _, name in used[:2] if name)]:
            values = rows[name]
            bad = values.isna() | (np.isinf(values) if _is_number(values) else False)
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                found = "nothing" if values.isna()[row] else str(values[row])
                raise FieldError(
                    "file",
                    f"expected a value in each cell of {path}, found {found} in row {row + 1}, "
                    f"column {name!r}; fill it, or leave the row or the column out",
                )
        if not len(rows) or not self._inputs(rows):
            raise FieldError("file", f"expected rows with a column to predict from in {path}")
        return rows


def _is_number(column: pd.Series[Any]) -> bool:
    return column.dtype.kind in "iuf"


@dataclass(frozen=True)
class TableClasses(Table, Classification):
    """`table` with a target that has classes."""

    task = "classification"

    @property
    def output_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (len(self.class_names),)

    def _truth(self, rows: pd.DataFrame) -> Tensor:
        column = rows[self.target]
        if column.dtype.kind == "f":
            raise FieldError(
                "target",
                f"expected classes in the column {self.target!r} of {self.file}, found numbers "
                f"such as {column.iloc[0]}; `labels: values` makes it a regression",
            )
        labels = column.to_numpy()
        labels = labels if column.dtype.kind in "iu" else labels.astype(str)
        index, names = index_classes("classes", labels, self.classes, self.file)
        object.__setattr__(self, "class_names", tuple(names))
        return index


@dataclass(frozen=True)
class TableValues(Table, Regression):
    """`table` with a target that is a number: a regression."""

    task = "regression"
    output_shape = (1,)

    def _truth(self, rows: pd.DataFrame) -> Tensor:
        column = rows[self.target]
        if not _is_number(column):
            raise FieldError(
                "target",
                f"expected numbers in the column {self.target!r} of {self.file}, found "
                f"{column.iloc[0]!r}; `labels: classes` makes it a classification",
            )
        return torch.tensor(column.to_numpy(), dtype=torch.float64)[:, None]

    def _scaled(self, truth: Tensor, train: np.ndarray[Any, Any]) -> Tensor:
        mean, spread = truth[train].mean(), truth[train].std()
        if not spread > 0:
            raise FieldError("target", f"expected values that differ in the column {self.target!r}")
        object.__setattr__(self, "_spread", float(spread))
        return ((truth - mean) / spread).float()

    def utility(self, output: Tensor, truth: Tensor) -> dict[str, float]:
        """Return mean_absolute_error in the unit of the column; lower is better."""
        error = super().utility(output, truth)["mean_absolute_error"]
        return {"mean_absolute_error": error * self._spread}  # type: ignore[attr-defined]
