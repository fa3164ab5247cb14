"""One job after another, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Inline:
    """Do jobs where the run itself is: for one device, for debugging, for notebooks."""

    device: str

    def map(self, job: Callable[..., Outcome], items: Iterable[Item]) -> Iterator[Outcome]:
        for item in items:
            yield job(item, device=self.device)
