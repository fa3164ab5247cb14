"""One rule says what scores are; whichever way the target answers, it is rated as the target."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from office import Api, Office, numbers, opened
from safetensors.torch import load_file
from torch import Tensor, nn

from fpbench import InputError
from fpbench.owner.adapter import Adapter
from fpbench.owner.replies import Reader
from fpbench.owner.scores import as_logits, find_values, step_of


def some_logits(n: int, classes: int) -> Tensor:
    rng = torch.Generator().manual_seed(n + classes)
    return 4 * torch.randn(n, classes, generator=rng, dtype=torch.float64)


def rounded(decimals: int) -> Callable[[Tensor], Tensor]:
    return lambda p: (p * 10**decimals).round() / 10**decimals


def truncated(decimals: int) -> Callable[[Tensor], Tensor]:
    return lambda p: (p * 10**decimals).floor() / 10**decimals


WAYS: dict[str, tuple[Callable[[Tensor], Tensor], str, float]] = {
    "probs": (lambda p: p, "probs", 1e-9),
    "half precision": (lambda p: p.half(), "probs", 2e-3),
    **{f"{d} decimals": (rounded(d), "probs", 10.0**-d) for d in (1, 2, 3, 4)},
    **{f"{d} decimals, truncated": (truncated(d), "probs", 2 * 10.0**-d) for d in (2, 3, 4)},
    "8 bits": (lambda p: (p * 255).round() / 255, "probs", 1 / 255),
    "percent": (lambda p: 100 * p, "percent", 1e-9),
    "percent, 1 decimal": (lambda p: (1000 * p).round() / 10, "percent", 1e-3),
    "log-probabilities": (lambda p: p.log(), "logits", 1e-9),
    "shifted logits": (lambda p: p.log() + 3, "logits", 1e-9),
}


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize(("way", "values", "within"), WAYS.values(), ids=WAYS.keys())
def test_scores_are_recognised_and_read(
    way: Callable[[Tensor], Tensor], values: str, within: float, classes: int
) -> None:
    p = some_logits(200, classes).softmax(-1)
    scores = way(p)
    assert find_values(scores) == values
    step = step_of(scores / (100 if values == "percent" else 1)) if values != "logits" else 0.0
    read = as_logits(scores, find_values(scores), step).softmax(-1)
    # A row's sum may be off by a step for each class that is not zero, which moves the others.
    assert float((read - p).abs().max()) <= within * (1 if within < 1e-6 else 3)


@pytest.mark.parametrize("scores", [
    some_logits(50, 10).sigmoid(), some_logits(50, 10).relu(), 255 * some_logits(50, 10).softmax(-1)
])  # fmt: skip
def test_other_scores_are_asked_about(scores: Tensor) -> None:
    with pytest.raises(InputError, match="say what they are by `values:`"):
        find_values(scores)


def test_one_batch_does_not_decide_for_the_others() -> None:
    p = some_logits(64, 10).softmax(-1)
    glitch = torch.cat([p, 0.5 * p[:1]])
    with pytest.raises(InputError, match="clearly probabilities"):
        find_values(glitch)


def test_what_a_list_leaves_out_is_spread_over_the_other_classes() -> None:
    scores = torch.tensor([[0.6, torch.nan, 0.2, torch.nan], [0.5, 0.5, torch.nan, torch.nan]])
    read = as_logits(scores, find_values(scores)).softmax(-1)
    assert read[0].tolist() == pytest.approx([0.6, 0.1, 0.2, 0.1])
    assert read[1].tolist() == pytest.approx([0.5, 0.5, 0, 0], abs=1e-6)


# ── The target itself, whichever way it answers ──────────────────────────────────


NETWORKS = """\
from torch import nn


def make():
    layers = [nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(64, 10), nn.Softmax(-1))
