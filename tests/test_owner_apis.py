"""A suspect behind a live prediction API: asked politely, never twice, within a budget."""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import json
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
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


# ── Adapters for APIs as they are ─────────────────────────────────────────────────


def from_pixels(_: BaseHTTPRequestHandler, body: bytes) -> Tensor:
    """Read whole numbers from 0 to 255 with the channels last."""
    pixels = torch.tensor(json.loads(body)["inputs"])
    assert not pixels.is_floating_point()
    assert pixels.shape[1:] == (8, 8, 1)
    return pixels.movedim(-1, 1) / 255


def from_jpeg(_: BaseHTTPRequestHandler, body: bytes) -> Tensor:
    """Read JPEG files of at least 50 pixels, which were enlarged by the factor 7."""
    images = [Image.open(io.BytesIO(base64.b64decode(text))) for text in json.loads(body)["inputs"]]
    assert {(image.format, image.size) for image in images} == {("JPEG", (56, 56))}
    small = [torch.tensor(list(image.tobytes())).view(8, 7, 8, 7) for image in images]
    return torch.stack([x.float().mean((1, 3))[None] for x in small]) / 255


def best(out: Tensor, most: int = 3) -> list[list[tuple[str, float]]]:
    p = out.softmax(-1)
    return [[(f"d{k}", float(r[k])) for k in r.argsort(descending=True)[:most]] for r in p]


TOP = "top: [0, 1]\nclasses: {" + ", ".join(f"d{k}: {k}" for k in range(10)) + "}\n"

FORMS: dict[str, tuple[str, Any, Any]] = {
    "pixels, channels last": ("layout: channels_last\npixels: true\n", from_pixels, scores),
    "enlarged JPEG files": ("send: base64\nimage: jpeg\nmin_size: 50\n", from_jpeg, scores),
    "the three likeliest": (TOP, numbers, lambda out: {"outputs": best(out)}),
    "classes from one": (
        "labels: outputs\nclasses: {" + ", ".join(f"'{k + 1}': {k}" for k in range(10)) + "}\n",
        numbers,
        lambda out: {"outputs": [int(k) + 1 for k in out.argmax(-1)]},
    ),
}


@pytest.mark.parametrize(("keys", "read", "reply"), FORMS.values(), ids=FORMS.keys())
def test_an_adapter_describes_other_forms(
    office: Office, tmp_path: Path, keys: str, read: Any, reply: Any
) -> None:
    text = keys if "labels:" in keys else f"scores: outputs\n{keys}"
    (tmp_path / "api.yaml").write_text(f"batch: 200\n{text}")
    with opened(Api(office.copy, reply, read)) as api:
        words = ("--adapter", tmp_path / "api.yaml", "--answers", tmp_path / "answers")
        found = office.verify(api.url, *words)
    assert found["verdict"] == "consistent with a copy"
    assert ("8-bit images" in str(found["notes"])) is (read is not numbers)
    assert ("JPEG" in str(found["notes"])) is ("jpeg" in keys)


def adapted(office: Office, tmp_path: Path, keys: str, answer: Any, **more: Any) -> Any:
    """Verify an API as `served` does, with an adapter."""
    (tmp_path / "api.yaml").write_text(f"scores: outputs\n{keys}")
    with serving(answer) as address:
        words = ("--adapter", tmp_path / "api.yaml", "--answers", tmp_path / "answers")
        return office.verify(f"{address}/predict", *words, "--budget", 1000, **more)


@pytest.mark.parametrize(("share", "sentence"), [(0.05, "8 of 200 inputs have no answer"),
                                                  (0.01, "all but 2 inputs")])  # fmt: skip
def test_refused_inputs_are_skipped_within_a_share(
    office: Office, tmp_path: Path, share: float, sentence: str
) -> None:
    refused: set[bytes] = set()
    seen: dict[str, int] = {}

    def answer(_: Any, body: bytes) -> Answer:
        inputs = json.loads(body)["inputs"]
        for one in inputs:
            seen.setdefault(json.dumps(one), len(seen))
        if any(seen[json.dumps(one)] % 25 == 3 for one in inputs):
            refused.add(body)
            return 422, b'{"detail": "no digit found"}', {}
        return 200, replied(office, body), {}

    code = 0 if share > 0.04 else 3
    found = adapted(office, tmp_path, f"skip: {share}\n", answer, exit_code=code)
    assert sentence in (str(found["notes"]) if code == 0 else found)
    assert code or found["verdict"] == "consistent with a copy"


POLLS = {
    "Location": ("poll: {within: 5, every: 0.01}\n", {"location": "/jobs/7"}, {}),
    "URL in the reply": (
        "poll: {within: 5, every: 0.01, url: urls.get, until: \"state == 'done'\"}\n",
        {},
        {"state": "waiting", "urls": {"get": "/jobs/7"}},
    ),
}


@pytest.mark.parametrize(("keys", "headers", "first"), POLLS.values(), ids=POLLS.keys())
def test_a_result_that_is_made_later_is_fetched(
    office: Office, tmp_path: Path, keys: str, headers: dict[str, str], first: dict[str, Any]
) -> None:
    waiting: list[bytes] = []

    def answer(request: Any, body: bytes) -> Answer:
        if request.command == "POST":
            waiting[:] = [body, b"asked once"]
            return (202 if headers else 200), json.dumps(first).encode(), headers
        assert request.path == "/jobs/7"
        if len(waiting) == 2:
            waiting.pop()
            return (202 if headers else 200), json.dumps(first).encode(), {}
        found = json.loads(replied(office, waiting[0]))
        return 200, json.dumps({**found, "state": "done"}).encode(), {}

    found = adapted(office, tmp_path, f"batch: 100\n{keys}", answer)
    assert found["verdict"] == "consistent with a copy"
    assert adapted_without_poll(office, tmp_path, headers, first)


