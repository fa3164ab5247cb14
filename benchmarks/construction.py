"""Construction of fingerprints, side by side with the loops and the packages it replaces.

    python benchmarks/construction.py [--device cpu]

Every row times two programs that do the same work, in turns within one run, and prints the ratio
and what both found, so that a faster program that finds less would show. foolbox and ART come with
the development dependencies; rows of one that is not installed are left out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from fpbench_metav import MetaV
from torch import Tensor, nn

from fpbench import Case, Scenario, deepfool, descend, folded, reply
from fpbench.api.fingerprinter import Ensemble
from fpbench.builtin.scenarios.digits import Digits
from fpbench.builtin.scenarios.warfarin import Warfarin
from fpbench.engine.environment import tune

ROUNDS = 3
LR, WALK = 0.01, 1000
STEPS, OVERSHOOT, CANDIDATES = 50, 0.02, 10
METAV_STEPS = 50
POINTS = 100

Work = Callable[[], Tensor]
Check = Callable[[Tensor], str]


def trained(scenario: Digits, arch: str, device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    model = scenario.architectures[arch]().to(device)
    inputs, truth = (t.to(device) for t in scenario.data("train"))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), truth).backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


# ── IPGuard: all points in one batch, each until it has arrived ────────────────────


def away(logits: Tensor, ends: Tensor, k: float) -> Tensor:
    """IPGuard's loss of each point (section 4.2)."""
    z_i, z_j = logits.gather(1, ends).unbind(1)
    z_t = logits.scatter(1, ends, float("-inf")).amax(1)
    return (z_i - z_j + k).relu() + (z_t - z_i).relu()


def walk(model: nn.Module, x: Tensor, ends: Tensor, k: float) -> Tensor:
    """Points (n, ...) to their goals, as the plugin does."""
    model = folded(model, x)
    return descend(
        lambda x, which: away(model(x), ends[which], k), x, (0.0, 1.0),
        lr=LR, steps=WALK, enough=0.0,
    )  # fmt: skip


def walk_alone(model: nn.Module, start: Tensor, ends: Tensor, k: float) -> Tensor:
    """One point (1, ...) to its goal, in plain PyTorch."""
    x = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=LR)
    for _ in range(WALK):
        loss = away(model(x), ends, k).sum()
        if loss.item() <= 0:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            x.clamp_(0, 1)
    return x.detach()


def ipguard(model: nn.Module, x: Tensor) -> tuple[Work, Work, Check]:
    with torch.no_grad():
        logits = model(x)
    start = logits.argmax(1)
    ends = torch.stack([start, (start + 1) % logits.shape[1]], 1)
    top = logits.topk(2).values
    k = 0.1 * float((top[:, 0] - top[:, 1]).std())

    def one_by_one() -> Tensor:
        pairs = zip(x.split(1), ends.split(1), strict=True)
        return torch.cat([walk_alone(model, *pair, k) for pair in pairs])

    def arrived(moved: Tensor) -> str:
        there = (model(moved).argmax(1) == ends[:, 1]).float().mean()
        return f"{float(there):.0%} arrived, mean {float(moved.mean()):.6f}"

    return lambda: walk(model, x, ends, k), one_by_one, arrived


# ── DeepFool: against two packages ─────────────────────────────────────────────────


def by_foolbox(model: nn.Module, x: Tensor) -> Work:
    import foolbox

    labels = model(x).argmax(1)
    attack = foolbox.attacks.L2DeepFoolAttack(
        steps=STEPS, overshoot=OVERSHOOT, candidates=CANDIDATES
    )
    return lambda: attack.run(foolbox.PyTorchModel(model, bounds=(0, 1)), x, labels)


def by_art(model: nn.Module, x: Tensor) -> Work:
    from art.attacks.evasion import DeepFool
    from art.estimators.classification import PyTorchClassifier

    classes = model(x[:1]).shape[1]
    known = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), classes, clip_values=(0.0, 1.0)
    )
    attack = DeepFool(known, max_iter=STEPS, epsilon=OVERSHOOT, nb_grads=CANDIDATES,
                      batch_size=len(x), verbose=False)  # fmt: skip
    return lambda: torch.from_numpy(attack.generate(x.cpu().numpy())).to(x.device)


