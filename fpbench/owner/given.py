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

from ..api.errors import FieldError, InputError, clipped, printable
from ..api.networks import initialised
from ..api.recipe import Lab, Recipe
from ..api.scenario import Scenario
from ..store.files import sha256_of
from .model_file import fill, most_bytes, read, require_answers
from .onnx_target import load_onnx
from .reference import reference_zoo
from .score_network import check_scores, network_of_file
from .tensor_layout import RefusedError
from .trees import require_network

MAX_KIND = 60
"""Characters of the name of a kind."""

log = logging.getLogger("fpbench")


@dataclass(frozen=True, kw_only=True)
class Given(Recipe):
    """Take a model's weights from a file. The file's content names the model, not its path.

    Among a suite's positives it has the target as parent, unless the entry names another file of
    the zoo at `parent:`. This is the user's statement: nothing checks who made a file.

    file:   a safetensors file, a state dict of torch.save, or ONNX; relative to the current folder.
    model:  its architecture: the scenario's, `torchvision:NAME`, `timm:NAME`,
            `transformers:NAME`, or `FILE.py:CALLABLE`; "onnx" for an ONNX file, which answers
            queries but has neither weights nor gradients. A classifier that answers with
            probabilities is named `probs:NAME`, or `sigmoid:NAME` if each class has a probability
            of its own.
    output: the name of the output to take, if the network has several; by default that of the
            right shape.
    sha256: the sha256 of the file; by default that of the file found. If it is given, a file with
            another one is refused, and the file itself is not needed if the store has the model.
    kind:   the group that it belongs to in reports and in stratified splits, such as FTAL; by
            default its architecture.
    """

    name = "given"
    needs_parent = None
    places: ClassVar[frozenset[str]] = frozenset({"file", "kind"})
    added: ClassVar[frozenset[str]] = frozenset({"output"})

    file: str
    model: str
    sha256: str = ""
    kind: str = ""
    output: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sha256:
            object.__setattr__(self, "sha256", self._hash_file())
        elif self.model == "onnx" and not Path(self.file).is_file():
            self._hash_file()  # `arch` needs the file even if the store has the model
        default = f"given {'copy ' if self.parent else ''}{self.model}"
        if not self.kind:
            object.__setattr__(self, "kind", default)
        fits = len(self.kind) <= MAX_KIND and self.kind.isprintable() and self.kind != "target"
        if not fits and self.kind != default:
            raise FieldError(
                "kind",
                f"expected at most {MAX_KIND} printable characters, and not the word target, got "
                f"{clipped(self.kind)}",
            )
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise FieldError("sha256", f"expected 64 hexadecimal digits, got {self.sha256!r}")

    def _hash_file(self) -> str:
        path = Path(self.file)
        # A zoo may have several seeds, and the same files for each of them.
        if not path.is_file() or (sha256 := sha256_of(path, reread=False)) is None:
            raise FieldError("file", f"expected a model file at {path.absolute()}, found none")
        return sha256

    @property
    def arch(self) -> str:
        # The bytes of an ONNX file are its network's only tensor, so their number defines it.
        prefix = self.model.removesuffix("onnx")
        name = f"{prefix}onnx:{self._length()}" if self._is_onnx else self.model
        return f"{name}@{self.output}" if self.output else name

    def _length(self) -> int:
        try:
            return Path(self.file).stat().st_size
        except OSError:
            raise FieldError(
                "file", f"expected an ONNX file at {Path(self.file).absolute()}, found none"
            ) from None

    @property
    def _is_onnx(self) -> bool:
        return self.model.rpartition(":")[2] == "onnx" and ".py:" not in self.model

    @property
    def uses_seed(self) -> bool:
        return False

    @property
    def source_sha256(self) -> str:
        return self.sha256

    @classmethod
    def default_zoo(
        cls, scenario: Scenario, target: Mapping[str, Any], train: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        return reference_zoo(scenario, target, train) if "model" in target else None

    def __str__(self) -> str:
        own = f"given({self.model},{Path(self.file).name},{self.sha256[:8]})"
        return f"{self.parent} > {own}" if self.parent else own

    def make(self, lab: Lab) -> nn.Module:
        model = initialised(lab.scenario.architecture(self.arch))
        raw = read(Path(self.file), most_bytes(model))
        if (found := hashlib.sha256(raw).hexdigest()) != self.sha256:
            raise InputError(
                f"expected the file of sha256 {self.sha256}, got {found}", str(self.file)
            )
        notes: list[str] = []
        try:
            if self._is_onnx:
                load_onnx(model, raw)
                require_network(raw)
            else:
                fill(network_of_file(model), raw, self.model, notes)
            model = model.eval().requires_grad_(False).to(lab.device)
            require_answers(model, lab.scenario, self.arch, lab.device)
            check_scores(model, self.model, lab.scenario, lab.device)
        except RefusedError as error:
            raise InputError(str(error), self.file) from None
        for note in notes:
            log.warning("%s: %s", self.file, printable(note))
        return model
