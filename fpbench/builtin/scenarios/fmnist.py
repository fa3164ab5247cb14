"""The files of FashionMNIST: where they are, and how they are read.

Xiao, Rasul and Vollgraf, *Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms*, 2017; MIT licence.
"""

from __future__ import annotations

import gzip

import numpy as np

from fpbench import DataFile

URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"

SHA256 = {
    "train-images-idx3-ubyte.gz": (
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
    ),
    "train-labels-idx1-ubyte.gz": (
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
    ),
}


def file(name: str) -> DataFile:
    """Return one of the files in SHA256."""
    return DataFile("fashion-mnist", name, f"sha256:{SHA256[name]}", URL + name)


def read(name: str) -> np.ndarray:
    """Read a file as bytes: images (n, 28, 28) or labels (n,). Raises ResourceError."""
    raw = gzip.decompress(file(name).read())
    # The idx format: two zeros, the type, the number of dimensions, the size of each, the values.
    shape = np.frombuffer(raw, ">i4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)
