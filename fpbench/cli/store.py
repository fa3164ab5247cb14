"""The commands for a store: list, verify, prune, export, import."""

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
    """Manage finished work: list, verify, prune, export, import."""


@store.command("list")
@options.STORE
@options.JSON
def list_(store_dir: Path, as_json: bool) -> None:
    """Show what a store holds: models by scenario and kind, trials, files set aside."""
    from ..store.inventory import summarise
    from ..store.store import Store

    summary = summarise(Store(store_dir))
    if as_json:
        options.answer(summary)
        return
    rows = [(g["scenario"], g["kind"], g["count"], g["bytes"]) for g in summary["models"]]
    for name in ("trials", "set_aside", "temporary"):
        if summary[name]["count"]:
            rows.append((name.replace("_", " "), "", *summary[name].values()))
    _show_table(("what", "kind", "number", "size"), rows)
    for path in summary["damaged"]:
        click.echo(f"set aside because it was damaged: {path}")


@store.command()
@options.STORE
@options.JSON
def verify(store_dir: Path, as_json: bool) -> None:
    """Read every byte of a store and set aside what is damaged; exit 1 if anything is damaged.

    The next run makes anew what it needs.
    """
    from dataclasses import asdict

    from ..store.inventory import verify
    from ..store.store import Store

    opened = Store(store_dir)
    with _progress_bar("verified", _count(opened)) as step:
        verdict = verify(opened, step)
    if as_json:
        options.answer(asdict(verdict))
    else:
        for path, aside in verdict.damaged.items():
            if aside is None:  # a warning named the others when they were set aside
                click.echo(f"{path} was damaged in the store; a run is making it anew")
        for newer in verdict.newer:
            click.echo(f"not checked: {newer}")
        click.echo(f"{verdict.models} models, {verdict.trials} trials, "
                   f"{len(verdict.damaged)} damaged")  # fmt: skip
    sys.exit(1 if verdict.damaged else 0)


@store.command()
@click.option("--keep", "first", type=options.PATH, multiple=True, metavar="SUITE...",
              help="Keep the models and trials of these suites.")  # fmt: skip
@click.argument("more", nargs=-1, type=options.PATH, metavar="")
@options.STORE
@options.PLUGIN
@click.option("--dry-run", is_flag=True, help="Show what would be removed; remove nothing.")
@click.option("--yes", is_flag=True, help="Remove without asking.")
@options.JSON
def prune(
    first: tuple[Path, ...], more: tuple[Path, ...], store_dir: Path, plugins: tuple[Path, ...],
    dry_run: bool, yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Remove models and trials of other suites, damaged files, and files that dead runs left.

    Files that a run in progress uses or makes stay.
    """
    from ..store.inventory import MODEL, TRIAL
    from ..store.prune import find_waste, remove
    from ..store.store import Store

    if not first:
        raise click.UsageError("expected --keep SUITE..., the suites whose models and trials stay")
    opened = Store(store_dir)
    unneeded = find_waste(opened, _needed((*first, *more), plugins, opened))
    size = sum(item.bytes for item in unneeded)
    if not as_json:
        for what in dict.fromkeys(item.kind for item in unneeded):
            same = [item for item in unneeded if item.kind == what]
            plural = f"{what}s" if what in (MODEL, TRIAL) else what
            click.echo(f"{len(same)} {plural}, {sum(item.bytes for item in same):,} bytes")
        click.echo(f"to remove: {size:,} bytes in {len(unneeded)}")
    if dry_run:
        if as_json:
            options.answer({"found": len(unneeded), "bytes": size, "removed": 0})
        return
    if unneeded and not yes:
        click.confirm("remove them?", abort=True, err=True)
    removed = remove(opened, unneeded)
    if as_json:
        options.answer({"found": len(unneeded), "bytes": removed.bytes,
                        "removed": len(removed.gone), "in_use": len(removed.kept)})  # fmt: skip
    else:
        used = f"; {len(removed.kept)} stay because a run uses them" if removed.kept else ""
        click.echo(f"removed {removed.bytes:,} bytes in {len(removed.gone)}{used}")


@store.command()
@_ARCHIVE
@_SUITES
@click.option("--suite", "released", type=options.PATH, metavar="SUITE",
              help="Release the zoo of this suite: write a suite, a table of given models, a card "
                   "and checksums beside the archive.")  # fmt: skip
@click.option("--licence", metavar="TEXT", help="The licence of the models, for the card.")
@options.STORE
@options.PLUGIN
@options.JSON
def export(
    archive: Path, suites: tuple[Path, ...], released: Path | None, licence: str | None,
    store_dir: Path, plugins: tuple[Path, ...], as_json: bool,
) -> None:  # fmt: skip
    """Write a store's models and trials into one file: all, or those of the given suites.

    Equal models and trials give equal bytes. Damaged ones are left out, and the exit code is 1.
    """
    from ..store.archive import export
    from ..store.inventory import MODEL
    from ..store.store import Store

    if released and suites:
        raise click.UsageError("expected suites to export, or --suite SUITE to release, got both")
    opened = Store(store_dir)
    release = None
    if released:
        from ..engine.release import Release

        loaded = session.load_suite(released, plugins, (), ())[1]
        release = Release.of(loaded, opened, archive, licence)
        suites = (released,)
    needed = _needed(suites, plugins, opened) if suites else None

    def is_needed(item: Item) -> bool:
        if needed is None:
            return True
        return item.path in needed.folders if item.kind == MODEL else item.name in needed.keys

    with _progress_bar("verified", _count(opened)) as step:
        moved = export(opened, archive, is_needed, step)
    if release and not moved.left_out:
        for path in release.write(moved.trials):
            click.echo(f"wrote {path}", err=as_json)
    _show_moved(moved, as_json, f"exported to {archive}")
    sys.exit(1 if moved.left_out else 0)


@store.command("import")
@_ARCHIVE
@options.STORE
@options.JSON
def import_(archive: Path, store_dir: Path, as_json: bool) -> None:
    """Put an exported zoo into a store, after all of it is verified. Kept work is not replaced.

    The same command continues an interrupted import.
    """
    from ..store.archive import import_
    from ..store.store import Store

    with _progress_bar("models and trials") as step:
        moved = import_(Store(store_dir), archive, step)
    _show_moved(moved, as_json, f"imported into {store_dir}")


def _needed(suites: Sequence[Path], plugins: tuple[Path, ...], store: Store) -> Needed:
    from ..engine.key import needed_by

    return needed_by((session.load_suite(suite, plugins, (), ())[1] for suite in suites), store)


def _count(store: Store) -> int:
    from ..store.inventory import MODEL, TRIAL, items

    return sum(item.kind in (MODEL, TRIAL) for item in items(store))


def _show_moved(moved: Any, as_json: bool, done: str) -> None:
    from dataclasses import asdict

    if as_json:
        options.answer(asdict(moved))
        return
    for path in moved.left_out:
        click.echo(f"left out because it is damaged or of a later fpbench: {path}")
    kept = f", {moved.kept} models were in the store" if moved.kept else ""
    click.echo(f"{done}: {moved.models} models, {moved.trials} trials{kept}; "
               f"{moved.bytes:,} bytes in all")  # fmt: skip


@contextmanager
def _progress_bar(what: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """Show a progress bar on stderr if it is a terminal; yield the function that advances it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


def _show_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
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
