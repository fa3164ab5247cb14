"""Random changes of inputs during training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ..api.errors import InputError
from ..api.recipe import Lab, Recipe

Augment = Literal["none", "flip", "shift", "cutout", "noise", "mixup"]

OF_IMAGES = ("flip", "shift", "cutout")

NOISE = 0.1
"""Standard deviation of the noise, in standard deviations of the pool's inputs."""


class Augmenter:
    """Changes each member's batch by draws from a generator of its own.

    flip:   mirror half of the images.
    shift:  move each image by up to an eighth of its sides, and repeat its border.
    cutout: set a square of a quarter of the sides to the lowest input (DeVries and Taylor,
            arXiv 1708.04552).
    noise:  add Gaussian noise.
    mixup:  mix each input with another of the batch, and their losses likewise, by a share that is
            uniform between 0.5 and 1 (Zhang et al., arXiv 1710.09412, with alpha 1).
    """

    def __init__(self, kind: Augment, lab: Lab, recipes: Sequence[Recipe], inputs: Tensor) -> None:
        """inputs: the pool's. Raises InputError if the inputs do not allow the change."""
        shape = lab.scenario.input_shape
        if kind in OF_IMAGES and len(shape) != 3:
            raise InputError(
                f"augment: expected noise or mixup for inputs of shape {tuple(shape)}, got {kind}"
            )
        if (inputs_are := lab.scenario.input_kind) != "continuous":
            raise InputError(
                f"augment: expected none for {inputs_are} inputs, which do not mix and take no "
                f"noise, got {kind}"
            )
        self.kind = kind
        self._range = lab.scenario.input_range
        self._noise = NOISE * float(inputs.std())
        # Other numbers than those that draw the order of the batches.
        seeds = [int(torch.randint(2**62, (), generator=lab.rng(recipe))) for recipe in recipes]
        self._rngs = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, x: Tensor) -> Tensor:
        """Return changed inputs (members, n, *input_shape)."""
        return torch.stack([self._one(own, rng) for own, rng in zip(x, self._rngs, strict=True)])

    def mixing(self, n: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return each member's share (members,) of its own inputs, and the indices (members, n) of
        the inputs that they are mixed with."""
        shares = torch.stack([0.5 + 0.5 * torch.rand((), generator=rng) for rng in self._rngs])
        others = torch.stack([torch.randperm(n, generator=rng) for rng in self._rngs])
        return shares.to(device), others.to(device)

    def _one(self, x: Tensor, rng: torch.Generator) -> Tensor:
        n, (height, width) = len(x), x.shape[-2:]
        low, high = self._range
        if self.kind == "noise":
            noise = torch.randn(x.shape, generator=rng).to(x.device)
            return (x + self._noise * noise).clamp(low, high)
        if self.kind == "flip":
            flipped = (torch.rand(n, generator=rng) < 0.5).to(x.device)
            return torch.where(flipped[:, None, None, None], x.flip(-1), x)
        if self.kind == "shift":
            rows = self._moved(n, height, rng).to(x.device)
            columns = self._moved(n, width, rng).to(x.device)
            index = torch.arange(n, device=x.device)[:, None, None]
            return x.movedim(1, -1)[index, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
        hidden = [self._square(n, side, rng).to(x.device) for side in (height, width)]
        return x.masked_fill((hidden[0][:, :, None] & hidden[1][:, None, :])[:, None], low)

    @staticmethod
    def _moved(n: int, side: int, rng: torch.Generator) -> Tensor:
        """Return the indices (n, side) of the rows or columns of moved images."""
        by = torch.randint(-(side // 8), side // 8 + 1, (n, 1), generator=rng)
        return (torch.arange(side) + by).clamp(0, side - 1)

    @staticmethod
    def _square(n: int, side: int, rng: torch.Generator) -> Tensor:
        """Return which rows or columns (n, side) the square covers."""
        length = max(1, side // 4)
        first = torch.randint(0, side - length + 1, (n, 1), generator=rng)
        place = torch.arange(side)
        return (place >= first) & (place < first + length)
