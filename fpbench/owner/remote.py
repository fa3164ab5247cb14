"""A suspect behind a prediction API. A budget limits the inputs that are sent.

Answers are on disk before they are used, so no answered query is sent again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..api.errors import InputError, ResourceError
from ..store.files import sha256
from .adapter import Adapter
from .connection import AgainError, Connection, NotSentError, RefusedInputError, connect, shown_url
from .journal import Journal
from .replies import Reader
from .request import request_of

TRIES = 5
FIRST_WAIT, LAST_WAIT = 0.5, 30.0
"""Seconds before a request is repeated. They double with each try, up to the last one."""


@dataclass(frozen=True)
class Limits:
    """Limits on the use of an API.

    rate:   the most requests per second; 0 for no limit.
    budget: the most inputs that are sent, including repeated ones, in all runs with one file of
            answers.
    skip:   the most inputs that may remain without an answer.
    """

    rate: float
    budget: int
    skip: int = 0


class Remote(nn.Module):
    """A network that asks an API: inputs (n, *input_shape) to scores as `Reader.rows` returns.

    Raises InputError if a header's value cannot be sent.
    """

    def __init__(
        self, url: str, adapter: Adapter, answers: Journal, limits: Limits,
        input_range: tuple[float, float], reader: Reader,
    ) -> None:  # fmt: skip
        super().__init__()
        self.url, self.adapter, self.kept, self.limits = url, adapter, answers, limits
        self.input_range, self.reader = input_range, reader
        self.headers = adapter.filled_headers()
        self._last = 0.0

    def forward(self, x: Tensor) -> Tensor:
        keys = [sha256(one.numpy().tobytes()) for one in x]
        # A query without an answer is sent once, even if it occurs several times.
        todo = list({k: i for i, k in enumerate(keys) if k not in self.kept.by_query}.values())
        if todo:
            with connect(self.url, self.adapter, self.headers) as connection:
                for at in range(0, len(todo), self.adapter.at_once):
                    rows = todo[at : at + self.adapter.at_once]
                    self._answer(connection, x[torch.tensor(rows)], [keys[i] for i in rows])
        self._check_skipped(0, "these answers are kept")
        return self.reader.rows([self.kept.by_query[key] for key in keys])

    def _answer(self, connection: Connection, x: Tensor, keys: list[str]) -> None:
        """Ask for the answers to some inputs and keep them.

        If inputs may be skipped and the API refuses a request, each half of its inputs is asked
        alone, down to a single one.
        """
        try:
            body = self._ask(connection, x)
        except RefusedInputError as error:
            if not self.adapter.skip:
                raise
            if len(x) == 1:
                self._check_skipped(1, str(error))
                self.kept.add({keys[0]: None}, str(error).encode())
                return
            half = len(x) // 2
            self._answer(connection, x[:half], keys[:half])
            self._answer(connection, x[half:], keys[half:])
            return
        try:
            answers = self.reader.answers(body, len(x))
        except InputError:
            # Read it again without the secrets that it may repeat, for the message.
            self.reader.answers(connection.masked(body), len(x))
            raise ResourceError("expected a reply without the headers' values") from None
        self._check_skipped(answers.count(None), "unknown classes or none")
        self.kept.add(dict(zip(keys, answers, strict=True)), body)

    def _check_skipped(self, more: int, reason: str) -> None:
        found = more + sum(answer is None for answer in self.kept.by_query.values())
        if found > self.limits.skip:
            raise ResourceError(
                f"expected answers to all but {self.limits.skip} inputs (`skip` in the adapter), "
                f"{found} have none: {reason}"
            )

    def _ask(self, connection: Connection, x: Tensor) -> bytes:
        """Send a request; repeat it while the server is busy or the connection breaks.

        Returns the reply's body.
        """
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt
        from tenacity.wait import wait_exponential, wait_random

        backoff = wait_exponential(multiplier=FIRST_WAIT, max=LAST_WAIT) + wait_random(0, 0.1)

        def wait(state: Any) -> float:
            return float(max(backoff(state), state.outcome.exception().after))

        retrying = Retrying(
            retry=retry_if_exception_type(AgainError), stop=stop_after_attempt(TRIES),
            wait=wait, reraise=True,
        )  # fmt: skip
        parts = request_of(self.adapter, x, self.input_range)
        try:
            return retrying(self._post, connection, len(x), parts)
        except AgainError as error:
            raise ResourceError(
                f"no answer in {TRIES} tries: {error}; {len(self.kept.by_query)} answers are kept "
                f"in {self.kept.path}, and the same command goes on from there"
            ) from None

    def _post(self, connection: Connection, n: int, parts: dict[str, Any]) -> bytes:
        if self.kept.sent + n > self.limits.budget:
            raise ResourceError(
                f"expected to need at most {self.limits.budget} queries, {self.kept.sent} are "
                f"sent and {n} more are needed; raise --budget to go on, answers are kept in "
                f"{self.kept.path}"
            )
        if self.limits.rate:
            time.sleep(max(0.0, self._last + 1 / self.limits.rate - time.monotonic()))
        self._last = time.monotonic()
        self.kept.record_sent(n)
        try:
            return connection.post(parts)
        except (AgainError, NotSentError) as error:
            if isinstance(error, NotSentError) or not error.sent:
                self.kept.record_sent(-n)  # refused, or nothing arrived: it does not count
            raise


def checked_url(url: str) -> tuple[str, str]:
    """Return a URL, and the URL to print: without user names, passwords and parameters.

    Raises InputError unless it is an http or https URL and fpbench-core[remote] is installed.
    """
    try:
        import anyio  # noqa: F401
        import httpx
        import jmespath  # noqa: F401
        import tenacity  # noqa: F401
    except ImportError:
        raise InputError(
            "a suspect behind an API needs httpx, jmespath and tenacity: "
            "pip install 'fpbench-core[remote]'"
        ) from None
    try:
        found = httpx.URL(url)
    except httpx.InvalidURL:
        raise InputError(f"expected a URL, got {shown_url(url)!r}", "SUSPECT") from None
    if found.scheme not in ("http", "https") or not found.host:
        raise InputError(f"expected a URL of http or https, got {shown_url(url)!r}", "SUSPECT")
    port = f":{found.port}" if found.port else ""
    return url, f"{found.scheme}://{found.host}{port}{found.path}"
