"""Dermatoscopic images of 28 x 28 pixels: DermaMNIST, or a subset of HAM10000 that we made.

Sources
    Yang et al., "MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D biomedical image
    classification", Scientific Data 2023: DermaMNIST, all 10,015 images of HAM10000.
    Tschandl, Rosendahl and Kittler, "The HAM10000 dataset", Scientific Data 5:180161, 2018, and,
    for its test images, Codella et al., arXiv:1902.03368: the original of both data sets.

Both are for non-commercial use, with attribution. This package does not contain them.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fpbench import DataFile

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class Archive(DataFile):
    """An npz file with the arrays {train,val,test}_{images,labels}.

    sizes:   the number of images in train, val and test.
    summary: the name of the data in results.
    """

    sizes: tuple[int, int, int]
    summary: str


ARCHIVES = {
    "dermamnist": Archive(
        folder="dermamnist",
        file="dermamnist.npz",
        checksum="md5:0744692d530f8e62ec473284d019b0c7",
        url="https://zenodo.org/records/10519652/files/dermamnist.npz?download=1",
        other_folder="~/.medmnist",  # the cache of the medmnist package
        sizes=(7007, 1003, 2005),
        summary="DermaMNIST: 10,015 images of 28 x 28, 7 classes (MedMNIST v2; HAM10000)",
    ),
    # The collection and the classes are the same, but the images are cut, scaled and split in
    # another way. So results on it are not results on DermaMNIST.
    "ham10000-28": Archive(
        folder="ham10000-28",
        file="ham10000_28.npz",
        checksum="sha256:8f8d17baa7283f489556607e6ae685c3f9d8c4922d05e6f69de21db70ae65fce",
        sizes=(5236, 748, 1512),
        summary="HAM10000-28 subset, not DermaMNIST: 7,496 images of 28 x 28, 7 classes",
    ),
}


def load(name: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Return images (n, 3, 28, 28), uint8, and labels (n,), int64, of "train", "val" and "test".

    Raises ResourceError if the archive is not on this machine and cannot be fetched, or if its
    checksum is wrong.
    """
    others = [other for other in ARCHIVES if other != name and ARCHIVES[other].found()]
    advice = f"; {others[0]} is here: `-o scenario.dataset={others[0]}`" if others else ""
    data = ARCHIVES[name].read(advice)
    # Arrays of objects are refused, because reading them can run code.
    arrays = np.lib.npyio.NpzFile(io.BytesIO(data), allow_pickle=False)
    return {
        split: (
            torch.from_numpy(arrays[f"{split}_images"]).permute(0, 3, 1, 2),
            torch.from_numpy(arrays[f"{split}_labels"]).flatten().long(),
        )
        for split in SPLITS
    }
