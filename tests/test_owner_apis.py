"""A suspect behind a live prediction API: asked politely, never twice, within a budget."""

from __future__ import annotations

import base64
import gzip
import io
import json
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import torch
from http_servers import Answer, serving
from office import Api, Office, numbers, opened
from PIL import Image
from torch import Tensor


def decoded(file: bytes) -> Tensor:
    raw = Image.open(io.BytesIO(file))
    return torch.frombuffer(bytearray(raw.tobytes()), dtype=torch.uint8).view(1, 1, 8, 8) / 255


def uploaded(handler: BaseHTTPRequestHandler, body: bytes) -> Tensor:
    return decoded(body[body.index(b"\x89PNG") :])


def encoded(_: BaseHTTPRequestHandler, body: bytes) -> Tensor:
    return torch.cat([decoded(base64.b64decode(text)) for text in json.loads(body)["images"]])


def scores(out: Tensor) -> Any:
    return {"outputs": out.softmax(-1).tolist()}


NAMES = [f"digit {k}" for k in range(10)]

WAYS = {
    "numbers and scores": ("", numbers, scores),
    "labels alone": ("labels: classes", numbers, lambda out: {"classes": out.argmax(-1).tolist()}),
    "names": (
        f"labels: 'found[*].name'\nclasses: [{', '.join(NAMES)}]",
        numbers,
        lambda out: {"found": [
            {"name": NAMES[k]} for k in out.argmax(-1).tolist()
        ]},
    ),
    "uploads": ("send: multipart\nfield: image\nlabels: class", uploaded,
                lambda out: {"class": int(out[0].argmax())}),
    "images in JSON": ("send: base64\nfield: images\nscores: scores", encoded,
                       lambda out: {"scores": out.tolist()}),
}  # fmt: skip


@pytest.mark.parametrize(("adapter", "read", "reply"), WAYS.values(), ids=WAYS.keys())
def test_a_copy_behind_an_api_is_caught_and_another_is_not(
    office: Office, tmp_path: Path, adapter: str, read: Any, reply: Any
) -> None:
    words: list[object] = ["--labels-only"]
    if adapter:
        (tmp_path / "api.yaml").write_text(adapter + "\n")
        words += ["--adapter", tmp_path / "api.yaml"]
    found = {}
    for name, model in {"copy": office.copy, "other": office.other}.items():
        with opened(Api(model, reply, read)) as api:
            verdict = office.verify(api.url, *words, "--answers", tmp_path / name)
            found[name] = verdict["verdict"]
            assert ("8-bit images" in str(verdict["notes"])) is ("send" in adapter)
    assert found == {"copy": "consistent with a copy", "other": "not shown"}


def test_a_broken_connection_repeats_nothing(office: Office, tmp_path: Path) -> None:
    words = ("--answers", tmp_path / "answers", "--budget", 500)
    with opened(Api(office.copy, scores, numbers)) as api:
        api.troubles = [200, 404]
        said = office.verify(api.url, *words, exit_code=3)
        assert "expected HTTP 200, got 404" in said
        (tmp_path / "answers").write_bytes((tmp_path / "answers").read_bytes() + b'{"que')
        api.requests = 0
        verdict = office.verify(api.url, *words)
        assert api.requests == 6  # of seven batches of 32, one was answered before
        assert verdict["verdict"] == "consistent with a copy"
        office.verify(api.url, *words)
        assert api.requests == 6  # everything is known


