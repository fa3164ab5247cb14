"""A figure of what generators draw: a row per kind of suspect, a column per latent code."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INCH = 0.55
"""An image's side in the figure."""

LETTER = 0.062
"""A letter's width in the labels."""


def draw_samples(file: Path) -> Figure:
    """The figure of a run's samples.npz."""
    from matplotlib.figure import Figure

    found = np.lib.npyio.NpzFile(io.BytesIO(file.read_bytes()), allow_pickle=False)
    names, images = found["rows"], found["images"]
    rows, columns, height, width = images.shape[:4]
    # A border of one white pixel around each.
    border = [(0, 0), (0, 0), (1, 1), (1, 1), *[(0, 0)] * (images.ndim - 4)]
    framed = np.pad(images, border, constant_values=255).swapaxes(1, 2)
    mosaic = framed.reshape(rows * (height + 2), columns * (width + 2), *images.shape[4:])
    # Laid out by hand: matplotlib's layouts cut long labels off beside axes of a fixed aspect.
    label = LETTER * max(len(name) for name in names.flat)
    whole = label + INCH * columns
    figure = Figure(figsize=(whole, INCH * rows))
    axes = figure.add_axes((label / whole, 0, 1 - label / whole, 1))
    axes.imshow(mosaic, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    ticks = [(height + 2) * (row + 0.5) - 0.5 for row in range(rows)]
    axes.set_yticks(ticks, [f"{kind}\n{model}" for kind, model in names], fontsize="x-small",
                    parse_math=False)  # fmt: skip
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    return figure
