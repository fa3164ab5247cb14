"""An owner's tools: a fingerprint of one's own model, and a verdict on a suspect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..api.hooks import hookimpl

if TYPE_CHECKING:
    from ..api.recipe import Recipe


@hookimpl
def fpbench_recipes() -> list[type[Recipe]]:
    from .given import Given

    return [Given]
