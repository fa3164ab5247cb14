"""Architectures by name: a scenario's own, TorchVision's, or one in a user's Python file."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from torch import nn

from .errors import FieldError, did_you_mean
from .python_file import NEIGHBOURS, load

Builder = Callable[[], nn.Module]

SCHEMES: dict[str, Callable[[str, int], Builder]] = {}
"""Functions that return a builder, by the part of a name before its last colon. Their arguments are
the part after it and the number of outputs."""

WRAPPERS: dict[str, Callable[[Builder], Builder]] = {}
"""Functions that return a builder for another one, by the part of a name before its first colon,
such as "probs" for networks that answer with probabilities."""


def find_builder(
    architectures: Mapping[str, Builder], name: str, n_outputs: int, scenario: str
) -> Builder:
    """Return the function that makes a new network of an architecture.

    name: a key of `architectures`; `torchvision:NAME`, which gets `n_outputs`; or
          `FILE.py:CALLABLE`, with a path relative to the current folder. Such a file is imported,
          so its user has to trust it. It may import the modules in its own folder. Before each
          of them may stand `probs:`, `sigmoid:` or `logits:`, which says what its scores are.
    scenario: the name of the scenario, for messages.

    Raises FieldError for an unknown name.
    """
    if name in architectures:
        return architectures[name]
    first, _, inner = name.partition(":")
    if first in WRAPPERS:
        return WRAPPERS[first](find_builder(architectures, inner, n_outputs, scenario))
    prefix, _, rest = name.rpartition(":")
    if prefix in SCHEMES:
        return SCHEMES[prefix](rest, n_outputs)
    if prefix.endswith(".py"):
        return _from_file(Path(prefix), rest)
    near = did_you_mean(name, architectures)
    raise FieldError("model", f"no architecture {name!r} in {scenario}; {near}")


def _torchvision(name: str, n_outputs: int) -> Builder:
    from torchvision.models import get_model_builder, list_models

    if name not in list_models():
        near = did_you_mean(name, list_models())
        raise FieldError("model", f"no network {name!r} in TorchVision; {near}")
    return partial(get_model_builder(name), weights=None, num_classes=n_outputs)


SCHEMES["torchvision"] = _torchvision


def _from_file(file: Path, name: str) -> Builder:
    if not file.is_file():
        raise FieldError("model", f"expected a Python file at {file.absolute()}, found none")
    try:
        NEIGHBOURS.add(str(file.resolve().parent))  # the callable may import when it is called
        module = _import(file.resolve())
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())
        raise FieldError("model", f"{file} raised {type(error).__name__}: {reason}") from error
    build: Any = getattr(module, name, None)
    if not callable(build):
        raise FieldError("model", f"expected a function {name!r} in {file} that makes a network")
    return cast(Builder, build)


@functools.cache
def _import(file: Path) -> ModuleType:
    return load(file, f"fpbench_network_{file.stem}")
