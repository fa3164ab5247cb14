"""Suspects from model files and URLs, with their answers and descriptions for the verdict."""

from __future__ import annotations

import io
import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from ..api.architectures import split_output
from ..api.errors import FieldError, InputError, ResourceError
from ..api.networks import Builder, for_shapes, initialised, tied
from ..api.oracle import Access, oracle_of, reply
from ..api.scenario import Scenario
from ..store.files import sha256
from .adapter import OF_READING, Adapter
from .comparable import measure_utility, profile_of
from .fingerprint_file import Saved
from .journal import Journal
from .model_file import fill, kind_of, layout_of, most_bytes, read, require_answers
from .remote import Limits, Remote, checked_url
from .replies import Reader
from .request import check_images
from .sandbox import run_in_sandbox
from .score_network import network_of_file, says_values
from .scores import Reading, Values
from .tensor_layout import RefusedError, header, match
from .trees import tree_ensemble

PUBLIC = 2000
"""The most public inputs by which the order of classes is found."""

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

    network: it answers with what the suspect itself says; `reading` reads that as scores.
    about:   its description in the verdict.
    notes:   sentences for the verdict's reader.
    began:   the time before it was asked.
    answers: each query's sha256 and its answer, in order.
    """

    def __init__(
        self, network: nn.Module, saved: Saved, about: dict[str, Any], reading: Reading
    ) -> None:
        self.network, self.reading, self.about = network, reading, about
        self.notes, self.began = list[str](), datetime.now(UTC)
        self.answers: list[tuple[str, Any]] = []
        self._access, self._replies = saved.access, list[Tensor]()
        scenario = saved.scenario
        self._ask = oracle_of(
            network, Access.OUTPUT, input_shape=scenario.input_shape,
            input_range=scenario.input_range, device=torch.device("cpu"),
            input_dtype=scenario.input_dtype,
            quantised=saved.quantised,
        )  # fmt: skip
        queries = saved.fingerprint.queries
        self._outputs = queries, self._ask(queries)
        self._decide_reading(scenario)

    def _decide_reading(self, scenario: Scenario) -> None:
        """Decide how to read the answers, from those to all queries of the fingerprint."""
        outputs = self._outputs[1]
        if not self.reading.may_miss and not bool(outputs.isfinite().all()):
            raise RefusedError("expected finite answers to the queries, got others")
        self.reading.decide(outputs)
        if scenario.task != "classification":
            return
        self.about |= {"values": self.reading.values, "rounded_to": self.reading.step or None}
        if skipped := self.reading.skipped:
            self.notes.append(
                f"{skipped} of {len(self._outputs[1])} inputs have no answer; each counts as "
                "answered with the mean of the others"
            )

    def find_order(self, scenario: Scenario) -> None:
        """Find another order of the suspect's classes, by its agreement with the public pool.

        An order is taken if each class gets more than half of the right answers in it. The
        fingerprint's queries have no part in it.
        """
        try:
            inputs, truth = scenario.data("public")
        except ResourceError:
            return
        rows = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))[:PUBLIC]
        sizes = len(rows) if isinstance(self.network, OnnxSuspect) else 256
        with torch.no_grad():
            answers = torch.cat([self.model(inputs[part]) for part in rows.split(sizes)]).argmax(-1)
        n = scenario.output_shape[0]
        counts = torch.zeros(n, n, dtype=torch.int64)
        counts.index_put_((truth[rows], answers), torch.tensor(1), accumulate=True)
        order = best_order(counts)
        if order is None:
            return
        self.reading.columns = self.about["classes"] = order
        found = [f"score {at} is of class {k}" for at, k in enumerate(order) if at != k]
        before, after = int(counts.diagonal().sum()), int(counts[order, range(n)].sum())
        self.notes.append(
            f"its classes are in another order: {', '.join(found[:5])}"
            f"{' ...' if len(found) > 5 else ''}. The order was found on {len(rows)} inputs of the "
            f"public pool, of which it answers {after} rightly in this order and {before} in the "
            "fingerprint's"
        )

    def model(self, x: Tensor) -> Tensor:
        """Answer inputs with logits of the target's classes, or with a task's outputs."""
        return self.reading.read(self.network(x))

    def utility(self, scenario: Scenario) -> dict[str, float] | None:
        """Return the utility; None if it is unknown, or if queries to an API would be needed."""
        if isinstance(self.network, Remote):
            return None
        # An ONNX suspect starts a process for each call, so it gets one call.
        return measure_utility(self.model, scenario, at_once=isinstance(self.network, OnnxSuspect))

    def profile(self, scenario: Scenario) -> dict[str, float]:
        """Return numbers that describe the answers so far."""
        return profile_of(torch.cat(self._replies), scenario) if self._replies else {}

    def journal(self) -> dict[str, Any] | None:
        """Return the journal's file, its last hash and its times; None for a file as suspect."""
        if not isinstance(self.network, Remote):
            return None
        return self.network.kept.summary()

    def __call__(self, x: Tensor) -> Tensor:
        queries, outputs = self._outputs
        if x.shape != queries.shape or not torch.equal(x, queries):
            outputs = self._ask(x)
        replies = reply(self.reading.read(outputs), self._access)
        self._replies.append(replies)
        self.answers += [
            (sha256(query.numpy().tobytes()), _as_json(answer))
            for query, answer in zip(x, replies, strict=True)
        ]
        return replies


