"""Suspects from model files and URLs, with their answers and descriptions for the verdict."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..api.architectures import split_output
from ..api.errors import FieldError, InputError
from ..api.networks import for_shapes, initialised, tied
from ..api.oracle import Access, oracle_of
from ..api.scenario import Scenario
from ..store.files import sha256
from .adapter import Adapter, check_images
from .comparable import measure_utility, profile_of
from .fingerprint_file import Saved
from .journal import Journal
from .model_file import fill, kind_of, layout_of, most_bytes, read, require_answers
from .onnx_target import as_logits
from .remote import Limits, Remote, checked_url
from .sandbox import run_in_sandbox
from .tensor_layout import RefusedError, header, match

MAX_ONNX = 2 * 2**30
"""Bytes of an ONNX file: protobuf's own limit."""


@dataclass(frozen=True)
class Request:
    """The options of `fpbench verify` that say how to open a suspect."""

    arch: str | None = None
    adapter: Path | None = None
    labels_only: bool = False
    rate: float = 0.0
    budget: int | None = None
    answers: Path | None = None
    out: Path = Path("verdict.json")


class Suspect:
    """A suspect that answers queries and records them.

    model:   the network that answers.
    about:   its description in the verdict.
    notes:   sentences for the verdict's reader.
    answers: each query's sha256 and its answer, in order.
    """

    def __init__(self, model: nn.Module, saved: Saved, about: dict[str, Any]) -> None:
        scenario = saved.scenario
        self.model, self.about, self.notes = model, about, list[str]()
        self.answers: list[tuple[str, Any]] = []
        self._replies: list[Tensor] = []
        self._ask = oracle_of(
            model, saved.access, input_shape=scenario.input_shape,
            input_range=scenario.input_range, device=torch.device("cpu"),
            quantised=saved.quantised,
        )  # fmt: skip

    def utility(self, scenario: Scenario) -> dict[str, float] | None:
        """Return the utility; None if it is unknown, or if queries to an API would be needed."""
        if isinstance(self.model, Remote):
            return None
        # An ONNX suspect starts a process for each call, so it gets one call.
        return measure_utility(self.model, scenario, at_once=isinstance(self.model, OnnxSuspect))

    def profile(self, scenario: Scenario) -> dict[str, float]:
        """Return numbers that describe the answers so far."""
        return profile_of(torch.cat(self._replies), scenario) if self._replies else {}

    def journal(self) -> dict[str, Any] | None:
        """Return the journal's file, its last hash and its times; None for a file as suspect."""
        if not isinstance(self.model, Remote):
            return None
        return self.model.kept.summary()

    def __call__(self, x: Tensor) -> Tensor:
        replies = self._ask(x)
        self._replies.append(replies)
        self.answers += [
            (sha256(query.numpy().tobytes()), _as_json(answer))
            for query, answer in zip(x, replies, strict=True)
        ]
        return replies


def _as_json(answer: Tensor) -> Any:
    """Return an answer for the verdict: its numbers, or their sha256 if there are over 1,000."""
    return answer.tolist() if answer.numel() <= 1000 else sha256(answer.numpy().tobytes())


class OnnxSuspect(nn.Module):
    """An ONNX file as a network that runs in the sandbox and has no gradients."""

    def __init__(
        self, raw: bytes, scenario: Scenario, probabilities: bool, output: str | None = None
    ) -> None:
        super().__init__()
        self._raw, self._shape, self._probabilities = raw, scenario.output_shape, probabilities
        self._range, self._output = scenario.input_range, output
        self.notes: list[str] = []

    def forward(self, x: Tensor) -> Tensor:
        raw = run_in_sandbox(
            "answer_queries", self._raw, x.numpy().astype(np.float32).tobytes(),
            memory=6 * len(self._raw), shape=list(x.shape), output_shape=list(self._shape),
            output=self._output, input_range=list(self._range),
        )  # fmt: skip
        notes, _, raw = raw.partition(b"\n")
        self.notes += [note for note in json.loads(notes) if note not in self.notes]
        out = torch.from_numpy(np.frombuffer(raw, np.float32).copy())
        out = out.reshape(len(x), *self._shape)
        if not bool(out.isfinite().all()):
            raise RefusedError("expected finite answers of the ONNX model, got others")
        return as_logits(out) if self._probabilities else out


def open_suspect(suspect: str, saved: Saved, request: Request) -> Suspect:
    """Open a file or a URL. Raises InputError if it cannot be a suspect of this fingerprint."""
    if request.labels_only and saved.access is not Access.LABEL:
        raise InputError(
            f"expected a fingerprint for labels, got one for {saved.access}; make one with: "
            "fpbench fingerprint ... -o api=label",
            "--labels-only",
        )
    if "://" in suspect:
        return _open_url(suspect, saved, request)
    for option, value in (("--adapter", request.adapter), ("--labels-only", request.labels_only)):
        if value:
            raise InputError("expected a URL as suspect, got a file", option)
    path = Path(suspect)
    try:
        return _open_file(path, saved, request)
    except (RefusedError, FieldError) as error:
        raise InputError(str(error), suspect) from None


