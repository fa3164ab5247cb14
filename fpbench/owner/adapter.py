"""Adapters: the form of a prediction API's requests, and the place of answers in its replies."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from ..api.errors import InputError, did_you_mean
from ..api.oracle import to_bytes
from ..engine.source import Source
from .onnx_target import ROUNDED, as_logits


class Adapter(BaseModel):
    """The keys of an adapter file.

    send:    "json" numbers, or PNG images as "base64" in JSON or as a "multipart" upload.
    field:   the key of the JSON, or the field of the form, for the inputs.
    extra:   other keys of the JSON, or other fields of the form.
    batch:   the number of inputs in one request, which are sent as a list.
    single:  send one input per request, not in a list; the answer is not in a list either. An
             upload always has one input.
    scores:  JMESPath of the scores in the reply: a list of numbers per input, one for each class.
    values:  what the scores are: "probs", "percent", "log_probs" or "logits". By default they are
             probabilities if every row of a reply sums to one, give or take a tenth, and logits if
             none does; a reply of which only some rows do, or that may be percent, is refused.
    labels:  JMESPath of the classes in the reply: an index or a name per input. It replaces
             `scores`.
    classes: the names of the classes in the model's order, if the reply has names.
    headers: headers of each request; ${NAME} is read from the environment and never stored.
    timeout: seconds for one request.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    send: Literal["json", "base64", "multipart"] = "json"
    field: str = "inputs"
    extra: dict[str, Any] = {}
    batch: Annotated[int, Field(ge=1, le=1024)] = 32
    single: bool = False
    scores: str | None = None
    values: Literal["auto", "probs", "percent", "log_probs", "logits"] = "auto"
    labels: str | None = None
    classes: list[str] | None = None
    headers: dict[str, str] = {}
    timeout: Annotated[float, Field(gt=0, le=600, strict=False)] = 30.0

    @classmethod
    def read(cls, path: Path | None) -> Adapter:
        """Read an adapter file. Raises InputError with file:line:col.

        The default adapter, for None, sends `{"inputs": [...]}` and reads scores from `outputs`.
        """
        if path is None:
            return cls(scores="outputs")
        source = Source.read(path)
        try:
            adapter = cls.model_validate(source.data)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            key, where = str(fault["loc"][0]), source.where((fault["loc"][0],))
            if fault["type"] == "extra_forbidden":
                hint = did_you_mean(key, cls.model_fields)
                raise InputError(f"no key {key!r} in an adapter; {hint}", where) from None
            reason = fault["msg"].removeprefix("Input should be ")
            raise InputError(f"{key}: expected {reason}, got {fault['input']!r}", where) from None
        if (adapter.scores is None) is (adapter.labels is None):
            raise InputError("expected either `scores` or `labels`", str(path))
        return adapter

    @property
    def images(self) -> bool:
        """True if inputs are sent as image files, of 8 bits."""
        return self.send != "json"

    @property
    def has_no_list(self) -> bool:
        """True if a request has one input and its reply one answer, neither of them in a list."""
        return self.single or self.send == "multipart"

    @property
    def at_once(self) -> int:
        """The number of inputs in one request."""
        return 1 if self.has_no_list else self.batch

    def filled_headers(self) -> dict[str, str]:
        """Return the headers with the values of environment variables.

        Raises InputError if a variable is not set.
        """

        def value_of(match: re.Match[str]) -> str:
            if match[1] not in os.environ:
                raise InputError(f"expected ${match[1]} in the environment, found none", "headers")
            return os.environ[match[1]]

        return {k: re.sub(r"\$\{(\w+)\}", value_of, v) for k, v in self.headers.items()}

    def request(self, x: Tensor, input_range: tuple[float, float]) -> dict[str, Any]:
        """Return httpx's arguments for a request with inputs (n, *input_shape)."""
        if self.send == "json":
            inputs: list[Any] = x.tolist()
        else:
            files = [_png(pixels) for pixels in to_bytes(x, input_range)]
            if self.send == "multipart":
                return {
                    "files": {self.field: ("query.png", files[0], "image/png")},
                    "data": self.extra,
                }
            inputs = [base64.b64encode(file).decode() for file in files]
        return {"json": {**self.extra, self.field: inputs[0] if self.single else inputs}}

    def answers(self, body: bytes, n: int) -> list[Any]:
        """Return the answers in a reply to n inputs, each a list of numbers or a class's index.

        Raises InputError if the reply does not have the adapter's form.
        """
        path = self.scores or self.labels or ""
        try:
            data = json.loads(body, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            begins = body[:100].decode(errors="replace")
            raise InputError(
                f"expected JSON from the API, got {begins!r} ({str(error)[:100]})"
            ) from None
        answers = _search(path, data)
        if self.has_no_list:
            answers = [answers]
        if not isinstance(answers, list) or len(answers) != n:
            size = len(answers) if isinstance(answers, list) else type(answers).__name__
            begins = body[:100].decode(errors="replace")
            raise InputError(
                f"expected {n} answers at {path!r} of the API's reply, got {size}; it begins with "
                f"{begins}"
            )
        return [self._label(a) if self.scores is None else self._scores(a) for a in answers]

    def _label(self, answer: Any) -> int:
        names = self.classes or []
        if isinstance(answer, str) and answer in names:
            return names.index(answer)
        if type(answer) is not int:
            form = f"one of {', '.join(names[:5])} ..." if names else "a class's index"
            raise InputError(f"expected {form} at {self.labels!r}, got {str(answer)[:60]!r}")
        return answer

    def _scores(self, answer: Any) -> list[float]:
        if isinstance(answer, dict) and self.classes and answer.keys() == set(self.classes):
            answer = [answer[name] for name in self.classes]
        try:
            if not isinstance(answer, list) or any(type(a) not in (int, float) for a in answer):
                raise ValueError
            numbers = [float(a) for a in answer]
            if not all(map(math.isfinite, numbers)):
                raise ValueError
        except (ValueError, OverflowError):
            raise InputError(
                f"expected a list of finite numbers at {self.scores!r}, got {str(answer)[:60]!r}"
            ) from None
        return numbers


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text}, which is not a finite number")


