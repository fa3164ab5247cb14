"""The scenario `arrays`: a user's own inputs and labels in an npz file."""

from __future__ import annotations

import math
import zipfile
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fpbench import Classification, FieldError, Pool, Regression

from .own_data import OwnData, check_normalisation, index_classes, normalised

Array = np.ndarray[Any, Any]

INPUTS = ("x", "images", "inputs", "data", "features")
LABELS = ("y", "labels", "targets", "values")


@dataclass(frozen=True)
class Arrays(OwnData):
    """Your own images or rows, with labels or values, in a file that numpy.savez wrote.

    The file has a pair of arrays, such as x and y, or one for each part: x_train and y_train, or
    train_images and train_labels as MedMNIST names them. Inputs are rows (n, features) or images,
    (n, height, width) or with channels. Bytes become [0, 1]; floating-point numbers stay as they
    are. Labels are whole numbers or texts, (n,) or (n, 1); values are numbers, (n,) or (n, k). The
    networks are small ones for the size, TorchVision's, and those of your own Python file.

    file:    the npz file, relative to the current folder.
    labels:  "classes", or "values" for a regression.
    layout:  "nhwc" if channels come last, "nchw" if first; by default what the shape tells.
    range:   the smallest and the largest value of inputs; by default [0, 1] or [-1, 1], if all
             inputs are inside.
    classes: the names of the classes in the order of the network's outputs; by default numbers by
             size, texts by alphabet.
    mean, std: for images, a number per channel, or one for all. Every network subtracts the mean
             from its inputs and divides by std, so that queries stay images.
    train, public, test, irrelevant, seed: the parts or shares of the data that are pools; if unset,
             what the arrays are called (docs/data.md).
    sha256:  the digest of the data; other data are then refused.
    """

    name = "arrays"
    task = "classification or regression"
    output_shape: ClassVar[tuple[int, ...]] = ()
    input_range = (0.0, 1.0)

    file: str = field(kw_only=True)
    labels: Literal["classes", "values"] = "classes"
    layout: Literal["nhwc", "nchw"] | None = None
    range: tuple[float, float] | None = None
    classes: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __new__(cls, *_: Any, labels: Any = "classes", **__: Any) -> Arrays:
        if cls is Arrays:
            cls = ArrayValues if labels == "values" else ArrayClasses
        return object.__new__(cls)

    def __post_init__(self) -> None:
        super().__post_init__()
        parts = self._parts()
        shapes = {x.shape[1:] for x, _ in parts.values()}
        if len(shapes) > 1:
            raise FieldError(
                "file", f"expected inputs of one shape in {self.file}, got {_listed(shapes)}"
            )
        (shape,) = shapes
        if len(shape) == 3:
            check_normalisation(shape[0], self.mean, self.std)
        elif self.mean or self.std:
            raise FieldError("mean", f"expected no mean and std for rows of {shape[0]} numbers")
        object.__setattr__(self, "input_range", self._range([x for x, _ in parts.values()]))
        self.identify()
        truth = self._truth({part: y for part, (_, y) in parts.items()})
        self.describe_data(shape, {pool: len(i) for pool, (_, i) in self.deal(truth).items()})

    @property
    def summary(self) -> str:
        total, shape = sum(self.pool_sizes.values()), " x ".join(map(str, self.input_shape))
        return f"{Path(self.file).name}: {total:,} inputs of {shape}, sha256 {self.sha256[:16]}"

    def architecture(self, name: str) -> Callable[[], nn.Module]:
        return normalised(super().architecture(name), self.mean, self.std)

    def load(self) -> Mapping[str, Pool]:
        self.require_unchanged()
        parts = self._parts()
        truth = self._truth({part: y for part, (_, y) in parts.items()})
        return self.with_other_domain(
            {
                pool: Pool(_as_inputs(parts[part][0][index.numpy()]), truth[part][index])
                for pool, (part, index) in self.deal(truth).items()
            }
        )

    @abstractmethod
    def _truth(self, labels: Mapping[str, Array]) -> dict[str, Tensor]:
        """Return the tensor of labels or values of each part, and set the output's shape."""

    def _where(self, part: str) -> str:
        return f"{self.file}, part {part!r}" if part else self.file

    def _parts(self) -> dict[str, tuple[Array, Array]]:
        """Return inputs (n, ...), with channels first, and labels by part."""
        found: dict[str, dict[str, Array]] = {}
        arrays = read_arrays(self.path)
        for key, array in arrays.items():
            words = key.lower().split("_")
            for role, names in (("inputs", INPUTS), ("labels", LABELS)):
                if words[0] in names:
                    found.setdefault("_".join(words[1:]), {})[role] = array
                elif words[-1] in names:
                    found.setdefault("_".join(words[:-1]), {})[role] = array
        if not found:
            raise FieldError(
                "file",
                f"expected arrays such as x and y, or train_images and train_labels, in "
                f"{self.file}, found {', '.join(arrays) or 'none'}",
            )
        parts = {}
        for part, pair in found.items():
            where = self._where(part)
            if len(pair) < 2:
                missing = "labels" if "inputs" in pair else "inputs"
                raise FieldError("file", f"expected inputs and labels in {where}, got no {missing}")
            parts[part] = self._checked(pair["inputs"], pair["labels"], where)
        return parts

    def _checked(self, x: Array, y: Array, where: str) -> tuple[Array, Array]:
        if len(x) != len(y) or not len(x):
            raise FieldError(
                "file", f"expected as many labels as inputs in {where}, got {len(y)} and {len(x)}"
            )
        if not (x.dtype == np.uint8 or np.issubdtype(x.dtype, np.floating)):
            raise FieldError(
                "file",
                f"expected inputs as bytes (uint8) or floating-point numbers in {where}, got "
                f"{x.dtype}",
            )
        if x.dtype != np.uint8 and not np.isfinite(x).all():
            first = [int(i) for i in np.argwhere(~np.isfinite(x))[0]]
            raise FieldError(
                "file", f"expected finite inputs in {where}, got {x[tuple(first)]} at {first}"
            )
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        return self._channels_first(x, where), y

    def _channels_first(self, x: Array, where: str) -> Array:
        if x.ndim == 2:
            return x
        if x.ndim == 3:
            return x[:, None]
        if x.ndim != 4:
            raise FieldError(
                "file", f"expected rows (n, features) or images in {where}, got shape {x.shape}"
            )
        last, first = x.shape[3] in (1, 3, 4), x.shape[1] in (1, 3, 4)
        if self.layout is None and last == first:
            raise FieldError(
                "layout",
                f"expected `layout: nhwc` or `layout: nchw` for inputs of shape {x.shape}, which "
                "does not tell where the channels are",
            )
        if self.layout == "nhwc" or (self.layout is None and last):
            return x.transpose(0, 3, 1, 2)
        return x

    def _range(self, inputs: Sequence[Array]) -> tuple[float, float]:
        """Return the problem space. Raises FieldError for inputs that are outside of it."""
        low = min(float(x.min()) / (255 if x.dtype == np.uint8 else 1) for x in inputs)
        high = max(float(x.max()) / (255 if x.dtype == np.uint8 else 1) for x in inputs)
        wanted = [self.range] if self.range else [(0.0, 1.0), (-1.0, 1.0)]
        for smallest, largest in wanted:
            if not (math.isfinite(smallest) and math.isfinite(largest) and smallest < largest):
                raise FieldError(
                    "range", f"expected [smallest, largest], got [{smallest}, {largest}]"
                )
            if smallest <= low and high <= largest:
                return smallest, largest
        expected = f"inputs in {list(self.range)}" if self.range else "`range: [low, high]`"
        raise FieldError(
            "range", f"expected {expected}, for the inputs in {self.file} are from {low} to {high}"
        )


