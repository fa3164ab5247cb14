"""Small networks that read token ids (n, length): a bag of embeddings, an LSTM, a transformer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .reviews import PADDING


class Bag(nn.Module):
    """The mean of the tokens' embeddings, and a hidden layer. The order of tokens plays no part."""

    def __init__(self, vocabulary: int, n_classes: int, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width, padding_idx=PADDING)
        self.head = _head(width, n_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        there = (tokens != PADDING).unsqueeze(-1)
        mean = (self.embed(tokens) * there).sum(1) / there.sum(1).clamp_min(1)
        scores: Tensor = self.head(mean)
        return scores


class Recurrent(nn.Module):
    """An LSTM (Hochreiter and Schmidhuber, 1997); the largest value of each of its outputs over all
    tokens, and a hidden layer."""

    def __init__(self, vocabulary: int, n_classes: int, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width, padding_idx=PADDING)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.head = _head(width, n_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        states, _ = self.lstm(self.embed(tokens))
        missing = (tokens == PADDING).unsqueeze(-1)
        # At least -1, the least output of an LSTM, so that a text without tokens has an answer.
        scores: Tensor = self.head(states.masked_fill(missing, -1).amax(1))
        return scores


class Transformer(nn.Module):
    """A block of self-attention with two heads (Vaswani et al., 2017). Its answer is read at an
    additional first place, as in BERT, which attends to every token that is there."""

    def __init__(self, vocabulary: int, n_classes: int, length: int, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width, padding_idx=PADDING)
        self.first = nn.Parameter(0.1 * torch.randn(width))
        self.place = nn.Parameter(0.1 * torch.randn(length, width))
        self.block = nn.TransformerEncoderLayer(
            width, nhead=2, dim_feedforward=2 * width, dropout=0.0, batch_first=True,
            norm_first=True,
        )  # fmt: skip
        self.head = _head(width, n_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        first = self.first.expand(len(tokens), 1, -1)
        states = torch.cat([first, self.embed(tokens) + self.place], 1)
        missing = nn.functional.pad(tokens == PADDING, (1, 0), value=False)
        scores: Tensor = self.head(self.block(states, src_key_padding_mask=missing)[:, 0])
        return scores


def _head(width: int, n_classes: int) -> nn.Sequential:
    """Return a hidden layer and the output layer."""
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, n_classes))
