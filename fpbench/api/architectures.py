"""Architectures by name: a scenario's own, a library's, or one in a user's Python file."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import FieldError, did_you_mean
from .networks import Builder as Builder
from .networks import Shapes, place_of, ready, with_count
from .python_file import NEIGHBOURS, load

SCHEMES: dict[str, Callable[[str, int], Builder]] = {}
"""Functions that return a builder, by the part of a name before its last colon. Their arguments are
the part after it and the number of outputs."""

WRAPPERS: dict[str, Callable[[Builder], Builder]] = {}
"""Functions that return a builder for another one, by the part of a name before its first colon,
such as "probs" for networks that answer with probabilities."""


def find_builder(
    architectures: Mapping[str, Builder], name: str, shapes: Shapes, scenario: str
) -> Builder:
    """Return the function that makes a new network of an architecture.

    name: a key of `architectures`; `torchvision:NAME`, `timm:NAME` or `transformers:NAME`, which
          get the shapes; or `FILE.py:CALLABLE`, with a path relative to the current folder. Such a
          file is imported, so its user has to trust it. It may import the modules in its own
          folder. Before each of them may stand `probs:`, `sigmoid:` or `logits:`, which says what
          its scores are. `@OUTPUT` at its end names the output to take of a network that has
          several.
    scenario: the name of the scenario, for messages.

    Raises FieldError for an unknown name.
    """
    name, output = split_output(name)
    if name in architectures:
        return ready(architectures[name], name, shapes, output)
    first, _, inner = name.partition(":")
    if first in WRAPPERS:
        inner = inner if output is None else f"{inner}@{output}"
        return WRAPPERS[first](find_builder(architectures, inner, shapes, scenario))
    prefix, _, rest = name.rpartition(":")
    if prefix in SCHEMES:
        return SCHEMES[prefix](rest if output is None else f"{rest}@{output}", shapes.n_outputs)
    library, _, rest_of_library = name.partition(":")
    if library in LIBRARIES:
        return ready(LIBRARIES[library](rest_of_library, shapes), name, shapes, output)
    if prefix.endswith(".py"):
        return ready(_from_file(Path(prefix), rest, shapes), name, shapes, output)
    near = did_you_mean(name, architectures)
    raise FieldError("model", f"no architecture {name!r} in {scenario}; {near}")


def split_output(name: str) -> tuple[str, str | None]:
    """Return an architecture's name without the output after its last `@`, and the output."""
    start, _, last = name.rpartition(":")
    rest, at, output = last.partition("@")
    return (f"{start}:{rest}" if start else rest), (output if at else None)


def _torchvision(name: str, shapes: Shapes) -> Builder:
    from torchvision.models import get_model_builder, list_models

    if name not in list_models():
        near = did_you_mean(name, list_models())
        raise FieldError("model", f"no network {name!r} in TorchVision; {near}")
    build = get_model_builder(name)
    settings: dict[str, Any] = {"weights": None, "num_classes": shapes.n_outputs}
    if "weights_backbone" in inspect.signature(build).parameters:
        settings["weights_backbone"] = None  # by default they are downloaded
    return partial(build, **settings)


def _timm(name: str, shapes: Shapes) -> Builder:
    timm = _library("timm", "timm")
    if not timm.is_model(name):
        near = did_you_mean(name, timm.list_models())
        raise FieldError("model", f"no network {name!r} in timm; {near}")
    settings: dict[str, Any] = {"pretrained": False, "num_classes": shapes.n_outputs}
    if len(shapes.inputs) == 3:
        settings["in_chans"] = shapes.inputs[0]
        known = timm.models.get_pretrained_cfg(name)
        if known is not None and known.fixed_input_size:
            settings["img_size"] = shapes.inputs[1:]
    return partial(timm.create_model, name, **settings)


def _transformers(name: str, shapes: Shapes) -> Builder:
    """Return a builder of a classifier of Transformers.

    name: a folder with a config.json; or a kind of model, such as vit, in its standard size. No
          file is downloaded, and no code in the folder is run.
    """
    library = _library("transformers", "hf")
    images = len(shapes.inputs) == 3
    settings: dict[str, Any] = {"num_labels": shapes.n_outputs}
    try:
        if Path(name).is_dir():
            config = library.AutoConfig.from_pretrained(
                name, local_files_only=True, trust_remote_code=False, **settings
            )
        elif name in library.CONFIG_MAPPING:
            if images:
                settings |= {"num_channels": shapes.inputs[0], "image_size": shapes.inputs[1]}
            config = library.AutoConfig.for_model(name, **settings)
        else:
            raise FieldError(
                "model",
                f"expected a folder with a config.json, or a kind of model of Transformers, got "
                f"{name!r}; {did_you_mean(name, library.CONFIG_MAPPING)}",
            )
    except (OSError, ValueError) as error:
        if isinstance(error, FieldError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise FieldError("model", f"expected a configuration in {name}: {reason}") from None
    task = "ImageClassification" if images else "SequenceClassification"
    return partial(getattr(library, f"AutoModelFor{task}").from_config, config)


def _library(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise FieldError(
            "model", f"expected the package {module}: pip install 'fpbench-core[{extra}]'"
        ) from None


LIBRARIES: Mapping[str, Callable[[str, Shapes], Builder]] = {
    "torchvision": _torchvision, "timm": _timm, "transformers": _transformers,
}  # fmt: skip
"""Functions that return a builder for a network of a library."""


def _from_file(file: Path, name: str, shapes: Shapes) -> Builder:
    if not file.is_file():
        raise FieldError("model", f"expected a Python file at {file.absolute()}, found none")
    try:
        NEIGHBOURS.add(str(file.resolve().parent))  # the callable may import when it is called
        module = _import(file.resolve())
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())[:300]
        where = place_of(error) or file
        message = f"importing {file} raised {type(error).__name__} at {where}: {reason}"
        raise FieldError("model", message) from error
    build: Any = getattr(module, name, None)
    if not callable(build):
        raise FieldError("model", f"expected a function {name!r} in {file} that makes a network")
    return with_count(build, shapes.n_outputs)


@functools.cache
def _import(file: Path) -> ModuleType:
    return load(file, f"fpbench_network_{file.stem}")
