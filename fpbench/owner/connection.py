"""HTTP requests to an API: their time, their size and their errors. No secret is in a message.

A request runs on an event loop in a thread of its own, because only there a time limit bounds a
whole reply; httpx's own limits are for each read, and a server that sends a byte now and then would
never exceed them.
"""

from __future__ import annotations

import os
import re
import socket
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from ..api.errors import InputError, ResourceError
from .adapter import Adapter
from .replies import as_json, beginning, find

if TYPE_CHECKING:
    import httpx
    from anyio.from_thread import BlockingPortal

MAX_REPLY = 16 * 2**20
"""The most bytes of one reply."""

BUSY = (429, 500, 502, 503, 504)
"""HTTP statuses after which a request is repeated."""

REFUSED = (400, 404, 413, 415, 422)
"""HTTP statuses that may mean that the API refuses an input."""

LONGEST_WAIT = 60.0
"""The most seconds that we wait because the API asks us to."""


class AgainError(Exception):
    """The request may be repeated.

    after: the seconds that the server asks us to wait.
    sent:  whether inputs may have arrived, so that they count for the budget.
    """

    def __init__(self, reason: str, *, after: float = 0.0, sent: bool = True) -> None:
        super().__init__(reason)
        self.after, self.sent = after, sent


class NotSentError(ResourceError):
    """No input arrived, and to repeat the request is no use."""


class RefusedInputError(ResourceError):
    """The API refused the request with a status of `REFUSED`."""


@dataclass(frozen=True)
class Reply:
    """A reply of an API."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """An open connection to an API. Use `connect`."""

    def __init__(
        self, url: str, adapter: Adapter, secrets: tuple[str, ...],
        portal: BlockingPortal, client: httpx.AsyncClient,
    ) -> None:  # fmt: skip
        self.url, self.adapter, self._secrets = url, adapter, secrets
        self._portal, self._client = portal, client

    def post(self, parts: dict[str, Any]) -> bytes:
        """Send a request and return the body with the answers.

        Raises AgainError if it may be repeated, and ResourceError otherwise.
        """
        reply = self._send("POST", self.url, self.adapter.timeout, parts)
        self._check(reply)
        poll = self.adapter.poll
        if reply.status == 202 and poll is None:
            raise ResourceError(
                "expected an answer, got HTTP 202: the API makes it later; `poll:` in the adapter "
                f"says how to get it. It said: {self._shown(reply)}"
            )
        return self._polled(reply).body if poll else reply.body

    def _polled(self, reply: Reply) -> Reply:
        """Ask for a result until it is there. Raises ResourceError if it is not there in time."""
        poll = self.adapter.poll
        assert poll is not None
        end = time.monotonic() + poll.within
        place: str | None = None
        while not self._is_result(reply):
            if place is None:
                place = self._place_of_result(reply)
            wait = max(poll.every, _seconds_of(reply.headers.get("retry-after", "")))
            if (left := end - time.monotonic()) <= wait:
                raise ResourceError(
                    f"expected the result within {poll.within:g} s (`poll:` in the adapter), it is "
                    f"not there yet: {self._shown(reply)}"
                )
            time.sleep(wait)
            try:
                found = self._send("GET", place, min(self.adapter.timeout, left - wait), {})
                self._check(found)
            except AgainError:
                continue  # the result is asked for again, the inputs are not sent again
            reply = found
        return reply

    def _is_result(self, reply: Reply) -> bool:
        poll = self.adapter.poll
        if poll is None or poll.until is None:
            return reply.status != 202
        return bool(find(poll.until, as_json(reply.body)))

    def _place_of_result(self, reply: Reply) -> str:
        """Return the URL of a result. It must be of the same server, because it gets the headers.

        Raises ResourceError.
        """
        poll = self.adapter.poll
        if poll is None or poll.url is None:
            place = reply.headers.get("location", "")
        else:
            place = find(poll.url, as_json(reply.body))
        if not isinstance(place, str) or not place:
            raise ResourceError(
                "expected the result's URL in the header Location, or where `poll: {url: ...}` "
                f"says, found none: {self._shown(reply)}"
            )
        own = self._client.build_request("GET", self.url).url
        try:
            found = own.join(place)
        except ValueError:
            raise ResourceError("expected the result's URL, got something else") from None
        if (found.scheme, found.host, found.port) != (own.scheme, own.host, own.port):
            raise ResourceError(
                f"expected a result on {own.host}, which gets the headers, got one on {found.host}"
            )
        return str(found)

    def _send(self, method: str, url: str, seconds: float, parts: dict[str, Any]) -> Reply:
        import httpx

        try:
            reply: Reply = self._portal.call(self._send_within, method, url, seconds, parts)
            return reply
        except TimeoutError:
            raise AgainError(f"the reply took longer than {seconds:g} s") from None
        except httpx.ProxyError as error:
            raise NotSentError(
                f"expected an answer by the proxy of the environment, got: {self._masked(error)}"
            ) from None
        except httpx.ConnectError as error:
            self._raise_hopeless(error)
            raise AgainError(f"ConnectError {self._masked(error)}".strip(), sent=False) from None
        except httpx.TransportError as error:
            name = type(error).__name__
            raise AgainError(f"{name} {self._masked(error)}".strip()) from None

    async def _send_within(
        self, method: str, url: str, seconds: float, parts: dict[str, Any]
    ) -> Reply:
        import anyio

        with anyio.fail_after(seconds):
            async with self._client.stream(method, url, **parts) as reply:
                body = bytearray()
                async for chunk in reply.aiter_raw(65536):  # raw: the request wants no compression
                    body += chunk
                    if len(body) > MAX_REPLY:
                        raise _too_long()
        headers = {name.lower(): value for name, value in reply.headers.items()}
        coding = headers.get("content-encoding", "identity").strip().lower()
        return Reply(reply.status_code, headers, _decoded(bytes(body), coding))

    def _raise_hopeless(self, error: Exception) -> None:
        """Raise NotSentError for errors of a connection that stay: certificates and names."""
        text = str(error)
        if "certificate" in text.lower():
            raise NotSentError(
                f"expected a certificate that this machine trusts, got: {self._masked(error)}"
            ) from None
        if "ssl" in text.lower():
            raise NotSentError(
                f"expected a server that speaks TLS, got: {self._masked(error)}"
            ) from None
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
                raise NotSentError(
                    f"expected a server of a known name, got: {self._masked(error)}"
                ) from None
            cause = cause.__cause__ or cause.__context__

    def _check(self, reply: Reply) -> None:
        """Raise AgainError or ResourceError unless the API did what it was asked."""
        status = reply.status
        if status in BUSY:
            after = _seconds_of(reply.headers.get("retry-after", ""))
            reason = f"HTTP {status}: {self._shown(reply)}"
            if after > LONGEST_WAIT:
                raise NotSentError(
                    f"the API asks to wait {after:.0f} s ({reason}); answers are kept, and the "
                    "same command goes on from there"
                )
            raise AgainError(reason, after=after, sent=status != 429)
        if 300 <= status < 400:
            place = reply.headers.get("location", "another place")
            raise ResourceError(
                f"expected an answer, got a redirection to {self._masked(shown_url(place))}; to "
                "use that API, give its URL"
            )
        if not 200 <= status < 300:
            kind = RefusedInputError if status in REFUSED else ResourceError
            hint = "; `batch` in the adapter sends fewer inputs at once" if status == 413 else ""
            raise kind(f"expected HTTP 200, got {status}: {self._shown(reply)}{hint}")

    def _shown(self, reply: Reply) -> str:
        return beginning(self.masked(reply.body)) or "nothing"

    def _masked(self, said: object) -> str:
        return beginning(self.masked(str(said).encode()))

    def masked(self, said: bytes) -> bytes:
        """Return a text without the secrets, which a server may repeat."""
        for secret in self._secrets:
            said = said.replace(secret.encode(), b"***")
        return said


@contextmanager
def connect(url: str, adapter: Adapter, headers: Mapping[str, str]) -> Iterator[Connection]:
    """Open a connection. Raises InputError if the environment's proxies or certificates are
    wrong."""
    import httpx
    from anyio.from_thread import start_blocking_portal

    plain = {"accept-encoding": "identity", **headers}
    try:
        client = httpx.AsyncClient(timeout=adapter.timeout, headers=plain, follow_redirects=False)
    except (OSError, ValueError, ImportError, httpx.InvalidURL) as error:
        # Not its text: a proxy's URL may have a password.
        raise InputError(
            "expected proxies and certificates that httpx can use in the environment, such as "
            f"HTTPS_PROXY and SSL_CERT_FILE; it raised {type(error).__name__}",
            "environment",
        ) from None
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(client):
        yield Connection(url, adapter, _secrets_of(url, adapter, headers), portal, client)


def _secrets_of(url: str, adapter: Adapter, headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return the texts that no message may have, the longest first.

    They are the headers' values, the variables and the words in them, and the URL's password and
    parameters.
    """
    parts = urlsplit(url)
    found = {*headers.values(), parts.password or "", parts.query}
    found |= {value for _, value in parse_qsl(parts.query)}
    for name, value in headers.items():
        found |= set(value.split()[1:])
        variables = re.findall(r"\$\{(\w+)\}", adapter.headers.get(name, ""))
        found |= {os.environ.get(variable, "") for variable in variables}
    return tuple(sorted((secret for secret in found if len(secret) > 3), key=len, reverse=True))


