"""The process of a command: how signals stop it, and what it writes to stdout."""

from __future__ import annotations

import atexit
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import IO, Any

import click

GRACE = 4.0
"""Seconds between a signal to stop and the forced end of the process."""

STOPPED = "stopped; the same command goes on from here"

_STDOUT = "fpbench.stdout"


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM. Code that catches the errors of plugins must not catch it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise Stopped in the block on SIGINT or SIGTERM; after GRACE seconds, end the process.

    The process ends even in a call that does not return or a plugin that catches everything.
    Nothing is lost: finished work is on disk, and unfinished files do not have their names yet.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    import psutil  # noqa: F401  # loaded now, because `_end_after` must not take long

    def stop(number: int, _: object) -> None:
        atexit.register(_leave, 128 + number)  # the function registered last is called first
        raise Stopped(number)

    before = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # Python writes a signal's number to this pipe at once; a handler waits for the interpreter.
    old = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_end_after, args=(reading,), name="fpbench-stop", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(old)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writing)  # ends the thread, unless a signal was read


def _leave(exit_code: int) -> None:
    """End the process at once. Unloading torch's modules would take a second or more."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(exit_code)


def _end_after(pipe: int) -> None:
    """Wait for SIGINT or SIGTERM in a pipe, then GRACE seconds, and end process and children."""
    while (number := os.read(pipe, 1)) and number[0] not in (signal.SIGINT, signal.SIGTERM):
        pass  # Python writes other signals to the pipe too
    os.close(pipe)
    if number:
        threading.Event().wait(GRACE)
        with suppress(Exception):
            import psutil

            for child in psutil.Process().children(recursive=True):
                child.kill()
        os.write(2, f"\n{STOPPED}\n".encode())
        os._exit(128 + number[0])


def reserve_stdout(ctx: click.Context, _: click.Parameter, as_json: bool) -> bool:
    """Keep stdout for one JSON object if --json is given; what plugins print goes to stderr."""
    if as_json:
        ctx.meta[_STDOUT] = ctx.with_resource(_reserved_stdout())
    return as_json


def stdout() -> IO[Any] | None:
    """Return the stream for the JSON object, or None if stdout is not reserved."""
    stream: IO[Any] | None = click.get_current_context().meta.get(_STDOUT)
    return stream


@contextmanager
def _reserved_stdout() -> Iterator[IO[Any]]:
    """Yield the real stdout. In the block, all that Python or C code prints goes to stderr."""
    original = sys.stdout
    try:
        descriptor = original.fileno()
    except (io.UnsupportedOperation, AttributeError):
        descriptor = None  # a test's stream
    if descriptor != 1:
        with redirect_stdout(sys.stderr):
            yield original
        return
    original.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr), os.fdopen(os.dup(kept), "w", encoding="utf-8") as out:
            yield out
    finally:
        original.flush()
        os.dup2(kept, 1)
        os.close(kept)
