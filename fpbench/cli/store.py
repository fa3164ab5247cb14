"""The commands that look after a store: list, verify, prune, export, import."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import session
from . import options

if TYPE_CHECKING:
    from ..store.inventory import Item
    from ..store.prune import Needed
    from ..store.store import Store

_SUITES = click.argument("suites", nargs=-1, type=options.PATH, metavar="[SUITE]...")
_ARCHIVE = click.argument("archive", type=options.FILE)


@click.group()
def store() -> None:
    """Look after finished work: list, verify, prune, export, import."""


@store.command("list")
@options.STORE
@options.JSON
def list_(store_dir: Path, as_json: bool) -> None:
    """Say what a store holds: models by scenario and kind, trials, what was set aside."""
    from ..store.inventory import summarise
    from ..store.store import Store

    found = summarise(Store(store_dir))
    if as_json:
        options.answer(found)
        return
    rows = [(g["scenario"], g["kind"], g["count"], g["bytes"]) for g in found["models"]]
    for name in ("trials", "set_aside", "temporary"):
        if found[name]["count"]:
            rows.append((name.replace("_", " "), "", *found[name].values()))
    _table(("what", "kind", "number", "size"), rows)
    for path in found["damaged"]:
        click.echo(f"set aside, for it was damaged: {path}")


@store.command()
@options.STORE
@options.JSON
def verify(store_dir: Path, as_json: bool) -> None:
    """Read every byte of a store; set aside what is damaged, and exit 1 if anything was.

    The next run makes again what it needs of it.
    """
    from dataclasses import asdict

    from ..store.inventory import verify
    from ..store.store import Store

    found = Store(store_dir)
    with _bar("verified", _count(found)) as step:
        verdict = verify(found, step)
    if as_json:
        options.answer(asdict(verdict))
    else:
        for path, aside in verdict.damaged.items():
            if aside is None:  # the others were told when they were set aside
                click.echo(f"{path} was damaged in the store; a run is making it anew")
        for newer in verdict.newer:
            click.echo(f"left alone: {newer}")
        click.echo(f"{verdict.models} models, {verdict.trials} trials, "
                   f"{len(verdict.damaged)} damaged")  # fmt: skip
    sys.exit(1 if verdict.damaged else 0)


@store.command()
@click.option("--keep", "first", type=options.PATH, multiple=True, metavar="SUITE...",
              help="Keep what these suites name.")  # fmt: skip
@click.argument("more", nargs=-1, type=options.PATH, metavar="")
@options.STORE
@options.PLUGIN
@click.option("--dry-run", is_flag=True, help="Say what would be removed; remove nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.JSON
def prune(
    first: tuple[Path, ...], more: tuple[Path, ...], store_dir: Path, plugins: tuple[Path, ...],
    dry_run: bool, yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Remove models and trials that no kept suite names, what was set aside, what dead runs left.

    What a run in progress uses or is making stays.
    """
    from ..store.inventory import MODEL, TRIAL
    from ..store.prune import find_waste, remove
    from ..store.store import Store

    if not first:
        raise click.UsageError("expected --keep SUITE..., the suites whose models and trials stay")
    found = Store(store_dir)
    doomed = find_waste(found, _needed((*first, *more), plugins, found))
    size = sum(item.bytes for item in doomed)
    if not as_json:
        for what in dict.fromkeys(item.kind for item in doomed):
            mine = [item for item in doomed if item.kind == what]
            plural = f"{what}s" if what in (MODEL, TRIAL) else what
            click.echo(f"{len(mine)} {plural}, {sum(i.bytes for i in mine):,} bytes")
        click.echo(f"to remove: {size:,} bytes in {len(doomed)}")
    if dry_run:
        if as_json:
            options.answer({"found": len(doomed), "bytes": size, "removed": 0})
        return
    if doomed and not yes:
        click.confirm("remove them?", abort=True, err=True)
    removed = remove(found, doomed)
    if as_json:
        told = {"found": len(doomed), "bytes": removed.bytes, "removed": len(removed.gone),
                "in_use": len(removed.kept)}  # fmt: skip
        options.answer(told)
    else:
        used = f"; {len(removed.kept)} stay, for a run uses them" if removed.kept else ""
        click.echo(f"removed {removed.bytes:,} bytes in {len(removed.gone)}{used}")


@store.command()
@_ARCHIVE
@_SUITES
@options.STORE
@options.PLUGIN
@options.JSON
def export(
    archive: Path, suites: tuple[Path, ...], store_dir: Path, plugins: tuple[Path, ...],
    as_json: bool,
) -> None:  # fmt: skip
    """Write a store's models and trials into one file: all of them, or what some suites name.

    Equal models and trials give equal bytes. What is damaged is left out, and exit is 1.
    """
    from ..store.archive import export
    from ..store.inventory import MODEL
    from ..store.store import Store

    found = Store(store_dir)
    needed = _needed(suites, plugins, found) if suites else None

    def wanted(item: Item) -> bool:
        if needed is None:
            return True
        return item.path in needed.folders if item.kind == MODEL else item.name in needed.keys

    with _bar("verified", _count(found)) as step:
        moved = export(found, archive, wanted, step)
    _told(moved, as_json, f"exported to {archive}")
    sys.exit(1 if moved.left_out else 0)


@store.command("import")
@_ARCHIVE
@options.STORE
@options.JSON
def import_(archive: Path, store_dir: Path, as_json: bool) -> None:
    """Put an exported zoo into a store. All of it is verified first; what the store has stays.

    Interrupted, it goes on with the same command.
    """
    from ..store.archive import import_
    from ..store.store import Store

    with _bar("models and trials") as step:
        moved = import_(Store(store_dir), archive, step)
    _told(moved, as_json, f"imported into {store_dir}")


def _needed(suites: Sequence[Path], plugins: tuple[Path, ...], store: Store) -> Needed:
    from ..engine.key import needed_by

    return needed_by((session.load_suite(suite, plugins, (), ())[1] for suite in suites), store)


def _count(store: Store) -> int:
    from ..store.inventory import MODEL, TRIAL, items

    return sum(item.kind in (MODEL, TRIAL) for item in items(store))


def _told(moved: Any, as_json: bool, done: str) -> None:
    from dataclasses import asdict

    if as_json:
        options.answer(asdict(moved))
        return
    for path in moved.left_out:
        click.echo(f"left out, for it is damaged or of a later fpbench: {path}")
    kept = f", {moved.kept} models were there" if moved.kept else ""
    click.echo(f"{done}: {moved.models} models, {moved.trials} trials{kept}; "
               f"{moved.bytes:,} bytes in all")  # fmt: skip


@contextmanager
def _bar(what: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr, in a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    from rich.console import Console
    from rich.filesize import decimal
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in head:
        table.add_column(name, justify="right" if name in ("number", "size") else "left")
    for what, kind, number, size in rows:
        table.add_row(escape(what), escape(kind), str(number), decimal(size))
    Console(highlight=False).print(table)


COMMANDS = (store,)