def best_order(counts: Tensor) -> list[int] | None:
    """Return the class of each of a suspect's scores if they are in another order, else None.

    counts: how often inputs of a class (first index) get an answer (second index).
    """
    classes, answers = linear_sum_assignment(counts.numpy(), maximize=True)
    order = dict(zip(answers.tolist(), classes.tolist(), strict=True))
    right = counts[classes, answers]
    if not bool((2 * right > counts.sum(1)[classes]).all()):
        return None
    found = [order[at] for at in range(len(order))]
    return found if found != sorted(found) else None


def _as_json(answer: Tensor) -> Any:
    """Return an answer for the verdict: its numbers, or their sha256 if there are over 1,000."""
    return answer.tolist() if answer.numel() <= 1000 else sha256(answer.numpy().tobytes())


class OnnxSuspect(nn.Module):
    """An ONNX file as a network that runs in the sandbox and has no gradients."""

    def __init__(
        self, raw: bytes, shape: tuple[int, ...], input_range: tuple[float, float],
        output: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self._raw, self._shape = raw, shape
        self._range, self._output = input_range, output
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
        return out


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
    if request.labels_only:
        raise InputError("expected a URL as suspect, got a file", "--labels-only")
    path = Path(suspect)
    try:
        return _open_file(path, saved, request)
    except (RefusedError, FieldError) as error:
        raise InputError(str(error), suspect) from None


def reading_of(
    adapter: Adapter, reader: Reader, access: Access, *, missing: bool = True
) -> Reading:
    """Return how the answers of a suspect are read, as far as its adapter says it.

    missing: whether answers may be missing, as those of an API.
    """
    if not reader.has_classes:
        return Reading(None, 0, missing=missing)
    # A label is a row of one 1 and zeros: a probability.
    values: Values = "probs" if adapter.labels is not None else adapter.values
    labels = access is Access.LABEL
    return Reading(reader.columns, reader.shape[0], values, labels=labels, missing=missing)


def reader_of(adapter: Adapter, scenario: Scenario) -> Reader:
    """Return the reader of a suspect's answers."""
    classes = scenario.task == "classification"
    return Reader(adapter, scenario.output_shape, classes=classes)


def _open_file(path: Path, saved: Saved, request: Request) -> Suspect:
    scenario = saved.scenario
    adapter = Adapter.read(request.adapter, for_file=True)
    reader = reader_of(adapter, scenario)
    reading = reading_of(adapter, reader, saved.access, missing=False)
    names = [request.arch] if request.arch else list(scenario.architectures)
    builders = {
        name: scenario.architecture(name) for name in names if split_output(name)[0] != "onnx"
    }
    models = {name: for_shapes(build) for name, build in builders.items()}
    for_onnx = MAX_ONNX if _kind_of_file(path) == "onnx" else 0
    raw = read(path, max([for_onnx, *map(most_bytes, models.values())]))
    kind = kind_of(raw)
    about: dict[str, Any] = {"file": str(path), "sha256": sha256(raw), "format": kind}
    if kind == "onnx":
        output = split_output(request.arch)[1] if request.arch else None
        shape = (len(reader.columns),) if reader.has_classes else scenario.output_shape
        opened = OnnxSuspect(_with_tensors(raw, path, about), shape, scenario.input_range, output)
        network: nn.Module = opened
        notes = opened.notes
        if "with_tensors_sha256" in about:
            notes.append("the file's tensors were read from other files in its folder")
        if name := tree_ensemble(raw):
            about["arch"] = name
    elif not models:
        raise InputError(f"expected an ONNX file for --arch {request.arch}, got {kind}", str(path))
    else:
        notes = []
        arch, network = _filled(raw, kind, builders, notes, given=request.arch)
        about["arch"] = arch
        if adapter.classes is None:
            require_answers(network, scenario, arch, torch.device("cpu"))
        if says_values(arch):
            reading.values = "logits"
    suspect = Suspect(network, saved, about, reading)
    suspect.notes = [*notes, *suspect.notes]
    if adapter.classes is not None:
        about["classes"] = adapter.classes
    elif reader.has_classes:
        suspect.find_order(scenario)
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


def _with_tensors(raw: bytes, path: Path, about: dict[str, Any]) -> bytes:
    """Return an ONNX file with its tensors, which may be in other files in its own folder."""
    if b"location" not in raw:  # the key that names another file
        return raw
    folder = path.resolve().parent
    beside = sum(f.stat().st_size for f in folder.iterdir() if f.is_file())
    whole = run_in_sandbox(
        "embed_tensors", raw, memory=4 * min(beside, MAX_ONNX), folder=str(folder)
    )
    about["with_tensors_sha256"] = sha256(whole)
    return whole


def _filled(
    raw: bytes, kind: str, builders: dict[str, Builder], notes: list[str], *, given: str | None
) -> tuple[str, nn.Module]:
    """Return the architecture of a file, and its network with the file's tensors.

    notes: sentences are added to it that say how the file was read.
    given: the architecture, if the user named it; else it is the only one that fits the file.

    Raises InputError if several or none of them fit, RefusedError for another kind of file.
    """
    arch = given or _fitting(raw, kind, builders)
    model = initialised(builders[arch])
    fill(network_of_file(model), raw, arch, notes)
    return arch, model.eval().requires_grad_(False)


def _fitting(raw: bytes, kind: str, builders: dict[str, Builder]) -> str:
    """Return the only architecture that fits a file, or the first if its kind shows nothing."""
    if len(builders) == 1 or kind not in ("safetensors", "zip"):
        return next(iter(builders))
    models = {name: for_shapes(build) for name, build in builders.items()}
    fits = []
    if kind == "safetensors":
        layout = header(raw)[0]
        for arch, model in models.items():
            with suppress(RefusedError):
                own = network_of_file(model)
                match(layout, layout_of(own), arch, tied(own))
                fits.append(arch)
    else:
        sizes = _sizes(raw)
        likely = [arch for arch, model in models.items() if not _large(model) - sizes]
        for arch in likely or models:
            with suppress(RefusedError):
                fill(network_of_file(initialised(builders[arch])), raw, arch)
                fits.append(arch)
    if len(fits) != 1:
        found = f"{' and '.join(fits)} fit" if fits else "none of the scenario's fits"
        raise InputError(
            f"expected the architecture of this file ({kind}), {found}; name one of "
            f"{', '.join(models)}, torchvision:NAME, timm:NAME, or FILE.py:CALLABLE",
            "--arch",
        )
    return fits[0]


def _sizes(raw: bytes) -> Counter[int]:
    """Return the sizes of the entries in a zip file of torch.save. To read a file takes a process
    for each architecture, so those with tensors of other sizes are left out."""
    try:
        return Counter(entry.file_size for entry in ZipFile(io.BytesIO(raw)).infolist())
    except Exception:  # hostile bytes can raise many types of error in the parser
        return Counter()


def _large(model: nn.Module) -> Counter[int]:
    """Return the sizes in bytes of a network's tensors, without counters and the like."""
    return Counter(t.nbytes for t in model.state_dict().values() if t.numel() > 1)


def _open_url(suspect: str, saved: Saved, request: Request) -> Suspect:
    scenario = saved.scenario
    adapter = Adapter.read(request.adapter)
    url, shown = checked_url(suspect)
    adapter.filled_headers()  # one that cannot be sent is told before anything is written
    reader = reader_of(adapter, scenario)
    if reader.has_classes and saved.access is Access.OUTPUT and adapter.values != "logits":
        raise InputError(
            "expected a fingerprint for labels or probs, which an API returns, got one for output; "
            "if this API returns logits, say `values: logits` in the adapter",
            "SUSPECT",
        )
    if adapter.scores is None and saved.access is not Access.LABEL:
        raise InputError(
            f"expected `scores`, got `labels` for a fingerprint that needs {saved.access}",
            str(request.adapter),
        )
    check_images(adapter, scenario.input_shape)
    budget = request.budget if request.budget is not None else 2 * saved.method.n_queries
    settings = adapter.model_dump(exclude={"headers"})
    # Answers belong to the URL, to the form of its requests and to the place of the answers.
    form = {name: x for name, x in settings.items() if name not in OF_READING}
    api = sha256(json.dumps([url, form], sort_keys=True).encode())
    kept = request.answers or request.out.with_suffix(f".{api[:8]}.answers.jsonl")
    skip = int(adapter.skip * len(saved.fingerprint.queries))
    model = Remote(
        url, adapter, Journal(kept, api, shown), Limits(request.rate, budget, skip),
        scenario.input_range, reader,
    )  # fmt: skip
    about = {"url": shown, "adapter": settings, "headers": sorted(adapter.headers),
             "answers": str(kept)}  # fmt: skip
    opened = Suspect(model, saved, about, reading_of(adapter, reader, saved.access))
    if adapter.images and not saved.quantised:
        opened.notes.append(
            "the queries were sent as 8-bit images, but the fingerprint was calibrated with exact "
            "queries; make it anew with -o quantised=true"
        )
    if adapter.image == "jpeg" and adapter.send != "json":
        opened.notes.append(
            "the queries were sent as JPEG files, which change their pixels; the fingerprint was "
            "calibrated without that"
        )
    return opened
