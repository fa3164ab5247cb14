"""The terminal, safe from the texts of others: names in suites, what plugins say."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from ..api.errors import printable


class Screen(Console):
    """A console on which text is printed and does nothing else: no cursor moves, no colour, no
    direction but those that are ours. Markup in names is for `rich.markup.escape`."""

    def render_str(self, text: str, **kwargs: Any) -> Text:
        """All strings pass here on their way to the screen, those in tables too."""
        return super().render_str(printable(text), **{**kwargs, "emoji": False})