def ours(model: nn.Module, x: Tensor) -> Work:
    return lambda: deepfool(
        folded(model, x), x, (0.0, 1.0), steps=STEPS, overshoot=OVERSHOOT, candidates=CANDIDATES
    )


def flips(model: nn.Module, x: Tensor) -> Check:
    labels = model(x).argmax(1)

    def check(moved: Tensor) -> str:
        flipped = (model(moved).argmax(1) != labels).float().mean()
        far = (moved - x).flatten(1).norm(dim=1).mean()
        return f"{float(flipped):.0%} flipped, mean L2 {float(far):.3f}"

    return check


# ── MetaV: models of one architecture answer in one pass ───────────────────────────


class Looped(MetaV):
    """MetaV that asks its ensemble one model after another."""

    def _answers(self, x: Tensor, case: Case, alone: object) -> tuple[Tensor, int]:
        ensemble = case.ensemble
        assert ensemble is not None
        models = [case.target, *ensemble.positives, *ensemble.negatives]
        rows = [reply(model(x)[None], case.access).flatten(1) for model in models]
        return torch.cat(rows), len(ensemble.negatives)


def metav(
    scenario: Scenario, arch: str, side: int, device: torch.device
) -> tuple[Work, Work, Check]:
    torch.manual_seed(0)
    target, *others = (
        scenario.architectures[arch]().to(device).eval().requires_grad_(False)
        for _ in range(1 + 2 * side)
    )

    def construct(method: MetaV) -> Work:
        def work() -> Tensor:
            torch.manual_seed(0)
            ensemble = Ensemble(
                positives=others[:side], negatives=others[side:],
                positive_recipes=["a"] * side, negative_recipes=["a"] * side,
            )  # fmt: skip
            case = Case(
                scenario=scenario, target=target, access=max(MetaV.accepts & scenario.offers),
                rng=torch.Generator().manual_seed(0), device=device, ensemble=ensemble,
            )  # fmt: skip
            return method.construct(case).queries

        return work

    def check(queries: Tensor) -> str:
        return f"queries' sum {float(queries.double().sum()):.3f}"

    given = {"objective": "full", "steps": METAV_STEPS}
    return construct(MetaV(**given)), construct(Looped(**given)), check  # type: ignore[arg-type]


# ───────────────────────────────────────────────────────────────────────────────────


def timed(work: Work, device: torch.device) -> tuple[float, Tensor]:
    began = time.perf_counter()
    found = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began, found


def row(name: str, fast: Work, slow: Work, check: Check, device: torch.device) -> None:
    fast()  # kernels are loaded
    pairs = [(timed(fast, device), timed(slow, device)) for _ in range(ROUNDS)]
    ours = min(pair[0][0] for pair in pairs)
    theirs = min(pair[1][0] for pair in pairs)
    print(f"{name:44}{ours:9.3f}{theirs:9.3f}{theirs / ours:8.1f}   "
          f"{check(pairs[0][0][1])}; {check(pairs[0][1][1])}", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(parser.parse_args().device)
    tune()
    print(f"{device}, {torch.get_num_threads()} threads; seconds, the best of {ROUNDS}")
    print(f"{'':44}{'ours':>9}{'theirs':>9}{'ratio':>8}   found by ours; by theirs")
    digits = Digits()
    for arch in ("mlp", "cnn", "resnet"):
        model = trained(digits, arch, device)
        x = digits.data("train").inputs[:POINTS].to(device)
        row(f"IPGuard {arch}, one point at a time", *ipguard(model, x), device)
        for name, by in (("foolbox", by_foolbox), ("ART", by_art)):
            try:
                other = by(model, x)
            except ModuleNotFoundError as error:
                print(f"DeepFool {arch}, {name}: {error.name} is not installed", flush=True)
                continue
            row(f"DeepFool {arch}, {name}", ours(model, x), other, flips(model, x), device)
    scenarios: tuple[tuple[Scenario, str, int], ...] = (
        (Warfarin(), "s", 35), (digits, "mlp", 15), (digits, "cnn", 15), (digits, "resnet", 15),
    )  # fmt: skip
    for scenario, arch, side in scenarios:
        name = f"MetaV {scenario} {arch}, a loop over {2 * side} models"
        row(name, *metav(scenario, arch, side, device), device)


if __name__ == "__main__":
    main()
