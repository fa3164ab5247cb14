"""Rules to compute a layer or a function for many networks at once, each member for itself."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn


class Values(NamedTuple):
    """The values of all members at one place of the network, in one of three layouts.

    shared:   (n, *shape), the same for every member.
    members:  (members, n, *shape).
    channels: (n, members * C, *spatial), the members' channels side by side; images have channels
              last in memory, which is the fastest layout for a pass over them.
    """

    layout: Literal["shared", "members", "channels"]
    x: Tensor


@dataclass(frozen=True)
class Run:
    """One forward pass: the members' weights, and conversions between layouts.

    params, buffers: name -> (members, *shape).
    """

    members: int
    params: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]

    def apart(self, values: Values) -> Tensor:
        """Return values as (members, n, *shape)."""
        layout, x = values
        if layout == "members":
            return x
        if layout == "shared":
            return x.expand(self.members, *x.shape)
        by_member: Tensor = x.unflatten(1, (self.members, -1))
        return by_member.transpose(0, 1)

    def beside(self, values: Values) -> Tensor:
        """Return values as (n, members * C, *spatial)."""
        if values.layout == "channels":
            return values.x
        x = self.apart(values)
        return channels_last(x.permute(1, *range(3, x.ndim), 0, 2))

    def images(self, values: Values) -> Values:
        """Return values in a layout for functions that treat every channel alike."""
        if values.layout == "shared":
            return values
        return Values("channels", self.beside(values))

    def flat(self, name: str) -> Tensor | None:
        """Return a layer's tensor with the members in its first dimension; None if it has none."""
        found = self.params.get(name, self.buffers.get(name))
        return None if found is None else found.flatten(0, 1)


def channels_last(rows: Tensor) -> Tensor:
    """Return (n, *spatial, members, C) as (n, members * C, *spatial), in the same memory order.

    The strides of a single channel are ambiguous, so they are made anew.
    """
    spatial, channels = rows.shape[1:-2], rows.shape[-2:].numel()
    anew: Tensor = rows.contiguous().flatten(1).unflatten(1, (*spatial, channels))
    return anew.movedim(-1, 1)


def _convolution(run: Run, name: str, layer: nn.Conv2d, values: Values) -> Values:
    # The same images for all members: more output channels, and no groups.
    one = values.layout == "shared" and layer.groups == 1
    x = channels_last(values.x.permute(0, 2, 3, 1)[..., None, :]) if one else run.beside(values)
    out = F.conv2d(
        x, cast(Tensor, run.flat(f"{name}weight")), run.flat(f"{name}bias"), layer.stride,
        cast(Any, layer.padding), layer.dilation, 1 if one else run.members * layer.groups,
    )  # fmt: skip
    return Values("channels", out)


def _transposed(run: Run, name: str, layer: nn.ConvTranspose2d, values: Values) -> Values:
    out = F.conv_transpose2d(
        run.beside(values), cast(Tensor, run.flat(f"{name}weight")), run.flat(f"{name}bias"),
        layer.stride, cast(Any, layer.padding), layer.output_padding,
        run.members * layer.groups, layer.dilation,
    )  # fmt: skip
    return Values("channels", out)


def _normalised(run: Run, name: str, layer: nn.BatchNorm2d, values: Values) -> Values:
    if layer.training and layer.num_batches_tracked is not None:
        run.buffers[f"{name}num_batches_tracked"].add_(1)
    mean, var = (run.flat(f"{name}running_{of}") for of in ("mean", "var"))
    out = F.batch_norm(
        run.beside(values), mean, var, run.flat(f"{name}weight"), run.flat(f"{name}bias"),
        layer.training or mean is None, cast(float, layer.momentum), layer.eps,
    )  # fmt: skip
    return Values("channels", out)


def _linear(run: Run, name: str, layer: nn.Linear, values: Values) -> Values:
    x, weight = run.apart(values), run.params[f"{name}weight"].mT
    bias, rows = run.params.get(f"{name}bias"), x.flatten(1, -2)
    out = rows @ weight if bias is None else torch.baddbmm(bias[:, None], rows, weight)
    return Values("members", out if x.ndim == 3 else out.unflatten(1, x.shape[1:-1]))


def flattened(run: Run, values: Values) -> Values:
    if values.layout == "shared":
        return Values("shared", values.x.flatten(1))
    return Values("members", run.apart(values).flatten(2))


def _flatten(run: Run, name: str, layer: nn.Flatten, values: Values) -> Values:
    return flattened(run, values)


def _unflattened(run: Run, name: str, layer: nn.Unflatten, values: Values) -> Values:
    return Values("members", run.apart(values).unflatten(2, cast(Any, layer.unflattened_size)))


def _dropped(run: Run, name: str, layer: nn.Module, values: Values) -> Values:
    layout, x = own(run, values)
    return Values(layout, layer(x))


def own(run: Run, values: Values) -> Values:
    """Return values that each member may change or draw random numbers for by itself."""
    return Values("members", run.apart(values).clone()) if values.layout == "shared" else values


def _by_number(run: Run, name: str, layer: nn.Module, values: Values) -> Values:
    return Values(values.layout, layer(values.x))


def _by_channel(run: Run, name: str, layer: nn.Module, values: Values) -> Values:
    layout, x = run.images(values)
    return Values(layout, layer(x))


Rule = Callable[[Run, str, Any, Values], Values]
LAYERS: dict[type[nn.Module], Rule] = {
    nn.Conv2d: _convolution,
    nn.ConvTranspose2d: _transposed,
    nn.BatchNorm1d: _normalised,
    nn.BatchNorm2d: _normalised,
    nn.Linear: _linear,
    nn.Flatten: _flatten,
    nn.Unflatten: _unflattened,
    nn.Dropout: _dropped,
    **dict.fromkeys(
        (
            nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid,
            nn.Tanh, nn.Softplus, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid,
        ),
        _by_number,
    ),
    **dict.fromkeys(
        (
            nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Upsample,
            nn.ZeroPad2d,
        ),
        _by_channel,
    ),
}  # fmt: skip
"""By exact type, since a subclass may compute anything."""


def fits(layer: nn.Module) -> bool:
    """Say whether a rule exists and covers the layer's settings."""
    if type(layer) not in LAYERS:
        return False
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        return layer.padding_mode == "zeros"
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        return layer.momentum is not None
    if isinstance(layer, nn.Flatten):
        return (layer.start_dim, layer.end_dim) == (1, -1)
    if isinstance(layer, nn.Unflatten):
        return layer.dim == 1
    return not getattr(layer, "return_indices", False)


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
"""Functions that change their input."""

VIEWS = (
    nn.Identity, nn.Flatten, nn.Unflatten, nn.Dropout, F.dropout, torch.flatten, "flatten",
)  # fmt: skip
"""Layers and functions that may return their input, or a view of it."""


def called(node: fx.Node) -> bool:
    """Say whether a rule exists for a function or method and covers the arguments of this call."""
    given = (node.args[1:], node.kwargs)
    rule = FUNCTIONS.get(node.target)
    if rule is _to_rows:
        return given in (((1,), {}), ((), {"start_dim": 1}))
    if rule is _joined:
        return given in (((1,), {}), ((), {"dim": 1}))
    return rule is not None and not node.kwargs.get("return_indices", False)
