"""The process that runs a command: whose stdout it is, and how soon it ends when it is told to."""

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
"""Seconds after which a stop is no longer waited for."""

STOPPED = "stopped; the same command goes on from here"

_STDOUT = "fpbench.stdout"


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM. No plugin's mistake: whoever catches those lets it pass."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGINT and SIGTERM end the block by raising Stopped, and after GRACE seconds the process,
    whatever it is doing then: a call that does not return, a plugin that catches everything.

    Nothing is lost by that. What is finished is on disk, what is not has no name yet.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    import psutil  # noqa: F401  # so that it is there when there is no time for it

    def stop(number: int, _: object) -> None:
        atexit.register(_leave, 128 + number)  # the last to come is the first to be called
        raise Stopped(number)

    before = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    # A handler of ours waits for the interpreter; this pipe is written to at once.
    old = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    threading.Thread(target=_end_after, args=(told,), name="fpbench-stop", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(old)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(tell)  # ends the thread, unless it has begun to count


def _leave(exit_code: int) -> None:
    """End without taking torch's modules down one by one, which is a second or more."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(exit_code)


def _end_after(told: int) -> None:
    while (number := os.read(told, 1)) and number[0] not in (signal.SIGINT, signal.SIGTERM):
        pass  # some other signal that Python hears of
    os.close(told)
    if number:
        threading.Event().wait(GRACE)
        with suppress(Exception):
            import psutil

            for child in psutil.Process().children(recursive=True):
                child.kill()
        os.write(2, f"\n{STOPPED}\n".encode())
        os._exit(128 + number[0])


def json_alone(ctx: click.Context, _: click.Parameter, as_json: bool) -> bool:
    """Callback of --json: stdout is for one JSON object, what plugins print goes to stderr."""
    if as_json:
        ctx.meta[_STDOUT] = ctx.with_resource(_own_stdout())
    return as_json


def stdout() -> IO[Any] | None:
    """Where the JSON object goes; None for where everything goes."""
    found: IO[Any] | None = click.get_current_context().meta.get(_STDOUT)
    return found


@contextmanager
def _own_stdout() -> Iterator[IO[Any]]:
    """Stdout as it was; meanwhile all that is printed, by Python or below it, goes to stderr."""
    ours = sys.stdout
    try:
        below = ours.fileno()
    except (io.UnsupportedOperation, AttributeError):
        below = None  # a test's
    if below != 1:
        with redirect_stdout(sys.stderr):
            yield ours
        return
    ours.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr), os.fdopen(os.dup(kept), "w", encoding="utf-8") as out:
            yield out
    finally:
        ours.flush()
        os.dup2(kept, 1)
        os.close(kept)