def shown_url(url: str) -> str:
    """Return a URL to print: without user names, passwords and parameters."""
    begin, _, rest = url.partition("://")
    if not rest:
        begin, rest = "", url
    rest = rest.split("?")[0].split("#")[0]
    host, slash, path = rest.partition("/")
    scheme = f"{begin}://" if begin else ""
    return f"{scheme}{host.rpartition('@')[2]}{slash}{path}"[:200]


def _seconds_of(retry_after: str) -> float:
    """Return the seconds that the header Retry-After asks for: a number or a date; else 0."""
    if retry_after.isascii() and retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _too_long() -> ResourceError:
    return ResourceError(f"expected a reply of at most {MAX_REPLY:,} bytes, got more")


def _decoded(body: bytes, coding: str) -> bytes:
    """Return a reply's content. Some servers compress it although the request wants none.

    Raises ResourceError if it is damaged, too long or compressed in another way.
    """
    if coding in ("", "identity") or not body:
        return body
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise ResourceError(
            f"expected a reply that is not compressed, or by gzip or deflate, got {coding[:40]!r}"
        )
    # The reply names zlib's format "deflate"; some servers send its content without the header.
    modes = (
        (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS) if coding == "deflate" else (zlib.MAX_WBITS | 32,)
    )
    fault = ""
    for mode in modes:
        unpacking = zlib.decompressobj(mode)
        try:
            content = unpacking.decompress(body, MAX_REPLY + 1)
        except zlib.error as error:
            fault = fault or str(error)
            continue
        if len(content) > MAX_REPLY:
            raise _too_long()
        if unpacking.eof:
            return content
        fault = fault or "it ends too early"
    raise ResourceError(f"expected a compressed reply, got a damaged one: {fault}")
