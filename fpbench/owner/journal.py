"""The journal of an API's answers: a hash chain on disk, written before an answer is used.

Each line is JSON with the time, and with the sha256 of the line before it. So no line can be
changed, removed or inserted without changing every later one; the last hash is in the verdict.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..api.errors import InputError
from ..store.files import sha256

SCHEMA = "fpbench.answers/2"


class Journal:
    """The answers of one API. A line `{"sent": n}` precedes each request, so the budget also
    counts inputs of interrupted runs.

    Raises InputError for answers of another API, for another kind of file, and for a broken chain.

    api:      a digest of the API's URL and of the form of its requests and replies.
    url:      the URL to print.
    by_query: the answers, by the sha256 of their query.
    sent:     the number of inputs that were sent.
    head:     the sha256 of the last line.
    times:    the times of the first and of the last line.
    """

    def __init__(self, path: Path, api: str, url: str) -> None:
        self.path, self._first = path, {"schema": SCHEMA, "api": api, "url": url}
        self.by_query: dict[str, Any] = {}
        self.sent = 0
        self.head = ""
        self.times: tuple[str, str] | None = None
        if not path.exists() or not path.stat().st_size:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write(self._first)
            return
        *lines, incomplete = path.read_bytes().split(b"\n")
        entries = self._checked(lines)
        self.sent = sum(entry.get("sent", 0) for entry in entries)
        self.by_query = {e["query"]: e["answer"] for e in entries if "query" in e}
        if incomplete:  # an interruption cut the last line
            with path.open("r+b") as file:
                file.truncate(path.stat().st_size - len(incomplete))

    def _checked(self, lines: list[bytes]) -> list[dict[str, Any]]:
        """Return the lines' entries. Raises InputError."""
        try:
            entries = [json.loads(line) for line in lines]
            if any(entries[0][key] != value for key, value in self._first.items()):
                raise ValueError
        except (ValueError, LookupError, TypeError):
            raise InputError(
                "expected the answers of this API, found others; choose another file",
                str(self.path),
            ) from None
        for number, (line, entry) in enumerate(zip(lines, entries, strict=True), 1):
            where = f"{self.path}:{number}"
            if not isinstance(entry, dict) or entry.get("after") != self.head:
                raise InputError(
                    "expected the line that follows the one before it, found a changed, removed or "
                    "inserted line; these answers prove nothing: start with another file",
                    where,
                )
            self._note_time(str(entry.get("at")), where)
            self.head = sha256(line)
        return entries

    def _note_time(self, at: str, where: str) -> None:
        first, last = self.times or (at, at)
        if at < last:
            raise InputError(
                f"expected a time from {last} on, got {at}: the clock ran backwards; set it right "
                "and start with another file",
                where,
            )
        self.times = first, at

    def summary(self) -> dict[str, Any]:
        """Return what a verdict says of the journal."""
        times = list(self.times or ())
        return {"file": self.path.name, "head": self.head, "times": times, "sent": self.sent}

    def record_sent(self, n: int) -> None:
        """Record that n inputs are about to be sent."""
        self.sent += n
        self._write({"sent": n})

    def add(self, answers: dict[str, Any], reply: bytes) -> None:
        """Write the answers in a reply, by the sha256 of their query."""
        self.by_query |= answers
        body = sha256(reply)
        self._write(
            *({"query": key, "answer": answer, "reply": body} for key, answer in answers.items())
        )

    def _write(self, *entries: dict[str, Any]) -> None:
        raw, head = b"", self.head
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._note_time(at, str(self.path))
        for entry in entries:
            line = json.dumps({**entry, "at": at, "after": head}).encode()
            raw, head = raw + line + b"\n", sha256(line)
        with self.path.open("ab") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        self.head = head
