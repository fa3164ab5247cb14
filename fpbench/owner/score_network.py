"""The owner's networks that answer with probabilities, as networks that answer with logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..api.architectures import WRAPPERS, Builder
from ..api.errors import InputError, ResourceError
from ..api.scenario import Scenario
from ..compute.stack import parts
from .onnx_target import OnnxNetwork, as_logits, look_like_probabilities
from .scores import find_values
from .tensor_layout import RefusedError


class ScoreNetwork(nn.Module):
    """A network with scores that are turned into logits. `as_logits` explains `values`."""

    def __init__(self, network: nn.Module, values: str) -> None:
        super().__init__()
        self.network, self.values = network, values

    def forward(self, x: Tensor) -> Tensor:
        return as_logits(self.network(x), self.values)


def _with_values(values: str, build: Builder) -> Builder:
    def make() -> nn.Module:
        network = build()
        if isinstance(network, OnnxNetwork):
            network.values = values
            return network
        return network if values == "logits" else ScoreNetwork(network, values)

    return make


WRAPPERS["probs"] = lambda build: _with_values("probs", build)
WRAPPERS["sigmoid"] = lambda build: _with_values("sigmoid", build)
WRAPPERS["logits"] = lambda build: _with_values("logits", build)


def network_of_file(model: nn.Module) -> nn.Module:
    """Return the network in a model that has the tensors of its file."""
    return model.network if isinstance(model, ScoreNetwork) else model


def says_values(arch: str) -> bool:
    """Return whether an architecture's name says what its scores are, such as `probs:NAME`."""
    return arch.partition(":")[0] in WRAPPERS


def check_scores(model: nn.Module, arch: str, scenario: Scenario, device: torch.device) -> None:
    """Raise RefusedError unless a classifier clearly answers with logits.

    An ONNX file may answer with probabilities. The model is asked the test pool, or random inputs
    if that is not on this machine.
    """
    if scenario.task != "classification" or says_values(arch):
        return
    try:
        inputs = scenario.data("test").inputs
    except ResourceError:
        low, high = scenario.input_range
        rng = torch.Generator().manual_seed(0)
        inputs = low + (high - low) * torch.rand(256, *scenario.input_shape, generator=rng)
    ask = model.scores if isinstance(model, OnnxNetwork) else model
    with torch.no_grad():
        scores = torch.cat([ask(part.to(device)).cpu() for part in parts(inputs)])
    try:
        values = find_values(scores)
    except InputError as error:
        raise RefusedError(
            f"{str(error).partition('; say')[0]}; name its architecture `probs:{arch}`, "
            f"`sigmoid:{arch}` or `logits:{arch}`"
        ) from None
    found = look_like_probabilities(scores)
    if isinstance(model, OnnxNetwork) and bool((found == (values == "probs")).all()):
        return
    if values != "logits" or isinstance(model, OnnxNetwork):
        words = {"probs": "probabilities", "percent": "percent"}.get(values, "both")
        raise RefusedError(
            f"expected a network that answers with logits, got {words}; name its architecture "
            f"`probs:{arch}`, and they are turned into logits"
        )
