"""What tests of the store share: a finished one to copy, and ways to damage it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from conftest import TOYS, Desk
from fpbench.cli import main


def truncate(raw: bytes) -> bytes:
    return raw[: len(raw) // 2]


def flip(raw: bytes) -> bytes:
    middle = len(raw) // 2
    return raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :]


def empty(raw: bytes) -> bytes:
    return b""


DAMAGES: list[Callable[[bytes], bytes]] = [truncate, flip, empty]


def copied(desk: Desk, folder: Path) -> Desk:
    """A desk with the same suite and a store of its own that holds the same."""
    shutil.copytree(desk.folder, folder / "desk", dirs_exist_ok=True)
    return Desk(folder / "desk")


def ask(desk: Desk, *words: object) -> Result:
    """`fpbench store ...` on a desk's store."""
    where = ("--store", desk.folder / "store")
    return CliRunner().invoke(main, ["store", *map(str, (*words, *where))])


def told(desk: Desk, *words: object, exit_code: int = 0) -> dict[str, Any]:
    """What `fpbench store ... --json` says."""
    result = ask(desk, *words, "--json")
    assert result.exit_code == exit_code, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def prune(desk: Desk, *words: object, exit_code: int = 0) -> dict[str, Any]:
    """Likewise, of `prune`; keeps the desk's own suite."""
    keep = ("--keep", desk.folder / "suite.yaml", "-p", TOYS)
    return told(desk, "prune", *keep, "--yes", *words, exit_code=exit_code)


def leftovers(desk: Desk) -> list[Path]:
    """Return what no run leaves in a store: half-written files, damage, leases."""
    store = desk.folder / "store"
    return [*store.rglob(".tmp-*"), *store.rglob("*.damaged-*"), *store.glob("running/*")]


def models(desk: Desk) -> list[Path]:
    """The folders of the models in a desk's store."""
    return sorted((desk.folder / "store" / "models").glob("*/??/" + 64 * "?"))
