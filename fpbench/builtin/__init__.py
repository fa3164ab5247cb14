"""The plugins that come with fpbench. They use the same entry point and API as any other plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fpbench import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fpbench import Executor, Fingerprinter, Recipe, Scenario


@hookimpl
def fpbench_scenarios() -> list[type[Scenario]]:
    from .scenarios.arrays import Arrays
    from .scenarios.digits import Digits
    from .scenarios.fashion import Fashion
    from .scenarios.images import Images
    from .scenarios.recorded import Recorded
    from .scenarios.skin import Skin
    from .scenarios.table import Table
    from .scenarios.text import Text
    from .scenarios.warfarin import Warfarin

    abstract: Any = [Arrays, Table]  # they make a classification or a regression
    return [Digits, Fashion, Recorded, Skin, Text, Warfarin, Images, *abstract]


@hookimpl
def fpbench_recipes() -> list[type[Recipe]]:
    from .recipes.distill import Distill
    from .recipes.finetune import Finetune, Retrain
    from .recipes.prune import PruneFilters, PruneWeights
    from .recipes.recorded import RecordedModel
    from .recipes.train import Train

    return [Train, Finetune, Retrain, PruneWeights, PruneFilters, Distill, RecordedModel]


@hookimpl
def fpbench_fingerprinters() -> list[type[Fingerprinter]]:
    from .methods.controls import Akh, Random

    return [Random, Akh]


@hookimpl
def fpbench_executor_names() -> list[str]:
    return ["inline", "local", "ray"]


@hookimpl
def fpbench_executor(
    name: str,
    devices: Sequence[str],
    workers: int | None,
    limit: int | None,
    setup: Callable[[], None],
) -> Executor | None:
    from .executors.inline import inline
    from .executors.local import local
    from .executors.ray import cluster

    if name == "inline":
        return inline(devices, workers, limit)
    if name == "local":
        return local(devices, workers, setup)
    kind, _, need = name.partition(":")
    return cluster(need, devices, workers, setup) if kind == "ray" else None
