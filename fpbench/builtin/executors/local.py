"""The local executor: worker processes on this machine, kept from job to job."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from fpbench import InputError

from .pool import GoneError, Pool, tried

MEMORY = 3 * 2**29
"""Bytes of free memory that a worker should find: for libraries, a scenario's data, a cohort."""

GRACE = 3.0
"""Seconds that a worker has to finish writing before it is killed."""

UNGUARDED = 71
"""The exit code of a worker whose script starts workers while it is imported."""


def local(devices: Sequence[str], workers: int | None, setup: Callable[[], None]) -> Local:
    """Return a worker for every GPU, or several that share the CPU. Raises InputError.

    workers: by default as many as the machine has cores, and memory for.
    """
    if workers is None:
        return Local(devices if list(devices) != ["cpu"] else ["cpu"] * _fitting(), setup)
    if list(devices) != ["cpu"]:
        raise InputError(
            f"expected --device cpu, got {','.join(devices)}: a GPU has one worker, since "
            "a trial's seconds are a result; leave --workers out",
            "--workers",
        )
    return Local(["cpu"] * workers, setup)


def _fitting() -> int:
    """Return how many workers the cores and the free memory of this machine allow, at least one."""
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, int(psutil.virtual_memory().available // MEMORY)))


class Local(Pool["Process"]):
    """Does jobs in worker processes, one job at a time in each.

    A job that hangs, exits or runs out of memory ends its own worker only.
    """

    def __init__(self, devices: Sequence[str], setup: Callable[[], None]) -> None:
        super().__init__()
        self._free = list(devices)
        self._devices = len(devices)
        self._setup = setup
        # Importing torch takes seconds, so one process imports it and all workers fork from that
        # one, which has no other threads and has not touched a GPU. Forking the run is not safe.
        self._context: Any = mp.get_context("forkserver" if sys.platform == "linux" else "spawn")
        self._context.set_forkserver_preload([f"{__package__}.preload", "torch._dynamo"])

    def room(self) -> int:
        return self._devices

    def start(self) -> Process:
        if getattr(mp.current_process(), "_inheriting", False):
            os._exit(UNGUARDED)  # a worker that imports its script; the run explains it
        if self._context.get_start_method() == "forkserver":
            from multiprocessing import forkserver, resource_tracker

            resource_tracker.ensure_running()  # or it would undo the next line
            # The server ignores Ctrl-C until `preload` has set what it does.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            try:
                forkserver.ensure_running()
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        return Process(self._context, self._free, self._setup)

    def wait(self, workers: Sequence[Process], seconds: float | None) -> list[Process]:
        ready = wait([channel for worker in workers for channel in worker.channels], seconds)
        return [worker for worker in workers if not {*worker.channels}.isdisjoint(ready)]


class Process:
    """A worker process. It takes a device from the list of free ones and returns it at its end."""

    def __init__(self, context: Any, free: list[str], setup: Callable[[], None]) -> None:
        self._free, self._device = free, free.pop(0)
        self._pipe, far = context.Pipe()
        self._process = context.Process(target=work, args=(far, self._device, setup))
        self._process.start()
        far.close()
        self._until = 0.0
        self.channels = (self._pipe, self._process.sentinel)

    def give(self, job: Callable[..., Any], item: Any) -> None:
        try:
            self._pipe.send((job, item))
        except OSError:
            raise self._gone() from None

    def answer(self) -> Any:
        try:
            worked, value = self._pipe.recv()
        except (EOFError, OSError):
            raise self._gone() from None
        if worked:
            return value
        raise value

    def _gone(self) -> GoneError:
        self._process.join(GRACE)
        code = self._process.exitcode
        if code is None or code >= 0:
            if code == UNGUARDED:
                return GoneError(
                    "it imported the script that started it, which starts workers again; put the "
                    "calls of fpbench in that script under if __name__ == '__main__':"
                )
            return GoneError(f"its process ended with exit code {code}")
        killed = f"its process was ended by {signal.Signals(-code).name}"
        if -code == signal.SIGKILL:
            killed += ", as it is where memory runs out"
        return GoneError(killed)

    def stop(self) -> None:
        self._pipe.close()
        self._process.terminate()
        self._until = time.monotonic() + GRACE

    def end(self) -> None:
        self._process.join(max(0.0, self._until - time.monotonic()))
        # Processes that a plugin started belong to the worker's group, and may outlive it.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()  # it may not have its own group yet
        self._process.join()
        self._pipe.close()
        self._free.append(self._device)


def work(pipe: Connection, device: str, setup: Callable[[], None]) -> None:
    """Get ready, then do one job after another until the pipe is closed: a worker's process."""
    # An own group: Ctrl-C reaches only the run, and processes of plugins end with the worker.
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.dup2(2, 1)  # stdout belongs to the run: it may be JSON
    # Line by line, so that a kill loses nothing and lines of workers do not mix.
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    _end_with_the_run()

    def ready() -> None:
        if ":" in device:
            import torch

            torch.cuda.set_device(device)  # for methods that say no more than "cuda"
        setup()

    def next_job() -> Any:
        try:
            job, item = pipe.recv()
        except EOFError:
            sys.exit()  # there are no more
        # During a job, SIGTERM gives it time to finish writing; between jobs it ends at once.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            return job(item, device=device)
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    with suppress(KeyboardInterrupt, BrokenPipeError):
        pipe.send(tried(ready))
        while True:
            pipe.send(tried(next_job))


def _end_with_the_run() -> None:
    """See to it that the worker's group is killed when the run's process ends in any way."""
    run = mp.parent_process()
    assert run is not None, "a worker was not started by a run"
    if sys.platform == "linux":
        import fcntl

        # The kernel does it, so it also ends a call that never lets another thread run.
        fcntl.fcntl(run.sentinel, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(run.sentinel, fcntl.F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(run.sentinel, fcntl.F_GETFL)
        fcntl.fcntl(run.sentinel, fcntl.F_SETFL, flags | os.O_ASYNC)
        if run.is_alive():
            return
    threading.Thread(target=_end_after, args=(run,), daemon=True).start()


def _end_after(run: Any) -> None:
    run.join()
    os.killpg(0, signal.SIGKILL)
