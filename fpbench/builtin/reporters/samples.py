"""A figure of what generators draw: a row per kind of suspect, a column per latent code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INCH = 0.55
"""An image's side in the figure."""


def draw_samples(file: Path) -> Figure:
    """The figure of a run's samples.npz."""
    from matplotlib.figure import Figure

    with np.load(file, allow_pickle=False) as found:
        names, images = found["rows"], found["images"]
    rows, columns, height, width = images.shape[:4]
    # A border of one white pixel around each.
    border = [(0, 0), (0, 0), (1, 1), (1, 1), *[(0, 0)] * (images.ndim - 4)]
    framed = np.pad(images, border, constant_values=255).swapaxes(1, 2)
    mosaic = framed.reshape(rows * (height + 2), columns * (width + 2), *images.shape[4:])
    figure = Figure(figsize=(INCH * columns + 3.4, INCH * rows + 0.2), layout="constrained")
    axes = figure.subplots()
    axes.imshow(mosaic, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    ticks = [(height + 2) * (row + 0.5) - 0.5 for row in range(rows)]
    axes.set_yticks(ticks, [f"{kind}\n{model}" for kind, model in names], fontsize="x-small",
                    parse_math=False)  # fmt: skip
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    return figure
