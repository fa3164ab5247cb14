"""Tools for a model's owner: make a fingerprint of the model, and judge suspects by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..api.hooks import hookimpl

if TYPE_CHECKING:
    from ..api.recipe import Recipe


@hookimpl
def fpbench_recipes() -> list[type[Recipe]]:
    from .given import Given

    return [Given]
