"""Skin cancer diagnosis: seven kinds of lesion (MetaV, section 5.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fpbench import Classification, Pool

from . import derma, skin_networks
from .memory import require_memory
from .table3 import composition

IRRELEVANT = 2268
"""The number of images in the pool of another domain."""


@dataclass(frozen=True)
class Skin(Classification):
    """Seven kinds of pigmented lesion in dermatoscopic images of 28 x 28, enlarged bilinearly.

    The split of the archive's train and val images is fixed: half belong to the owner ("train"),
    half to the attacker ("public"). "test" is the archive's test images. "irrelevant" is cuts of
    two photographs of other things. Inputs are in [0, 1].

    The architectures are the paper's: squeezenet (S), resnet18 (M, the target's), densenet161 (L),
    alexnet (XL) and vgg16 (XXL). At size 32 there is also a small network of each family:
    small_squeezenet, small_resnet, small_densenet, small_alexnet and small_vgg.

    size:    width and height of the inputs: 224 as in the paper's section 5.1, or 32 as in its
             conclusion.
    dataset: "dermamnist", or "ham10000-28", another cut of the same collection. Results on the two
             are not comparable.
    """

    # Pools hold images at full size, as float32, because methods draw their queries from them, and
    # training draws a batch with one index. Enlarging images when they are used would save memory
    # at size 224 (7.4 GB for DermaMNIST; the largest pool, which is what a GPU holds, has 2.4 GB),
    # but then the data would not have the shape of a model's inputs. At 32 all pools have 150 MB.

    name = "skin"
    output_shape = (7,)
    input_range = (0.0, 1.0)
    table3 = composition(  # each architecture of the paper, and the small one in its place
        {
            f"{prefix}{name}": counts
            for prefix, names in (
                ("", ("squeezenet", "resnet18", "densenet161", "alexnet", "vgg16")),
                ("small_", ("squeezenet", "resnet", "densenet", "alexnet", "vgg")),
            )
            for name, counts in zip(
                names, ((4, 20), (4, 20), (2, 12), (2, 4), (2, 4)), strict=True
            )
        },
        pruned_weights=18, pruned_filters=30,
    )  # fmt: skip

    size: Literal[32, 224] = 224
    dataset: Literal["dermamnist", "ham10000-28"] = "dermamnist"

    @property
    def summary(self) -> str:
        return derma.ARCHIVES[self.dataset].summary

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return (3, self.size, self.size)

    @property
    def architectures(self) -> Mapping[str, Callable[[], nn.Module]]:
        return skin_networks.BY_SIZE[self.size]

    @property
    def pool_sizes(self) -> Mapping[str, int]:
        train, val, test = derma.ARCHIVES[self.dataset].sizes
        own = (train + val) // 2
        return {
            "train": own,
            "public": train + val - own,
            "irrelevant": IRRELEVANT,
            "test": test,
        }

    @property
    def files(self) -> Mapping[str, Sequence[Path]]:
        return {name: archive.places() for name, archive in derma.ARCHIVES.items()}

    def load(self) -> Mapping[str, Pool]:
        require_memory(self, "take size 32 (`-o scenario.size=32`)")
        splits = derma.load(self.dataset)
        images, labels = (
            torch.cat([splits[name][part] for name in ("train", "val")]) for part in (0, 1)
        )
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(20180807))
        own, public = order.split([self.pool_sizes["train"], self.pool_sizes["public"]])
        return {
            "train": self._pool(images[own], labels[own]),
            "public": self._pool(images[public], labels[public]),
            "irrelevant": self._pool(*photographs()),
            "test": self._pool(*splits["test"]),
        }

    def _pool(self, images: Tensor, labels: Tensor) -> Pool:
        """Return images (n, 3, 28, 28) of 0 to 255 as inputs."""
        x = images.float() / 255
        return Pool(F.interpolate(x, size=self.size, mode="bilinear", align_corners=False), labels)

    def utility(self, output: Tensor, truth: Tensor) -> dict[str, float]:
        """Return accuracy and balanced_accuracy, both in [0, 1].

        accuracy is the share of right answers. The largest class as a constant answer has 0.67 on
        DermaMNIST's test images and 0.60 on HAM10000-28's. balanced_accuracy is the mean of the
        classes' accuracies; a constant answer has 1/7.
        """
        right = (output.argmax(-1) == truth).double()
        each = [right[truth == k].mean() for k in range(self.n_classes) if (truth == k).any()]
        return {
            "accuracy": float(right.mean()),
            "balanced_accuracy": float(torch.stack(each).mean()),
        }


def photographs() -> tuple[Tensor, Tensor]:
    """Return the data of another domain: 28 x 28 cuts of scikit-learn's two photos at half size.

    Images are (2268, 3, 28, 28), of 0 to 255. Labels (2268,) say which quarter of the first photo's
    height, or which third of the second photo's, a cut comes from.
    """
    from sklearn.datasets import load_sample_images

    images, labels = [], []
    for photo, bands, first in zip(load_sample_images().images, (4, 3), (0, 4), strict=True):
        halved = F.avg_pool2d(torch.tensor(photo).permute(2, 0, 1).float(), 2)
        cuts = halved.unfold(1, 28, 7).unfold(2, 28, 7)  # (3, rows, columns, 28, 28)
        rows, columns = cuts.shape[1:3]
        images.append(cuts.permute(1, 2, 0, 3, 4).reshape(-1, 3, 28, 28))
        band = first + torch.arange(rows) * bands // rows
        labels.append(band.repeat_interleave(columns))
    return torch.cat(images), torch.cat(labels)
