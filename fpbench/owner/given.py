"""The recipe `given`: a model from a file, such as the owner's target or an independent model."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from ..api.errors import FieldError, InputError, printable
from ..api.networks import initialised
from ..api.recipe import Lab, Recipe
from ..api.scenario import Scenario
from .model_file import fill, most_bytes, read, require_answers
from .onnx_target import load_onnx
from .reference import reference_zoo
from .tensor_layout import RefusedError

log = logging.getLogger("fpbench")


@dataclass(frozen=True, kw_only=True)
class Given(Recipe):
    """Take a model's weights from a file. The file's content names the model, not its path.

    file:   a safetensors file, a state dict of torch.save, or ONNX; relative to the current folder.
    model:  its architecture: the scenario's, `torchvision:NAME`, `timm:NAME`,
            `transformers:NAME`, or `FILE.py:CALLABLE`; "onnx" for an ONNX file, which answers
            queries but has neither weights nor gradients.
    output: the name of the output to take, if the network has several; by default that of the
            right shape.
    sha256: the sha256 of the file; by default that of the file found. If it is given, a file with
            another one is refused.
    """

    name = "given"
    needs_parent = False
    places: ClassVar[frozenset[str]] = frozenset({"file"})
    added: ClassVar[frozenset[str]] = frozenset({"output"})

    file: str
    model: str
    sha256: str = ""
    output: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sha256:
            object.__setattr__(self, "sha256", self._hash_file())
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise FieldError("sha256", f"expected 64 hexadecimal digits, got {self.sha256!r}")

    def _hash_file(self) -> str:
        path = Path(self.file)
        if not path.is_file():
            raise FieldError("file", f"expected a model file at {path.absolute()}, found none")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def arch(self) -> str:
        # The bytes of an ONNX file are its network's only tensor, so their number defines it.
        name = f"onnx:{Path(self.file).stat().st_size}" if self.is_onnx else self.model
        return f"{name}@{self.output}" if self.output else name

    @property
    def is_onnx(self) -> bool:
        """Whether the file is an ONNX file."""
        return self.model == "onnx"

    @property
    def kind(self) -> str:
        return f"given {self.model}"

    @property
    def uses_seed(self) -> bool:
        return False

    @classmethod
    def default_zoo(
        cls, scenario: Scenario, target: Mapping[str, Any], train: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        return reference_zoo(scenario, target, train) if "model" in target else None

    def __str__(self) -> str:
        return f"given({self.model},{Path(self.file).name},{self.sha256[:8]})"

    def make(self, lab: Lab) -> nn.Module:
        model = initialised(lab.scenario.architecture(self.arch))
        raw = read(Path(self.file), most_bytes(model))
        if (found := hashlib.sha256(raw).hexdigest()) != self.sha256:
            raise InputError(
                f"expected the file of sha256 {self.sha256}, got {found}", str(self.file)
            )
        notes: list[str] = []
        try:
            if self.is_onnx:
                load_onnx(model, raw)
            else:
                fill(model, raw, self.model, notes)
            require_answers(model.to(lab.device), lab.scenario, self.arch, lab.device)
        except RefusedError as error:
            raise InputError(str(error), self.file) from None
        for note in notes:
            log.warning("%s: %s", self.file, printable(note))
        return model
