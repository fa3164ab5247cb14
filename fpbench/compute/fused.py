"""Same-architecture networks as one network: of a convolution, a group for each of them.

Wang et al., *Horizontally Fused Training Array: An Effective Hardware Utilization Squeezer for
Training Novel Deep Learning Models*, MLSys 2021. What a network computes is read from its graph,
once. One is fused if all of it is listed in `fused_layers` and `fused_functions`, where it is known
how to keep members apart.
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
    """What the network has at one of its graph's nodes."""

    name: str


class Fused:
    """Runs a network's graph on the weights of many. Nothing of the graph itself is kept: methods
    may hold one, and would hold all that a graph refers to."""

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
        """Every member's output (members, n, *output_shape).

        params, buffers: name -> (members, *shape); running statistics are brought up to date.
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
    """What runs many networks like this one as one, in the mode (training or not) it is in now;
    None if some of it is not known to keep members apart."""
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
    """What a network computes in the mode it is in now, on its own layers; None if it can't be
    read from its code."""
    if any(_altered(module) for module in model.modules()):
        return None
    try:
        return fx.GraphModule(model, _Tracer().trace(model))
    except Exception:  # whatever its code does with something that is not a tensor yet
        return None


class _Proxy(fx.Proxy):
    """Tells x += y from x + y, which for torch.fx are one: who else has x would see the sum."""

    def __iadd__(self, other: object) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __imul__(self, other: object) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})


class _Tracer(fx.Tracer):
    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)


def _altered(module: nn.Module) -> bool:
    """Does something else than its type says."""
    hooks = module._forward_hooks, module._forward_pre_hooks, module._backward_hooks
    return any(hooks) or "forward" in vars(module)


def _flatten_rows(graph: fx.Graph) -> None:
    """x.view(x.size(0), -1), by which many flatten, as x.flatten(1)."""
    for node in graph.nodes:
        if node.target in ("view", "reshape") and node.args[2:] == (-1,) and _count(node.args[1]):
            node.target, node.args = "flatten", (node.args[0], 1)
    for node in reversed(graph.nodes):
        if not node.users and (_count(node) or node.args[1:] == ("shape",)):
            graph.erase_node(node)


def _count(node: object) -> bool:
    """It is the number of inputs: x.size(0) or x.shape[0]."""
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
    """It may change what it reads."""
    if node.op == "call_module":
        return bool(getattr(_layer(graph, node), "inplace", False))
    return node.target in IN_PLACE or True in (*node.args[1:], node.kwargs.get("inplace"))


def _alone(graph: fx.GraphModule, node: object) -> bool:
    """It is read once, and so is what it may be a view of."""
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
    """Arguments of a node, with a name for what another node has."""
    if isinstance(given, fx.Node):
        return At(given.name)
    if isinstance(given, dict):
        return {name: _plain(value) for name, value in given.items()}
    return tuple(map(_plain, given)) if isinstance(given, list | tuple) else given


def _filled(given: Any, known: Mapping[str, Values]) -> Any:
    """Arguments with what is known by now."""
    if isinstance(given, At):
        return known[given.name]
    return tuple(_filled(g, known) for g in given) if isinstance(given, tuple) else given


def _pool_first(graph: fx.GraphModule) -> None:
    """Where a maximum is taken of what ReLU left, take it before: the same, of fewer numbers."""

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
