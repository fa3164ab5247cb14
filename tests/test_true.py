"""What is reported is so: the same again to the bit, the same numbers everywhere, as anybody would
compute them, from methods that were told nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from killable import Killable
from safetensors.torch import load_file
from scipy import optimize, stats
from toys import Blobs

from conftest import TINY, Desk
from fpbench import Access, Recipe
from fpbench.results import metrics
from fpbench.results.comparison import compare
from fpbench.results.weighted import JudgedRates
from fpbench.testing import Zoo

# ── the same again ────────────────────────────────────────────────────────────────


def test_another_process_finds_the_same_to_the_bit(tmp_path: Path) -> None:
    here, there = (Killable(Desk.of(tmp_path / name, TINY).folder) for name in ("here", "there"))
    assert here.finish(here.start("--device", "cpu"))[0] == 0, here.said
    command = there.command("--device", "cpu")
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-m", "fpbench", *command], capture_output=True,
                          text=True, timeout=300, env=environment)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert here.found() == there.found()


# ── as anybody would compute them ─────────────────────────────────────────────────

RATES = st.lists(st.integers(0, 100).map(lambda i: i / 100), min_size=2, max_size=15)


@settings(max_examples=40)
@given(RATES, RATES)
def test_calibration_is_the_best_logistic_curve(
    positives: list[float], negatives: list[float]
) -> None:
    """Platt's weighted log-loss, minimised by another library from its formula."""
    n_pos, n_neg = len(positives), len(negatives)
    high, low = (n_pos + 1) / (n_pos + 2), 1 / (n_neg + 2)
    rates = np.array([*positives, *negatives])
    targets = np.array([high] * n_pos + [low] * n_neg)
    weights = np.array([1 / n_pos] * n_pos + [1 / n_neg] * n_neg)

    def loss(curve: Any) -> float:
        z = curve[0] * rates + curve[1]
        return float((weights * (np.logaddexp(0, z) - targets * z)).sum())

    best = optimize.minimize(loss, [0.0, 0.0], method="Nelder-Mead",
                             options={"xatol": 1e-9, "fatol": 1e-14, "maxiter": 9999})  # fmt: skip
    found = metrics.calibration(positives, negatives)(rates.tolist())
    if best.x[0] <= 1e-6:  # turned round, or flat: it says nothing
        assert np.ptp(found) < 1e-3
    else:
        assert found == pytest.approx(1 / (1 + np.exp(-best.x[0] * rates - best.x[1])), abs=2e-3)


@given(RATES, RATES)
def test_a_p_value_counts_the_negatives_rated_as_high(
    judged: list[float], negatives: list[float]
) -> None:
    for rate in judged:
        count = len([n for n in negatives if not n < rate])
        assert metrics.p_value(rate, negatives) == (count + 1) / (len(negatives) + 1)


@pytest.mark.parametrize(("metric", "plain"), [("aruc", metrics.aruc), ("auc", metrics.roc_auc)])
@settings(max_examples=10)
@given(st.lists(RATES, min_size=4, max_size=4), st.integers(0, 5))
def test_the_bootstrap_is_a_loop_over_zoos_drawn_again(
    metric: Any, plain: Callable[..., float], rates: list[list[float]], seed: int
) -> None:
    sides = min(map(len, rates[::2])), min(map(len, rates[1::2]))
    methods = {
        name: {(0, 0): JudgedRates({f"p{i:02}": r for i, r in enumerate(p[: sides[0]])},
                                   {f"n{i:02}": r for i, r in enumerate(n[: sides[1]])})}
        for name, p, n in (("a", *rates[:2]), ("b", *rates[2:]))
    }  # fmt: skip
    (found,) = compare(metric, methods, resamples=20, seed=seed)

    rng = np.random.default_rng(seed)
    draws = [rng.multinomial(n, [1 / n] * n, size=20) for n in sides]
    ahead = []
    for counts in zip(*draws, strict=True):
        value = {}
        for name, judged in methods.items():
            zoo = [
                [r for r, times in zip(side.values(), drawn, strict=True) for _ in range(times)]
                for side, drawn in zip(
                    (judged[0, 0].positives, judged[0, 0].negatives), counts, strict=True
                )
            ]
            value[name] = plain(*zoo)
        ahead.append(value["a"] - value["b"])
    smaller = min(sides)
    if smaller < 2:  # one model says nothing of how models differ
        bound = metrics.ARUC_CEILING if metric == "aruc" else 1
        assert (found.low, found.high) == (-bound, bound)
        return
    half = stats.t.ppf(0.975, smaller - 1) * np.std(ahead) * (smaller / (smaller - 1)) ** 0.5
    if found.high < 0.98 and found.low > -0.98:
        assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half))


# ── methods that were told nothing ────────────────────────────────────────────────

SPY = """\
from dataclasses import dataclass

import fpbench
from test_true import everything
from toys import Grid

SEEN = []

@dataclass(frozen=True, kw_only=True)
class Spy(Grid):
    name = "spy"
    needs_ensemble = True

    def construct(self, case):
        SEEN.append(("case", everything(case)))
        return super().construct(case)

    def verify(self, fingerprint, oracle):
        SEEN.append(("oracle", everything(oracle)))
        return super().verify(fingerprint, oracle)

@fpbench.hookimpl
def fpbench_fingerprinters():
    return [Spy]
"""


DESCRIPTORS = (
    types.MethodDescriptorType, types.WrapperDescriptorType, types.GetSetDescriptorType,
    types.MemberDescriptorType, types.ClassMethodDescriptorType,
)  # fmt: skip


