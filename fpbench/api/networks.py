"""New networks: on torch's meta device where that is possible, else on the CPU.

A network's code is its author's. An error in it becomes one sentence with the file and the line.
"""

from __future__ import annotations

import functools
import inspect
import math
import sysconfig
import traceback
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .errors import FpbenchError, InputError, clipped
from .outputs import ChooseOutput

Builder = Callable[[], nn.Module]

LIBRARIES = tuple(
    str(Path(folder).resolve())
    for folder in {*sysconfig.get_paths().values(), str(Path(__file__).parents[1])}
)
"""Folders of code that is not the user's: Python's, installed packages' and our own."""

COUNTS = ("num_classes", "n_classes", "num_labels", "num_outputs", "n_outputs")
"""Parameters of a user's function that get the scenario's number of outputs."""


@dataclass(frozen=True)
class Shapes:
    """The shapes of one input and of one output, and what an input is made of.

    low, dtype: the smallest value of an input's elements, and their type.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    low: float = 0.0
    dtype: torch.dtype = torch.float32

    @property
    def n_outputs(self) -> int:
        """The number of a network's outputs."""
        return math.prod(self.outputs)

    def blank(self, n: int = 2) -> Tensor:
        """Return a batch of inputs of the smallest value, on torch's current device."""
        return torch.full((n, *self.inputs), self.low, dtype=self.dtype)


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn an error that is raised in the block into InputError, with its file and line.

    Errors of fpbench and a lack of memory stay as they are.
    """
    try:
        yield
    except (FpbenchError, MemoryError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())[:300]
        message = f"{what} raised {type(error).__name__}{': ' if reason else ''}{reason}"
        raise InputError(message, place_of(error)) from error


def place_of(error: BaseException) -> str | None:
    """Return the last line of the user's code that an error came through, as FILE:LINE."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if file.is_file() and not str(file.resolve()).startswith(LIBRARIES):
            return f"{file}:{frame.lineno}"
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    return None


def with_count(build: Callable[..., nn.Module], n_outputs: int) -> Builder:
    """Return a builder without arguments for a function that may take the number of outputs."""
    try:
        known = inspect.signature(build).parameters
    except (TypeError, ValueError):  # a callable without a signature
        return build
    name = next((name for name in COUNTS if name in known), None)
    return functools.partial(build, **{name: n_outputs}) if name else build


def ready(build: Builder, name: str, shapes: Shapes, output: str | None = None) -> Builder:
    """Return a builder of networks that answer a batch with one tensor.

    Lazy layers get their sizes from an input. If a network answers with several tensors, the one of
    the right shape is taken.

    name:   the architecture's name, for messages.
    output: the name of the output to take; by default it is found.
    """

    def make() -> nn.Module:
        model = _made(build, name, shapes)
        key = name, _identity(build), shapes
        if output is None and key not in _CHOOSES:
            _CHOOSES[key] = _answers_otherwise(build, name, shapes)
        if output is not None or _CHOOSES[key]:
            model.register_forward_hook(ChooseOutput(name, shapes.outputs, output))
        return model

    return make


_CHOOSES: dict[tuple[str, Hashable, Shapes], bool] = {}
"""Whether networks answer with something else than a tensor. To find it, each is run once."""


def _identity(build: Callable[..., Any]) -> Hashable:
    """Return a key that two builders share if they run the same code with the same arguments."""
    if isinstance(build, functools.partial):
        return _identity(build.func), repr(build.args), repr(build.keywords)
    code: Hashable = getattr(build, "__code__", build)
    return code


def _made(build: Builder, name: str, shapes: Shapes) -> nn.Module:
    with explained(name):
        model: Any = build()
        if not isinstance(model, nn.Module):
            raise InputError(f"expected a network from {name}, got {clipped(model)}")
        if any(is_lazy(t) for t in (*model.parameters(), *model.buffers())):
            mode = model.training
            with torch.no_grad():
                model.eval()(shapes.blank())
            model.train(mode)
    return model


def _answers_otherwise(build: Builder, name: str, shapes: Shapes) -> bool:
    """Return whether a network answers with something else than a tensor, as far as can be seen.

    Some networks do so only in training, or only in evaluation.
    """
    with suppress(Exception):
        model = for_shapes(lambda: _made(build, name, shapes))
        for mode in (False, True):
            answer = _try(model.train(mode), shapes, "meta" if is_meta(model) else "cpu")
            if answer is None and is_meta(model):
                model = initialised(lambda: _made(build, name, shapes))
                answer = _try(model.train(mode), shapes, "cpu")
            if answer is not None and not isinstance(answer, Tensor):
                return True
    return False


def _try(model: nn.Module, shapes: Shapes, device: str) -> Any:
    rng = torch.random.fork_rng(devices=[])
    with suppress(Exception), torch.device(device), torch.no_grad(), rng:
        return model(shapes.blank())
    return None


def initialised(build: Builder) -> nn.Module:
    """Return a new network on the CPU. Draws nothing from torch's generator."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        return build()


def for_shapes(build: Builder) -> nn.Module:
    """Return a new network of which only the names, types and shapes of its tensors count.

    It is on the meta device, which takes no memory, or on the CPU if the network's code needs
    numbers. Draws nothing from torch's generator.
    """
    try:
        with torch.device("meta"):
            return build()
    except MemoryError:
        raise
    except Exception:
        return initialised(build)


def is_meta(model: nn.Module) -> bool:
    """Return whether a network has tensors without numbers, also outside of its state dict."""
    return any(
        _has_meta(vars(module))
        or any(_has_meta(part) for part in (module._parameters, module._buffers))
        for module in model.modules()
    )


def _has_meta(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.is_meta
    if isinstance(value, Mapping):
        return any(_has_meta(v) for v in value.values() if not isinstance(v, nn.Module))
    return isinstance(value, list | tuple) and any(map(_has_meta, value))


def tied(model: nn.Module) -> dict[str, list[str]]:
    """Return the other names of each parameter or buffer that has several names."""
    names: dict[int, list[str]] = {}
    parameters = model.named_parameters(remove_duplicate=False)
    for name, t in (*parameters, *model.named_buffers(remove_duplicate=False)):
        names.setdefault(id(t), []).append(name)
    several = [group for group in names.values() if len(group) > 1]
    return {name: [n for n in group if n != name] for group in several for name in group}


def load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a network its weights. Tied weights stay tied, unless it is on the meta device.

    Raises RuntimeError for other names or shapes.
    """
    model.load_state_dict(state, assign=not tied(model))


def with_state(build: Builder, state: Mapping[str, Tensor], *, large: bool = True) -> nn.Module:
    """Return a new network with these weights. Tensors outside its state dict have their numbers.

    large: whether making the network on the meta device first is worth it.

    Raises RuntimeError if the weights have other names or shapes.
    """
    model = for_shapes(build) if large else initialised(build)
    if is_meta(model) and not tied(model):
        load_state(model, state)
        if not is_meta(model):
            return model
    if is_meta(model):  # it has ties, or tensors outside of its state dict
        model = initialised(build)
    load_state(model, state)
    return model
