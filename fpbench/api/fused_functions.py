"""What can be computed for many networks at once, and how: rules for functions and methods."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from .fused_layers import Run, Values, channels_last, flattened, own


def _number_by_number(run: Run, f: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Values:
    given = [arg for arg in args if isinstance(arg, Values)]
    same = len({(v.layout, v.layout == "channels" and v.x.shape[1]) for v in given}) == 1
    layout = given[0].layout if same else "members"

    def number(arg: Any) -> Any:
        if not isinstance(arg, Values):
            return arg
        return arg.x if same else run.apart(own(run, arg))

    return Values(layout, f(*map(number, args), **kwargs))


def _channel_by_channel(
    run: Run, f: Callable[..., Tensor], values: Values, *args: Any, **kwargs: Any
) -> Values:
    layout, x = run.images(values)
    return Values(layout, f(x, *args, **kwargs))


def _drawn(run: Run, f: Callable[..., Tensor], values: Values, *args: Any, **kwargs: Any) -> Values:
    layout, x = own(run, values)
    return Values(layout, f(x, *args, **kwargs))


def _joined(run: Run, f: object, parts: Sequence[Values], *args: Any, **kwargs: Any) -> Values:
    rows = [run.beside(part).movedim(1, -1).unflatten(-1, (run.members, -1)) for part in parts]
    return Values("channels", channels_last(torch.cat(rows, -1)))


def _to_rows(run: Run, f: object, values: Values, *args: Any, **kwargs: Any) -> Values:
    return flattened(run, values)


FUNCTIONS: dict[Any, Callable[..., Values]] = {
    **dict.fromkeys(
        (
            operator.add, operator.iadd, operator.sub, operator.mul, operator.imul, torch.add,
            torch.mul, torch.relu, torch.sigmoid, torch.tanh, F.relu, F.leaky_relu, F.gelu,
            F.silu, "add", "add_", "mul", "relu", "relu_", "sigmoid", "tanh",
        ),
        _number_by_number,
    ),
    **dict.fromkeys((F.avg_pool2d, F.adaptive_avg_pool2d, F.max_pool2d), _channel_by_channel),
    F.dropout: _drawn,
    torch.cat: _joined,
    **dict.fromkeys((torch.flatten, "flatten"), _to_rows),
}  # fmt: skip


IN_PLACE = (operator.iadd, operator.imul, "add_", "relu_")
"""What changes what it reads."""

VIEWS = (
    nn.Identity, nn.Flatten, nn.Unflatten, nn.Dropout, F.dropout, torch.flatten, "flatten",
)  # fmt: skip
"""What may give back what it read."""


def called(node: fx.Node) -> bool:
    """There is a rule for a function or method, and it holds for what it is called with."""
    given = (node.args[1:], node.kwargs)
    rule = FUNCTIONS.get(node.target)
    if rule is _to_rows:
        return given in (((1,), {}), ((), {"start_dim": 1}))
    if rule is _joined:
        return given in (((1,), {}), ((), {"dim": 1}))
    return rule is not None and not node.kwargs.get("return_indices", False)
