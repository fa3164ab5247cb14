"""How often an owner's verdict accuses innocents, and how many copies it finds.

    uv run python benchmarks/verdicts.py                   # digits, clothes and Warfarin
    uv run python benchmarks/verdicts.py --case digits --store STORE --json verdicts.json

For each case an owner trains a network. `fpbench fingerprint` builds its reference population and
tries every method that applies. Then all suspects are judged: 150 innocents of 15 makings and 24
copies of 8 kinds, none of which is in the reference population. They are made here, on data that
the reference population does not have unless the making says so, with code of their own.

Printed for each method: innocents accused, with the 95 % interval of Clopper and Pearson; the
making with the most accusations; copies found; suspects that cannot be judged. "one making" is how
many innocents have a higher rate than every model that was trained as the case's target. The method
that `--method auto` takes is marked; it is chosen before any suspect is rated. No method is marked
if none recognises half of the known copies.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file
from torch import Tensor, nn

from fpbench import Pool, Scenario, session
from fpbench.api.oracle import oracle_of
from fpbench.engine.registry import Registry
from fpbench.engine.run import Setting
from fpbench.engine.suite import Suite
from fpbench.owner.comparable import measure_utility, profile_of
from fpbench.owner.fingerprinting import Candidate, making_of, try_methods
from fpbench.owner.threshold import clopper_pearson
from fpbench.owner.verdict import CANNOT, CONSISTENT, decide
from fpbench.store.store import Store

HERE = Path(__file__).parent
LEVEL = 0.05


@dataclass(frozen=True)
class Case:
    """A task, the target's architecture and how long it is trained.

    more: methods with other settings than their defaults, to be tried too.
    """

    scenario: str
    arch: str
    other: str
    epochs: int
    api: str
    more: Sequence[dict[str, Any]] = ()

    def suite(self, file: Path) -> str:
        """Return the text of the owner's case, as docs/verify.md shows it."""
        suite = {
            "name": self.scenario.replace("_", "-"),
            "scenario": self.scenario,
            "api": self.api,
            "recipes": {"train": {"epochs": self.epochs}, "distill": {"epochs": 2 * self.epochs}},
            "target": {"recipe": "given", "file": str(file), "model": self.arch},
            "methods": [{"method": "random"}],
        }
        return json.dumps(suite)


CASES = {
    "digits": Case("court_digits", "cnn", "mlp", 25, "probs"),
    "clothes": Case("court_clothes", "cnn", "mlp", 10, "probs"),
    "warfarin": Case(
        "court_warfarin",
        "s",
        "m",
        20,
        "output",
        more=[
            {  # the settings of suites/warfarin.yaml
                "method": "metav",
                "label": "metav-full",
                "objective": "full",
                "data_share": 1.0,
                "reads": "standardized",
                "dropout": 0.5,
                "query_lr": 1e-2,
                "steps": 2000,
            }
        ],
    ),
}


@dataclass
class Recipe:
    """How somebody trains: the owner's way by default, with smoothed labels and noisy inputs."""

    epochs: int
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam
    options: dict[str, Any] = field(default_factory=lambda: {"lr": 1e-3})
    batch: int = 64
    smoothing: float = 0.1
    change: Callable[[Tensor], Tensor] = lambda x: x + 0.02 * torch.randn_like(x)


def learn(scenario: Scenario, model: nn.Module, pool: Pool, recipe: Recipe,
          teacher: nn.Module | None = None) -> nn.Module:  # fmt: skip
    """Train a model on labels, or on a teacher's answers, and return it."""
    x, y = pool
    low, high = scenario.input_range
    classes = scenario.task == "classification"
    if teacher is not None:
        with torch.no_grad():
            y = teacher(x)
    optimizer = recipe.optimizer(model.parameters(), **recipe.options)
    model.train().requires_grad_()
    for _ in range(recipe.epochs):
        for rows in torch.randperm(len(x)).split(recipe.batch):
            if len(rows) < 2:
                continue
            out = model(recipe.change(x[rows]).clamp(low, high))
            if teacher is not None:
                loss = scenario.distill_loss(out, y[rows])
            elif classes:
                loss = F.cross_entropy(out, y[rows], label_smoothing=recipe.smoothing)
            else:
                loss = scenario.loss(out, y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval().requires_grad_(False)


def wide(scenario: Scenario) -> nn.Module:
    """Return an architecture that the reference population does not have."""
    inputs = int(torch.Size(scenario.input_shape).numel())
    outputs = int(torch.Size(scenario.output_shape).numel())
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, 200), nn.Tanh(), nn.Linear(200, 50), nn.Tanh(),
        nn.Linear(50, outputs),
    )  # fmt: skip