def adapted_without_poll(
    office: Office, tmp_path: Path, headers: dict[str, str], first: dict[str, Any]
) -> bool:
    """Return whether an adapter without `poll` gets a sentence."""
    if not headers:
        return True
    said = served(lambda *_: (202, b"{}", headers), office, tmp_path / "x", exit_code=3)
    return "`poll:` in the adapter says how to get it" in said


def test_a_result_elsewhere_gets_no_headers(office: Office, tmp_path: Path) -> None:
    def answer(request: Any, body: bytes) -> Answer:
        return 202, b"{}", {"location": "http://169.254.169.254/"}

    said = adapted(office, tmp_path, "poll: {within: 5}\n", answer, exit_code=3)
    assert "which gets the headers, got one on 169.254.169.254" in said


# ── Secrets, time and errors ──────────────────────────────────────────────────────


@pytest.mark.parametrize(("token", "found"), [
    ("s3cr3t-T0KEN\n", "a line break"), ("t\u00f6ken-s3cr3t", "another character"),
    ("s3cr3t-T0KEN\r\nx: y", "a line break"),
])  # fmt: skip
def test_a_header_that_cannot_be_sent_is_told_at_once_without_its_value(
    office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str, found: str
) -> None:
    monkeypatch.setenv("MY_TOKEN", token)
    keys = "headers: {authorization: 'Bearer ${MY_TOKEN}'}\n"
    said = adapted(office, tmp_path, keys, lambda *_: None, exit_code=2)
    assert f"authorization: expected a value of printable ASCII characters, found {found}" in said
    assert "ken" not in said.lower().replace("broken", "")
    assert not (tmp_path / "answers").exists()


def test_a_wrong_header_in_an_adapter_is_told_without_its_value(
    office: Office, tmp_path: Path
) -> None:
    said = adapted(office, tmp_path, "headers: hush-hush\n", lambda *_: None, exit_code=2)
    assert "headers: expected" in said
    assert "hush" not in said


@pytest.mark.parametrize(("status", "body"), [
    (401, b"no such token: hush-hush"), (503, b"hush-hush"), (200, b'{"you sent": "hush-hush"}'),
    (200, b'{"outputs": ["hush-hush"' + 9 * b", 1" + b"]}"), (302, b""),
])  # fmt: skip
def test_a_server_that_repeats_a_secret_does_not_get_it_printed(
    office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes
) -> None:
    monkeypatch.setenv("MY_TOKEN", "hush-hush")
    monkeypatch.setattr("fpbench.owner.remote.TRIES", 1)
    keys = "single: true\nheaders: {authorization: 'Bearer ${MY_TOKEN}'}\n"
    code = 2 if status == 200 else 3
    headers = {"location": "http://hush-hush@127.0.0.1/hush-hush?key=hush-hush"}
    said = adapted(
        office, tmp_path, keys, lambda *_: (status, body, headers if status == 302 else {}),
        exit_code=code,
    )  # fmt: skip
    assert "hush" not in said + (tmp_path / "answers").read_text()
    assert "***" in said


def test_a_time_limit_bounds_a_reply_that_drips(
    office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: Any, _: bytes) -> None:
        with contextlib.suppress(OSError):
            for letter in b"HTTP/1.1 200 OK\r\nX-Slow: " + 50 * b"y":
                request.wfile.write(bytes([letter]))
                time.sleep(0.1)

    monkeypatch.setattr("fpbench.owner.remote.TRIES", 1)
    began = time.monotonic()
    said = adapted(office, tmp_path, "timeout: 0.5\n", answer, exit_code=3)
    assert "the reply took longer than 0.5 s" in said
    assert time.monotonic() - began < 4


def test_a_server_without_tls_ends_it_at_once_and_nothing_counts(
    office: Office, tmp_path: Path
) -> None:
    with serving(lambda *_: (200, b"{}", {})) as address:
        url = address.replace("http:", "https:")
        said = office.verify(url, "--answers", tmp_path / "answers", exit_code=3)
    assert "expected a server that speaks TLS" in said
    entries = (tmp_path / "answers").read_text().splitlines()
    assert sum(json.loads(line).get("sent", 0) for line in entries) == 0


def test_a_certificate_that_is_not_trusted_ends_it_at_once_and_nothing_counts(
    office: Office, tmp_path: Path
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 7, now, now + timedelta(days=1))
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "both.pem").write_bytes(private + certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"https://localhost:{server.server_port}/p"
        said = office.verify(url, "--answers", tmp_path / "answers", exit_code=3)
        server.shutdown()
    assert "expected a certificate that this machine trusts" in said
    entries = (tmp_path / "answers").read_text().splitlines()
    assert [json.loads(line).get("sent", 0) for line in entries] == [0, 32, -32]


@pytest.mark.parametrize(("name", "value"), [
    ("HTTPS_PROXY", "nonsense://user:hush@proxy"), ("SSL_CERT_FILE", "/no/such/file"),
])  # fmt: skip
def test_a_wrong_environment_is_told_without_its_values(
    office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    said = office.verify("https://127.0.0.1:9/", "--answers", tmp_path / "answers", exit_code=2)
    assert "expected proxies and certificates that httpx can use" in said
    assert "hush" not in said


def test_a_request_to_wait_for_an_hour_ends_it(office: Office, tmp_path: Path) -> None:
    said = served(
        lambda *_: (429, b"later", {"retry-after": "3600"}), office, tmp_path, exit_code=3
    )
    assert "the API asks to wait 3600 s (HTTP 429: later)" in said
