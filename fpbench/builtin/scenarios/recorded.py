"""The scenario `recorded`: models of which only the answers to a fixed pool of inputs are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from fpbench import Access, Classification, FieldError, Pool, Positive, TrialError

from .answer_table import (
    Ancestry,
    AnswerTable,
    ancestors,
    digest_file,
    read_ancestry,
    read_answers,
)

_read_answers = cache(read_answers)


class Answers(nn.Module):
    """A recorded model as a network: its answers, found by position in the pool.

    Its only tensor is the sha256 of its answers, so models with equal answers have equal weights
    and a store holds no copies of the answers. Probabilities are returned as their logarithms,
    labels as 1 for the label and 0 for the other classes.
    """

    digest: Tensor

    def __init__(self, scenario: Recorded, model: str) -> None:
        super().__init__()
        self.scenario, self.model = scenario, model
        digest = torch.tensor([*scenario.table.digests[model]], dtype=torch.uint8)
        self.register_buffer("digest", digest)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, classes) for positions (n, 1).

        Raises TrialError for numbers that are no positions in the pool.
        """
        table = self.scenario.table
        i = self._positions(x.cpu(), len(table.truth)).numpy()
        row, n_classes = table.rows[self.model], self.scenario.n_classes
        if table.probs is None:
            label = torch.from_numpy(table.labels[row, i].astype("int64"))
            return torch.zeros(len(i), n_classes).scatter_(1, label[:, None], 1.0).to(x.device)
        probs = torch.from_numpy(table.probs[row, i])
        if table.listed is None:
            out = torch.zeros(len(i), n_classes)
            out[:, : probs.shape[1]] = probs
        else:
            listed = torch.from_numpy(table.listed[row, i].astype("int64"))
            out = _spread(probs, listed, n_classes)
        return out.clamp_min(torch.finfo(out.dtype).tiny).log().to(x.device)

    def _positions(self, x: Tensor, n: int) -> Tensor:
        x = x.detach().double().flatten()
        positions = x.round()
        known = (positions == x) & (positions >= 0) & (positions < n)
        if not known.all():
            raise TrialError(
                f"expected queries from the pool of {n:,} recorded inputs, whole numbers from 0 to "
                f"{n - 1}, got {float(x[~known][0]):.9g}, which has no recorded answer"
            )
        return positions.long()


def _spread(probs: Tensor, listed: Tensor, n_classes: int) -> Tensor:
    """Return probabilities of all classes (n, n_classes) from those of the most likely ones.

    The rest is spread evenly over the other classes, none of which gets more than the least likely
    listed one.
    """
    there = listed >= 0
    rest = (1 - probs.sum(1)).clamp_min(0) / (n_classes - there.sum(1)).clamp_min(1)
    least = probs.masked_fill(~there, torch.inf).min(1).values
    out = torch.minimum(rest, least)[:, None].repeat(1, n_classes + 1)
    # One more column takes the classes that stand for none.
    return out.scatter_(1, listed.where(there, n_classes), probs)[:, :n_classes]


