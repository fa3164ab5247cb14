"""The base of the scenarios that read a user's own files.

A part is a piece of the data as its files have it, such as the folder `train/` of images. Pools
are made of parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from fpbench import Count, FieldError, Pool, PositiveFloat, ResourceError, Scenario

from .other_domain import diabetes, photographs
from .small_networks import for_images, for_rows

SHARES = {"train": 0.4, "public": 0.4, "test": 0.2}
"""The default shares of pools that no part is named after."""


class Centred(nn.Module):
    """A network whose first step is (x - mean) / std per channel. Queries stay pictures."""

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.mean, self.std = list(mean), list(std)

    def forward(self, x: Tensor) -> Tensor:
        mean, std = (
            torch.tensor(numbers, dtype=x.dtype, device=x.device).view(-1, 1, 1)
            for numbers in (self.mean, self.std)
        )
        out: Tensor = self.network((x - mean) / std)
        return out


@dataclass(frozen=True)
class OwnData(Scenario):
    """A task whose data are a user's files. A subclass has a field with
    their path, which is in `places`.

    train, public, test: a part's name, or a share of the images or rows that are dealt. By default
             a pool is the part of its name. Without one, it gets a share: 0.4, 0.4 and 0.2.
    irrelevant: a part's name. Without one, it is pictures or rows of something else, which come
             with scikit-learn.
    seed:    the seed by which shares are dealt.
    sha256:  the digest of the data's names and bytes; by default that of the data found. If it is
             given, other data are refused.
    """

    places: ClassVar[frozenset[str]] = frozenset({"file", "folder"})

    class_names: ClassVar[Sequence[str]] = ()
    """The classes' names, in the order of outputs. Set by subclasses with classes."""

    train: PositiveFloat | str | None = None
    public: PositiveFloat | str | None = None
    test: PositiveFloat | str | None = None
    irrelevant: str | None = None
    seed: Count = 0
    sha256: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        place = next(iter(self.places & {f.name for f in fields(self)}))
        # A worker may have another working folder.
        object.__setattr__(self, "_path", Path(getattr(self, place)).absolute())

    @property
    def path(self) -> Path:
        """Where the data are."""
        path: Path = self._path  # type: ignore[attr-defined]
        return path

    @property
    def input_shape(self) -> tuple[int, ...]:
        shape: tuple[int, ...] = self._shape  # type: ignore[attr-defined]
        return shape

    @property
    def pool_sizes(self) -> Mapping[str, int]:
        sizes: Mapping[str, int] = self._sizes  # type: ignore[attr-defined]
        return sizes

    @property
    def files(self) -> Mapping[str, Sequence[Path]]:
        return {self.path.name: [self.path]}

    def data_files(self) -> Iterator[tuple[str, Path]]:
        """Yield the names and paths of the files that the data are in. Default: the path."""
        yield "", self.path

    def describe_data(self, shape: tuple[int, ...], sizes: Mapping[str, int]) -> None:
        """Set the shape of an input and the sizes of the pools."""
        object.__setattr__(self, "_shape", tuple(shape))
        object.__setattr__(self, "_sizes", dict(sizes))

    def identify(self) -> None:
        """Set `sha256`. Raises FieldError if the field has the digest of other data."""
        found = digest_files(self.data_files())
        if not self.sha256:
            object.__setattr__(self, "sha256", found)
        elif self.sha256 != found:
            raise FieldError(
                "sha256",
                f"expected data of sha256 {self.sha256}, found {found}; the files have changed, or "
                "are others",
            )

    def __str__(self) -> str:
        return super().__str__().replace(self.sha256, self.sha256[:16])

    def deal(self, parts: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
        """Return, for each pool that comes from the files, its part and its indices in this part.

        parts: the right answers (n, ...) by the part's name; "" is data without parts.

        Raises FieldError for a part that is not there, for a share of nothing, and for a class
        without an example where models are trained.
        """
        sources = {pool: self._source(pool, parts) for pool in (*SHARES, "irrelevant")}
        named = {pool: source for pool, source in sources.items() if isinstance(source, str)}
        dealt = {pool: (part, torch.arange(len(parts[part]))) for pool, part in named.items()}
        shares = {pool: share for pool, share in sources.items() if isinstance(share, float)}
        if shares:
            part = self._dealt_part(parts, {*named.values()}, next(iter(shares)))
            dealt |= {pool: (part, index) for pool, index in self._split(parts[part], shares)}
        if self.task == "classification":
            n_classes = self.output_shape[0]
            for pool in ("train", "public"):
                part, index = dealt[pool]
                present = {*parts[part][index].tolist()}
                if len(present) < n_classes:
                    absent = next(i for i in range(n_classes) if i not in present)
                    raise FieldError(
                        pool,
                        f"expected an example of every class in the pool {pool}, found none of "
                        f"class {self.class_names[absent]!r}",
                    )
        return dealt

    def _source(self, pool: str, parts: Mapping[str, Tensor]) -> str | float | None:
        """Return the part or the share that a pool is made of; None for the built-in one."""
        wanted = getattr(self, pool)
        if isinstance(wanted, str):
            if wanted not in parts:
                known = ", ".join(sorted(filter(None, parts))) or "none"
                raise FieldError(
                    pool, f"expected the name of a part or a share, got {wanted!r}; parts: {known}"
                )
            return wanted
        if wanted is not None:
            return float(wanted)
        names = ["test", "val", "valid", "validation"] if pool == "test" else [pool]
        if pool == "train" and "public" not in parts and not isinstance(self.public, str):
            names = []  # the part `train` is dealt to the owner and the attacker
        return next((name for name in names if name in parts), SHARES.get(pool))

    def _dealt_part(self, parts: Mapping[str, Tensor], used: set[str], pool: str) -> str:
        """Return the part that shares are of: data without parts, or the part `train`."""
        for name in ("", "train"):
            if name in parts and name not in used:
                return name
        raise FieldError(
            pool,
            f"expected a part `train` to take shares of, found {', '.join(sorted(parts))}; name "
            f"the part of each pool, such as `{pool}: {min(parts)}`",
        )

    def _split(self, truth: Tensor, shares: Mapping[str, float]) -> Iterator[tuple[str, Tensor]]:
        order = torch.randperm(len(truth), generator=torch.Generator().manual_seed(self.seed))
        whole = sum(shares.values())
        counts = [int(len(order) * share / whole) for share in shares.values()]
        counts[-1] = len(order) - sum(counts[:-1])
        for pool, count, index in zip(shares, counts, order.split(counts), strict=True):
            if not count:
                raise FieldError(
                    pool,
                    f"expected examples for the pool {pool}, got its share, {shares[pool]}, of "
                    f"{len(order)}, which is none",
                )
            yield pool, index

    def require_unchanged(self) -> None:
        """Raise ResourceError if the files have changed since the scenario was made."""
        if (found := digest_files(self.data_files())) != self.sha256:
            raise ResourceError(
                f"expected data of sha256 {self.sha256} at {self.path}, found {found}: they have "
                "changed; run the command again to use the new ones"
            )

    def with_other_domain(self, pools: dict[str, Pool]) -> dict[str, Pool]:
        """Return pools with an irrelevant one: if they have none, data of scikit-learn."""
        if "irrelevant" in pools:
            return pools
        shape, (low, high) = self.input_shape, self.input_range
        classes = self.output_shape[0] if self.task == "classification" else None
        made = photographs(shape, classes) if len(shape) == 3 else diabetes(shape, classes)
        truth = made.truth
        if classes is None:
            values = pools["train"].truth
            truth = truth.view(-1, *[1] * (values.dim() - 1)) * values.std(0) + values.mean(0)
        return {**pools, "irrelevant": Pool(low + (high - low) * made.inputs, truth)}

    @property
    def architectures(self) -> Mapping[str, Callable[[], nn.Module]]:
        make = for_images if len(self.input_shape) == 3 else for_rows
        return make(self.input_shape, self.output_shape[0])


def normalised(
    build: Callable[[], nn.Module], mean: Sequence[float] | None, std: Sequence[float] | None
) -> Callable[[], nn.Module]:
    """Return a function that makes a network which normalises its inputs, if mean or std is
    given."""
    if mean is None and std is None:
        return build
    return partial(_centred, build, mean or [0.0], std or [1.0])


def _centred(
    build: Callable[[], nn.Module], mean: Sequence[float], std: Sequence[float]
) -> nn.Module:
    return Centred(build(), mean, std)


def check_normalisation(
    channels: int, mean: Sequence[float] | None, std: Sequence[float] | None
) -> None:
    """Raise FieldError unless mean and std have a number per channel, or one for all."""
    for name, numbers in (("mean", mean), ("std", std)):
        if numbers is not None and len(numbers) not in (1, channels):
            raise FieldError(
                name,
                f"expected a number per channel, {channels}, or one for all, got {len(numbers)}",
            )
    if std is not None and min(std) <= 0:
        raise FieldError("std", f"expected numbers above 0, got {list(std)}")


def index_classes(
    field: str, labels: np.ndarray[Any, Any], classes: Sequence[str] | None, where: str
) -> tuple[Tensor, list[str]]:
    """Return the class index of each label, and the classes' names in this order.

    labels:  texts or whole numbers, (n,).
    classes: the order of the model's outputs; None for the order of the labels themselves, of
             numbers by size and of texts by alphabet.
    where:   what the labels are, for messages.

    Raises FieldError for labels of other classes, and for fewer than two classes.
    """
    found = [str(label) for label in np.unique(labels)]
    names = list(classes) if classes else found
    if len(set(names)) < max(2, len(names)):
        raise FieldError(field, f"expected two classes or more, once each, got {names} in {where}")
    if unknown := sorted({*found} - {*names}):
        raise FieldError(
            field, f"expected the classes {', '.join(names)} in {where}, found {unknown[0]!r} too"
        )
    index = {name: i for i, name in enumerate(names)}
    return torch.tensor([index[str(label)] for label in labels.tolist()]), names


def digest_files(files: Iterable[tuple[str, Path]]) -> str:
    """Return the sha256 of the names and bytes of files."""
    whole = hashlib.sha256()
    for name, file in files:
        whole.update(f"{name}\0".encode())
        with file.open("rb") as content:
            whole.update(hashlib.file_digest(content, "sha256").digest())
    return whole.hexdigest()
