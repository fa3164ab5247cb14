"""Networks by name: a scenario's own, TorchVision's, or one that the user wrote."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from .errors import FieldError, did_you_mean
from .python_file import NEIGHBOURS, load

Builder = Callable[[], nn.Module]

SCHEMES: dict[str, Callable[[str, int], Builder]] = {}
"""By the word before the colon, what makes a builder of the rest of a name and n_outputs."""


def builder(known: Mapping[str, Builder], name: str, n_outputs: int, home: str) -> Builder:
    """Return the function that makes a new network of an architecture.

    name: a key of `known`; `torchvision:NAME`, made with `n_outputs`; or `FILE.py:CALLABLE`, a file
          seen from the current folder. Such a file is imported: it is code that its user trusts.
          It may import the modules beside it.
    home: the scenario that `known` belongs to, for messages.

    Raises FieldError for a name that stands for none.
    """
    if name in known:
        return known[name]
    place, _, called = name.rpartition(":")
    if place in SCHEMES:
        return SCHEMES[place](called, n_outputs)
    if place.endswith(".py"):
        return _written(Path(place), called)
    raise FieldError("model", f"no architecture {name!r} in {home}; {did_you_mean(name, known)}")


def _torchvision(name: str, n_outputs: int) -> Builder:
    from torchvision.models import get_model_builder, list_models

    if name not in list_models():
        near = did_you_mean(name, list_models())
        raise FieldError("model", f"no network {name!r} in TorchVision; {near}")
    return partial(get_model_builder(name), weights=None, num_classes=n_outputs)


SCHEMES["torchvision"] = _torchvision


def _written(file: Path, name: str) -> Builder:
    if not file.is_file():
        raise FieldError("model", f"expected a Python file at {file.absolute()}, found none")
    try:
        NEIGHBOURS.add(str(file.resolve().parent))  # an architecture may import when it is called
        module = _module(file.resolve())
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())
        raise FieldError("model", f"{file} raised {type(error).__name__}: {reason}") from error
    found: Any = getattr(module, name, None)
    if not callable(found):
        raise FieldError("model", f"expected a function {name!r} in {file} that makes a network")
    made: Builder = found
    return made


@functools.cache
def _module(file: Path) -> ModuleType:
    return load(file, f"fpbench_network_{file.stem}")
