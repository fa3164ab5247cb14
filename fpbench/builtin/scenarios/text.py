"""Reviews of foods: a classifier of texts, for methods that need no images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fpbench import Classification, Pool

from . import reviews
from .text_networks import Bag, Recurrent, Transformer

VOCABULARY = 2000
LENGTH = 64


@dataclass(frozen=True)
class Text(Classification):
    """Whether a review of a food gave five stars, from its first 64 words.

    Inputs are ids of words: 0 for none, 1 for a word that is not among the 1,998 most frequent ones
    of the owner's reviews. Of 3,980 reviews half are the owner's ("train") and half the attacker's
    ("public"), dealt once; "test" is 993 others. "irrelevant" is the titles and materials of 4,284
    works of the Tate Gallery, and whether a work was made after 2000.

    The architectures are a mean of embeddings (bag), an LSTM (lstm) and a block of self-attention
    (transformer).
    """

    name = "text"
    summary = (
        "small_fine_foods (R, modeldata): 4,973 Amazon reviews of foods, 2 classes (McAuley and "
        "Leskovec 2013)"
    )
    input_shape = (LENGTH,)
    output_shape = (2,)
    input_range = (0, VOCABULARY - 1)
    input_kind = "categorical"
    pool_sizes = {"train": 1990, "public": 1990, "test": 993, "irrelevant": 4284}  # noqa: RUF012
    architectures = {  # noqa: RUF012
        "bag": lambda: Bag(VOCABULARY, 2),
        "lstm": lambda: Recurrent(VOCABULARY, 2),
        "transformer": lambda: Transformer(VOCABULARY, 2, LENGTH),
    }

    @property
    def files(self) -> Mapping[str, Sequence[Path]]:
        return {name: file.places() for name, file in reviews.files().items()}

    def load(self) -> Mapping[str, Pool]:
        tables = reviews.reviews()
        texts, stars = tables["training_data"]
        order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0)).tolist()
        half = len(order) // 2
        own = [texts[i] for i in order[:half]]
        known = reviews.vocabulary(own, VOCABULARY)
        parts = {
            "train": (own, stars[order[:half]]),
            "public": ([texts[i] for i in order[half:]], stars[order[half:]]),
            "test": tables["testing_data"],
            "irrelevant": reviews.works(),
        }
        return {
            name: Pool(reviews.ids(read, known, LENGTH), truth)
            for name, (read, truth) in parts.items()
        }
