"""An owner with a suspicion: a fingerprint of one's own model, and verdicts on model files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from office import CASE, Office
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from torch import nn

import fpbench
from fpbench import FieldError, InputError
from fpbench.owner.comparable import reasons_not_to_judge
from fpbench.owner.given import Given
from fpbench.owner.onnx_target import OnnxNetwork, load_onnx
from fpbench.owner.score_network import check_scores
from fpbench.owner.threshold import clopper_pearson, find_threshold, p_value


def test_a_copy_is_caught_and_another_model_is_not(office: Office) -> None:
    copy, other = (office.verify(office.folder / f"{n}.safetensors") for n in ("copy", "other"))
    assert copy["verdict"] == "consistent with a copy"
    assert copy["p_value"] == pytest.approx(1 / 21)
    assert copy["strength"] in ("near", "far above")
    assert copy["left_out"]["false_positive_rate"] <= 0.1
    assert "the way it was made would be no more unusual than these makings" in copy["sentence"]
    assert "is consistent with a copy of" in copy["sentence"]
    assert "stolen" not in copy["sentence"]
    assert other["verdict"] == "not shown"
    assert "It is not shown that" in other["sentence"]
    assert "It may still be a copy" in other["sentence"]


def test_a_verdict_holds_what_repeats_it(office: Office) -> None:
    verdict = office.verify(office.folder / "copy.safetensors")
    assert verdict["suspect"]["arch"] == "mlp"  # found by its tensors
    assert re.fullmatch("[0-9a-f]{64}", verdict["suspect"]["sha256"])
    assert verdict["fingerprint"]["method"]["fields"]["n_queries"] == verdict["queries"] == 200
    labels = [entry["answer"] for entry in verdict["answers"]]
    assert len(labels) == 200
    assert len({entry["query"] for entry in verdict["answers"]}) == 200


def test_a_suspect_that_is_unlike_every_known_model_cannot_be_judged(office: Office) -> None:
    raw = office.digits.architecture("mlp")()  # untrained
    save_file(raw.state_dict(), office.folder / "raw.safetensors")
    verdict = office.verify(office.folder / "raw.safetensors")
    assert verdict["verdict"] == "cannot be judged"
    accuracy = verdict["suspect"]["utility"]["accuracy"]
    assert any(f"its accuracy is {accuracy:.3f}, theirs are" in r for r in verdict["reasons"])
    assert "raw.safetensors cannot be judged as a copy of" in verdict["sentence"]


def known(**changes: object) -> list[dict[str, Any]]:
    """Return three independent models and three copies."""
    return [
        {"positive": k > 2, "arch": "mlp", "utility": {"accuracy": 0.8 + k / 100},
         "profile": {"share of the commonest answer": 0.2}, "rate": k / 10, **changes}
        for k in range(6)
    ]  # fmt: skip


SUSPECT = {"arch": "mlp", "utility": {"accuracy": 0.81}, "rate": 0.4,
           "profile": {"share of the commonest answer": 0.2}}  # fmt: skip


@pytest.mark.parametrize(("changes", "reason"), [
    ({"arch": "cnn"}, "its architecture is cnn, theirs are mlp"),
    ({"utility": {"accuracy": 0.84}}, "its accuracy is 0.840, theirs are 0.800 to 0.820"),
    ({"profile": {"share of the commonest answer": 1.0}}, "its share of the commonest answer is"),
])  # fmt: skip
def test_above_the_threshold_a_suspect_must_be_like_independent_models(
    changes: dict[str, Any], reason: str
) -> None:
    (said,) = reasons_not_to_judge(known(), {**SUSPECT, **changes}, above=True)
    assert reason in said
    assert reasons_not_to_judge(known(), SUSPECT, above=True) == []


def test_below_the_threshold_a_suspect_may_be_like_a_copy() -> None:
    suspect = {**SUSPECT, "utility": {"accuracy": 0.85}, "arch": "net.py:make"}
    assert reasons_not_to_judge(known(), suspect, above=False) == []
    assert reasons_not_to_judge(known(), {**suspect, "utility": None}, above=False) == []
    low = known(rate=0.8) + known(rate=0.9)
    (said,) = reasons_not_to_judge(low, {**suspect, "rate": 0.1}, above=False)
    assert "its matching rate is 0.100, theirs are at least 0.800" in said


def test_a_damaged_fingerprint_is_refused(office: Office) -> None:
    raw = bytearray((office.folder / "mine.fp").read_bytes())
    raw[-100] ^= 1
    (office.folder / "damaged.fp").write_bytes(raw)
    said = office.verify(office.folder / "copy.safetensors", name="damaged.fp", exit_code=2)
    assert "expected the tensors that were written" in said


def test_a_fingerprint_that_is_not_there_is_told_from_a_suspect_that_is_not(office: Office) -> None:
    said = office.verify(office.folder / "copy.safetensors", name="none.fp", exit_code=2)
    assert "none.fp: expected a fingerprint file, could not read it: No such file" in said
    said = office.verify(office.folder / "none.safetensors", exit_code=2)
    assert "none.safetensors: expected a model file, could not read it: No such file" in said


def test_a_suspect_of_another_architecture_is_told(office: Office) -> None:
    save_file(office.digits.architecture("cnn")().state_dict(), office.folder / "cnn.safetensors")
    said = office.verify(office.folder / "cnn.safetensors", "--arch", "mlp", exit_code=2)
    assert "tensors of mlp; the file lacks" in said


def test_an_architecture_may_be_a_file_of_ones_own(office: Office) -> None:
    net = office.folder / "net.py"
    net.write_text("from fpbench.builtin.scenarios.digits import mlp\n")
    verdict = office.verify(office.folder / "copy.safetensors", "--arch", f"{net}:mlp")
    assert verdict["verdict"] == "consistent with a copy"
    said = office.verify(office.folder / "copy.safetensors", "--arch", f"{net}:nil", exit_code=2)
    assert "expected a function 'nil'" in said


def test_the_only_architecture_that_fits_a_torch_file_is_found(office: Office) -> None:
    torch.save(office.copy.state_dict(), office.folder / "copy.pth")
    assert office.verify(office.folder / "copy.pth")["suspect"]["arch"] == "mlp"
    save_file({"weight": torch.zeros(3)}, office.folder / "nothing.safetensors")
    said = office.verify(office.folder / "nothing.safetensors", exit_code=2)
    assert "architecture of this file (safetensors), none of the scenario's fits" in said


def in_another_order(office: Office, order: list[int]) -> Path:
    """Save the copy with its classes in another order."""
    state = dict(office.copy.state_dict())
    last = max(name.partition(".")[0] for name in state)
    for part in ("weight", "bias"):
        state[f"{last}.{part}"] = state[f"{last}.{part}"][order].clone()
    save_file(state, office.folder / "order.safetensors")
    return office.folder / "order.safetensors"


def test_another_order_of_the_classes_is_found_and_told(office: Office) -> None:
    order = [3, 1, 2, 0, 4, 5, 6, 7, 9, 8]
    rate = office.verify(office.folder / "copy.safetensors")["matching_rate"]
    verdict = office.verify(in_another_order(office, order))
    assert verdict["suspect"]["classes"] == order
    assert verdict["matching_rate"] == rate
    assert "its classes are in another order: score 0 is of class 3" in verdict["notes"][0]


def test_the_order_of_the_classes_may_be_given(office: Office) -> None:
    order = [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    adapter = office.folder / "order.yaml"
    adapter.write_text(f"classes: {order}\n")
    verdict = office.verify(in_another_order(office, order), "--adapter", adapter)
    assert verdict["verdict"] == "consistent with a copy"
    assert verdict["notes"] == []
    adapter.write_text("classes: [0, 1]\nscores: outputs\n")
    said = office.verify(office.folder / "copy.safetensors", "--adapter", adapter, exit_code=2)
    assert f"{adapter}:2:1: expected only `values` and `classes` in the adapter of a" in said


def test_a_given_model_is_named_by_its_content_and_not_by_its_place(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"the same")
    (tmp_path / "c").write_bytes(b"another")
    a, b, c = (Given(scenario="digits", file=str(tmp_path / n), model="mlp") for n in "abc")
    assert a.digest == b.digest != c.digest
    assert str(tmp_path) not in json.dumps(a.describe())


def test_a_case_refuses_a_file_that_is_gone_or_another(office: Office) -> None:
    words = ("fingerprint", office.folder / "case.yaml", "--method", "akh", "--out", "x")
    gone = office(*words, "-o", "target.file=nowhere")
    assert gone.exit_code == 2
    assert "nowhere, found none" in gone.output
    other = office(*words, "-o", f"target.sha256={'ab' * 32}", "--store", office.folder / "none")
    assert other.exit_code == 2
    assert "expected the file of sha256 abab" in other.output


def test_a_target_that_does_not_fit_the_scenario_is_told(office: Office) -> None:
    words = ("fingerprint", office.folder / "case.yaml", "--method", "akh", "--out", "x")
    net = office.folder / "flat.py"
    net.write_text("from torch import nn\ndef flat(): return nn.Linear(5, 10)\n")
    save_file(nn.Linear(5, 10).state_dict(), office.folder / "flat.safetensors")
    made = office(
        *words, "-o", f"target.model={net}:flat", "-o",
        f"target.file={office.folder}/flat.safetensors", "--store", office.folder / "none",
    )  # fmt: skip
    assert made.exit_code == 2
    assert "flat does not take inputs of (1, 8, 8)" in made.output


def test_a_target_far_worse_than_all_independent_models_is_refused(office: Office) -> None:
    save_file(office.digits.architecture("mlp")().state_dict(), office.folder / "raw.safetensors")
    made = office(
        "fingerprint", office.folder / "case.yaml", "--method", "akh", "--out", "x", "-o",
        f"target.file={office.folder}/raw.safetensors", "--store", office.folder / "store",
    )  # fmt: skip
    assert made.exit_code == 2
    assert "expected a target whose accuracy is near those of the independent" in made.output
    assert "another normalisation of its inputs" in made.output


@pytest.mark.parametrize(
    ("expects", "said"),
    [("{accuracy: 0.945}", None), ("{accuracy: 0.6}", "whose accuracy is within 5 % of 0.6, got"),
     ("{acuracy: 0.9}", "expected a measure of digits, accuracy, got 'acuracy'")],
)  # fmt: skip
def test_a_target_that_is_not_what_its_owner_expects_is_refused(
    office: Office, tmp_path: Path, expects: str, said: str | None
) -> None:
    case = tmp_path / "case.yaml"
    case.write_text((office.folder / "case.yaml").read_text() + f"expects: {expects}\n")
    made = office("fingerprint", case, "--method", "akh", "--store", office.folder / "store",
                  "--out", tmp_path / "x.fp")  # fmt: skip
    assert made.exit_code == (2 if said else 0), made.output
    assert said is None or (said in made.output and "case.yaml:16:11: " in made.output)


def test_torchvisions_networks_get_the_scenarios_outputs(office: Office) -> None:
    with torch.device("meta"):
        model = office.digits.architecture("torchvision:resnet18")()
    assert model.fc.out_features == 10
    with pytest.raises(FieldError, match="no network 'resnet81' in TorchVision; did you mean"):
        office.digits.architecture("torchvision:resnet81")


def test_more_certainty_than_the_negatives_carry_is_refused_at_once(office: Office) -> None:
    made = office(
        "fingerprint", office.folder / "case.yaml", "--method", "akh", "--out", "x",
        "--store", office.folder / "empty", "--false-positive-rate", "0.01",
    )  # fmt: skip
    assert made.exit_code == 2
    assert "at least 0.048, the smallest that 20 makings of independent models" in made.output
    assert "give the case negatives of 99 makings" in made.output
    assert not (office.folder / "empty").exists()


def test_a_method_that_does_not_apply_declines_in_a_sentence(office: Office) -> None:
    made = office("fingerprint", office.folder / "case.yaml", "--method", "metav", "--out", "x")
    assert made.exit_code == 2
    assert "metav needs probs or output; the suite's api gives label" in made.output


def test_of_several_methods_the_best_on_the_zoo_is_taken(office: Office) -> None:
    text = (office.folder / "case.yaml").read_text() + "  - {method: random, n_queries: 5}\n"
    (office.folder / "several.yaml").write_text(text)
    made = office(
        "fingerprint", office.folder / "several.yaml", "--store", office.folder / "store",
        "--out", office.folder / "several.fp",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    assert "tried        random: " in made.output
    assert "tried        metav: metav needs probs or output" in made.output
    assert "method       akh" in made.output


def test_a_method_that_recognises_no_copies_makes_no_fingerprint(office: Office) -> None:
    made = office(
        "fingerprint", office.folder / "case.yaml", "--method", "random", "-o",
        "methods.random.n_queries=1", "--store", office.folder / "store", "--out", "x",
    )  # fmt: skip
    assert made.exit_code == 2
    assert "expected a method that recognises at least half of the known copies" in made.output
    assert "--method auto takes the best of all installed methods" in made.output


def test_a_case_without_suspects_gets_a_reference_population(office: Office) -> None:
    text = (office.folder / "case.yaml").read_text()
    short = office.folder / "short.yaml"
    short.write_text(text[: text.index("zoo:")] + text[text.index("methods:") :])
    summary = fpbench.plan(short, only=["akh"])
    makings = [m for cohort in summary.cohorts for m in cohort.models if "> " not in m]
    assert len({m.rpartition("#")[0] for m in makings if m.startswith("train")}) == 38
    assert summary.positives["distill"] == 9


def test_makings_that_are_equal_in_a_case_are_one(office: Office) -> None:
    text = (office.folder / "case.yaml").read_text()
    short = office.folder / "short.yaml"
    short.write_text(text[: text.index("zoo:")] + text[text.index("methods:") :])
    summary = fpbench.plan(short, only=["akh"], overrides={"recipes.train": {"epochs": 1}})
    # A third of one epoch is one epoch too: two makings less, on the owner's and on public data.
    makings = [m for cohort in summary.cohorts for m in cohort.models if "> " not in m]
    assert len({m.rpartition("#")[0] for m in makings if m.startswith("train")}) == 36


def exported(model: nn.Module) -> bytes:
    """The toy network as an ONNX file."""
    nodes, weights, at = [helper.make_node("Flatten", ["x"], ["h0"])], [], "h0"
    for i, layer in enumerate(list(model)[1:], 1):
        name = f"h{i}"
        if isinstance(layer, nn.Linear):
            weights += [numpy_helper.from_array(t.numpy(), f"{w}{i}")
                        for w, t in (("w", layer.weight), ("b", layer.bias))]  # fmt: skip
            nodes.append(helper.make_node("Gemm", [at, f"w{i}", f"b{i}"], [name], transB=1))
        else:
            nodes.append(helper.make_node(type(layer).__name__.title(), [at], [name]))
        at = name
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info(at, TensorProto.FLOAT, ["n", 10])], weights,
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    raw: bytes = made.SerializeToString()
    return raw


def test_an_onnx_suspect_is_judged_like_its_weights(office: Office) -> None:
    (office.folder / "copy.onnx").write_bytes(exported(office.copy))
    told = office.verify(office.folder / "copy.onnx")
    same = office.verify(office.folder / "copy.safetensors")
    assert told["matching_rate"] == same["matching_rate"]
    assert told["suspect"]["format"] == "onnx"


def test_probabilities_of_an_onnx_file_are_recognised(office: Office) -> None:
    raw = exported(nn.Sequential(*office.copy, nn.Softmax(-1)))
    (office.folder / "soft.onnx").write_bytes(raw)
    found = office.verify(office.folder / "soft.onnx")
    assert found["suspect"]["values"] == "probs"
    assert (
        found["matching_rate"] == office.verify(office.folder / "copy.safetensors")["matching_rate"]
    )
    network = load_onnx(OnnxNetwork(len(raw), 10, None), raw)
    check_scores(network, "onnx", office.digits, torch.device("cpu"))
    x = office.digits.data("test").inputs
    assert torch.allclose(network(x).softmax(-1), office.copy(x).softmax(-1), atol=1e-5)


def onnx_case(office: Office, method: str, *positives: str) -> Result:
    """A fingerprint of a model of which there is an ONNX file alone."""
    folder = office.folder
    (folder / "black.onnx").write_bytes(exported(office.other))
    zoo = "".join(f"    - {entry}\n" for entry in positives)
    front, back = CASE.split("    - {recipe: finetune")[0], CASE[CASE.index("  negatives:") :]
    text = front.replace("mine.safetensors, model: mlp", f"{folder}/black.onnx, model: onnx") + zoo
    (folder / "black.yaml").write_text(text + back.split("methods:")[0] + f"methods: [{method}]\n")
    return office(
        "fingerprint", folder / "black.yaml", "--store", folder / "store",
        "--out", folder / "black.fp",
    )  # fmt: skip


DISTILLED = "{recipe: distill, model: mlp, epochs: 60, copies: 2}"


def test_an_onnx_target_is_asked(office: Office) -> None:
    made = onnx_case(office, "{method: akh}", DISTILLED)
    assert made.exit_code == 0, made.output
    verdict = office.verify(office.folder / "other.safetensors", name="black.fp")
    assert verdict["matching_rate"] == 1.0  # the same model, in another file
    assert verdict["verdict"] == "consistent with a copy"


def test_networks_are_no_references_for_trees(office: Office, tmp_path: Path) -> None:
    trees = helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=10,
        nodes_modes=["LEAF"], nodes_treeids=[0], nodes_nodeids=[0], nodes_featureids=[0],
        nodes_values=[0.0], nodes_truenodeids=[0], nodes_falsenodeids=[0],
        target_ids=list(range(10)), target_nodeids=10 * [0], target_treeids=10 * [0],
        target_weights=[0.1 * k - 0.3 for k in range(10)],
    )  # fmt: skip
    flat = helper.make_node("Flatten", ["pictures"], ["x"])
    shape = helper.make_tensor_value_info("pictures", TensorProto.FLOAT, ["n", 1, 8, 8])
    scores = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(
        helper.make_graph([flat, trees], "trees", [shape], [scores]), opset_imports=opsets,
        ir_version=9,
    )  # fmt: skip
    file = tmp_path / "trees.onnx"
    file.write_bytes(model.SerializeToString())
    verdict = office.verify(file)
    assert verdict["verdict"] == "cannot be judged"
    assert "its architecture is TreeEnsembleRegressor" in verdict["reasons"][0]
    case = (office.folder / "case.yaml").read_text()
    target = f"{office.folder}/mine.safetensors, model: mlp"
    (tmp_path / "case.yaml").write_text(case.replace(target, f"{file}, model: onnx"))
    made = office(
        "fingerprint", tmp_path / "case.yaml", "--method", "akh", "--out", "x",
        "-o", "zoo.positives=[{recipe: distill, model: mlp, copies: 4}]",
        "--store", tmp_path / "store",
    )  # fmt: skip
    assert made.exit_code == 2
    assert "expected a neural network, got TreeEnsembleRegressor" in made.output


def test_who_needs_an_onnx_targets_gradients_declines_in_a_sentence(office: Office) -> None:
    made = onnx_case(office, "{method: ipguard, steps: 2}", DISTILLED)
    assert made.exit_code == 1
    assert "got one that needs its gradients; an ONNX file has none" in made.output


def test_who_changes_an_onnx_targets_weights_declines_in_a_sentence(office: Office) -> None:
    made = onnx_case(office, "{method: akh}", "{recipe: finetune, layers: all, copies: 2}")
    assert made.exit_code == 2
    assert "such as distill, got finetune: an ONNX file has no weights to change" in made.output


# ── the threshold ─────────────────────────────────────────────────────────────────────────


def test_one_model_of_each_kind_gives_the_conformal_threshold() -> None:
    kinds = {str(k): [k / 20] for k in range(1, 20)}  # 19 kinds
    found = find_threshold(kinds, 0.05)
    assert found.rate == 19 / 20
    assert found.false_positive_rate == 0.05
    assert found.left_out == pytest.approx(1 / 19)  # the highest kind is above the others
    assert found.worst_making == ("19", 1.0)
    assert p_value(0.99, kinds) == pytest.approx(1 / 20)
    assert p_value(0.95, kinds) == pytest.approx(2 / 20)
    with pytest.raises(InputError, match=r"19 makings of independent models support, got 0\.04"):
        find_threshold(kinds, 0.04)


@given(
    kinds=st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=4), min_size=9, max_size=30),
    percent=st.integers(10, 90), rate=st.integers(0, 100),
)  # fmt: skip
def test_a_rate_is_above_the_threshold_exactly_if_its_p_value_is_small(
    kinds: list[list[int]], percent: int, rate: int
) -> None:
    rates = {str(k): [r / 20 for r in of_kind] for k, of_kind in enumerate(kinds)}
    found = find_threshold(rates, percent / 100)
    p = p_value(rate / 100, rates)
    if abs(p - percent / 100) > 1e-6 and 0.005 < rate / 100 < 0.995:
        assert (rate / 100 > found.rate) is (p < percent / 100)


def test_the_level_holds_for_a_new_kind_and_for_a_new_model_of_the_worst_making() -> None:
    rng = np.random.default_rng(0)
    new_kind, worst = [], []
    for _ in range(400):
        centres = rng.normal(-1, 1, 31)
        logits = centres[:, None] + rng.normal(0, 0.3, (31, 2))
        rates = 1 / (1 + np.exp(-logits))
        kinds = {str(k): list(rates[k]) for k in range(30)}
        threshold = find_threshold(kinds, 0.05).rate
        new_kind.append(rates[30, 0] > threshold)
        again = centres[:30].max() + rng.normal(0, 0.3)
        worst.append(1 / (1 + np.exp(-again)) > threshold)
    assert np.mean(new_kind) < 0.05
    assert np.mean(worst) < 0.05


def test_the_interval_is_clopper_and_pearsons() -> None:
    low, high = clopper_pearson(0, 20)  # in closed form: 1 - 0.025^(1/20)
    assert (low, high) == (0, pytest.approx(1 - 0.025 ** (1 / 20)))
    assert clopper_pearson(0, 0) == (0, 1)
