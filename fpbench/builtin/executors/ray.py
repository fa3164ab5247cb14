"""The Ray executor: a cluster whose nodes share the store; needs the extra `fpbench-core[ray]`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from fpbench import InputError, ResourceError

from .pool import GoneError, Pool, tried


@dataclass(frozen=True)
class Need:
    """What a worker reserves: CPU cores, a share of a GPU, bytes of memory."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory: float = 0.0

    @classmethod
    def of(cls, text: str, gpus: float) -> Need:
        """Read `cpus=4,gpus=0.5,memory=8e9`; `gpus` is the default share. Raises InputError."""
        known = [field.name for field in fields(cls)]
        values = {"gpus": gpus}
        for part in filter(None, text.split(",")):
            name, _, value = part.partition("=")
            try:
                values[name] = float(value)
            except ValueError:
                values[name] = math.nan
            if name not in known or not 0 <= values[name] < math.inf:
                raise InputError(
                    f"expected ray:NAME=NUMBER,... with names of {', '.join(known)}, got {part!r}",
                    "--executor",
                )
        return cls(**values)


def cluster(
    text: str, devices: Sequence[str], workers: int | None, setup: Callable[[], None]
) -> Ray:
    """Connect to the cluster at $RAY_ADDRESS, or to the one that this machine is part of.

    Raises InputError for malformed needs, ResourceError where Ray or its cluster is missing.
    """
    need = Need.of(text, gpus=float(devices[0] != "cpu"))
    # Under `uv run`, Ray would install the project anew for every worker.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        import ray
    except ImportError:
        raise ResourceError(
            "expected Ray for --executor ray, found none; install fpbench-core[ray]"
        ) from None
    try:
        if not ray.is_initialized():
            # Output of workers goes to Ray's logs: stdout belongs to the run, and may be JSON.
            ray.init(address=os.environ.get("RAY_ADDRESS", "auto"), log_to_driver=False)
    except ConnectionError as error:
        raise ResourceError(
            "expected a Ray cluster, found none; start one with `ray start --head`, or name one in "
            f"RAY_ADDRESS: {str(error).splitlines()[0]}"
        ) from None
    return Ray(ray, need, workers, setup)


class Ray(Pool["Actor"]):
    """Does jobs in actors. A lost node may not be the job's fault, so the job is done again."""

    tries = 3

    def __init__(
        self, ray: Any, need: Need, workers: int | None, setup: Callable[[], None]
    ) -> None:
        super().__init__()
        self._ray, self._need, self._workers, self._setup = ray, need, workers, setup

    def room(self) -> int:
        """Return the number asked for, else as many as the cluster holds now."""
        if self._workers is not None:
            return self._workers
        there = self._ray.cluster_resources()
        needs = zip(("CPU", "GPU", "memory"), asdict(self._need).values(), strict=True)
        return max(1, min(int(there.get(what, 0) / share) for what, share in needs if share))

    def start(self) -> Actor:
        return Actor(self._ray, self._need, self._setup)

    def wait(self, workers: Sequence[Actor], seconds: float | None) -> list[Actor]:
        by_answer = {worker.coming: worker for worker in workers}
        ready, _ = self._ray.wait([*by_answer], timeout=seconds)
        return [by_answer[answer] for answer in ready]


class Actor:
    """A worker in the cluster. coming: Ray's future of its next answer."""

    def __init__(self, ray: Any, need: Need, setup: Callable[[], None]) -> None:
        self._ray, self._need = ray, need
        reserved = {"num_cpus": need.cpus, "num_gpus": need.gpus, "memory": need.memory or None}
        self._actor = ray.remote(Remote).options(**reserved, max_restarts=0).remote()
        # In a separate call, since this loads the classes that jobs are sent with.
        self.coming = self._actor.ready.remote(setup)

    def give(self, job: Callable[..., Any], item: Any) -> None:
        self.coming = self._actor.work.remote(job, item, "cuda" if self._need.gpus else "cpu")

    def answer(self) -> Any:
        exceptions = self._ray.exceptions
        try:
            worked, value = self._ray.get(self.coming)
        except exceptions.RayTaskError:
            raise  # the job could not be read; another node could not read it either
        except exceptions.RayError as error:
            reason = str(error).splitlines()[0]
            raise GoneError(f"its process or node was lost: {reason}") from None
        if worked:
            return value
        raise value

    def stop(self) -> None:
        self._ray.kill(self._actor)

    def end(self) -> None:
        self._ray.kill(self._actor)


class Remote:
    """The part of a worker that runs in the cluster."""

    def ready(self, setup: Callable[[], None]) -> tuple[bool, Any]:
        """Load plugins, once; `setup` also sees to it that jobs run on one thread."""
        return tried(setup)

    def work(self, job: Callable[..., Any], item: Any, device: str) -> tuple[bool, Any]:
        """Do a job."""
        return tried(lambda: job(item, device=device))
