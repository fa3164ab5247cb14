"""Workers that do one job at a time each; what they are and where is for others to say."""

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
    """True and what it returns, or False and what it raises, as something that can be sent."""
    try:
        return True, act()
    except Exception as error:
        told = isinstance(error, FpbenchError | OSError | MemoryError)
        if told and type(error).__module__ in ("builtins", FpbenchError.__module__):
            return False, error
        return False, RuntimeError(f"in a worker:\n{traceback.format_exc()}")


class Worker(Protocol):
    """Somebody in another process. When it is ready for its first job it answers too, with None."""

    def give(self, job: Callable[..., Any], item: Any) -> None:
        """Start a job on an item. Raises GoneError."""

    def answer(self) -> Any:
        """The outcome of the job it was given; raises what the job raised, or GoneError."""

    def stop(self) -> None:
        """Tell it to end, and do not wait for that."""

    def end(self) -> None:
        """End it, whatever it does: nothing of it is left."""


W = TypeVar("W", bound=Worker)


@dataclass
class _Task(Generic[Item]):
    """An item under way. tries: how many workers it was given to. since: when, the last time."""

    item: Item
    tries: int = 0
    since: float = 0.0

    def lost(self, reason: str) -> Lost[Item]:
        return Lost(self.item, reason, time.monotonic() - self.since)


class Pool(ABC, Generic[W]):
    """Hands jobs to workers, which are started when there is work and kept from job to job.

    tries: how many workers an item is given to before it is lost.
    """

    tries = 1

    def __init__(self) -> None:
        self._starting: list[W] = []
        self._idle: list[W] = []
        self._busy: dict[W, _Task[Any]] = {}

    @abstractmethod
    def room(self) -> int:
        """How many workers there may be."""

    @abstractmethod
    def start(self) -> W:
        """A new worker, on a device that no other worker has."""

    @abstractmethod
    def wait(self, workers: Sequence[W], seconds: float | None) -> list[W]:
        """Those that have an answer or have ended, as soon as there are any; none in time."""

    def map(
        self, job: Callable[..., Outcome], items: Iterable[Item], limit: float | None = None
    ) -> Iterator[Outcome | Lost[Item]]:
        """See `fpbench.Executor`."""
        todo = deque(_Task(item) for item in items)
        while todo or self._busy:
            self._hand_out(job, todo)
            heard = self.wait([*self._starting, *self._busy], self._patience(limit))
            # Now: whoever hears of outcomes may take long, which is no worker's fault.
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
                if task is None:
                    self._starting.remove(worker)
                self._idle.append(worker)
                if task is not None:
                    yield outcome
            for worker in late:
                worker.end()
                yield self._busy.pop(worker).lost(f"took longer than {limit:g} s")

    def _hand_out(self, job: Callable[..., Any], todo: deque[_Task[Any]]) -> None:
        """Give every idle worker a job; start workers while there are too few for what is left."""
        while todo and self._idle:
            worker, task = self._idle.pop(), todo.popleft()
            try:
                worker.give(job, task.item)
            except GoneError:  # while it was idle: nobody's job is lost
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
        """Seconds until the next job will have taken too long."""
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
