"""Dermatoscopic images of 28 x 28 pixels: DermaMNIST, or a subset of HAM10000 of our own making.

Sources
    Yang et al., "MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D biomedical image
    classification", Scientific Data 2023: DermaMNIST, all 10,015 images of HAM10000.
    Tschandl, Rosendahl and Kittler, "The HAM10000 dataset", Scientific Data 5:180161, 2018, and
    Codella et al., arXiv:1902.03368, for its test images: what both are made of.

Both are for non-commercial use, with attribution; a user's machine holds them, this package never.
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
    """One npz file with {train,val,test}_{images,labels}.

    sizes:   images in train, val and test.
    summary: what results call it.
    """

    sizes: tuple[int, int, int]
    summary: str


ARCHIVES = {
    "dermamnist": Archive(
        folder="dermamnist",
        file="dermamnist.npz",
        checksum="md5:0744692d530f8e62ec473284d019b0c7",
        url="https://zenodo.org/records/10519652/files/dermamnist.npz?download=1",
        other_folder="~/.medmnist",  # where the medmnist package keeps its own
        sizes=(7007, 1003, 2005),
        summary="DermaMNIST: 10,015 images of 28 x 28, 7 classes (MedMNIST v2; HAM10000)",
    ),
    # Images of the same collection and the same classes, but cut, scaled and split otherwise: its
    # figures are not DermaMNIST's.
    "ham10000-28": Archive(
        folder="ham10000-28",
        file="ham10000_28.npz",
        checksum="sha256:8f8d17baa7283f489556607e6ae685c3f9d8c4922d05e6f69de21db70ae65fce",
        sizes=(5236, 748, 1512),
        summary="HAM10000-28 subset, not DermaMNIST: 7,496 images of 28 x 28, 7 classes",
    ),
}


def load(name: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Images (n, 3, 28, 28), uint8, and labels (n,), int64, of "train", "val" and "test".

    Raises ResourceError when the archive is not on this machine and cannot be fetched, or is not,
    byte for byte, the one that is expected.
    """
    others = [other for other in ARCHIVES if other != name and ARCHIVES[other].found()]
    advice = f"; {others[0]} is here: `-o scenario.dataset={others[0]}`" if others else ""
    data = ARCHIVES[name].read(advice)
    # Arrays of objects stay unread.
    arrays = np.lib.npyio.NpzFile(io.BytesIO(data), allow_pickle=False)
    return {
        split: (
            torch.from_numpy(arrays[f"{split}_images"]).permute(0, 3, 1, 2),
            torch.from_numpy(arrays[f"{split}_labels"]).flatten().long(),
        )
        for split in SPLITS
    }
