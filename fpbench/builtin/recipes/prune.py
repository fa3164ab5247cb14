"""Pruning: the smallest weights, or the smallest filters, are set to zero and stay zero.

The pruned model keeps its architecture. A normalisation that directly reads the output of a removed
filter is set to zero too, so the model computes the same as one without the filter. A normalisation
after a pooling or an activation does not change, so its bias still has an effect.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from fpbench import Count, Lab, Positive, PositiveFloat, Recipe, Share, fit, last_layer

CONVS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm2d, nn.GroupNorm)

Masks = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class _Prune(Recipe):
    """The fields and the training of both prunings.

    ratio:      the share of weights or filters that is removed.
    recover:    epochs of fine-tuning after pruning, on public data; removed weights stay zero.
                IPGuard's authors (AsiaCCS 2021) fine-tune after pruning.
    lr:         Adam's learning rate in fine-tuning.
    batch_size: inputs per step of fine-tuning.
    """

    ratio: Share
    recover: Count = 0
    lr: PositiveFloat = 1e-3
    batch_size: Positive = 64

    def passes(self) -> Mapping[str, int]:
        return {"public": self.recover}

    @property
    def uses_seed(self) -> bool:
        return self.recover > 0

    def cohort(self) -> Hashable:
        # Models of different ratios differ only in their masks, so they train together.
        return type(self), replace(self, seed=0, ratio=0.5).digest

    def make(self, lab: Lab) -> nn.Module:
        return self.make_many([self], lab)[0]

    @abstractmethod
    def masks(self, model: nn.Module, lab: Lab) -> Masks:
        """Return the masks by parameter name: 1 where a weight stays, 0 where it is removed."""

    @classmethod
    def make_many(cls, recipes: Sequence[Self], lab: Lab) -> list[nn.Module]:
        one = recipes[0]
        models = [lab.parent(recipe) for recipe in recipes]
        masks = [recipe.masks(model, lab) for recipe, model in zip(recipes, models, strict=True)]
        with torch.no_grad():
            for model, mask in zip(models, masks, strict=True):
                params = dict(model.named_parameters())
                for name in mask:
                    params[name].mul_(mask[name])
        fit(
            lab, recipes, models, lab.scenario.data("public"),
            epochs=one.recover, lr=one.lr, batch_size=one.batch_size, masks=masks,
        )  # fmt: skip
        return models


@dataclass(frozen=True, kw_only=True)
class PruneWeights(_Prune):
    """Set the weights of smallest magnitude to zero (MetaV, section 5.2: WP).

    scope: "layer" removes the share `ratio` of each layer, "global" that of all weights together.
    """

    name = "prune_weights"

    scope: Literal["layer", "global"] = "layer"

    @property
    def kind(self) -> str:
        return "WP"

    def masks(self, model: nn.Module, lab: Lab) -> Masks:
        layers = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, (nn.Linear, *CONVS))
        }
        if self.scope == "global":
            prune.global_unstructured(
                [(module, "weight") for module in layers.values()],
                pruning_method=prune.L1Unstructured,
                amount=self.ratio,
            )
        else:
            for module in layers.values():
                prune.l1_unstructured(module, "weight", amount=self.ratio)
        return {f"{name}.weight": _taken_mask(module) for name, module in layers.items()}


@dataclass(frozen=True, kw_only=True)
class PruneFilters(_Prune):
    """Remove the filters of smallest L1 norm, except in the last layer (MetaV, section 5.2: FP).

    The norm is that of Li et al., *Pruning Filters for Efficient ConvNets*, ICLR 2017. Filters are
    the output channels of convolutions or, in a network without convolutions, the neurons of
    hidden layers.
    """

    name = "prune_filters"

    @property
    def kind(self) -> str:
        return "FP"

    def masks(self, model: nn.Module, lab: Lab) -> Masks:
        hidden = dict(model.named_modules())
        del hidden[last_layer(model)]
        kinds = CONVS if any(isinstance(m, CONVS) for m in hidden.values()) else (nn.Linear,)
        layers: dict[str, nn.Module] = {n: m for n, m in hidden.items() if isinstance(m, kinds)}
        follower = _norms_after(model, layers, lab)
        masks: Masks = {}
        for name, module in layers.items():
            dim = 1 if getattr(module, "transposed", False) else 0
            prune.ln_structured(module, "weight", amount=self.ratio, n=1, dim=dim)
            masks[f"{name}.weight"] = mask = _taken_mask(module)
            kept = mask.transpose(0, dim).flatten(1).amax(1)
            for owner in (name, *follower[name]):
                for part in ("weight", "bias"):
                    if (owner, part) != (name, "weight") and (
                        getattr(hidden[owner], part, None) is not None
                    ):
                        masks[f"{owner}.{part}"] = kept
        return masks


def _taken_mask(module: nn.Module) -> Tensor:
    """Return the mask that torch's pruning added to a layer, and remove it from the layer."""
    mask = cast(Tensor, module.weight_mask).clone()
    prune.remove(module, "weight")
    return mask


def _norms_after(model: nn.Module, layers: dict[str, nn.Module], lab: Lab) -> dict[str, list[str]]:
    """Return the names of the normalisations that directly read each layer's output.

    Runs the model once.
    """
    produced: dict[int, str] = {}
    follower: dict[str, list[str]] = {name: [] for name in layers}
    alive = []  # an id identifies a tensor only while the tensor exists

    def wrote(name: str, out: Tensor) -> None:
        produced[id(out)] = name
        alive.append(out)

    def read(name: str, x: Tensor) -> None:
        if id(x) in produced:
            follower[produced[id(x)]].append(name)

    hooks = [
        m.register_forward_hook(lambda _m, _i, out, name=n: wrote(name, out))
        for n, m in layers.items()
    ] + [
        m.register_forward_pre_hook(lambda _m, args, name=n: read(name, args[0]))
        for n, m in model.named_modules()
        if isinstance(m, NORMS)
    ]
    try:
        with torch.no_grad():
            model.eval()(lab.scenario.data("public").inputs[:2].to(lab.device))
    finally:
        for hook in hooks:
            hook.remove()
    return follower
