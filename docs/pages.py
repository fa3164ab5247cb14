"""What the site needs beyond docs/: every plugin's README as a page, and links that lead there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent


def on_files(files: Any, config: Any) -> Any:
    """Add the READMEs as plugins/NAME.md."""
    for readme in sorted(ROOT.glob("plugins/*/README.md")):
        page = f"plugins/{readme.parent.name}.md"
        files.append(File.generated(config, page, content=readme.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead links that leave docs/ to a page of the site."""
    return re.sub(r"\]\(\.\./plugins/(\w+)/README\.md\)", r"](plugins/\1.md)", markdown)
