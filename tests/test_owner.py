"""An owner with a suspicion: a fingerprint of one's own model, and verdicts on model files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from office import CASE, Office
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from torch import nn

from fpbench import FieldError
from fpbench.owner.comparable import note_on_model
from fpbench.owner.given import Given
from fpbench.owner.threshold import clopper_pearson, find_threshold
from fpbench.results.metrics import p_value


def test_a_copy_is_caught_and_another_model_is_not(office: Office) -> None:
    copy, other = (office.verify(office.folder / f"{n}.safetensors") for n in ("copy", "other"))
    assert copy["verdict"] == "consistent with a copy"
    assert copy["p_value"] == pytest.approx(1 / 21)
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


def test_what_no_known_model_is_like_is_noted(office: Office) -> None:
    raw = office.digits.architecture("mlp")()  # it knows nothing
    save_file(raw.state_dict(), office.folder / "raw.safetensors")
    verdict = office.verify(office.folder / "raw.safetensors")
    low, unlike = verdict["notes"]
    assert "no known model is rated as low, not even an independent one" in low
    accuracy = verdict["suspect"]["utility"]["accuracy"]
    assert (
        f"28 known models, and the suspect differs from all of them: accuracy {accuracy:.3f}"
        in unlike
    )
    (high,) = office.verify(office.folder / "mine.safetensors")["notes"]
    assert "no known model is rated as high, not even a copy" in high


def test_a_model_better_than_all_independent_ones_is_a_copy_with_a_note() -> None:
    known = [{"positive": k > 2, "arch": "mlp", "utility": {"accuracy": k / 10}} for k in range(6)]
    (said,) = note_on_model(known, "cnn", {"accuracy": 0.4}, copy=True)
    assert "based on 3 independent models" in said
    assert said.endswith("architecture cnn, theirs mlp; accuracy 0.400, theirs 0.000 to 0.200")
    assert note_on_model(known, "mlp", {"accuracy": 0.4}, copy=False) == []
    assert note_on_model(known, "net.py:make", None, copy=True) == []


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


def test_a_given_model_is_named_by_its_content_and_not_by_its_place(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"the same")
    (tmp_path / "c").write_bytes(b"another")
    a, b, c = (Given(scenario="digits", file=str(tmp_path / n), model="mlp") for n in "abc")
    assert a.digest == b.digest != c.digest
    assert str(tmp_path) not in json.dumps(a.describe())


def test_a_case_refuses_a_file_that_is_gone_or_another(office: Office) -> None:
    words = ("fingerprint", office.folder / "case.yaml", "--only", "akh", "--out", "x")
    gone = office(*words, "-o", "target.file=nowhere")
    assert gone.exit_code == 2
    assert "nowhere, found none" in gone.output
    other = office(*words, "-o", f"target.sha256={'ab' * 32}", "--store", office.folder / "none")
    assert other.exit_code == 2
    assert "expected the file of sha256 abab" in other.output


def test_a_target_that_does_not_fit_the_scenario_is_told(office: Office) -> None:
    words = ("fingerprint", office.folder / "case.yaml", "--only", "akh", "--out", "x")
    net = office.folder / "flat.py"
    net.write_text("from torch import nn\ndef flat(): return nn.Linear(5, 10)\n")
    save_file(nn.Linear(5, 10).state_dict(), office.folder / "flat.safetensors")
    made = office(
        *words, "-o", f"target.model={net}:flat", "-o",
        f"target.file={office.folder}/flat.safetensors", "--store", office.folder / "none",
    )  # fmt: skip
    assert made.exit_code == 2
    assert "flat does not take inputs of (1, 8, 8)" in made.output


def test_torchvisions_networks_get_the_scenarios_outputs(office: Office) -> None:
    with torch.device("meta"):
        model = office.digits.architecture("torchvision:resnet18")()
    assert model.fc.out_features == 10
    with pytest.raises(FieldError, match="no network 'resnet81' in TorchVision; did you mean"):
        office.digits.architecture("torchvision:resnet81")


def test_more_certainty_than_the_negatives_carry_is_refused_at_once(office: Office) -> None:
    made = office(
        "fingerprint", office.folder / "case.yaml", "--only", "akh", "--out", "x",
        "--store", office.folder / "empty", "--false-positive-rate", "0.01",
    )  # fmt: skip
    assert made.exit_code == 2
    assert "at least 0.048, the smallest that 20 independent models can show" in made.output
    assert "give the case 99 negatives" in made.output
    assert not (office.folder / "empty").exists()


def test_a_method_that_does_not_apply_declines_in_a_sentence(office: Office) -> None:
    made = office("fingerprint", office.folder / "case.yaml", "--only", "metav", "--out", "x")
    assert made.exit_code == 2
    assert "metav needs probs or output; the suite's api gives label" in made.output


def test_one_method_is_chosen(office: Office) -> None:
    made = office("fingerprint", office.folder / "case.yaml", "--out", "x")
    assert made.exit_code == 2
    assert "expected one method, got akh, metav; choose one by --only METHOD" in made.output


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
            nodes.append(helper.make_node("Relu", [at], [name]))
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


DISTILLED = "{recipe: distill, model: mlp, epochs: 2, copies: 2}"


def test_an_onnx_target_is_asked(office: Office) -> None:
    made = onnx_case(office, "{method: akh}", DISTILLED)
    assert made.exit_code == 0, made.output
    verdict = office.verify(office.folder / "other.safetensors", name="black.fp")
    assert verdict["matching_rate"] == 1.0  # the same model, in another file
    assert verdict["verdict"] == "consistent with a copy"


def test_who_needs_an_onnx_targets_gradients_declines_in_a_sentence(office: Office) -> None:
    made = onnx_case(office, "{method: ipguard, steps: 2}", DISTILLED)
    assert made.exit_code == 1
    assert "got one that needs its gradients; an ONNX file has none" in made.output


def test_who_changes_an_onnx_targets_weights_declines_in_a_sentence(office: Office) -> None:
    made = onnx_case(office, "{method: akh}", "{recipe: finetune, layers: all, copies: 2}")
    assert made.exit_code == 2
    assert "such as distill, got finetune: an ONNX file has no weights to change" in made.output


# ── the line ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("share", "line", "promised"), [
    (0.1, 0.9, 1 / 10), (0.19, 0.9, 1 / 10), (0.2, 0.8, 2 / 10), (0.99, 0.1, 9 / 10),
])  # fmt: skip
def test_the_line_is_the_lowest_that_keeps_the_rate(
    share: float, line: float, promised: float
) -> None:
    found = find_threshold([k / 10 for k in range(1, 10)], share)
    assert found.rate == line
    assert found.false_positive_rate == pytest.approx(promised)
    assert found.interval[0] <= promised <= found.interval[1]


@given(
    negatives=st.lists(st.integers(0, 9), min_size=9, max_size=30),
    percent=st.integers(10, 90), rate=st.integers(0, 10),
)  # fmt: skip
def test_a_rate_is_above_the_line_exactly_when_its_p_value_is_small(
    negatives: list[int], percent: int, rate: int
) -> None:
    line = find_threshold(negatives, percent / 100).rate
    assert (rate > line) is (p_value(rate, negatives) <= percent / 100)


def test_the_interval_is_clopper_and_pearsons() -> None:
    low, high = clopper_pearson(0, 20)  # in closed form: 1 - 0.025^(1/20)
    assert (low, high) == (0, pytest.approx(1 - 0.025 ** (1 / 20)))
    assert clopper_pearson(0, 0) == (0, 1)