def _open_file(path: Path, saved: Saved, request: Request) -> Suspect:
    scenario = saved.scenario
    names = [request.arch] if request.arch else list(scenario.architectures)
    builders = {
        name: scenario.architecture(name) for name in names if split_output(name)[0] != "onnx"
    }
    models = {name: for_shapes(build) for name, build in builders.items()}
    for_onnx = MAX_ONNX if _kind_of_file(path) == "onnx" else 0
    raw = read(path, max([for_onnx, *map(most_bytes, models.values())]))
    kind = kind_of(raw)
    about = {"file": str(path), "sha256": sha256(raw), "format": kind}
    if kind == "onnx":
        return _open_onnx(raw, path, saved, request, about)
    if not models:
        raise InputError(f"expected an ONNX file for --arch {request.arch}, got {kind}", str(path))
    arch = request.arch or _matching_architecture(raw, kind, models)
    notes: list[str] = []
    model = fill(initialised(builders[arch]), raw, arch, notes)
    require_answers(model, scenario, arch, torch.device("cpu"))
    suspect = Suspect(model, saved, {**about, "arch": arch})
    suspect.notes += notes
    return suspect


def _open_onnx(
    raw: bytes, path: Path, saved: Saved, request: Request, about: dict[str, Any]
) -> Suspect:
    """Open an ONNX file. Its tensors may be in other files in its own folder."""
    if b"location" in raw:  # the key that names another file
        folder = path.resolve().parent
        beside = sum(f.stat().st_size for f in folder.iterdir() if f.is_file())
        raw = run_in_sandbox(
            "embed_tensors", raw, memory=4 * min(beside, MAX_ONNX), folder=str(folder)
        )
        about |= {"with_tensors_sha256": sha256(raw)}
    output = split_output(request.arch)[1] if request.arch else None
    probabilities = saved.access is not Access.OUTPUT
    model = OnnxSuspect(raw, saved.scenario, probabilities, output)
    if "with_tensors_sha256" in about:
        model.notes.append("the file's tensors were read from other files in its folder")
    suspect = Suspect(model, saved, about)
    suspect.notes = model.notes
    return suspect


def _kind_of_file(path: Path) -> str:
    """Return a file's kind by its first bytes, or an empty text if there is no such file."""
    try:
        if not path.is_file():
            return ""  # to read a pipe could block
        with path.open("rb") as file:
            return kind_of(file.read(16))
    except OSError:
        return ""


def _matching_architecture(raw: bytes, kind: str, models: dict[str, nn.Module]) -> str:
    """Return the scenario's architecture that has a file's tensors.

    Raises InputError unless there is exactly one.
    """
    fits = []
    if kind == "safetensors":
        found = header(raw)[0]
        for arch, model in models.items():
            with suppress(RefusedError):
                match(found, layout_of(model), arch, tied(model))
                fits.append(arch)
    if len(fits) != 1:
        raise InputError(
            f"expected the architecture of this file ({kind}), which it does not show; name one "
            f"of {', '.join(models)}, torchvision:NAME, or FILE.py:CALLABLE",
            "--arch",
        )
    return fits[0]


def _open_url(suspect: str, saved: Saved, request: Request) -> Suspect:
    scenario = saved.scenario
    adapter = Adapter.read(request.adapter)
    url, shown = checked_url(suspect)
    if saved.access is Access.OUTPUT:
        raise InputError("expected a fingerprint for labels or probs, which an API returns; got "
                         "one for output", "SUSPECT")  # fmt: skip
    if adapter.scores is None and saved.access is not Access.LABEL:
        raise InputError(
            f"expected `scores`, got `labels` for a fingerprint that needs {saved.access}",
            str(request.adapter),
        )
    if adapter.images:
        check_images(scenario.input_shape)
    budget = request.budget if request.budget is not None else 2 * saved.method.n_queries
    settings = adapter.model_dump(exclude={"headers"})
    # Answers belong to the URL and the form of its answers, not to how many are asked at once.
    form = {name: x for name, x in settings.items() if name not in ("batch", "timeout")}
    api = sha256(json.dumps([url, form], sort_keys=True).encode())
    kept = request.answers or request.out.with_suffix(f".{api[:8]}.answers.jsonl")
    model = Remote(
        url, adapter, Journal(kept, api, shown), Limits(request.rate, budget),
        scenario.input_range, scenario.output_shape[0],
    )  # fmt: skip
    about = {"url": shown, "adapter": settings, "headers": sorted(adapter.headers),
             "answers": str(kept)}  # fmt: skip
    opened = Suspect(model, saved, about)
    if adapter.images and not saved.quantised:
        opened.notes.append(
            "the queries were sent as 8-bit images, but the fingerprint was calibrated with exact "
            "queries; make it anew with -o quantised=true"
        )
    return opened
