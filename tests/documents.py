"""The documents: their blocks of code, and a clone in which what they say is done."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("plugins/*/README.md")])

QUICK = """
name: quickstart
scenario: digits
api: probs
repeats: 3
recipes: {train: {epochs: 6}}
target: {recipe: train, model: mlp}
zoo:
  positives:
    - {recipe: finetune, layers: last, epochs: 1, copies: 4}
  negatives:
    - {recipe: train, model: mlp, copies: 4}
methods:
  - {method: akh}
  - {method: random}
"""


def blocks(page: Path) -> list[tuple[str, str]]:
    """A document's blocks of code in their order: language and text."""
    return re.findall(r"```(\w+)\n(.*?)```", page.read_text(), re.DOTALL)


def lines(text: str) -> list[str]:
    """The commands of a console block, those of ours without what stands before `fpbench`."""
    ours = r"(?:\$ )?(?:[A-Z_]+=\S+ )?(?:uv run (?:--\S+ \w+ )*)?(fpbench .*)"
    rows = text.replace("\\\n", " ").splitlines()
    return [found[1] if (found := re.match(ours, row)) else row for row in rows]


def clone(folder: Path) -> Path:
    """A clone's place, with all suites but for a quickstart of seconds."""
    shutil.copytree(ROOT / "suites", folder / "suites", dirs_exist_ok=True)
    (folder / "suites" / "quickstart.yaml").write_text(QUICK)
    return folder
