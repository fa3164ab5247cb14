"""Adapters: the form of a prediction API's requests, and the place of answers in its replies."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..api.errors import InputError, did_you_mean
from ..engine.source import Source
from .scores import Values

OF_READING = frozenset({"values", "classes", "top", "skip", "headers", "timeout", "batch", "poll"})
"""Keys that change neither an answer nor where it is in a reply. Kept answers serve others too."""

OF_FILES = frozenset({"values", "classes"})
"""Keys of an adapter for a model file."""

NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""The name of a header, RFC 9110 section 5.6.2."""

Class = Annotated[int, Field(ge=0)]


class Poll(BaseModel):
    """How to ask for a result that the API makes later.

    within: the most seconds until the result.
    every:  seconds between two questions, unless the API's Retry-After says more.
    url:    JMESPath of the result's URL in the first reply; by default the header Location.
    until:  JMESPath that is true in the reply with the result; by default every status but 202.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    within: Annotated[float, Field(gt=0, le=3600, strict=False)]
    every: Annotated[float, Field(gt=0, le=60, strict=False)] = 1.0
    url: str | None = None
    until: str | None = None


class Adapter(BaseModel):
    """The keys of an adapter file.

    send:     "json" numbers, or images as "base64" in JSON or as a "multipart" upload.
    field:    the key of the JSON, or the field of the form, for the inputs.
    extra:    other keys of the JSON, or other fields of the form.
    batch:    the number of inputs in one request, which are sent as a list.
    single:   send one input per request, not in a list; the answer is not in a list either. An
              upload always has one input.
    layout:   where JSON numbers have the channels: "channels_first" or "channels_last".
    pixels:   send JSON numbers as whole numbers from 0 to 255: the input range in 256 levels.
    image:    the format of images: "png", or "jpeg" of quality 95.
    min_size: the least pixels of an image's shorter side. A smaller image is enlarged by the
              smallest sufficient whole factor: each pixel becomes a square of equal pixels.
    scores:   JMESPath of the scores in the reply, per input a list of numbers, one for each class;
              or a mapping of names to numbers, or the list that `top` describes.
    values:   what the scores are: "probs", "percent", "log_probs", "logits", or "sigmoid", if each
              class has a probability of its own. By default `scores.find_values` decides.
    top:      the places of name and score in each entry of a list of the likeliest classes, such as
              [label, score] of mappings, or [0, 1] of pairs.
    labels:   JMESPath of the classes in the reply: an index or a name per input. It replaces
              `scores`.
    classes:  the model's order of the API's classes: their names in the model's order; or the
              model's class of each name, or of each score in a list, or null for a class that the
              model does not have. Classes with the same number are merged.
    skip:     the share of the inputs that may remain without an answer: the API refuses one alone
              (400, 404, 413, 415 or 422), or answers with null or with an unknown class.
    poll:     how to ask for a result that is made later, see `Poll`.
    headers:  headers of each request; ${NAME} is read from the environment and never stored.
    timeout:  seconds for a whole reply to one request.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    send: Literal["json", "base64", "multipart"] = "json"
    field: str = "inputs"
    extra: dict[str, Any] = {}
    batch: Annotated[int, Field(ge=1, le=1024)] = 32
    single: bool = False
    layout: Literal["channels_first", "channels_last"] = "channels_first"
    pixels: bool = False
    image: Literal["png", "jpeg"] = "png"
    min_size: Annotated[int, Field(ge=1, le=4096)] = 1
    scores: str | None = None
    values: Values = "auto"
    top: Annotated[list[str | int], Field(min_length=2, max_length=2)] | None = None
    labels: str | None = None
    classes: list[str] | list[Class | None] | dict[str, Class | None] | None = None
    skip: Annotated[float, Field(ge=0, le=0.5, strict=False)] = 0.0
    poll: Poll | None = None
    headers: dict[str, str] = {}
    timeout: Annotated[float, Field(gt=0, le=600, strict=False)] = 30.0

    @classmethod
    def read(cls, path: Path | None, *, for_file: bool = False) -> Adapter:
        """Read an adapter file. Raises InputError with file:line:col.

        The default adapter, for None, sends `{"inputs": [...]}` and reads scores from `outputs`.

        for_file: whether the suspect is a model file, which is asked without requests.
        """
        if path is None:
            return cls() if for_file else cls(scores="outputs")
        source = Source.read(path)
        try:
            adapter = cls.model_validate(source.data)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            key, where = str(fault["loc"][0]), source.where(tuple(fault["loc"][:2]))
            if fault["type"] == "extra_forbidden":
                of, known = (cls, key) if len(fault["loc"]) == 1 else (Poll, str(fault["loc"][1]))
                hint = did_you_mean(known, of.model_fields)
                raise InputError(f"no key {known!r} in an adapter; {hint}", where) from None
            reason = fault["msg"].removeprefix("Input should be ")
            # A header's value may be a secret.
            found = type(fault["input"]).__name__ if key == "headers" else repr(fault["input"])
            raise InputError(f"{key}: expected {reason}, got {found[:80]}", where) from None
        adapter._check(source, for_file=for_file)
        return adapter

    def _check(self, source: Source, *, for_file: bool) -> None:
        if for_file and (others := self.model_fields_set - OF_FILES):
            key = min(others)
            raise InputError(
                f"expected only `values` and `classes` in the adapter of a model file, got `{key}`",
                source.where((key,)),
            )
        if not for_file and (self.scores is None) is (self.labels is None):
            raise InputError("expected either `scores` or `labels`", source.file)
        if self.top is not None and self.scores is None:
            raise InputError("top: expected `scores`, where the lists are", source.where(("top",)))
        for name, value in self.headers.items():
            if not NAME.fullmatch(name):
                raise InputError("headers: expected a header's name", source.where(("headers",)))
            _check_value(name, value, source.where(("headers", name)))

    @property
    def images(self) -> bool:
        """True if inputs are sent in 256 levels: as image files or as pixels."""
        return self.send != "json" or self.pixels

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

        Raises InputError if a variable is not set, or if a value cannot be sent.
        """

        def value_of(match: re.Match[str]) -> str:
            if match[1] not in os.environ:
                raise InputError(f"expected ${match[1]} in the environment, found none", "headers")
            return os.environ[match[1]]

        filled = {k: re.sub(r"\$\{(\w+)\}", value_of, v) for k, v in self.headers.items()}
        for name, value in filled.items():
            _check_value(name, value, "headers")
        return filled


def _check_value(name: str, value: str, where: str) -> None:
    """Raise InputError, without the value, for a header's value that HTTP cannot send."""
    if wrong := next((c for c in value if not " " <= c <= "~"), None):
        kinds = {"\n": "a line break", "\r": "a line break", "\t": "a tab", "\0": "a zero byte"}
        kind = kinds.get(wrong, "another character")
        raise InputError(
            f"{name}: expected a value of printable ASCII characters, found {kind} at position "
            f"{value.index(wrong) + 1} of {len(value)}",
            where,
        )
    if value != value.strip():
        raise InputError(f"{name}: expected a value without spaces at its ends", where)
