"""The inline executor: one job after another, in the run's own process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fpbench import InputError

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


def inline(devices: Sequence[str], workers: int | None, limit: int | None) -> Inline:
    """Return an executor on one device. Raises InputError for other devices, workers or limits."""
    beyond = {"--workers": workers, "--limit": limit, "--device": len(devices) > 1}
    for option, given in beyond.items():
        if given:
            raise InputError(
                "the inline executor supports one device, one worker and no --limit; leave "
                "--executor out, or say --executor local",
                option,
            )
    return Inline(devices[0])


@dataclass(frozen=True)
class Inline:
    """Does jobs in the run's own process: for one device, for breakpoints, for notebooks.

    It cannot stop a job, and a job that ends its process ends the run.
    """

    device: str

    def map(
        self, job: Callable[..., Outcome], items: Iterable[Item], limit: float | None = None
    ) -> Iterator[Outcome]:
        """Do one job after another. Raises ValueError for a limit."""
        if limit is not None:
            raise ValueError("expected no limit: the inline executor cannot stop a job")
        for item in items:
            yield job(item, device=self.device)

    def close(self) -> None:
        """Do nothing: the inline executor holds nothing."""