def everything(root: object) -> list[object]:
    """All that attributes lead to from an object: items, slots, methods, what they are bound to,
    what functions have closed over. Modules, classes and a function's globals are not followed:
    from there everything in the process can be reached."""
    found: dict[int, object] = {}
    todo = [root]
    while todo:
        thing = todo.pop()
        if id(thing) in found or isinstance(thing, types.ModuleType | type):
            continue
        found[id(thing)] = thing
        assert len(found) < 100_000
        todo += _next(thing)
    return list(found.values())


def _next(thing: Any) -> Iterable[object]:
    if isinstance(thing, str | bytes | int | float | torch.dtype | torch.device | None.__class__):
        return
    if isinstance(thing, Mapping):
        yield from thing.keys()
        yield from thing.values()
    elif isinstance(thing, list | tuple | set | frozenset):
        yield from thing
    if isinstance(thing, torch.Tensor):
        return
    if isinstance(thing, types.FunctionType):
        for cell in thing.__closure__ or ():
            yield cell.cell_contents
        yield from (thing.__defaults__, thing.__kwdefaults__, thing.__dict__)
        return
    if isinstance(thing, types.MethodType):
        yield from (thing.__self__, thing.__func__)
        return
    if isinstance(thing, types.BuiltinMethodType | types.MethodWrapperType):
        yield thing.__self__
        return
    if isinstance(thing, DESCRIPTORS):
        return
    for name in {*dir(thing), *(f"_{type(thing).__name__}{n}" for n in ("__ask", "__model"))}:
        try:
            yield getattr(thing, name)
        except Exception:  # noqa: S112
            continue


@dataclass
class Spied:
    data: Mapping[str, Any]
    seen: list[tuple[str, list[Any]]]
    weights: dict[str, list[bytes]]


@pytest.fixture(scope="module")
def spied(tmp_path_factory: pytest.TempPathFactory) -> Spied:
    text = TINY[: TINY.index("methods:")] + "methods:\n  - {method: spy}\n"
    desk = Desk.of(tmp_path_factory.mktemp("spied"), text.replace("repeats: 2", "repeats: 1"))
    plugin = desk.folder / "spy.py"
    plugin.write_text(SPY)
    data = desk.run(plugins=(plugin,))
    weights = {
        file.parent.name: [t.numpy().tobytes() for t in load_file(file).values()]
        for file in (desk.folder / "store").rglob("weights.safetensors")
    }
    return Spied(data, sys.modules["fpbench_loose_spy"].SEEN, weights)


def tensors(things: Iterable[object]) -> set[bytes]:
    found = (t for t in things if isinstance(t, torch.Tensor) and t.numel() and not t.is_meta)
    return {t.detach().numpy().tobytes() for t in found}


def test_no_judged_suspects_weights_lie_within_a_methods_reach(spied: Spied) -> None:
    (trial,) = spied.data["trials"]
    (case,) = (things for what, things in spied.seen if what == "case")
    reached = tensors(case)
    # The walk does reach what there is: the target, and the models to learn from.
    assert set(spied.weights[spied.data["targets"][0]]) <= reached
    learned = set(trial["ensemble"])
    assert learned
    assert all(set(spied.weights[digest]) <= reached for digest in learned)
    given = {t for digest in (spied.data["targets"][0], *learned) for t in spied.weights[digest]}
    for digest in trial["matching_rates"]:
        # A fine-tuned last layer stands on layers that are the target's.
        own = set(spied.weights[digest]) - given
        assert own
        assert not own & reached


def test_nothing_leads_from_an_oracle_to_a_model(spied: Spied) -> None:
    oracles = [things for what, things in spied.seen if what == "oracle"]
    assert len(oracles) == 16
    for things in oracles:
        assert not tensors(things)
        assert not any(isinstance(t, torch.nn.Module) for t in things)


def test_nobody_tells_a_method_who_a_suspect_is(spied: Spied) -> None:
    recipes = {m["digest"]: m["name"] for m in spied.data["models"]}
    for _, things in spied.seen:
        assert not any(isinstance(t, Recipe) for t in things)
        texts = {t for t in things if isinstance(t, str)}
        assert not texts & {*recipes, *recipes.values()}


def test_the_order_of_suspects_tells_nothing(spied: Spied, monkeypatch: pytest.MonkeyPatch) -> None:
    from fpbench.engine.attempt import shuffle_suspects

    positive = {m["digest"]: m["positive"] for m in spied.data["models"]}
    (trial,) = spied.data["trials"]
    judged = list(trial["matching_rates"])
    orders = {tuple(positive[d] for d in shuffle_suspects(judged, seed)) for seed in range(50)}
    # In results they stand by side. A method that counts must not meet them so.
    assert tuple(sorted(orders.pop(), reverse=True)) == tuple(positive[d] for d in judged)
    assert len(orders) > 25
    assert shuffle_suspects(judged, 7) == shuffle_suspects(judged[::-1], 7)


def test_a_tensor_that_listens_is_told_nothing() -> None:
    heard: list[Any] = []

    class Listening(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            heard.extend(args)
            return super().__torch_function__(func, types, args, kwargs)

    model = torch.nn.Linear(2, 3)
    oracle = Zoo(Blobs(), model, [], []).oracle(model, Access.LABEL)
    reply = oracle(torch.zeros(4, 2).as_subclass(Listening))
    assert len(reply) == 4
    assert not any(thing is p for thing in heard for p in model.parameters())