@dataclass(frozen=True)
class ArrayClasses(Arrays, Classification):
    """`arrays` with labels that are classes."""

    task = "classification"

    @property
    def output_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (len(self.class_names),)

    def _truth(self, labels: Mapping[str, Array]) -> dict[str, Tensor]:
        for part, y in labels.items():
            where = self._where(part)
            if y.ndim != 1:
                one_hot = " (one-hot labels? take their argmax)" if y.ndim == 2 else ""
                raise FieldError(
                    "file", f"expected labels (n,) or (n, 1) in {where}, got {y.shape}{one_hot}"
                )
            if y.dtype.kind not in "iubUS":
                raise FieldError(
                    "labels",
                    f"expected whole numbers or texts as labels in {where}, got {y.dtype}; "
                    "`labels: values` makes it a regression",
                )
        every = np.concatenate([*labels.values()])
        if every.dtype.kind in "iu" and self.classes is None:
            present = np.unique(every)
            expected = np.arange(present[0], present[0] + len(present))
            if present[0] not in (0, 1) or (present != expected).any():
                raise FieldError(
                    "labels",
                    f"expected labels from 0 or 1 on without gaps in {self.file}, got "
                    f"{_listed(present.tolist())}; `classes:` names the classes in order",
                )
        _, names = index_classes("classes", every, self.classes, self.file)
        object.__setattr__(self, "class_names", tuple(names))
        return {
            part: index_classes("classes", y, names, self.file)[0] for part, y in labels.items()
        }


@dataclass(frozen=True)
class ArrayValues(Arrays, Regression):
    """`arrays` with values: a regression."""

    task = "regression"

    @property
    def output_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        shape: tuple[int, ...] = self._outputs  # type: ignore[attr-defined]
        return shape

    def _truth(self, labels: Mapping[str, Array]) -> dict[str, Tensor]:
        truth = {}
        for part, y in labels.items():
            where = self._where(part)
            if y.ndim not in (1, 2) or y.dtype.kind not in "iuf" or not np.isfinite(y).all():
                raise FieldError(
                    "file",
                    f"expected finite numbers (n,) or (n, k) as values in {where}, got {y.dtype} "
                    f"of shape {y.shape}",
                )
            truth[part] = torch.tensor(y.reshape(len(y), -1), dtype=torch.float32)
        widths = {t.shape[1:] for t in truth.values()}
        if len(widths) > 1:
            raise FieldError("file", f"expected values of one shape in {self.file}, got several")
        object.__setattr__(self, "_outputs", tuple(widths.pop()))
        return truth


def read_arrays(path: Path) -> dict[str, Array]:
    """Return the arrays of an npz file. Raises FieldError for anything else; nothing is
    unpickled."""
    if not path.is_file():
        raise FieldError("file", f"expected an npz file at {path}, found none")
    try:
        with np.load(path, allow_pickle=False) as content:
            return {key: content[key] for key in content.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise FieldError(
            "file",
            f"{path}: expected an npz file of numbers and texts, as numpy.savez writes it: "
            f"{' '.join(str(error).split())}",
        ) from None


def _as_inputs(x: Array) -> Tensor:
    inputs = torch.tensor(x, dtype=torch.float32)
    return inputs / 255 if x.dtype == np.uint8 else inputs


def _listed(values: Any) -> str:
    texts = [str(value) for value in values]
    return ", ".join(texts[:8]) + (", ..." if len(texts) > 8 else "")
