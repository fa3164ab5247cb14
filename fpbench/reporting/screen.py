"""A terminal that texts of suites and plugins cannot control."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from ..api.errors import printable


class Screen(Console):
    """A console that removes control characters from text: cursor moves, colours, directions.

    Markup in names has to be escaped with `rich.markup.escape`.
    """

    def render_str(self, text: str, **kwargs: Any) -> Text:
        """Return a printable text. rich calls this for every string, also in tables."""
        return super().render_str(printable(text), **{**kwargs, "emoji": False})