@dataclass(frozen=True)
class Recorded(Classification):
    """Models of which a file has the answers to a pool of inputs; nobody has to run them.

    An input is its position in the pool, a whole number, so methods apply that choose their queries
    from the pool. All pools are this pool. Models are of the recipe `recorded`. Its fields are
    `model`, a name in the file, and `kind`, the model's group in reports. With `models`, a suite
    needs no `zoo:`. Then the descendants of the target are its positives, and the models that share
    no ancestor with it its negatives; other relatives are left out.

    file:    the answers, relative to the current folder. A CSV or parquet file has a column
             `truth` with the right classes, and one for each model. Classes are counted from 0. A
             cell is a class, or classes with their probabilities, such as `3:0.8 17:0.1`. An npz
             file has arrays: models (m,), truth (n,), and answers (m, n) or probs (m, n, classes);
             with both, (m, n, k), the answers are the classes that the probabilities are of.
    models:  a CSV with the columns model, parent and kind, with a row for each model.
    classes: the number of classes; by default what the answers show.
    sha256:  the sha256 of the answers; by default that of the file found. If it is given, another
             file is refused.
    """

    name = "recorded"
    recorded = True
    places = frozenset({"file", "models"})
    input_shape = (1,)
    output_shape: ClassVar[tuple[int, ...]] = ()
    input_range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    file: str = field(kw_only=True)
    models: str = ""
    classes: Positive | None = None
    sha256: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        # A worker may have another working folder.
        object.__setattr__(self, "_path", Path(self.file).absolute())
        found = digest_file(self._path)
        if self.sha256 not in ("", found):
            raise FieldError(
                "sha256", f"expected a file of sha256 {self.sha256}, found {found} in {self.file}"
            )
        object.__setattr__(self, "sha256", found)
        table = self.table
        if self.classes is not None and self.classes < table.classes:
            raise FieldError(
                "classes",
                f"expected at least {table.classes}, as the answers show, got {self.classes}",
            )
        more = {Access.PROBS} if table.probs is not None else set[Access]()
        facts = {
            "output_shape": (self.classes or max(2, table.classes),),
            "input_range": (0.0, float(len(table.truth) - 1)),
            "offers": frozenset({Access.LABEL, *more}),
            "ancestry": read_ancestry(Path(self.models), table.models) if self.models else {},
        }
        for name, fact in facts.items():
            object.__setattr__(self, name, fact)

    _path: ClassVar[Path]
    ancestry: ClassVar[Mapping[str, Ancestry]] = {}
    """By model, its parent and its kind; empty without `models`."""

    def __str__(self) -> str:
        return super().__str__().replace(self.sha256, self.sha256[:16])

    @property
    def table(self) -> AnswerTable:
        """The answers. A process reads them once."""
        return _read_answers(self._path, self.sha256)

    @property
    def architectures(self) -> Mapping[str, Callable[[], nn.Module]]:
        return {model: partial(Answers, self, model) for model in self.table.models}

    def architecture(self, name: str) -> Callable[[], nn.Module]:
        self.require(name)
        return partial(Answers, self, name)

    def require(self, model: str) -> None:
        """Raise FieldError for a model without answers."""
        if model not in self.table.rows:
            from difflib import get_close_matches

            models = self.table.models
            near = get_close_matches(str(model)[:100], models, n=2)
            hint = f"it has {len(models):,} models, such as {models[0]}"
            if near:
                hint = f"did you mean {' or '.join(near)}?"
            raise FieldError("model", f"no answers of {model!r} in {self.file}; {hint}")

    def relatives(self, target: str) -> tuple[list[str], list[str]]:
        """Return the models that descend from a target, and those that share no ancestor with it.

        Raises FieldError for a target without answers or without descendants.
        """
        self.require(target)
        lines = {model: ancestors(model, self.ancestry) for model in self.ancestry}
        root = lines[target][-1]
        positives = [model for model, line in lines.items() if target in line[1:]]
        if not positives:
            raise FieldError(
                "model",
                f"expected a target with descendants in {self.models}, found none of {target}",
            )
        return positives, [model for model, line in lines.items() if line[-1] != root]

    @property
    def summary(self) -> str:
        table = self.table
        what = "labels" if table.probs is None else "probabilities"
        return (
            f"{Path(self.file).name}: {what} of {len(table.models):,} models for "
            f"{len(table.truth):,} inputs, sha256 {self.sha256[:16]}"
        )

    @property
    def pool_sizes(self) -> Mapping[str, int]:
        n = len(self.table.truth)
        return {"train": n, "public": n, "irrelevant": n, "test": n}

    @property
    def files(self) -> Mapping[str, Sequence[Path]]:
        return {Path(self.file).name: [Path(self.file)]}

    def load(self) -> Mapping[str, Pool]:
        truth = torch.from_numpy(self.table.truth)
        pool = Pool(torch.arange(len(truth), dtype=torch.float32)[:, None], truth)
        return dict.fromkeys(self.pool_sizes, pool)