def erased(x: Tensor) -> Tensor:
    """Set a fifth of the features or pixels to zero."""
    return x * (torch.rand_like(x) > 0.2)


Maker = Callable[[], nn.Module]


def innocents(scenario: Scenario, case: Case) -> dict[str, Maker]:
    """Return how independent models are made, by the making's name."""
    n, own, others = case.epochs, scenario.data("train"), scenario.data("strangers")
    public = scenario.data("public")
    same = scenario.architecture(case.arch)
    sgd = {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}

    def half(pool: Pool) -> Pool:
        rows = torch.randperm(len(pool.truth))[: len(pool.truth) // 2]
        return Pool(*(t[rows] for t in pool))

    def mislabelled(pool: Pool) -> Pool:
        wrong = torch.rand(len(pool.truth)) < 0.05
        truth = pool.truth.clone()
        truth[wrong] = truth[torch.randperm(len(truth))][wrong]
        return Pool(pool.inputs, truth)

    def pretrained() -> nn.Module:
        model = learn(scenario, same(), scenario.data("irrelevant"), Recipe(n))
        return learn(scenario, model, others, Recipe(n))

    def taught() -> nn.Module:
        teacher = learn(scenario, scenario.architecture(case.other)(), others, Recipe(2 * n))
        return learn(scenario, same(), others, Recipe(2 * n), teacher)

    def averaged() -> nn.Module:
        model = learn(scenario, same(), others, Recipe(n))
        states = []
        for _ in range(3):
            learn(scenario, model, others, Recipe(2))
            states.append(copy.deepcopy(model.state_dict()))
        model.load_state_dict(
            {k: sum(s[k] for s in states) / 3 if states[0][k].is_floating_point() else states[0][k]
             for k in states[0]}
        )  # fmt: skip
        return model

    both = Pool(*(torch.cat(pair) for pair in zip(others, public, strict=True)))
    return {
        "the same recipe, other data": lambda: learn(scenario, same(), others, Recipe(n)),
        "the same recipe, the owner's data": lambda: learn(scenario, same(), own, Recipe(n)),
        "six times as long": lambda: learn(scenario, same(), others, Recipe(6 * n)),
        "RMSprop": lambda: learn(
            scenario, same(), others, Recipe(n, torch.optim.RMSprop, {"lr": 1e-3})
        ),
        "Nesterov, large batches": lambda: learn(
            scenario, same(), others, Recipe(2 * n, torch.optim.SGD, sgd, batch=128)
        ),
        "inputs erased": lambda: learn(scenario, same(), others, Recipe(2 * n, change=erased)),
        "no change of inputs, hard labels": lambda: learn(
            scenario, same(), others, Recipe(n, smoothing=0.0, change=lambda x: x)
        ),
        "pretrained elsewhere": pretrained,
        "another architecture": lambda: learn(
            scenario, scenario.architecture(case.other)(), others, Recipe(n)
        ),
        "an architecture of their own": lambda: learn(scenario, wide(scenario), others, Recipe(n)),
        "taught by an independent model": taught,
        "wrong labels": lambda: learn(scenario, same(), mislabelled(others), Recipe(n)),
        "half of the data, twice as long": lambda: learn(
            scenario, same(), half(others), Recipe(2 * n)
        ),
        "their own and public data": lambda: learn(scenario, same(), both, Recipe(n)),
        "averaged weights": averaged,
    }


def copies(scenario: Scenario, case: Case, target: nn.Module) -> dict[str, Maker]:
    """Return how thieves' copies are made, by the kind's name."""
    n, others = case.epochs, scenario.data("strangers")
    slow = {"lr": 3e-4}

    def mine() -> nn.Module:
        return copy.deepcopy(target)

    def changed(change: Callable[[Tensor], Tensor]) -> nn.Module:
        model = mine()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(change(parameter))
        return model

    def pruned(p: Tensor) -> Tensor:
        return p * (p.abs() > p.abs().quantile(0.4)) if p.ndim > 1 else p

    def rounded(p: Tensor) -> Tensor:
        step = p.abs().max().clamp(min=1e-9) / 31
        return (p / step).round() * step

    def noisy(p: Tensor) -> Tensor:
        return p + 0.05 * p.std(correction=0) * torch.randn_like(p)

    def extracted(arch: str, pool: Pool) -> nn.Module:
        student = scenario.architecture(arch)()
        return learn(scenario, student, pool, Recipe(3 * n, change=lambda x: x), target)

    return {
        "fine-tuned on their data": lambda: learn(
            scenario, mine(), others, Recipe(n, options=slow, smoothing=0.0)
        ),
        "fine-tuned for long": lambda: learn(scenario, mine(), others, Recipe(2 * n, options=slow)),
        "pruned to 60 %": lambda: changed(pruned),
        "pruned, then fine-tuned": lambda: learn(
            scenario, changed(pruned), others, Recipe(2, options=slow)
        ),
        "6-bit weights": lambda: changed(rounded),
        "noise on the weights": lambda: changed(noisy),
        "extracted, the same architecture": lambda: extracted(case.arch, others),
        "extracted, another architecture": lambda: extracted(case.other, others),
    }


def made(makers: dict[str, Maker], each: int, copy_: bool, seed: int) -> Iterator[Any]:
    """Make all suspects of some makings."""
    for k, (name, make) in enumerate(makers.items()):
        for i in range(each):
            torch.manual_seed(1000 * (seed + 1) + 20 * k + i + (500 if copy_ else 0))
            yield SimpleNamespace(making=name, copy=copy_, model=make())


def rates_of(candidate: Candidate, scenario: Scenario, suspects: Sequence[Any]) -> None:
    """Judge the suspects by a fingerprint; write `rate` and `word` into them."""
    assert candidate.trial
    assert candidate.fingerprint
    assert candidate.threshold
    trial = candidate.trial
    for suspect in suspects:
        oracle = oracle_of(
            suspect.model, trial.access, input_shape=scenario.input_shape,
            input_range=scenario.input_range, device=torch.device("cpu"), quantised=False,
        )  # fmt: skip
        torch.manual_seed(0)
        suspect.rate = trial.method.verify(candidate.fingerprint, oracle)
        seen = {
            "rate": suspect.rate, "arch": suspect.arch, "utility": suspect.utility,
            "profile": profile_of(oracle(candidate.fingerprint.queries), scenario),
        }  # fmt: skip
        suspect.word, suspect.reasons = decide(candidate.models, candidate.threshold, seen)


def row(candidate: Candidate, suspects: Sequence[Any], own: Sequence[str]) -> dict[str, Any]:
    """Return the figures of a method.

    own: the makings of models that are trained as the target.
    """
    innocent = [s for s in suspects if not s.copy]
    thieves = [s for s in suspects if s.copy]
    by_making = {
        making: [s.word == CONSISTENT for s in suspects if s.making == making]
        for making in dict.fromkeys(s.making for s in suspects)
    }
    shares = {making: sum(words) / len(words) for making, words in by_making.items()}
    accused = sum(s.word == CONSISTENT for s in innocent)
    worst = max((s.making for s in innocent), key=lambda making: shares[making])
    found = sum(s.word == CONSISTENT for s in thieves)
    alike = [m["rate"] for m in candidate.models if m["making"] in own]
    return {
        "method": candidate.label, "innocents": len(innocent), "accused": accused,
        "accused_interval": clopper_pearson(accused, len(innocent)),
        "worst": worst, "worst_share": shares[worst],
        "one_making": sum(s.rate > max(alike) for s in innocent) if alike else None,
        "copies": len(thieves), "found": found,
        "found_interval": clopper_pearson(found, len(thieves)),
        "cannot": [sum(s.word == CANNOT for s in side) for side in (innocent, thieves)],
        "left_out": candidate.threshold.left_out if candidate.threshold else None,
        "known_copies": [candidate.found, candidate.of],
        "shares": shares,
    }  # fmt: skip


def judge_case(
    name: str, case: Case, seed: int, store: Path, each: tuple[int, int], only: Sequence[str]
) -> dict[str, Any]:
    """Play a case from the owner's training to the verdicts.

    each: the number of innocents of a making, and of copies of a kind.
    only: the methods to try; all that are installed if it is empty.
    """
    registry = Registry.load([HERE / "verdict_cases.py"])
    scenario: Scenario = registry.scenarios[case.scenario].cls()
    torch.manual_seed(seed)
    target = learn(
        scenario, scenario.architecture(case.arch)(), scenario.data("train"), Recipe(case.epochs)
    )
    store.mkdir(parents=True, exist_ok=True)
    file = store / f"{name}-{seed}.safetensors"
    save_file({k: v.contiguous() for k, v in target.state_dict().items()}, file)
    suite_file = store / f"{name}-{seed}.yaml"
    suite_file.write_text(case.suite(file))
    methods = json.dumps(
        [*({"method": m} for m in sorted(only or registry.methods)), *(() if only else case.more)]
    )
    suite = Suite.load(suite_file, registry, overrides=[f"methods={methods}"])
    setting = Setting(
        store=Store(store / "models"), folder=store, hook=registry.manager.hook, device="cpu",
        executor=session.find_executor(registry, "inline", ["cpu"], workers=None, limit=None),
    )  # fmt: skip
    tried = try_methods(suite, setting, LEVEL)
    negatives = suite.zoos[0].negatives
    makings = list(dict.fromkeys(map(making_of, negatives)))
    own = makings[:2]  # of the reference population's first entries: on both pools
    print(f"{name}: {len(negatives)} independent models of {len(makings)} makings")
    best = max(tried, key=Candidate.rank)
    suspects = [
        *made(innocents(scenario, case), each[0], False, seed),
        *made(copies(scenario, case, target), each[1], True, seed),
    ]
    for suspect in suspects:
        suspect.arch = None  # as behind an API: an architecture alone must not decide
        suspect.utility = measure_utility(suspect.model, scenario, at_once=True)
    rows = []
    for candidate in tried:
        if candidate.threshold:
            rates_of(candidate, scenario, suspects)
            recommended = candidate is best and best.rank()[0]
            rows.append({**row(candidate, suspects, own), "recommended": recommended})
    return {"case": name, "seed": seed, "rows": rows,
            "declined": {c.label: c.reason for c in tried if c.reason}}  # fmt: skip


def show(result: dict[str, Any], console: Console) -> None:
    """Print a case's table."""
    table = Table(title=f"{result['case']}, owner {result['seed']}", box=None, title_justify="left")
    for column in ("method", "accused", "95 %", "worst making", "one making", "found", "95 %",
                   "cannot judge", "left out", "known copies"):  # fmt: skip
        table.add_column(column, overflow="fold")
    for r in result["rows"]:
        low, high = (100 * end for end in r["accused_interval"])
        found_low, found_high = (100 * end for end in r["found_interval"])
        table.add_row(
            ("> " if r["recommended"] else "  ") + r["method"],
            f"{r['accused']} of {r['innocents']}", f"{low:.0f} to {high:.0f} %",
            f"{100 * r['worst_share']:.0f} %" + (f" {r['worst']}" if r["worst_share"] else ""),
            "" if r["one_making"] is None else f"{r['one_making']}",
            f"{r['found']} of {r['copies']}", f"{found_low:.0f} to {found_high:.0f} %",
            f"{r['cannot'][0]} + {r['cannot'][1]}", f"{100 * r['left_out']:.1f} %",
            f"{r['known_copies'][0]} of {r['known_copies'][1]}",
        )  # fmt: skip
    console.print(table)


def main() -> None:
    """Judge the suspects of the cases and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", nargs="+", choices=[*CASES], default=[*CASES])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="a seed for each owner")
    parser.add_argument("--innocents", type=int, default=10, help="innocents of each making")
    parser.add_argument("--copies", type=int, default=3, help="copies of each kind")
    parser.add_argument("--epochs", type=int, help="train this long, to try the script")
    parser.add_argument("--methods", nargs="+", default=[], help="instead of all methods")
    parser.add_argument("--store", type=Path, help="keep the reference populations here")
    parser.add_argument("--json", type=Path, help="write all figures here")
    args = parser.parse_args()
    console, results = Console(width=150), []
    with TemporaryDirectory() as folder:
        for seed in args.seeds:
            for name in args.case:
                case = replace(CASES[name], epochs=args.epochs or CASES[name].epochs)
                result = judge_case(
                    name, case, seed, (args.store or Path(folder)).resolve(),
                    (args.innocents, args.copies), args.methods,
                )  # fmt: skip
                results.append(result)
                show(result, console)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
