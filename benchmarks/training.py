"""Seconds to train a zoo's members: plain PyTorch one by one, against fpbench's trainer.

    python benchmarks/training.py [--device cpu] [--only NETWORK]

"plain" is what one would write for a single model: the module itself, Adam, a permutation cut into
batches, one member after another. "stacked", "fused" and "looped" are `fpbench.training.fit` held
to one way; "rule" is the way that it takes by itself, and "workers" the same in a process per core,
each with its share of the members, as `fpbench run` has it. "fastest / rule" compares the rule with
the fastest of the three ways: below 0.9 the rule costs more than a tenth. Every column but the last
one runs on one thread. All train the same members for as many steps on data that is on the device,
in turns within one run, so that ratios hold on a busy machine too; seconds do not.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fpbench import Classification, Pool, Recipe, Scenario
from fpbench.builtin.executors.local import Local
from fpbench.builtin.recipes.train import Train
from fpbench.builtin.scenarios.digits import Digits
from fpbench.builtin.scenarios.fashion import Fashion
from fpbench.builtin.scenarios.skin import Skin
from fpbench.builtin.scenarios.warfarin import Warfarin
from fpbench.compute.stack import Way, choose_way, using
from fpbench.engine.environment import tune
from fpbench.training import fit

ROUNDS = 3
WAYS: tuple[Way, ...] = ("stacked", "fused", "looped")
COLUMNS = ("plain", *WAYS, "rule", "workers")
LR, BATCH = 1e-3, 64


@dataclass(frozen=True)
class Case:
    """A cohort: so many members of an architecture, so many inputs each, as often as a zoo trains
    such networks, or often enough for what is set up once to disappear."""

    scenario: Scenario
    arch: str
    members: int
    inputs: int
    epochs: int

    @property
    def steps(self) -> int:
        """Of one member."""
        return self.epochs * -(-self.inputs // BATCH)

    def __str__(self) -> str:
        return f"{self.scenario} {self.arch}, {self.members} member{'s' * (self.members > 1)}"


CASES = (
    Case(Warfarin(), "s", 20, 640, 40),
    Case(Warfarin(), "m", 20, 640, 40),
    Case(Warfarin(), "l", 20, 640, 40),
    Case(Digits(), "mlp", 12, 640, 10),
    Case(Digits(), "cnn", 12, 640, 4),
    Case(Digits(), "resnet", 12, 640, 4),
    Case(Skin(size=32), "small_resnet", 8, 256, 4),
    Case(Skin(size=32), "resnet18", 4, 64, 4),
    Case(Skin(), "resnet18", 1, 32, 2),
    Case(Fashion(), "s", 8, 640, 2),
    Case(Fashion(), "xl", 4, 256, 2),
    Case(Fashion(precision="bfloat16"), "xl", 4, 256, 2),
)


@dataclass
class Bench:
    """What `fit` needs to know of a lab."""

    scenario: Scenario
    device: torch.device
    failures: list[str] = field(default_factory=list)

    def rng(self, recipe: Recipe) -> torch.Generator:
        return torch.Generator().manual_seed(recipe.seed)

    def new(self, recipe: Recipe, model: str) -> nn.Module:
        torch.manual_seed(recipe.seed)
        return self.scenario.architectures[model]().to(self.device)

    def parent(self, recipe: Recipe) -> nn.Module:
        raise LookupError(f"{recipe} is trained from nothing")

    def failed(self, recipe: Recipe, reason: str) -> None:
        self.failures.append(reason)


def data(case: Case, device: torch.device) -> Pool:
    """Noise in the scenario's shapes: what is learned does not matter here."""
    torch.manual_seed(0)
    x = torch.randn(case.inputs, *case.scenario.input_shape)
    truth = torch.randn(case.inputs, *case.scenario.output_shape)
    if isinstance(case.scenario, Classification):
        truth = truth.argmax(1)
    return Pool(x.to(device), truth.to(device))


def batches(case: Case, pool: Pool, rng: torch.Generator) -> Iterator[Sequence[Tensor]]:
    for _ in range(case.epochs):
        for batch in torch.randperm(len(pool.inputs), generator=rng).split(BATCH):
            yield pool.inputs[batch], pool.truth[batch]


def plain(case: Case, bench: Bench, pool: Pool, recipes: Sequence[Recipe]) -> None:
    """As one would train each model alone."""
    game = isinstance(case.scenario, Fashion)
    for recipe in recipes:
        model, rng = bench.new(recipe, case.arch).train(), bench.rng(recipe)
        (play if game else learn)(case, model, batches(case, pool, rng), rng)


