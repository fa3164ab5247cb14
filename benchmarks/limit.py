"""How near to the device's limit training and MetaV's construction come.

    python benchmarks/limit.py [--device cpu] [--only NAME]

The floating-point operations that the work must do are counted by torch's own counter; the limit
is the rate at which this device multiplies large matrices in float32, measured in turns with the
work. "share" is the one by the other. Small networks do not come near: what limits them is the
number of kernels a step calls, which is printed beside ("kernels", per step).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from fpbench_metav import MetaV
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from training import CASES, Bench, data, members, ours, timed

from fpbench import Access, Scenario
from fpbench import Case as Given
from fpbench.api.fingerprinter import Ensemble
from fpbench.builtin.scenarios.digits import Digits
from fpbench.builtin.scenarios.fashion import Fashion
from fpbench.builtin.scenarios.skin import Skin
from fpbench.builtin.scenarios.warfarin import Warfarin
from fpbench.compute.stack import using
from fpbench.engine.environment import tune

ROUNDS = 3
SIZE = 2048
STEPS = 20
Work = Callable[[], object]


def networks(scenario: Scenario, arch: str, count: int, device: torch.device) -> list[nn.Module]:
    made = [scenario.architectures[arch]().to(device) for _ in range(count)]
    return [model.eval().requires_grad_(False) for model in made]


def construction(scenario: Scenario, arch: str, side: int, device: torch.device) -> Work:
    """MetaV against an ensemble of `side` positives and as many negatives, for some steps."""
    access = max(a for a in MetaV.accepts if a in scenario.offers)

    def construct() -> object:
        ensemble = Ensemble(
            positives=networks(scenario, arch, side, device),
            negatives=networks(scenario, arch, side, device),
            positive_recipes=["a"] * side, negative_recipes=["a"] * side,
        )  # fmt: skip
        (target,) = networks(scenario, arch, 1, device)
        case = Given(
            scenario=scenario, target=target, access=Access(access), device=device,
            rng=torch.Generator().manual_seed(0), ensemble=ensemble,
        )  # fmt: skip
        return MetaV(steps=STEPS, objective="full").construct(case)

    return construct


def works(device: torch.device) -> dict[str, tuple[Work, int]]:
    """Each work and how many steps it takes."""
    found: dict[str, tuple[Work, int]] = {}
    for case in CASES:
        bench, pool = Bench(case.scenario, device), data(case, device)
        recipes = members(case)

        def work(case=case, bench=bench, pool=pool, recipes=recipes) -> None:  # type: ignore[no-untyped-def]
            ours(case, bench, pool, recipes)

        found[f"train: {case}"] = work, case.steps
    for scenario, arch, side in (
        (Warfarin(), "s", 35), (Digits(), "resnet", 10), (Fashion(), "xl", 10),
        (Skin(size=32, dataset="ham10000-28"), "small_resnet", 10),
    ):  # fmt: skip
        name = f"metav: {scenario} {arch}, {2 * side} models"
        found[name] = construction(scenario, arch, side, device), STEPS
    return found


def kernels(work: Work) -> int:
    """How many kernels ran: operations that call no other."""
    with torch.profiler.profile() as profile:
        work()
    return sum(
        1 for e in profile.events() or () if e.name.startswith("aten::") and not e.cpu_children
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", default="", help="works whose name has this in it")
    given = parser.parse_args()
    device = torch.device(given.device)
    tune()
    a, b = torch.randn(2, SIZE, SIZE, device=device)
    print(f"{device}, {torch.get_num_threads()} threads")
    print(f"{'':52}{'GFLOP':>9}{'GFLOP/s':>9}{'limit':>9}{'share':>8}{'kernels':>9}")
    for name, (work, steps) in works(device).items():
        if given.only not in name:
            continue
        work()  # loads libraries
        # Looped: a stack's grouped convolutions are counted for more than they have to do.
        with using("looped"), FlopCounterMode(display=False) as counter:
            work()
        seconds = product = float("inf")
        for _ in range(ROUNDS):
            seconds = min(seconds, timed(work, device))
            product = min(product, *(timed(lambda: a @ b, device) for _ in range(3)))
        rate = counter.get_total_flops() / seconds / 1e9
        limit = 2 * SIZE**3 / product / 1e9
        print(f"{name:52}{counter.get_total_flops() / 1e9:9.1f}{rate:9.1f}{limit:9.1f}"
              f"{rate / limit:8.0%}{kernels(work) / steps:9.0f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
