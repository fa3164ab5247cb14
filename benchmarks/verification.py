"""What it takes to ask suspects a hundred questions: loading their weights, and their answers.

    python benchmarks/verification.py [--device cpu] [--suspects 140]

Milliseconds per suspect. "first" reads and hashes a suspect's file, "again" is every later trial of
the same process, "anew" what it would be without mapping files into memory and remembering what
was hashed. "answers" is one suspect after another, as methods ask them; "one pass" all of an
architecture at once. All in turns within one run.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load
from torch import nn
from training import timed

from fpbench import Access, Scenario
from fpbench.api.oracle import oracle_of
from fpbench.builtin.recipes.train import Train
from fpbench.builtin.scenarios.digits import Digits
from fpbench.builtin.scenarios.fashion import Fashion
from fpbench.builtin.scenarios.skin import Skin
from fpbench.builtin.scenarios.warfarin import Warfarin
from fpbench.compute.stack import Stacks
from fpbench.store.files import sha256
from fpbench.store.store import Store

QUERIES, ROUNDS = 100, 3
CASES: tuple[tuple[Scenario, str], ...] = (
    (Warfarin(), "m"), (Digits(), "mlp"), (Digits(), "resnet"),
    (Skin(size=32, dataset="ham10000-28"), "small_resnet"), (Fashion(), "xl"),
    (Skin(size=32, dataset="ham10000-28"), "resnet18"),
)  # fmt: skip


def measure(scenario: Scenario, arch: str, suspects: int, device: torch.device, root: Path) -> str:
    recipes = [Train(scenario=str(scenario), model=arch, seed=i) for i in range(suspects)]
    store = Store(root)
    for recipe in recipes:
        store.save([(recipe, scenario.architectures[arch](), {"arch": arch})], scenario)
    files = [store.folder(recipe, scenario) / "weights.safetensors" for recipe in recipes]
    low, high = scenario.input_range
    x = low + (high - low) * torch.rand(QUERIES, *scenario.input_shape)

    def loaded() -> list[nn.Module]:
        return [store.load(recipe, scenario, device) for recipe in recipes]

    def anew() -> None:
        for file in files:
            raw = file.read_bytes()
            sha256(raw)
            scenario.architectures[arch]().to(device).load_state_dict(load(raw))

    def answers(models: list[nn.Module]) -> Callable[[], None]:
        def ask() -> None:
            for model in models:
                oracle_of(model, Access.OUTPUT, input_shape=scenario.input_shape,
                          input_range=scenario.input_range, device=device)(x)  # fmt: skip

        return ask

    def one_pass(models: list[nn.Module]) -> Callable[[], None]:
        @torch.no_grad()
        def ask() -> None:
            Stacks(models)(x.to(device)).cpu()

        return ask

    first = timed(loaded, device)
    models = loaded()
    one_pass(models)()  # its way is chosen now
    columns = (loaded, anew, answers(models), one_pass(models))
    best = [min(times) for times in zip(
        *([timed(work, device) for work in columns] for _ in range(ROUNDS)), strict=True
    )]  # fmt: skip
    size = files[0].stat().st_size / 1e6
    cells = "".join(f"{1e3 * seconds / suspects:10.2f}" for seconds in (first, *best))
    return f"{f'{scenario.name} {arch}':28}{size:10.2f}{cells}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--suspects", type=int, default=140)
    given = parser.parse_args()
    device = torch.device(given.device)
    print(f"{device}, {torch.get_num_threads()} threads; {given.suspects} suspects, {QUERIES} "
          "queries; milliseconds per suspect")  # fmt: skip
    print(f"{'':28}" + "".join(
        f"{name:>10}" for name in ("MB", "first", "again", "anew", "answers", "one pass")
    ))  # fmt: skip
    for scenario, arch in CASES:
        with tempfile.TemporaryDirectory() as root:
            print(measure(scenario, arch, given.suspects, device, Path(root)), flush=True)


if __name__ == "__main__":
    main()
