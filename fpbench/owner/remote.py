"""A suspect behind a prediction API. A budget limits the inputs that are sent.

Answers are on disk before they are used, so no answered query is sent again.
"""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import torch
from torch import Tensor, nn

from ..api.errors import InputError, ResourceError
from ..store.files import sha256
from .adapter import Adapter, as_scores
from .journal import Journal

MAX_REPLY = 16 * 2**20
"""The most bytes of one reply."""

TRIES = 5
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds before a request is repeated. They double with each try, up to the longest wait."""

BUSY = (429, 500, 502, 503, 504)
"""HTTP statuses after which a request is repeated."""


class _AgainError(Exception):
    """The request may be repeated. `after`: the seconds that the server asks us to wait."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


@dataclass(frozen=True)
class Limits:
    """Limits on the use of an API.

    rate:   the most requests per second; 0 for no limit.
    budget: the most inputs that are sent, including repeated ones, in all runs with one file of
            answers.
    """

    rate: float
    budget: int


class Remote(nn.Module):
    """A network that asks an API: inputs (n, *input_shape) to scores (n, n_classes)."""

    def __init__(
        self, url: str, adapter: Adapter, answers: Journal, limits: Limits,
        input_range: tuple[float, float], n_classes: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.url, self.adapter, self.kept, self.limits = url, adapter, answers, limits
        self.input_range, self.n_classes = input_range, n_classes
        self.headers = adapter.filled_headers()
        self._last = 0.0

    def forward(self, x: Tensor) -> Tensor:
        keys = [sha256(one.numpy().tobytes()) for one in x]
        # A query without an answer is sent once, even if it occurs several times.
        todo = list({k: i for i, k in enumerate(keys) if k not in self.kept.by_query}.values())
        with _client(self.adapter, self.headers) as client:
            for at in range(0, len(todo), self.adapter.at_once):
                rows = todo[at : at + self.adapter.at_once]
                answers, reply = self._ask(client, x[torch.tensor(rows)])
                self.kept.add({keys[i]: a for i, a in zip(rows, answers, strict=True)}, reply)
        return as_scores(
            [self.kept.by_query[key] for key in keys], self.n_classes, self.adapter.values
        )

    def _ask(self, client: Any, x: Tensor) -> tuple[list[Any], bytes]:
        """Send a request; repeat it while the server is busy or the connection breaks.

        Returns the answers and the reply's body.
        """
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt
        from tenacity.wait import wait_exponential, wait_random

        backoff = wait_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT) + wait_random(0, 0.1)

        def wait(state: Any) -> float:
            error = state.outcome.exception()
            return float(max(backoff(state), min(error.after, 60.0)))

        retrying = Retrying(
            retry=retry_if_exception_type(_AgainError), stop=stop_after_attempt(TRIES),
            wait=wait, reraise=True,
        )  # fmt: skip
        parts = self.adapter.request(x, self.input_range)
        try:
            body = retrying(self._post, client, len(x), parts)
        except _AgainError as error:
            raise ResourceError(
                f"no answer in {TRIES} tries: {error}; {len(self.kept.by_query)} answers are kept "
                f"in {self.kept.path}, and the same command goes on from there"
            ) from None
        answers = self.adapter.answers(body, len(x))
        # It raises for bad answers before they are kept.
        as_scores(answers, self.n_classes, self.adapter.values)
        return answers, body

    def _post(self, client: Any, n: int, parts: dict[str, Any]) -> bytes:
        import httpx

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
            with client.stream("POST", self.url, **parts) as reply:
                body = _body(reply, self.adapter.timeout)
        except httpx.TransportError as error:
            if isinstance(error, httpx.ConnectError):
                self.kept.record_sent(-n)  # nothing arrived, so it does not count
                if "certificate" in str(error).lower():
                    raise ResourceError(
                        f"expected a certificate that this machine trusts, got: {error}"
                    ) from None
            raise _AgainError(f"{type(error).__name__} {error}".strip()) from None
        if reply.status_code in BUSY:
            if reply.status_code == 429:
                self.kept.record_sent(-n)  # refused, so it does not count
            after = _seconds_of(reply.headers.get("retry-after", ""))
            raise _AgainError(f"HTTP {reply.status_code}", after)
        if reply.is_redirect:
            place = reply.headers.get("location", "another place")[:200]
            raise ResourceError(
                f"expected an answer, got a redirection to {place}; to use that API, give its URL"
            )
        if not reply.is_success:
            text = body[:200].decode(errors="replace")
            raise ResourceError(f"expected HTTP 200, got {reply.status_code}: {text}")
        return body


def _seconds_of(retry_after: str) -> float:
    """Return the seconds that the header Retry-After asks for: a number or a date; else 0."""
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0


def _client(adapter: Adapter, headers: dict[str, str]) -> Any:
    import httpx

    plain = {"accept-encoding": "identity", **headers}
    return httpx.Client(timeout=adapter.timeout, headers=plain, follow_redirects=False)


def _body(reply: Any, seconds: float) -> bytes:
    """Return a reply's body.

    Raises ResourceError if it is too long, _AgainError if it takes longer than `seconds`.
    """
    began, body = time.monotonic(), bytearray()
    for chunk in reply.iter_raw(65536):  # raw, because the request refuses compression
        body += chunk
        if len(body) > MAX_REPLY:
            raise ResourceError(f"expected a reply of at most {MAX_REPLY:,} bytes, got more")
        if time.monotonic() - began > seconds:
            raise _AgainError(f"the reply took longer than {seconds:g} s")
    if reply.headers.get("content-encoding", "identity") in ("gzip", "deflate"):
        return _inflated(bytes(body))  # some servers compress unasked
    return bytes(body)


def _inflated(body: bytes) -> bytes:
    """Return a compressed reply's content. Raises ResourceError if it is damaged or too long."""
    try:
        content = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(body, MAX_REPLY + 1)
    except zlib.error as error:
        raise ResourceError(f"expected a compressed reply, got a damaged one: {error}") from None
    if len(content) > MAX_REPLY:
        raise ResourceError(f"expected a reply of at most {MAX_REPLY:,} bytes, got more")
    return content


def checked_url(url: str) -> tuple[str, str]:
    """Return a URL, and the URL to print: without user names, passwords and parameters.

    Raises InputError unless it is an http or https URL and fpbench-core[remote] is installed.
    """
    try:
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
    except httpx.InvalidURL as error:
        raise InputError(f"expected a URL, got {url!r}: {error}", "SUSPECT") from None
    if found.scheme not in ("http", "https") or not found.host:
        raise InputError(f"expected a URL of http or https, got {url!r}", "SUSPECT")
    port = f":{found.port}" if found.port else ""
    return url, f"{found.scheme}://{found.host}{port}{found.path}"
