"""Dermatoscopic images of 28 x 28 pixels: DermaMNIST, or a subset of HAM10000 of our own making.

Sources
    Yang et al., "MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D biomedical image
    classification", Scientific Data 2023: DermaMNIST, all 10,015 images of HAM10000.
    Tschandl, Rosendahl and Kittler, "The HAM10000 dataset", Scientific Data 5:180161, 2018, and
    Codella et al., arXiv:1902.03368, for its test images: what both are made of.

Both are for non-commercial use, with attribution; a user's machine holds them, this package never.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fpbench import ResourceError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Archive:
    """One npz file with {train,val,test}_{images,labels}, known by its checksum.

    folder:   its folder in $FPBENCH_DATA and in our cache.
    checksum: "md5:..." or "sha256:...".
    sizes:    images in train, val and test.
    summary:  what results call it.
    """

    folder: str
    file: str
    checksum: str
    sizes: tuple[int, int, int]
    summary: str


ARCHIVES = {
    "dermamnist": Archive(
        folder="dermamnist",
        file="dermamnist.npz",
        checksum="md5:0744692d530f8e62ec473284d019b0c7",
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
    archive = ARCHIVES[name]
    path = found(archive) or _fetched(name)
    # Read once, then hashed: what is parsed is what was checked. Arrays of objects stay unread.
    data = path.read_bytes()
    algorithm, _, expected = archive.checksum.partition(":")
    actual = hashlib.new(algorithm, data).hexdigest()
    if actual != expected:
        raise ResourceError(
            f"expected {name} with {algorithm} {expected} in {path}, got {len(data):,} bytes with "
            f"{actual}: it is truncated or another version; delete it and run again"
        )
    arrays = np.lib.npyio.NpzFile(io.BytesIO(data), allow_pickle=False)
    return {
        split: (
            torch.from_numpy(arrays[f"{split}_images"]).permute(0, 3, 1, 2),
            torch.from_numpy(arrays[f"{split}_labels"]).flatten().long(),
        )
        for split in SPLITS
    }


def found(archive: Archive) -> Path | None:
    """Where an archive lies on this machine, whole or not; None if nowhere."""
    return next((path for path in places(archive) if path.is_file()), None)


def places(archive: Archive) -> Iterator[Path]:
    """Where an archive may lie, in the order of looking."""
    if own := os.environ.get("FPBENCH_DATA"):
        yield Path(own) / archive.folder / archive.file
    yield _cache(archive) / archive.file
    yield Path.home() / ".medmnist" / archive.file  # where the medmnist package keeps its own


def _cache(archive: Archive) -> Path:
    import pooch

    return Path(pooch.os_cache("fpbench")) / archive.folder


def _fetched(name: str) -> Path:
    """Fetch DermaMNIST from where its authors publish it; nobody publishes the other one."""
    archive = ARCHIVES[name]
    places = f"$FPBENCH_DATA/{archive.folder} or {_cache(archive)}"
    others = [other for other in ARCHIVES if other != name and found(ARCHIVES[other])]
    advice = f"; {others[0]} is here: `-o scenario.dataset={others[0]}`" if others else ""
    missing = f"expected {archive.file} in {places}, found none"
    if name != "dermamnist":
        raise ResourceError(f"{missing}; put it there{advice}")
    import pooch
    from medmnist import INFO  # it imports half of scikit-image and scikit-learn

    try:
        return Path(
            pooch.retrieve(
                INFO[name]["url"], known_hash=archive.checksum, fname=archive.file,
                path=_cache(archive),
            )
        )  # fmt: skip
    except (OSError, ValueError) as error:
        # requests' errors are OSErrors; pooch raises ValueError for bytes of another checksum.
        reason = str(error).split("\n")[0][:200]
        raise ResourceError(
            f"{missing}, and it could not be fetched ({type(error).__name__}: {reason}); fetch it "
            f"elsewhere from {INFO[name]['url']} and put it there{advice}"
        ) from None
