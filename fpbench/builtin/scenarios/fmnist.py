"""FashionMNIST's files: found or fetched, checked, read.

Xiao, Rasul and Vollgraf, *Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms*, 2017; MIT licence.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path

import numpy as np

from fpbench import ResourceError

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


def read(name: str) -> np.ndarray:
    """One file as bytes: images (n, 28, 28) or labels (n,). Raises ResourceError."""
    path = found(name)
    data = path.read_bytes()  # read once: what is hashed is what is parsed
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != SHA256[name]:
        raise ResourceError(
            f"expected FashionMNIST's {name} with sha256 {SHA256[name]}, found {path} with "
            f"{sha256}; delete the file, and the official one will be fetched"
        )
    raw = gzip.decompress(data)
    # The idx format: two zeros, the type, the number of dimensions, each one's size, the values.
    shape = np.frombuffer(raw, ">i4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def places(name: str) -> list[Path]:
    """Where a file may lie, in the order of looking; the last is where it is fetched to."""
    import pooch

    own = os.environ.get("FPBENCH_DATA")
    cache = Path(pooch.os_cache("fpbench"))
    return [root / "fashion-mnist" / name for root in ([Path(own)] if own else []) + [cache]]


def found(name: str) -> Path:
    """Where a file lies on this machine, fetched if need be. Raises ResourceError."""
    import pooch

    for path in places(name):
        if path.is_file():
            return path
    cache = places(name)[-1].parent
    pooch.get_logger().setLevel("WARNING")
    try:
        return Path(
            pooch.retrieve(
                URL + name, known_hash=f"sha256:{SHA256[name]}", fname=name, path=cache,
                downloader=pooch.HTTPDownloader(timeout=30),
            )
        )  # fmt: skip
    except (OSError, ValueError) as error:  # no network, or bytes of another checksum
        raise ResourceError(
            f"expected FashionMNIST's {name} in $FPBENCH_DATA/fashion-mnist or {cache}, found none "
            f"and could not fetch {URL + name} ({type(error).__name__}); put the file there"
        ) from None