def _search(path: str, data: Any) -> Any:
    import jmespath

    try:
        return jmespath.search(path, data)
    except jmespath.exceptions.JMESPathError as error:
        raise InputError(f"expected a JMESPath, got {path!r}: {error}") from None


def _png(pixels: Tensor) -> bytes:
    """Return the PNG file of an image (1 or 3, height, width) of uint8."""
    from PIL import Image

    array = pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)
    out = io.BytesIO()
    Image.fromarray(array.contiguous().numpy()).save(out, "PNG")
    return out.getvalue()


def check_images(shape: tuple[int, ...]) -> None:
    """Raise InputError unless inputs of this shape can be sent as images."""
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise InputError(
            f"expected inputs of shape (1 or 3, height, width) to send as images, got {shape}",
            "send",
        )


def as_scores(answers: list[Any], n_classes: int, values: str = "auto") -> Tensor:
    """Return answers as scores (n, n_classes), which `reply` can read at every level of access.

    A label becomes a one-hot row; probabilities become their logarithms. Raises InputError if the
    answers' number of classes is not `n_classes`, or if it is not clear what the scores are.

    values: what the scores are, see `Adapter`.
    """
    if all(type(a) is int for a in answers):
        if not all(0 <= a < n_classes for a in answers):
            raise InputError(f"expected classes 0 to {n_classes - 1} from the API, got {answers}")
        return torch.nn.functional.one_hot(torch.tensor(answers), n_classes).float()
    if any(len(a) != n_classes for a in answers):
        lengths = sorted({len(a) for a in answers})
        raise InputError(f"expected {n_classes} scores for each input, got {lengths}")
    scores = torch.tensor(answers, dtype=torch.float32)
    if values in ("log_probs", "logits"):
        return scores
    sums = scores.sum(-1, keepdim=True)
    if values == "auto":
        nonnegative = bool((scores >= 0).all())
        for total, name in ((1, "probs"), (100, "percent")):
            near = nonnegative & ((sums - total).abs() <= ROUNDED * total)
            if near.any() and (name == "percent" or not near.all()):
                raise InputError(
                    f"expected scores that are clearly probabilities or logits, got rows that sum "
                    f"to {float(sums.min()):.3g} to {float(sums.max()):.3g}; say what they are by "
                    "`values:` in the adapter: probs, percent, log_probs or logits"
                )
        return as_logits(scores)
    if bool((scores < 0).any()) or bool((sums <= 0).any()):
        raise InputError(f"values: {values}: expected scores from 0 on, got negative ones or none")
    return (scores / sums).clamp_min(1e-12).log()
