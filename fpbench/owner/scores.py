"""One rule for a classifier's scores, whether a network, an ONNX file or an API gives them.

Scores may be probabilities, percent or logits. The rule looks at all answers of a suspect, never at
one batch. Where it cannot tell, it asks instead of guessing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ..api.errors import InputError

Values = Literal["auto", "probs", "percent", "log_probs", "logits", "sigmoid"]
"""What scores are. "sigmoid" scores are probabilities of each class on its own."""

STEPS = (0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6, 1 / 255, 1 / 256)
"""The steps to which probabilities are often rounded, the decimal ones from coarse to fine."""

SLACK = 0.01
"""How far from one the sum of probabilities may be that are not rounded to a step: half precision
and rounding to two significant digits stay below it."""

LEAST = 1e-12
"""The probability that counts for zero in a logarithm."""

NOISE = 1e-6
"""The rounding error of a probability that was computed in single precision."""


def find_values(scores: Tensor) -> Values:
    """Return what scores (n, n_classes) are; NaN stands for a class that an answer leaves out.

    They are logits if one is negative (the logarithms of probabilities count as logits, because
    both give the same probabilities). They are probabilities, or percent, if each row can be the
    rounded or truncated form of numbers that sum to 1, or to 100.

    Raises InputError if they are neither.
    """
    known = scores.double().nan_to_num(nan=0.0)
    if known.numel() == 0 or known.shape[1] == 1 or float(known.min()) < -NOISE:
        return "logits"
    left_out = scores.isnan().any(-1)
    if bool(_sums_to_one(known, left_out).all()):
        return "probs"
    if not bool(left_out.any()) and bool(_sums_to_one(known / 100, left_out).all()):
        return "percent"
    sums = known.sum(-1)
    raise InputError(
        f"expected scores that are clearly probabilities, percent or logits, got numbers from "
        f"{float(known.min()):.3g} to {float(known.max()):.3g} that sum to {float(sums.min()):.3g} "
        f"to {float(sums.max()):.3g} for an input; say what they are by `values:` in the adapter: "
        "probs, percent, log_probs, logits or sigmoid",
        "--adapter",
    )


def _sums_to_one(p: Tensor, left_out: Tensor) -> Tensor:
    """Return which rows can be probabilities after rounding. left_out: rows without all classes.

    If numbers were rounded or truncated to a step, each may have been half a step smaller, or a
    step larger. So the tolerance of a sum grows with the number of classes and with the step.
    """
    step = step_of(p)
    least = (p - step / 2).clamp_min(0.0).sum(-1)
    most = (p + step).sum(-1)
    within = (p <= 1 + SLACK).all(-1) & (least <= 1 + SLACK)
    return within & (left_out | (most >= 1 - SLACK))


def step_of(p: Tensor) -> float:
    """Return the step to which probabilities are rounded; 0 if they are not. NaN is left out."""
    p = p.double().nan_to_num(nan=0.0)
    for step in STEPS:
        if bool(((p / step - (p / step).round()).abs() * step <= NOISE / 10).all()):
            return step
    return 0.0


def as_logits(scores: Tensor, values: Values, step: float = 0.0) -> Tensor:
    """Return scores (n, n_classes) as logits: the softmax of each row is the probabilities.

    Probabilities of a row are normalised. What they leave of one is spread evenly over the classes
    that the row leaves out (NaN), each of which gets at most the smallest that it names, and over
    the classes that were rounded to zero.

    step: the step to which the probabilities are rounded; 0 if they are not.

    Raises InputError for scores that cannot be `values`.
    """
    scores = scores.double()
    if values in ("probs", "percent"):
        p = scores / (100 if values == "percent" else 1)
        if bool((p < -NOISE).any()):
            raise InputError(f"values: {values}: expected scores from 0 on, got negative ones")
        p = _without_zeros(_spread(p.clamp_min(0.0)), step)
        sums = p.sum(-1, keepdim=True)
        p = torch.where(sums > 0, p / sums, 1 / p.shape[-1])  # all rounded to zero: nothing known
        return p.clamp_min(LEAST).log()
    if bool(scores.isnan().any()):
        raise InputError(
            f"expected a score for every class, or probabilities, got {values} of some classes: "
            "what is left for the other classes is unknown; a fingerprint made with -o api=label "
            "needs only the first of them"
        )
    if values == "sigmoid":
        if bool(((scores < 0) | (scores > 1)).any()):
            raise InputError("values: sigmoid: expected scores from 0 to 1, got others")
        return scores.clamp(LEAST, 1 - LEAST).logit()
    return scores


def _spread(p: Tensor) -> Tensor:
    missing = p.isnan()
    rest = (1 - p.nansum(-1, keepdim=True)).clamp_min(0.0)
    smallest = p.nan_to_num(nan=torch.inf).amin(-1, keepdim=True)
    each = torch.minimum(rest / missing.sum(-1, keepdim=True).clamp_min(1), smallest)
    return torch.where(missing, each, p)


def _without_zeros(p: Tensor, step: float) -> Tensor:
    """Return probabilities with an estimate of those that were rounded to zero.

    Such a probability is below half a step, so it counts as a quarter of it. Together they get at
    most what the row leaves of one, or half a step, by which a rounded sum may be too large. What
    is then left of one was cut off by truncation, so each class gets the same, at most half a step.
    """
    zero = p <= NOISE / 10
    rest = (1 - p.sum(-1, keepdim=True)).clamp_min(step / 2)
    each = (rest / zero.sum(-1, keepdim=True).clamp_min(1)).clamp_max(step / 4)
    p = torch.where(zero, torch.maximum(p, each), p)
    rest = (1 - p.sum(-1, keepdim=True)).clamp_min(0.0)
    return p + (rest / p.shape[-1]).clamp_max(step / 2)


def merged(logits: Tensor, columns: Sequence[int | None], n_classes: int) -> Tensor:
    """Return logits (n, columns) as logits (n, n_classes).

    columns: the class of each column; None for a class that the target does not have. Classes that
             share a number are merged: their probabilities are added.
    """
    out = torch.full((len(logits), n_classes), torch.nan, dtype=logits.dtype)
    for k in set(columns) - {None}:
        rows = [at for at, column in enumerate(columns) if column == k]
        out[:, int(k or 0)] = logits[:, rows].logsumexp(-1)
    # A class that the suspect does not have is as unlikely as a probability of zero.
    total = out.nan_to_num(nan=-torch.inf).logsumexp(-1, keepdim=True)
    return torch.where(out.isnan(), total + torch.tensor(LEAST).log(), out)


class Reading:
    """How a suspect's outputs are read, as logits of the target's classes.

    It is decided once, from all answers to the fingerprint's queries.

    columns: the target's class of each column of the outputs, as in `merged`; None if the outputs
             are not scores of classes, and are read unchanged.
    values:  what the scores are; "auto" to find it.
    labels:  whether only the likeliest class counts, so that it may stay unclear what scores are.
    missing: whether answers may be missing, as rows of NaN.
    """

    def __init__(
        self, columns: Sequence[int | None] | None, n_classes: int, values: Values = "auto", *,
        labels: bool = False, missing: bool = False,
    ) -> None:  # fmt: skip
        self.may_miss = missing
        self.columns, self.n_classes, self.values = columns, n_classes, values
        self.labels = labels
        self.step = 0.0
        """The step to which probabilities are rounded; 0 if they are not, or only labels count."""
        self.skipped = 0
        """The number of answers that are missing."""
        self._instead: Tensor | None = None

    def decide(self, outputs: Tensor) -> None:
        """Decide how to read outputs (n, ...), from all of them. Raises InputError."""
        missing = self._missing(outputs)
        self.skipped = int(missing.sum())
        known = outputs[~missing]
        if not len(known):
            raise InputError("expected answers, got none: every input was refused or unknown")
        if self.columns is not None and self.values == "auto":
            try:
                self.values = find_values(known)
            except InputError:
                if not self.labels or len(set(self.columns)) < len(self.columns):
                    raise  # probabilities are merged in another way than logits
                self.values = "logits"
        if self.columns is not None and not self.labels and self.values in ("probs", "percent"):
            self.step = step_of(known / (100 if self.values == "percent" else 1))
        if self.columns is not None:
            _refuse_sorted(known)
        if self.skipped:
            known = self.read(known)
            classes = self.columns is not None
            mean = (known.softmax(-1) if classes else known).mean(0)
            self._instead = mean.log() if classes else mean

    def read(self, outputs: Tensor) -> Tensor:
        """Return outputs (n, ...) as float32 logits (n, n_classes), or as a task's outputs.

        A missing answer counts as the mean of the others, of which the label is the commonest.
        """
        missing = self._missing(outputs)
        read = torch.empty(0)
        if bool((~missing).any()):
            read = self._read_known(outputs[~missing]).float()
        if not bool(missing.any()):
            return read
        assert self._instead is not None, "read follows decide"
        shape = self._instead.shape
        out = self._instead.float().expand(len(outputs), *shape).clone()
        out[~missing] = read.reshape(-1, *shape)
        return out

    def _missing(self, outputs: Tensor) -> Tensor:
        """Return which answers are missing: all their numbers are NaN."""
        return outputs.flatten(1).isnan().all(-1) & self.may_miss

    def _read_known(self, outputs: Tensor) -> Tensor:
        if self.columns is None:
            return outputs
        if self.labels and self.values not in ("probs", "percent"):
            outputs = outputs.nan_to_num(nan=float(outputs.nan_to_num(0.0).min()) - 1.0)
        logits = as_logits(outputs, self.values, self.step)
        if list(self.columns) == list(range(self.n_classes)):
            return logits
        return merged(logits, self.columns, self.n_classes)


def _refuse_sorted(scores: Tensor) -> None:
    """Raise InputError if all answers are sorted, so that their classes are unknown.

    Eight different answers of three classes or more are not sorted by chance.
    """
    n, c = scores.shape
    falls = (scores.diff(dim=-1) <= 0).all(-1)
    if c >= 3 and len(scores.unique(dim=0)) >= 8 and bool(falls.all()):
        raise InputError(
            f"expected scores in the order of the classes, got {n} answers from the largest score "
            "to the smallest; `top` in the adapter says where the names of the classes are",
            "--adapter",
        )
