"""Seconds per step and member: stacked against looped, and which of them fpbench takes.

    python benchmarks/training.py [--members 4] [--device cpu]

Each network is timed in turns within one run, so that ratios hold on a busy machine too; absolute
figures do not. "looped cl" has its weights and inputs in channels-last order, "looped bf16"
computes under bfloat16 autocast: both show what there would be to gain.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.func import vmap

from fpbench.api.stack import Stack, signature
from fpbench.api.ways import Way, faster
from fpbench.builtin.scenarios.digits import Residual, resnet
from fpbench.builtin.scenarios.warfarin import mlp

Step = Callable[[], object]
ROUNDS = 5
WAYS: tuple[Way, ...] = ("stacked", "looped")


def resnet18_like() -> nn.Module:
    """ResNet-18's first stage and a half, for 28 x 28 pixels."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        Residual(64), nn.MaxPool2d(2), Residual(64),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 7),
    )  # fmt: skip


def dcgan() -> nn.Module:
    """The generator of Table 1 (MetaV, KDD 2022)."""

    def block(n_in: int, n_out: int, *rest: int) -> list[nn.Module]:
        up = nn.ConvTranspose2d(n_in, n_out, *rest, bias=False)
        return [up, nn.BatchNorm2d(n_out), nn.ReLU()]

    return nn.Sequential(
        nn.Unflatten(1, (100, 1, 1)), *block(100, 128, 4, 1, 0), *block(128, 64, 3, 2, 1),
        *block(64, 32, 4, 2, 1), nn.ConvTranspose2d(32, 1, 4, 2, 1, bias=False), nn.Tanh(),
    )  # fmt: skip


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "digits resnet, 8x8": (resnet, (1, 8, 8)),
    "warfarin 31-100-1": (lambda: mlp(31, 100, 1), (31,)),
    "resnet18-like, 28x28": (resnet18_like, (3, 28, 28)),
    "dcgan generator, 28x28": (dcgan, (100,)),
}


def steps(stack: Stack, x: torch.Tensor, low: bool = False) -> Step:
    """A step of Adam on a stack's outputs, x (members, n, ...)."""
    learned = [p.requires_grad_() for p in stack.params.values()]
    optimizer = torch.optim.Adam(learned, fused=True)

    def step() -> None:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=low):
            out = stack(x, shared=False)
        losses = vmap(lambda out: out.square().mean())(out.float())
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()

    return step


def alone(models: list[nn.Module], x: torch.Tensor, low: bool = False) -> Step:
    """A step of every member, one after another."""
    each = [steps(Stack([m]), x[i : i + 1], low) for i, m in enumerate(models)]
    return lambda: [step() for step in each]


def in_last(models: list[nn.Module], x: torch.Tensor) -> Step | None:
    """The same with channels last, for networks that read images."""
    if x.ndim != 5:
        return None
    each = []
    for i, model in enumerate(models):
        stack = Stack([model])
        stack.params = {name: last(p) for name, p in stack.params.items()}
        each.append(steps(stack, last(x[i : i + 1])))
    return lambda: [step() for step in each]


def last(t: torch.Tensor) -> torch.Tensor:
    if t.ndim != 5:
        return t
    return t[0].contiguous(memory_format=torch.channels_last)[None].detach()


def ready(step: Step, size: int) -> Callable[[], tuple[Step, int]]:
    """A trial that has been set up already."""
    return lambda: (step, size)


def timed(step: Step, device: torch.device) -> float:
    began = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    device, size = torch.device(given.device), given.members
    print(f"{size} members, batches of {given.batch}, {device}, {torch.get_num_threads()} threads;"
          " milliseconds per step and member")  # fmt: skip
    print(f"{'':24}  stacked   looped  looped cl  looped bf16  stacked/looped  chosen")
    for name, (network, shape) in NETWORKS.items():
        torch.manual_seed(0)
        models = [network().to(device) for _ in range(size)]
        x = torch.randn(size, given.batch, *shape, device=device)
        rows = {
            "stacked": steps(Stack(models), x),
            "looped": alone(models, x),
            "cl": in_last(models, x),
            "bf16": alone(models, x, low=True),
        }
        best = {row: float("inf") for row in rows}
        for _ in range(ROUNDS):
            for row, step in rows.items():
                if step is not None:
                    best[row] = min(best[row], timed(step, device))
        trials = {way: ready(rows[way], size) for way in WAYS}
        chosen = faster(signature(models[0]), trials, device)
        ms = {row: 1e3 * seconds / size for row, seconds in best.items()}
        cl = f"{ms['cl']:9.2f}" if rows["cl"] else f"{'-':>9}"
        print(f"{name:24} {ms['stacked']:8.2f} {ms['looped']:8.2f}  {cl}  {ms['bf16']:11.2f}"
              f"  {ms['stacked'] / ms['looped']:14.2f}  {chosen}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