"""


@pytest.fixture(scope="module")
def zest(office: Office) -> Office:
    """The office with a fingerprint for probabilities, by a method that compares small ones."""
    text = (office.folder / "case.yaml").read_text().replace("method: akh, n_", "method: zest, n_")
    (office.folder / "zest.yaml").write_text(text)
    made = office(
        "fingerprint", office.folder / "zest.yaml", "--method", "zest", "-o", "api=probs",
        "--store", office.folder / "store", "--out", office.folder / "zest.fp",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    (office.folder / "soft_net.py").write_text(NETWORKS)
    return office


@pytest.fixture(scope="module")
def mine(office: Office) -> nn.Module:
    model = office.digits.architecture("mlp")()
    model.load_state_dict(load_file(office.folder / "mine.safetensors"))
    return model.eval()


NAMED = "top: [label, score]\nclasses: [{}]\n".format(", ".join(f"d{k}" for k in range(10)))
"""Keys of an adapter."""


def named(p: Tensor, most: int = 10) -> list[list[dict[str, object]]]:
    """Return the likeliest classes of each row, by name."""
    return [
        [{"label": f"d{k}", "score": float(row[k])} for k in row.argsort(descending=True)[:most]]
        for row in p
    ]


ANSWERS: dict[str, tuple[Callable[[Tensor], object], str, float]] = {
    "probs": (lambda z: z.softmax(-1).tolist(), "", 0.999),
    "logits": (lambda z: z.tolist(), "", 0.999),
    "percent": (lambda z: (100 * z.softmax(-1)).tolist(), "", 0.999),
    "sigmoid": (lambda z: z.double().sigmoid().tolist(), "values: sigmoid\n", 0.999),
    "6 decimals": (lambda z: rounded(6)(z.double().softmax(-1)).tolist(), "", 0.99),
    "texts": (lambda z: [[f"{v:.6f}" for v in row] for row in z.softmax(-1)], "", 0.99),
    "names and scores": (lambda z: named(z.softmax(-1)), NAMED, 0.999),
    "split classes in another order": (
        lambda z: torch.cat([z.flip(-1)[:, :9], *2 * [z[:, :1] - math.log(2)]], -1).tolist(),
        "classes: [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0]\n",
        0.999,
    ),
}


def rate(
    office: Office, mine: nn.Module, tmp_path: Path, reply: Callable[[Tensor], object], keys: str,
    **more: int,
) -> dict[str, object]:  # fmt: skip
    (tmp_path / "api.yaml").write_text(f"scores: outputs\nbatch: 1000\n{keys}")
    with opened(Api(mine, lambda z: {"outputs": reply(z)}, numbers)) as api:
        answers = office.folder / f"{tmp_path.name}.jsonl"
        words = ("--adapter", tmp_path / "api.yaml", "--answers", answers)
        return office.verify(api.url, *words, name="zest.fp", **more)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("reply", "keys", "least"), ANSWERS.values(), ids=ANSWERS.keys())
def test_the_target_is_rated_as_the_target(
    zest: Office, mine: nn.Module, tmp_path: Path, reply: Callable[[Tensor], object], keys: str,
    least: float,
) -> None:  # fmt: skip
    found = rate(zest, mine, tmp_path, reply, keys)
    assert found["matching_rate"] == pytest.approx(1, abs=1.0001 - least)
    assert found["verdict"] == "consistent with a copy"


def test_rounding_that_hides_a_copy_makes_no_verdict(
    zest: Office, mine: nn.Module, tmp_path: Path
) -> None:
    found = rate(zest, mine, tmp_path, lambda z: rounded(1)(z.double().softmax(-1)).tolist(), "")
    assert found["verdict"] == "cannot be judged"
    assert "its scores are rounded to 0.1" in str(found["reasons"])
    checked = zest("verdict", "check", zest.folder / "verdict.json")
    assert checked.exit_code == 0, checked.output


@pytest.mark.parametrize(("reply", "sentence"), [
    (lambda z: z.sigmoid().tolist(), "say what they are by `values:`"),
    (lambda z: z.softmax(-1).sort(-1, descending=True)[0].tolist(), "`top` in the adapter says"),
    (lambda z: named(z.softmax(-1)), "`top` in the adapter describes lists of names"),
])  # fmt: skip
def test_unclear_scores_are_asked_about(
    zest: Office, mine: nn.Module, tmp_path: Path, reply: Callable[[Tensor], object], sentence: str
) -> None:
    assert sentence in str(rate(zest, mine, tmp_path, reply, "", exit_code=2))


def test_a_softmax_in_a_network_is_recognised(zest: Office) -> None:
    found = zest.verify(
        zest.folder / "mine.safetensors",
        "--arch",
        f"{zest.folder}/soft_net.py:make",
        name="zest.fp",
    )
    assert found["suspect"]["values"] == "probs"
    assert found["matching_rate"] == pytest.approx(1, abs=1e-3)


def test_a_target_with_a_softmax_is_asked_about_and_can_be_named(zest: Office) -> None:
    case = (zest.folder / "zest.yaml").read_text()
    arch = f"{zest.folder}/soft_net.py:make"
    found = {}
    for name in (arch, f"probs:{arch}"):
        target = case.replace("model: mlp}\nzoo", f"model: '{name}'}}\nzoo")
        (zest.folder / "soft.yaml").write_text(target)
        found[name] = zest(
            "fingerprint", zest.folder / "soft.yaml", "--method", "zest", "-o", "api=probs",
            "--store", zest.folder / "store", "--out", zest.folder / "soft.fp",
        )  # fmt: skip
    assert found[arch].exit_code == 2
    assert f"got probabilities; name its architecture `probs:{arch}`" in found[arch].output
    assert found[f"probs:{arch}"].exit_code == 0, found[f"probs:{arch}"].output


@pytest.mark.parametrize("answers", [[[1.5, -2], [3, 0]], [[[1.5], [-2]], [[3], ["0"]]]])
def test_outputs_of_a_task_without_classes_are_read_as_they_are(answers: list[object]) -> None:
    reader = Reader(Adapter(scores="outputs"), (2,), classes=False)
    kept = reader.answers(json.dumps({"outputs": answers}).encode(), 2)
    assert reader.rows(kept).tolist() == [[1.5, -2], [3, 0]]
