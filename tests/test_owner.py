"""An owner with a suspicion: a fingerprint of one's own model, verdicts on files and live APIs."""

from __future__ import annotations

import base64
import io
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from fpbench.builtin.scenarios.digits import Digits
from fpbench.cli import main

DIGITS = Digits()

CASE = """\
name: mine
scenario: digits
api: label
repeats: 1
recipes:
  train: {epochs: 15}
  distill: {epochs: 60}
target: {recipe: given, file: mine.safetensors, model: mlp}
zoo:
  positives:
    - {recipe: finetune, layers: all, copies: 3}
    - {recipe: distill, model: mlp, copies: 5}
  negatives:
    - {recipe: train, model: mlp, each: {pool: [train, public]}, copies: 10}
methods:
  - {method: akh, n_queries: 200}
  - {method: metav, n_queries: 5}
"""


def trained(seed: int, pool: str, teacher: nn.Module | None = None, epochs: int = 25) -> nn.Module:
    """A network that learned the labels of a pool, or a teacher's answers to it."""
    torch.manual_seed(seed)
    model, (x, truth) = DIGITS.architecture("mlp")(), DIGITS.data(pool)
    answers = truth if teacher is None else teacher(x).detach()
    loss = DIGITS.loss if teacher is None else DIGITS.distill_loss
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            loss(model(x[rows]), answers[rows]).backward()
            optimizer.step()
    return model.eval().requires_grad_(False)


@dataclass(frozen=True)
class Office:
    """A folder with one's own model, a thief's copy of it, another's model, and a fingerprint."""

    folder: Path
    copy: nn.Module
    other: nn.Module

    def __call__(self, *words: object) -> Result:
        return CliRunner().invoke(main, [str(word) for word in words])

    def verify(
        self, suspect: object, *words: object, exit_code: int = 0, name: str = "mine.fp"
    ) -> Any:
        """A verdict; where one is refused, the sentence."""
        out = self.folder / "verdict.json"
        out.unlink(missing_ok=True)
        result = self("verify", self.folder / name, suspect, "--out", out, *words)
        assert result.exit_code == exit_code, result.output
        return json.loads(out.read_text()) if exit_code == 0 else result.output


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Office:
    folder = tmp_path_factory.mktemp("office")
    mine = trained(1, "train")
    copy, other = trained(2, "public", mine, epochs=50), trained(3, "public")
    for name, model in {"mine": mine, "copy": copy, "other": other}.items():
        save_file(model.state_dict(), folder / f"{name}.safetensors")
    (folder / "case.yaml").write_text(CASE.replace("mine.safe", f"{folder}/mine.safe"))
    office = Office(folder, copy, other)
    made = office(
        "fingerprint", folder / "case.yaml", "--only", "akh", "--store", folder / "store",
        "--out", folder / "mine.fp",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    assert re.search(r"expected false positives 4\.8 % .* from 20 negatives\)", made.output)
    return office


# ── files ─────────────────────────────────────────────────────────────────────────────────


def test_a_copy_is_caught_and_another_model_is_not(office: Office) -> None:
    copy, other = (office.verify(office.folder / f"{n}.safetensors") for n in ("copy", "other"))
    assert copy["verdict"] == "consistent with a copy"
    assert copy["p_value"] == pytest.approx(1 / 21)
    assert "is consistent with a copy of" in copy["sentence"]
    assert "stolen" not in copy["sentence"]
    assert other["verdict"] == "not shown"
    assert "It is not shown that" in other["sentence"]
    assert "That does not clear it" in other["sentence"]


def test_a_verdict_holds_what_repeats_it(office: Office) -> None:
    verdict = office.verify(office.folder / "copy.safetensors")
    assert verdict["suspect"]["arch"] == "mlp"  # found by its tensors
    assert re.fullmatch("[0-9a-f]{64}", verdict["suspect"]["sha256"])
    assert verdict["fingerprint"]["method"]["fields"]["n_queries"] == verdict["queries"] == 200
    labels = [entry["answer"] for entry in verdict["answers"]]
    assert len(labels) == 200
    assert len({entry["query"] for entry in verdict["answers"]}) == 200


def test_a_damaged_fingerprint_is_refused(office: Office) -> None:
    raw = bytearray((office.folder / "mine.fp").read_bytes())
    raw[-100] ^= 1
    (office.folder / "damaged.fp").write_bytes(raw)
    said = office.verify(office.folder / "copy.safetensors", name="damaged.fp", exit_code=2)
    assert "expected the queries that were written" in said


def test_a_suspect_of_another_architecture_is_told(office: Office) -> None:
    save_file(DIGITS.architecture("cnn")().state_dict(), office.folder / "cnn.safetensors")
    said = office.verify(office.folder / "cnn.safetensors", "--arch", "mlp", exit_code=2)
    assert "tensors of mlp; the file lacks" in said


def test_an_architecture_may_be_a_file_of_ones_own(office: Office) -> None:
    net = office.folder / "net.py"
    net.write_text("from fpbench.builtin.scenarios.digits import mlp\n")
    verdict = office.verify(office.folder / "copy.safetensors", "--arch", f"{net}:mlp")
    assert verdict["verdict"] == "consistent with a copy"
    said = office.verify(office.folder / "copy.safetensors", "--arch", f"{net}:nil", exit_code=2)
    assert "expected a function 'nil'" in said


def test_more_certainty_than_the_negatives_carry_is_refused_at_once(office: Office) -> None:
    made = office(
        "fingerprint", office.folder / "case.yaml", "--only", "akh", "--out", "x",
        "--store", office.folder / "empty", "--false-positive-rate", "0.01",
    )  # fmt: skip
    assert made.exit_code == 2
    assert "at least 0.048, which is all that 20 independent models can show" in made.output
    assert "give the case 99 negatives" in made.output
    assert not (office.folder / "empty").exists()


def test_a_method_that_does_not_apply_declines_in_a_sentence(office: Office) -> None:
    made = office("fingerprint", office.folder / "case.yaml", "--only", "metav", "--out", "x")
    assert made.exit_code == 2
    assert "metav needs probs or output; the suite's api gives label" in made.output


def test_one_method_is_chosen(office: Office) -> None:
    made = office("fingerprint", office.folder / "case.yaml", "--out", "x")
    assert made.exit_code == 2
    assert "expected one method, got akh, metav; choose one by --only METHOD" in made.output


# ── live APIs ─────────────────────────────────────────────────────────────────────────────


@dataclass
class Api:
    """A prediction API of one model, on loopback."""

    model: nn.Module
    reply: Callable[[Tensor], Any]
    read: Callable[[BaseHTTPRequestHandler, bytes], Tensor]
    url: str = ""
    requests: int = 0
    troubles: list[int] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)


