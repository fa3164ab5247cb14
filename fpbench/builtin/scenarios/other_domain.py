"""Data of another domain, which come with scikit-learn, for scenarios of a user's own files."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fpbench import Pool


def photographs(shape: tuple[int, ...], n_classes: int | None) -> Pool:
    """Return 2,268 cuts of scikit-learn's two sample photos, in [0, 1].

    shape:     (channels, height, width). More than three channels repeat the colours.
    n_classes: the classes say where a cut comes from; None for heights in place of classes,
               standardised.
    """
    from sklearn.datasets import load_sample_images

    channels, *size = shape
    cuts, heights = [], []
    for photo, image in enumerate(load_sample_images().images):
        halved = F.avg_pool2d(torch.tensor(image).permute(2, 0, 1).float() / 255, 2)
        found = halved.unfold(1, 28, 7).unfold(2, 28, 7)  # (3, rows, columns, 28, 28)
        rows, columns = found.shape[1:3]
        cuts.append(found.permute(1, 2, 0, 3, 4).reshape(-1, 3, 28, 28))
        heights.append((photo + torch.arange(rows) / rows).repeat_interleave(columns))
    colours = F.interpolate(torch.cat(cuts), size=size, mode="bilinear", align_corners=False)
    if channels == 1:
        colours = colours.mean(1, keepdim=True)
    repeats = -(-channels // colours.shape[1])
    inputs = colours.repeat(1, repeats, 1, 1)[:, :channels].clamp(0, 1)
    return Pool(inputs, _as_truth(torch.cat(heights), n_classes))


def diabetes(shape: tuple[int, ...], n_classes: int | None) -> Pool:
    """Return scikit-learn's 442 diabetes patients (Efron et al. 2004), with features in [0, 1].

    shape:     (features,). The ten features are repeated, or the first of them taken.
    n_classes: the classes are equal parts of the progressions by size; None for progressions,
               standardised.
    """
    from sklearn.datasets import load_diabetes

    features, progressions = (torch.tensor(a).float() for a in load_diabetes(return_X_y=True))
    low, high = features.amin(0), features.amax(0)
    scaled = (features - low) / (high - low)
    repeats = -(-shape[0] // scaled.shape[1])
    return Pool(scaled.repeat(1, repeats)[:, : shape[0]], _as_truth(progressions, n_classes))


def _as_truth(values: Tensor, n_classes: int | None) -> Tensor:
    """Return values (n,) standardised, or as classes that hold about equally many each."""
    if n_classes is None:
        return (values - values.mean()) / values.std()
    ranks = values.argsort(stable=True).argsort()
    return ranks * n_classes // len(values)
