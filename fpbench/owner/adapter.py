"""The form of a prediction API's requests, and the place of the answers in its replies."""

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
from .onnx_target import as_logits


class Adapter(BaseModel):
    """The keys of an adapter file.

    send:    "json" numbers, or PNG images as "base64" in JSON or as a "multipart" upload.
    field:   the key, or the form's field, that the inputs go under.
    extra:   other keys of the JSON, or of the form.
    batch:   inputs in one request, as a list.
    single:  one input per request, bare and not in a list; so is its answer. A form always is.
    scores:  where in the reply one list of numbers per input is, one for each class: JMESPath.
    labels:  where one class per input is, its index or its name; instead of `scores`.
    classes: the names of the classes, in the model's order, where the reply has names.
    headers: of each request; ${NAME} is taken from the environment and never written down.
    timeout: seconds for one request.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    send: Literal["json", "base64", "multipart"] = "json"
    field: str = "inputs"
    extra: dict[str, Any] = {}
    batch: Annotated[int, Field(ge=1, le=1024)] = 32
    single: bool = False
    scores: str | None = None
    labels: str | None = None
    classes: list[str] | None = None
    headers: dict[str, str] = {}
    timeout: Annotated[float, Field(gt=0, le=600, strict=False)] = 30.0

    @classmethod
    def read(cls, path: Path | None) -> Adapter:
        """Read an adapter file; without one, `{"inputs": [...]}` is sent and `outputs` read.

        Raises InputError with file:line:col.
        """
        if path is None:
            return cls(scores="outputs")
        source = Source.read(path)
        try:
            found = cls.model_validate(source.data)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key, where = str(first["loc"][0]), source.where((first["loc"][0],))
            if first["type"] == "extra_forbidden":
                near = did_you_mean(key, cls.model_fields)
                raise InputError(f"no key {key!r} in an adapter; {near}", where) from None
            reason = first["msg"].removeprefix("Input should be ")
            raise InputError(f"{key}: expected {reason}, got {first['input']!r}", where) from None
        if (found.scores is None) is (found.labels is None):
            raise InputError("expected either `scores` or `labels`", str(path))
        return found

    @property
    def images(self) -> bool:
        """Whether inputs travel as image files, of 8 bits."""
        return self.send != "json"

    @property
    def bare(self) -> bool:
        """Whether one input travels alone, in no list, and its answer too."""
        return self.single or self.send == "multipart"

    @property
    def at_once(self) -> int:
        """The number of inputs in one request."""
        return 1 if self.bare else self.batch

    def filled_headers(self) -> dict[str, str]:
        """Return the headers with environment variables filled in. Raises InputError."""

        def value(found: re.Match[str]) -> str:
            if found[1] not in os.environ:
                raise InputError(f"expected ${found[1]} in the environment, found none", "headers")
            return os.environ[found[1]]

        return {k: re.sub(r"\$\{(\w+)\}", value, v) for k, v in self.headers.items()}

    def request(self, x: Tensor, input_range: tuple[float, float]) -> dict[str, Any]:
        """Return httpx's arguments of a request for some inputs (n, *input_shape)."""
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

        Raises InputError for a reply of another form than the adapter's.
        """
        path = self.scores or self.labels or ""
        try:
            data = json.loads(body, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise InputError(f"expected JSON from the API, got {str(error)[:100]}") from None
        found = _search(path, data)
        if self.bare:
            found = [found]
        if not isinstance(found, list) or len(found) != n:
            size = f"{len(found)} of them" if isinstance(found, list) else type(found).__name__
            raise InputError(f"expected {n} answers at {path!r} of the API's reply, got {size}")
        return [self._label(a) if self.scores is None else self._scores(a) for a in found]

    def _label(self, answer: Any) -> int:
        names = self.classes or []
        if isinstance(answer, str) and answer in names:
            return names.index(answer)
        if type(answer) is not int:
            known = f"one of {', '.join(names[:5])} ..." if names else "a class's index"
            raise InputError(f"expected {known} at {self.labels!r}, got {str(answer)[:60]!r}")
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


def _no_number(text: str) -> float:
    raise ValueError(f"{text}, which is no number")


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
    """Raise InputError unless inputs of a shape can travel as images."""
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise InputError(
            f"expected inputs of shape (1 or 3, height, width) to send as images, got {shape}",
            "send",
        )


def as_scores(answers: list[Any], n_classes: int) -> Tensor:
    """Return answers as scores (n, n_classes), which `reply` can read at every level of access.

    A label becomes a one-hot row; probabilities become their logarithms. Raises InputError for
    answers of other classes than the scenario's.
    """
    if all(type(a) is int for a in answers):
        if not all(0 <= a < n_classes for a in answers):
            raise InputError(f"expected classes 0 to {n_classes - 1} from the API, got {answers}")
        return torch.nn.functional.one_hot(torch.tensor(answers), n_classes).float()
    if any(len(a) != n_classes for a in answers):
        found = sorted({len(a) for a in answers})
        raise InputError(f"expected {n_classes} scores for each input, got {found}")
    return as_logits(torch.tensor(answers, dtype=torch.float32))
