"""Hand jobs to workers that do one at a time; subclasses say what a worker is."""

from __future__ import annotations

import time
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from fpbench import FpbenchError, Lost, ResourceError

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class GoneError(Exception):
    """A worker ended before it answered; the message says how."""


def tried(act: Callable[[], Any]) -> tuple[bool, Any]:
    """Return True and a call's result, or False and its exception, in a form that can be sent."""
    try:
        return True, act()
    except Exception as error:
        explained = isinstance(error, FpbenchError | OSError | MemoryError)
        if explained and type(error).__module__ in ("builtins", FpbenchError.__module__):
            return False, error
        return False, RuntimeError(f"in a worker:\n{traceback.format_exc()}")


class Worker(Protocol):
    """Another process that does jobs. It answers None when it is ready for its first job."""

    def give(self, job: Callable[..., Any], item: Any) -> None:
        """Start a job on an item. Raises GoneError."""

    def answer(self) -> Any:
        """Return the outcome of its job. Raises what the job raised, or GoneError."""

    def stop(self) -> None:
        """Tell it to end, without waiting."""

    def end(self) -> None:
        """End it, whatever it is doing, and everything that it started."""


W = TypeVar("W", bound=Worker)


@dataclass
class _Task(Generic[Item]):
    """An item in progress. tries: how many workers got it. since: when the last one did."""

    item: Item
    tries: int = 0
    since: float = 0.0

    def lost(self, reason: str) -> Lost[Item]:
        return Lost(self.item, reason, time.monotonic() - self.since)


class Pool(ABC, Generic[W]):
    """Hands jobs to workers. Workers start when there is work, and are kept from job to job.

    tries: how many workers get an item before it counts as lost.
    """

    tries = 1

    def __init__(self) -> None:
        self._starting: list[W] = []
        self._idle: list[W] = []
        self._busy: dict[W, _Task[Any]] = {}

    @abstractmethod
    def room(self) -> int:
        """Return how many workers there may be."""

    @abstractmethod
    def start(self) -> W:
        """Start a worker on a device that no other worker has."""

    @abstractmethod
    def wait(self, workers: Sequence[W], seconds: float | None) -> list[W]:
        """Wait for workers that have an answer or have ended; return none after `seconds`."""

    def map(
        self, job: Callable[..., Outcome], items: Iterable[Item], limit: float | None = None
    ) -> Iterator[Outcome | Lost[Item]]:
        """See `fpbench.Executor`."""
        todo = deque(_Task(item) for item in items)
        while todo or self._busy:
            self._hand_out(job, todo)
            heard = self.wait([*self._starting, *self._busy], self._patience(limit))
            # The time now: those who receive outcomes may be slow, which is no worker's fault.
            now = time.monotonic()
            late = [
                worker
                for worker, task in self._busy.items()
                if limit is not None and worker not in heard and now > task.since + limit
            ]
            for worker in heard:
                task = self._busy.pop(worker, None)
                try:
                    outcome = worker.answer()
                except GoneError as error:
                    worker.end()
                    if task is None:
                        self._starting.remove(worker)
                        raise ResourceError(f"expected a worker to start, but {error}") from None
                    if task.tries < self.tries:
                        todo.appendleft(task)
                    else:
                        yield task.lost(str(error))
                    continue
                except BaseException:  # the job raised; its worker lives, and `close` must end it
                    if task is not None:
                        self._idle.append(worker)
                    raise
                if task is None:
                    self._starting.remove(worker)
                self._idle.append(worker)
                if task is not None:
                    yield outcome
            for worker in late:
                worker.end()
                yield self._busy.pop(worker).lost(f"took longer than {limit:g} s")

    def _hand_out(self, job: Callable[..., Any], todo: deque[_Task[Any]]) -> None:
        """Give every idle worker a job; start workers while there are too few for the jobs left."""
        while todo and self._idle:
            worker, task = self._idle.pop(), todo.popleft()
            try:
                worker.give(job, task.item)
            except GoneError:  # it ended while it was idle, so no job is lost
                worker.end()
                todo.appendleft(task)
                continue
            task.tries, task.since = task.tries + 1, time.monotonic()
            self._busy[worker] = task
        while (
            len(self._starting) < len(todo)
            and len(self._starting) + len(self._busy) + len(self._idle) < self.room()
        ):
            self._starting.append(self.start())

    def _patience(self, limit: float | None) -> float | None:
        """Return the seconds until the next job exceeds the limit."""
        if limit is None or not self._busy:
            return None
        first = min(task.since for task in self._busy.values())
        return max(0.0, first + limit - time.monotonic())

    def close(self) -> None:
        """See `fpbench.Executor`."""
        everybody = [*self._starting, *self._idle, *self._busy]
        for worker in everybody:
            worker.stop()
        for worker in everybody:
            worker.end()