def learn(
    case: Case, model: nn.Module, batches: Iterator[Sequence[Tensor]], rng: torch.Generator
) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    for inputs, truth in batches:
        optimizer.zero_grad()
        case.scenario.loss(model(inputs), truth).backward()
        optimizer.step()


def play(
    case: Case, model: nn.Module, batches: Iterator[Sequence[Tensor]], rng: torch.Generator
) -> None:
    """A GAN's game, as in DCGAN's public implementations."""
    assert isinstance(case.scenario, Fashion)
    device = next(model.parameters()).device
    rival = case.scenario.discriminators[case.arch]().to(device).train()
    for_model = torch.optim.Adam(model.parameters(), lr=LR, betas=(0.5, 0.999))
    for_rival = torch.optim.Adam(rival.parameters(), lr=LR, betas=(0.5, 0.999))
    for _, images in batches:
        made = model(case.scenario.latents(len(images), rng).to(device))
        for_rival.zero_grad()
        wrong = F.softplus(-rival(images)) + F.softplus(rival(made.detach()))
        wrong.mean().backward()
        for_rival.step()
        for_model.zero_grad()
        F.softplus(-rival(made)).mean().backward()
        for_model.step()


def members(case: Case) -> list[Recipe]:
    scenario = str(case.scenario)
    return [Train(scenario=scenario, model=case.arch, seed=i) for i in range(case.members)]


def ours(case: Case, bench: Bench, pool: Pool, recipes: Sequence[Recipe]) -> None:
    models = [bench.new(recipe, case.arch) for recipe in recipes]
    fit(bench, recipes, models, pool, epochs=case.epochs, lr=LR, batch_size=BATCH)


def share(part: tuple[int, slice], *, device: str) -> None:
    """A worker's part of a case's members."""
    case = CASES[part[0]]
    ours(case, *prepared(case, device), members(case)[part[1]])


@cache
def prepared(case: Case, device: str) -> tuple[Bench, Pool]:
    return Bench(case.scenario, torch.device(device)), data(case, torch.device(device))


def timed(work: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def measure(case: Case, device: torch.device, workers: Local | None) -> str:
    (bench, pool), recipes = prepared(case, str(device)), members(case)
    ways: tuple[Way, ...] = WAYS if case.members > 1 else ("looped",)
    taken = choose_way(case.scenario.architectures[case.arch](), case.members)

    def held(way: Way) -> None:
        with using(way):
            ours(case, bench, pool, recipes)

    def shared(pool: Local) -> None:
        count = min(pool.room(), case.members)
        cuts = [case.members * i // count for i in range(count + 1)]
        parts = [(CASES.index(case), slice(*cut)) for cut in itertools.pairwise(cuts)]
        for outcome in pool.map(share, parts):
            assert outcome is None, outcome

    works: dict[str, Callable[[], object]] = {
        "plain": lambda: plain(case, bench, pool, recipes),
        **{way: partial(held, way) for way in ways},
        "rule": lambda: ours(case, bench, pool, recipes),
    }
    if workers is not None and case.members > 1:
        works["workers"] = lambda: shared(workers)
        works["workers"]()
    works["rule"]()  # loads libraries
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, work in works.items():
            best[name] = min(best.get(name, math.inf), timed(work, device))
    cells = [
        f"{1e3 * best[column] / case.members / case.steps:11.2f}"
        if column in best
        else f"{'-':>11}"
        for column in COLUMNS
    ]
    ratios = [
        f"{best['plain'] / best[column]:11.1f}" if column in best else f"{'-':>11}"
        for column in ("rule", "workers")
    ]
    ratio = min(best[way] for way in ways) / best["rule"]
    return f"{case!s:44}{''.join(cells)}{''.join(ratios)}{ratio:9.2f}  {taken}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    given = parser.parse_args()
    device = torch.device(given.device)
    tune()
    cores = len(os.sched_getaffinity(0))
    workers = Local(["cpu"] * cores, tune) if device.type == "cpu" and cores > 1 else None
    print(f"{device}, {cores} cores; milliseconds per step and member, batches of {BATCH}; plain's "
          "time by the rule's and the workers', and the fastest way's by the rule's")  # fmt: skip
    heads = (*COLUMNS, "plain/rule", "plain/wo.")
    print(f"{'':44}{''.join(f'{head:>11}' for head in heads)} fastest/rule")
    try:
        for case in CASES:
            if given.only in str(case):
                print(measure(case, device, workers), flush=True)
    finally:
        if workers is not None:
            workers.close()


if __name__ == "__main__":
    main()
