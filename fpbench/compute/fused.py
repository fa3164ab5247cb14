"""Run same-architecture networks as one network: each convolution gets a group for each of them.

Wang et al., *Horizontally Fused Training Array: An Effective Hardware Utilization Squeezer for
Training Novel Deep Learning Models*, MLSys 2021. A network's graph is read once, from its code. The
network can be fused if `fusion_rules` has a rule for every step of the graph: a rule keeps members
apart.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, fx, nn

from .fusion_rules import FUNCTIONS, IN_PLACE, LAYERS, VIEWS, Run, Values, called, fits

Step = Callable[[Run, Mapping[str, Values]], Values]


@dataclass(frozen=True)
class At:
    """A placeholder in a step's arguments: the values at a node of the graph."""

    name: str


class Fused:
    """Runs a network's graph on the weights of many members.

    It keeps nothing of the graph itself, since methods may hold it for long and a graph refers to
    many objects.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        first, *nodes, last = graph.graph.nodes
        self._input, self._output = first.name, str(last.args[0])
        needed = {self._output}
        self._steps: list[tuple[str, Step, list[str]]] = []
        for node in reversed(nodes):
            sources = (source.name for source in node.all_input_nodes)
            done = [source for source in sources if source not in needed]
            needed.update(done)
            self._steps.insert(0, (node.name, _step(graph, node), done))

    def __call__(
        self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor], x: Tensor, *,
        shared: bool,
    ) -> Tensor:  # fmt: skip
        """Return every member's output (members, n, *output_shape).

        params, buffers: name -> (members, *shape); running statistics are updated in place.
        x: (n, *input_shape) for all members if `shared`, else (members, n, *input_shape).
        """
        run = Run(len(next(iter(params.values()))), params, buffers)
        known = {self._input: Values("shared" if shared else "members", x)}
        for node, step, done in self._steps:
            known[node] = step(run, known)
            for source in done:
                del known[source]
        return run.apart(known[self._output])


def fused(model: nn.Module) -> Fused | None:
    """Return what runs many networks like this one as one, in its present mode (training or not).

    None if some step of it has no rule that keeps members apart.
    """
    graph = graph_of(model)
    if graph is None:
        return None
    _flatten_rows(graph.graph)
    first, *nodes, last = graph.graph.nodes
    one = first.op == "placeholder" and isinstance(last.args[0], fx.Node)
    if not (one and all(_known(graph, node) for node in nodes)):
        return None
    _pool_first(graph)
    return Fused(graph)


def graph_of(model: nn.Module) -> fx.GraphModule | None:
    """Return the graph of a network in its present mode, on its own layers.

    None if the graph cannot be read from the code.
    """
    if any(_altered(module) for module in model.modules()):
        return None
    try:
        return fx.GraphModule(model, _Tracer().trace(model))
    except Exception:  # code can do anything with a value that is not a tensor yet
        return None


class _Proxy(fx.Proxy):
    """Tells `x += y` from `x + y`, which torch.fx does not: other users of x would see the sum."""

    def __iadd__(self, other: object) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __imul__(self, other: object) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})


class _Tracer(fx.Tracer):
    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)


def _altered(module: nn.Module) -> bool:
    """Say whether a module has hooks or a patched forward, so that its type does not tell all."""
    hooks = module._forward_hooks, module._forward_pre_hooks, module._backward_hooks
    return any(hooks) or "forward" in vars(module)


def _flatten_rows(graph: fx.Graph) -> None:
    """Write x.view(x.size(0), -1), a common way to flatten, as x.flatten(1)."""
    for node in graph.nodes:
        if node.target in ("view", "reshape") and node.args[2:] == (-1,) and _count(node.args[1]):
            node.target, node.args = "flatten", (node.args[0], 1)
    for node in reversed(graph.nodes):
        if not node.users and (_count(node) or node.args[1:] == ("shape",)):
            graph.erase_node(node)


def _count(node: object) -> bool:
    """Say whether a node is the number of inputs: x.size(0) or x.shape[0]."""
    if not isinstance(node, fx.Node) or node.args[1:] != (0,):
        return False
    shape = node.args[0]
    shaped = isinstance(shape, fx.Node) and shape.args[1:] == ("shape",)
    return node.target == "size" or (node.target is operator.getitem and shaped)


def _known(graph: fx.GraphModule, node: fx.Node) -> bool:
    if _in_place(graph, node) and not _alone(graph, node.args[0]):
        return False
    if node.op == "call_module":
        return len(node.args) == 1 and not node.kwargs and fits(_layer(graph, node))
    named = any(isinstance(value, fx.Node | list | tuple) for value in node.kwargs.values())
    return node.op in ("call_function", "call_method") and not named and called(node)


def _in_place(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Say whether a node may change its input in place."""
    if node.op == "call_module":
        return bool(getattr(_layer(graph, node), "inplace", False))
    flags = (*node.args[1:], node.kwargs.get("inplace"))
    return node.target in IN_PLACE or any(flag is True for flag in flags)


def _alone(graph: fx.GraphModule, node: object) -> bool:
    """Say whether only one node reads this one, and the node that it may be a view of."""
    if not isinstance(node, fx.Node) or len(node.users) > 1:
        return False
    kind = type(_layer(graph, node)) if node.op == "call_module" else node.target
    return kind not in VIEWS or _alone(graph, node.args[0])


def _layer(graph: fx.GraphModule, node: fx.Node) -> nn.Module:
    return graph.get_submodule(str(node.target))


def _step(graph: fx.GraphModule, node: fx.Node) -> Step:
    args, kwargs = _plain(node.args), _plain(dict(node.kwargs))
    if node.op == "call_module":
        layer, name, (source,) = _layer(graph, node), f"{node.target}.", args
        rule = LAYERS[type(layer)]
        return lambda run, known: rule(run, name, layer, known[source.name])
    named = isinstance(node.target, str)
    f = getattr(Tensor, str(node.target)) if named else node.target
    function = FUNCTIONS[node.target]
    return lambda run, known: function(run, f, *_filled(args, known), **kwargs)


def _plain(given: Any) -> Any:
    """Return a node's arguments with an `At` for each other node."""
    if isinstance(given, fx.Node):
        return At(given.name)
    if isinstance(given, dict):
        return {name: _plain(value) for name, value in given.items()}
    return tuple(map(_plain, given)) if isinstance(given, list | tuple) else given


def _filled(given: Any, known: Mapping[str, Values]) -> Any:
    """Return arguments with the known values in place of each `At`."""
    if isinstance(given, At):
        return known[given.name]
    return tuple(_filled(g, known) for g in given) if isinstance(given, tuple) else given


def _pool_first(graph: fx.GraphModule) -> None:
    """Swap ReLU followed by max-pooling: the result is the same, and ReLU gets fewer numbers."""

    def found(node: object, kind: type[nn.Module]) -> bool:
        module = isinstance(node, fx.Node) and node.op == "call_module"
        return module and type(_layer(graph, cast(fx.Node, node))) is kind

    for pool in graph.graph.nodes:
        if found(pool, nn.MaxPool2d) and found(pool.args[0], nn.ReLU):
            relu = pool.args[0]
            if len(relu.users) == 1:
                pool.replace_all_uses_with(relu)
                pool.args, relu.args = relu.args, (pool,)
                pool.append(relu)