@contextmanager
def serving(api: Api) -> Iterator[Api]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            api.requests += 1
            api.headers.append(self.headers.get("authorization", ""))
            status = api.troubles.pop(0) if api.troubles else 200
            if status == 0:
                self.close_connection = True  # a broken line
                return
            self.send_response(status)
            if status == 302:
                self.send_header("location", "http://169.254.169.254/")
            with torch.no_grad():
                said = api.reply(api.model(api.read(self, body))) if status == 200 else "busy"
            text = json.dumps(said).encode()
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    api.url = f"http://127.0.0.1:{server.server_port}/predict"
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def numbers(_: BaseHTTPRequestHandler, body: bytes) -> Tensor:
    return torch.tensor(json.loads(body)["inputs"])


def opened(file: bytes) -> Tensor:
    raw = Image.open(io.BytesIO(file))
    return torch.frombuffer(bytearray(raw.tobytes()), dtype=torch.uint8).view(1, 1, 8, 8) / 255


def uploaded(handler: BaseHTTPRequestHandler, body: bytes) -> Tensor:
    return opened(body[body.index(b"\x89PNG") :])


def encoded(_: BaseHTTPRequestHandler, body: bytes) -> Tensor:
    return torch.cat([opened(base64.b64decode(text)) for text in json.loads(body)["images"]])


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
        with serving(Api(model, reply, read)) as api:
            verdict = office.verify(api.url, *words, "--answers", tmp_path / name)
            found[name] = verdict["verdict"]
            assert ("8-bit images" in str(verdict["notes"])) is ("send" in adapter)
    assert found == {"copy": "consistent with a copy", "other": "not shown"}


def test_a_broken_connection_repeats_nothing(office: Office, tmp_path: Path) -> None:
    words = ("--answers", tmp_path / "answers", "--budget", 500)
    with serving(Api(office.copy, scores, numbers)) as api:
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


def test_a_busy_server_and_a_lost_line_are_asked_again(office: Office, tmp_path: Path) -> None:
    with serving(Api(office.copy, scores, numbers, troubles=[503, 0])) as api:
        verdict = office.verify(api.url, "--answers", tmp_path / "answers", "--budget", 264)
    assert verdict["queries"] == 200
    assert api.requests == 9


def test_the_budget_counts_what_was_sent_in_vain(office: Office, tmp_path: Path) -> None:
    words = ("--answers", tmp_path / "answers", "--budget", 100)
    with serving(Api(office.copy, scores, numbers, troubles=[404])) as api:
        office.verify(api.url, *words, exit_code=3)
        said = office.verify(api.url, *words, exit_code=3)
        assert "expected to need at most 100 queries, 96 are sent and 32 more" in said
        assert api.requests == 3


TROUBLES = {
    "sent elsewhere": (scores, 302, 3, "sends us on to http://169.254.169.254/"),
    "no such key": (lambda out: {"answer": 1}, 200, 2, "expected 32 answers at 'outputs'"),
    "too few": (lambda out: {"outputs": [[0.1] * 10]}, 200, 2, "got 1 of them"),
    "no numbers": (lambda out: {"outputs": [["a"] * 10] * 32}, 200, 2, "list of finite numbers"),
    "not finite": (lambda out: {"outputs": [[float("nan")] * 10] * 32}, 200, 2, "NaN"),
    "other classes": (lambda out: {"outputs": [[0.5, 0.5]] * len(out)}, 200, 2, "10 scores"),
}


@pytest.mark.parametrize(("reply", "status", "code", "sentence"), TROUBLES.values(),
                         ids=TROUBLES.keys())  # fmt: skip
def test_a_reply_that_is_none_is_told(
    office: Office, tmp_path: Path, reply: Any, status: int, code: int, sentence: str
) -> None:
    with serving(Api(office.copy, reply, numbers, troubles=[status])) as api:
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
    with serving(Api(office.copy, scores, numbers)) as api:
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