def test_a_file_of_something_else_is_left_alone(office: Office, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    diary.write_text("dear diary")
    said = office.verify("http://127.0.0.1:9/", "--answers", diary, exit_code=2)
    assert "expected the answers of this API, found others" in said
    assert diary.read_text() == "dear diary"


def test_a_busy_server_and_a_lost_line_are_asked_again(office: Office, tmp_path: Path) -> None:
    with opened(Api(office.copy, scores, numbers, troubles=[503, 0])) as api:
        verdict = office.verify(api.url, "--answers", tmp_path / "answers", "--budget", 264)
    assert verdict["queries"] == 200
    assert api.requests == 9


def test_the_budget_counts_what_was_sent_in_vain(office: Office, tmp_path: Path) -> None:
    words = ("--answers", tmp_path / "answers", "--budget", 100)
    with opened(Api(office.copy, scores, numbers, troubles=[404])) as api:
        office.verify(api.url, *words, exit_code=3)
        said = office.verify(api.url, *words, exit_code=3)
        assert "expected to need at most 100 queries, 96 are sent and 32 more" in said
        assert api.requests == 3


TROUBLES = {
    "sent elsewhere": (scores, 302, 3, "got a redirection to http://169.254.169.254/"),
    "no such key": (lambda out: {"answer": 1}, 200, 2, "expected 32 answers at 'outputs'"),
    "too few": (
        lambda out: {"outputs": [[0.1] * 10]},
        200,
        2,
        "answers at 'outputs' of the API's reply, got 1; it begins with {",
    ),
    "no numbers": (lambda out: {"outputs": [["a"] * 10] * 32}, 200, 2, "list of finite numbers"),
    "not finite": (lambda out: {"outputs": [[float("nan")] * 10] * 32}, 200, 2, "NaN"),
    "other classes": (lambda out: {"outputs": [[0.5, 0.5]] * len(out)}, 200, 2, "10 scores"),
}


@pytest.mark.parametrize(("reply", "status", "code", "sentence"), TROUBLES.values(),
                         ids=TROUBLES.keys())  # fmt: skip
def test_a_reply_that_is_none_is_told(
    office: Office, tmp_path: Path, reply: Any, status: int, code: int, sentence: str
) -> None:
    with opened(Api(office.copy, reply, numbers, troubles=[status])) as api:
        said = office.verify(api.url, "--answers", tmp_path / "answers", exit_code=code)
    assert sentence in said
    assert said.startswith("error: ")


def test_secrets_are_sent_and_never_written(
    office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "hush")
    (tmp_path / "api.yaml").write_text(
        "scores: outputs\nheaders: {authorization: 'Bearer ${MY_TOKEN}'}\n"
    )
    with opened(Api(office.copy, scores, numbers)) as api:
        verdict = office.verify(
            f"{api.url}?key=hush",
            "--adapter",
            tmp_path / "api.yaml",
            "--answers",
            tmp_path / "answers",
        )
    assert "hush" in "".join(api.headers)
    assert "hush" not in json.dumps(verdict) + (tmp_path / "answers").read_text()


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://localhost/x", "http://"])
def test_only_http_is_spoken(office: Office, url: str) -> None:
    assert "expected a URL" in office.verify(url, exit_code=2)


# ── replies as APIs really send them ──────────────────────────────────────────────


def rows(change: Any) -> Any:
    return lambda out: {"outputs": change(out.softmax(-1)).tolist()}


@pytest.mark.parametrize(("change", "values"), [
    (lambda p: (p * 100).round() / 100, ""),
    (lambda p: 100 * p, "percent"),
    (lambda p: p.clamp_min(1e-9).log(), "log_probs"),
])  # fmt: skip
def test_scores_are_read_as_what_they_are(
    office: Office, tmp_path: Path, change: Any, values: str
) -> None:
    adapter = tmp_path / "api.yaml"
    adapter.write_text("scores: outputs\n" + (f"values: {values}\n" if values else ""))
    exact = office.verify(office.folder / "copy.safetensors")["matching_rate"]
    with opened(Api(office.copy, rows(change), numbers)) as api:
        words = ("--adapter", adapter, "--answers", tmp_path / "answers")
        assert office.verify(api.url, *words)["matching_rate"] == pytest.approx(exact, abs=0.02)


def test_scores_that_may_be_percent_are_asked_about(office: Office, tmp_path: Path) -> None:
    with opened(Api(office.copy, rows(lambda p: 100 * p), numbers)) as api:
        said = office.verify(api.url, "--answers", tmp_path / "answers", exit_code=2)
    assert "say what they are by `values:` in the adapter" in said


def served(answer: Any, office: Office, tmp_path: Path, **more: Any) -> Any:
    """Verify an API whose answer to the body of each request is a status, a reply and headers."""
    with serving(answer) as address:
        words = (f"{address}/predict", "--answers", tmp_path / "answers", "--budget", 200)
        return office.verify(*words, **more)


def replied(office: Office, body: bytes) -> bytes:
    with torch.no_grad():
        found = scores(office.copy(torch.tensor(json.loads(body)["inputs"])))
    return json.dumps(found).encode()


@pytest.mark.parametrize(("status", "pack", "headers"), [
    (201, bytes, {}), (200, gzip.compress, {"content-encoding": "gzip"}),
])  # fmt: skip
def test_other_successes_and_compressed_replies_are_read(
    office: Office, tmp_path: Path, status: int, pack: Any, headers: dict[str, str]
) -> None:
    def answer(_: Any, body: bytes) -> Answer:
        return status, pack(replied(office, body)), headers

    assert served(answer, office, tmp_path)["verdict"] == "consistent with a copy"


def test_a_refused_request_waits_until_the_date_and_does_not_count(
    office: Office, tmp_path: Path
) -> None:
    asked: list[float] = []

    def answer(_: Any, body: bytes) -> Answer:
        asked.append(time.monotonic())
        if len(asked) == 1:
            return 429, b"later", {"retry-after": formatdate(time.time() + 3, usegmt=True)}
        return 200, replied(office, body), {}

    assert served(answer, office, tmp_path)["verdict"] == "consistent with a copy"
    assert asked[1] - asked[0] > 1.5  # a date has whole seconds


def test_answers_serve_another_batch_size(office: Office, tmp_path: Path) -> None:
    adapter = tmp_path / "api.yaml"
    with opened(Api(office.copy, scores, numbers)) as api:
        for batch in (32, 16):
            adapter.write_text(f"scores: outputs\nbatch: {batch}\n")
            office.verify(api.url, "--adapter", adapter, "--answers", tmp_path / "answers")
    assert api.requests == 7
