"""What generators draw: the target and a suspect of every kind, asked the same codes."""

from __future__ import annotations

import io
import logging
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch

from ..api.recipe import Recipe
from ..api.scenario import Generation
from .files import write
from .plan import Plan
from .store import Store

CODES = 8

log = logging.getLogger("fpbench")


def keep_samples(
    plan: Plan, gone: Collection[str], *, store: Store, folder: Path, device: str
) -> None:
    """Write samples.npz into a run's folder, if its models draw pictures.

    rows (r, 2): a kind, and the model that stands for it; images (r, CODES, height, width) or
    (r, CODES, height, width, 3), bytes. The results are on disk: what goes wrong costs one line.

    gone: digests of models that could not be made.
    """
    scenario = plan.suite.scenario
    if not isinstance(scenario, Generation) or plan.suite.target.digest in gone:
        return
    kinds: dict[str, list[Recipe]] = {"target": [plan.suite.target]}
    for recipe in plan.models[1:]:
        if recipe.digest not in gone:
            kinds.setdefault(recipe.kind, []).append(recipe)
    # The middle of a kind, whose members a suite mostly sweeps from mild to severe.
    chosen = {kind: members[len(members) // 2] for kind, members in kinds.items()}
    try:
        codes = scenario.data("test").inputs[:CODES].to(device)
        images = []
        for recipe in chosen.values():
            with torch.no_grad():
                output = store.load(recipe, scenario, torch.device(device))(codes)
            if (pictures := scenario.pictures(output)) is None:
                return
            images.append((255 * pictures.clamp(0, 1)).round().byte().cpu().numpy())
        rows = [(kind, str(recipe).split(" > ")[-1]) for kind, recipe in chosen.items()]
        file = io.BytesIO()
        np.savez_compressed(file, rows=np.array(rows), images=np.stack(images))
        write(folder / "samples.npz", file.getvalue())
    except Exception as error:
        log.warning("no samples: %s: %s", type(error).__name__, error)
