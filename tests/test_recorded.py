"""Models of which only a table of answers is known: the suite, the formats, the mistakes."""

from __future__ import annotations

import csv
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

import fpbench
from fpbench import Scenario, TrialError
from fpbench.cli import main
from fpbench.engine.registry import Registry

N = 60
CLASSES = 5
BASES = ("ant", "bee", "cow")

SUITE = """\
name: small
scenario: {scenario: recorded, file: answers.csv, models: models.csv}
api: label
repeats: 1
target: {recipe: recorded, model: ant}
methods:
  - {method: random, n_queries: 60}
  - {method: akh, n_queries: 8}
  - {method: fbi, selection: random, n_queries: 60}
  - {method: fbi, label: fbi-by-entropy}
  - {method: sac, n_queries: 20}
  - {method: sac, label: sac-cutmix, samples: cutmix}
  - {method: metav}
  - {method: zest}
"""


def changed(labels: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Labels of which a share is drawn anew."""
    return np.where(rng.random(labels.shape) < share, rng.integers(CLASSES, size=N), labels)


def answers() -> dict[str, np.ndarray]:
    """The truth, and three base models with four variants each."""
    rng = np.random.default_rng(0)
    found = {"truth": rng.integers(CLASSES, size=N)}
    for base in BASES:
        found[base] = changed(found["truth"], 0.5, rng)
        for i in range(4):
            found[f"{base}-{i}"] = changed(found[base], 0.1, rng)
    return found


ANSWERS = answers()
MODELS = [name for name in ANSWERS if name != "truth"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a suite, its answers and their ancestry."""
    monkeypatch.chdir(tmp_path)
    pd.DataFrame(ANSWERS).to_csv("answers.csv", index=False)
    rows = [[m, m.split("-")[0] if "-" in m else "", "variant" if "-" in m else ""] for m in MODELS]
    with Path("models.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["model", "parent", "kind"], *rows])
    Path("small.yaml").write_text(SUITE)
    return tmp_path


def opened(file: str) -> Scenario:
    cls = Registry.load().scenarios["recorded"].cls
    return cls(file=file)  # type: ignore[call-arg]


def logits(scenario: Scenario, model: str, *positions: float) -> torch.Tensor:
    return scenario.architecture(model)()(torch.tensor(positions)[:, None])


def test_methods_that_choose_from_the_pool_run_and_others_say_why_not(place: Path) -> None:
    report = fpbench.run("small.yaml", tracking=False, quiet=True)
    assert not report.failed
    for method in ("random", "akh", "fbi", "sac"):
        assert report.summary(method)["auc"] == 1.0
    reasons = {m.method: str(m.refusal) for m in report.record.methods if m.refusal}
    assert reasons.keys() == {"fbi-by-entropy", "sac-cutmix", "metav", "zest"}
    assert "selection: random" in reasons["fbi-by-entropy"]
    assert "inputs of its own" in reasons["metav"]
    # Asked everything, a model's rate is its agreement with the target.
    names = {m.digest: m.name.split("recorded(")[-1][:-1] for m in report.record.models}
    kinds = {names[m.digest]: m.kind for m in report.record.models}
    rates = report.record.trials[0].matching_rates
    assert len(rates) == 2 + 5
    for digest, rate in rates.items():
        expected = (ANSWERS[names[digest]] == ANSWERS["ant"]).mean()
        assert rate == pytest.approx(expected)
    assert kinds["ant-0"] == "variant"
    assert kinds["bee-0"] == "independent variant"
    assert kinds["bee"] == "independent"
    accuracies = {names[m.digest]: (m.utility or {})["accuracy"] for m in report.record.models}
    assert accuracies["cow"] == pytest.approx((ANSWERS["cow"] == ANSWERS["truth"]).mean())
    # The store holds digests of answers instead of answers.
    weights = [f.stat().st_size for f in place.glob("store/models/**/weights.safetensors")]
    assert len(weights) == len(MODELS)
    assert max(weights) < 200


def test_relatives_that_do_not_descend_from_the_target_are_left_out(place: Path) -> None:
    text = Path("models.csv").read_text().replace("ant-1,ant,", "ant-1,ant-0,")
    Path("models.csv").write_text(text.replace("ant-2,ant,", "ant-2,ant-0,"))
    plan = fpbench.plan("small.yaml", overrides={"target.model": "ant-0"})
    assert sum(plan.positives.values()) == 2  # ant-1 and ant-2
    assert sum(plan.negatives.values()) == 10  # not ant, nor ant-3


def test_without_ancestry_a_suite_names_its_suspects(place: Path) -> None:
    zoo = {
        "positives": [{"recipe": "recorded", "each": {"model": ["ant-0", "ant-1"]}}],
        "negatives": [{"recipe": "recorded", "each": {"model": ["bee", "cow", "bee-0"]}}],
    }
    scenario = {"scenario": "recorded", "file": "answers.csv"}
    plan = fpbench.plan("small.yaml", overrides={"zoo": zoo, "scenario": scenario})
    assert (plan.positives, plan.negatives) == ({"recorded": 2}, {"recorded": 3})


def test_all_formats_give_the_same_answers(place: Path) -> None:
    labels = np.stack([ANSWERS[m] for m in MODELS])
    np.savez("answers.npz", models=np.array(MODELS), truth=ANSWERS["truth"], answers=labels)
    pd.DataFrame(ANSWERS).to_parquet("answers.parquet")
    positions = torch.arange(float(N)).tolist()
    for file in ("answers.csv", "answers.npz", "answers.parquet"):
        scenario = opened(file)
        assert scenario.output_shape == (CLASSES,)
        assert [int(a) for a in sorted(scenario.offers)] == [1]
        for model in ("ant", "cow-3"):
            assert logits(scenario, model, *positions).argmax(1).tolist() == [*ANSWERS[model]]


def test_probabilities_of_all_classes_and_of_the_most_likely_ones(place: Path) -> None:
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(CLASSES), size=(2, N))
    truth, models = ANSWERS["truth"], np.array(["a", "b"])
    np.savez("all.npz", models=models, truth=truth, probs=probs)
    top = np.argsort(-probs)[..., :2]
    np.savez("top.npz", models=models, truth=truth, answers=top,
             probs=np.take_along_axis(probs, top, -1))  # fmt: skip
    cells = {m: [" ".join(f"{c}:{p}" for c, p in enumerate(row)) for row in probs[i]]
             for i, m in enumerate("ab")}  # fmt: skip
    pd.DataFrame({"truth": truth, **cells}).to_csv("all.csv", index=False)
    positions = torch.arange(float(N)).tolist()
    for file in ("all.npz", "all.csv"):
        replies = logits(opened(file), "b", *positions).softmax(1)
        assert np.allclose(replies, probs[1], atol=1e-5)
    scenario = opened("top.npz")
    assert [str(a) for a in sorted(scenario.offers)] == ["label", "probs"]
    replies = logits(scenario, "b", *positions).softmax(1).numpy()
    assert (replies.argmax(1) == probs[1].argmax(1)).all()
    listed = np.take_along_axis(replies, top[1], 1) / np.take_along_axis(probs[1], top[1], 1)
    assert np.allclose(listed / listed[:, :1], 1, atol=1e-4)  # the same proportions


@pytest.mark.parametrize("position", [2.5, -1.0, float(N), float("nan")])
def test_a_query_that_is_not_of_the_pool_is_refused(place: Path, position: float) -> None:
    with pytest.raises(TrialError, match="pool of 60 recorded inputs"):
        logits(opened("answers.csv"), "ant", 0.0, position)


def test_a_negative_with_the_targets_answers_is_refused(place: Path) -> None:
    pd.DataFrame({**ANSWERS, "bee": ANSWERS["ant"]}).to_csv("answers.csv", index=False)
    result = CliRunner().invoke(main, ["run", "small.yaml", "--no-tracking", "--only", "random"])
    assert result.exit_code == 2
    assert "expected other weights from negatives" in result.output


# ── mistakes ──────────────────────────────────────────────────────────────────────


def in_file(file: str, old: str, new: str) -> Callable[[], None]:
    def edit() -> None:
        text = Path(file).read_text()
        assert old in text
        Path(file).write_text(text.replace(old, new, 1))

    return edit


def as_npz(**others: np.ndarray) -> Callable[[], None]:
    def write() -> None:
        labels = np.stack([ANSWERS[m] for m in MODELS])
        arrays = {"models": np.array(MODELS), "truth": ANSWERS["truth"], "answers": labels}
        np.savez("answers.npz", **{**arrays, **others})
        in_file("small.yaml", "answers.csv", "answers.npz")()

    return write


def with_a_cell(cell: str) -> Callable[[], None]:
    """Replace the answer of ant to input 1, which is the second cell of line 3."""

    def edit() -> None:
        lines = Path("answers.csv").read_text().split("\n")
        cells = lines[2].split(",")
        lines[2] = ",".join([cells[0], *([cell] if cell != "-" else []), *cells[2:]])
        Path("answers.csv").write_text("\n".join(lines))

    return edit


HOLE = np.stack([ANSWERS[m] for m in MODELS])
HOLE[1, 7] = -1
PERCENT = np.full((len(MODELS), N, CLASSES), 20.0)

TRAINED = """\
zoo:
  positives: [{recipe: finetune, layers: all}]
  negatives: [{recipe: recorded, model: bee}]
"""

BAD = {
    "no answers": (in_file("small.yaml", "answers.csv", "other.csv"),
                   "small.yaml:2:32: file: expected recorded answers at", "other.csv"),
    "a missing answer": (with_a_cell(""), "answers.csv:3:3: expected an answer, found none",
                         "'ant'"),
    "a short row": (with_a_cell("-"), "answers.csv:3:", "expected an answer, found none"),
    "a long row": (with_a_cell("1,1"), "answers.csv:3:1: expected a CSV of answers",
                   "17 cells for 16 columns"),
    "a cell of words": (with_a_cell("cat"), "answers.csv:3:3: expected a class", "'cat'"),
    "a sum of two": (in_file("small.yaml", "answers.csv", "words.csv"), "words.csv:2:3",
                     "sum to 1, found others, with a sum of 1.5"),
    "no truth": (in_file("answers.csv", "truth", "true"), "answers.csv: expected a column 'truth'",
                 "found none"),
    "a model twice": (in_file("answers.csv", "bee,", "ant,"), "expected every model once",
                      "'ant'"),
    "a wrong length": (as_npz(truth=ANSWERS["truth"][:-1]),
                       "answers.npz: expected answers of shape (15, 59)", "got (15, 60)"),
    "a hole": (as_npz(answers=HOLE), "answers.npz: model 'ant-0', input 7: expected an answer",
               "found -1"),
    "percent": (as_npz(probs=PERCENT, answers=PERCENT.argsort(-1)), "model 'ant', input 0",
                "with a sum of 100"),
    "objects": (as_npz(models=np.array(MODELS, object)), "answers.npz: expected an npz file of "
                "numbers and texts", "allow_pickle=False"),
    "an unknown target": (in_file("small.yaml", "model: ant", "model: amt"),
                          "small.yaml:5:28: model: no answers of 'amt'", "did you mean ant"),
    "no descendants": (in_file("small.yaml", "model: ant", "model: ant-3"),
                       "small.yaml:5:28: model: expected a target with descendants", "ant-3"),
    "an unknown model": (in_file("models.csv", "bee-1,", "wasp,"),
                         "models.csv:9:1: expected a model with answers, got 'wasp'", "has none"),
    "an unknown parent": (in_file("models.csv", "bee-1,bee", "bee-1,wasp"),
                          "models.csv:9:7: expected a parent with answers, got 'wasp'", "has none"),
    "a model without a row": (in_file("models.csv", "bee-1,bee,variant\n", "\n"),
                              "models.csv: expected a row for every model", "'bee-1'"),
    "a circle": (in_file("models.csv", "bee,,", "bee,bee-1,"), "models.csv:7:5",
                 "does not descend from itself"),
    "an unknown column": (in_file("models.csv", "parent", "parnet"), "models.csv:1:7",
                          "got 'parnet'"),
    "8-bit images": (in_file("small.yaml", "api:", "quantised: true\napi:"), "small.yaml:3:1",
                     "positions in the pool"),
    "more access": (in_file("small.yaml", "api: label", "api: probs"), "small.yaml:3:1",
                    "expected api: label"),
    "training": (in_file("small.yaml", "methods:", TRAINED + "methods:"), "small.yaml:7:15:",
                 "to be recorded, got finetune"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_gets_one_sentence_with_its_place(place: Path, name: str) -> None:
    edit, where, what = BAD[name]
    Path("words.csv").write_text("truth,ant,bee\n0,0:0.5 1:1.0,1:1\n1,1:1,1:1\n")
    edit()
    result = CliRunner().invoke(main, ["plan", "small.yaml"])
    assert result.exit_code == 2, result.output
    shown = " ".join(result.output.split())
    assert where in shown
    assert what in shown
    assert "Traceback" not in shown


# ── the script ────────────────────────────────────────────────────────────────────


def test_the_imagenet_script_takes_every_base_model_as_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = tmp_path / "checkout" / "data" / "predictions"
    predictions.mkdir(parents=True)
    rng = np.random.default_rng(0)
    np.save(predictions / "ground_truth.npy", ANSWERS["truth"])
    for base in ("ant", "bee"):
        np.save(predictions / f"{base}.npy", ANSWERS[base])
        np.save(predictions / f"PRUNE-{base}-broken.npy", (ANSWERS["truth"] + 1) % CLASSES)
        for i in range(10):
            np.save(predictions / f"JPEG-{base}-{i}.npy", changed(ANSWERS[base], 0.05, rng))
    script = Path(__file__).parent.parent / "benchmarks" / "imagenet.py"
    folder = tmp_path / "folder"
    arguments = [str(tmp_path / "checkout"), "--folder", str(folder)]
    monkeypatch.setattr("sys.argv", [str(script), *arguments])
    runpy.run_path(str(script), run_name="__main__")
    tables = [table.splitlines() for table in capsys.readouterr().out.split("\n\n")]
    means, targets = tables[1], tables[3]
    assert [row.split("|")[1].strip() for row in targets[2:]] == ["ant", "bee"]
    row = next(row for row in means if row.startswith("| akh | 1000 "))
    assert row.split("|")[3].strip() == "1.000 ± 0.000"  # AUC
    assert "PRUNE" not in (folder / "models.csv").read_text()  # too far below its base model
