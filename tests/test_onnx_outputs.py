"""ONNX files as tools write them: outputs, layouts, types, and tensors in other files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fpbench.owner.onnx_session import answer, embed
from fpbench.owner.tensor_layout import RefusedError

X = np.random.default_rng(0).random((5, 2, 3, 4)).astype(np.float32)
"""Five inputs of two channels, three rows and four columns."""

WEIGHTS = np.random.default_rng(1).standard_normal((24, 6)).astype(np.float32)


def model(
    *, outputs: tuple[str, ...] = ("y",), last: bool = False, dtype: int = TensorProto.FLOAT,
    batch: Any = "n",
) -> Any:  # fmt: skip
    """A linear model of six classes, with outputs `outputs`."""
    shape = [batch, 3, 4, 2] if last else [batch, 2, 3, 4]
    nodes = [helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT)]
    if dtype == TensorProto.UINT8:
        nodes += [helper.make_node("Div", ["f", "most"], ["s"])]
    else:
        nodes += [helper.make_node("Identity", ["f"], ["s"])]
    order = [0, 3, 1, 2] if last else [0, 1, 2, 3]
    nodes += [
        helper.make_node("Transpose", ["s"], ["t"], perm=order),
        helper.make_node("Flatten", ["t"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
        helper.make_node("Neg", ["y"], ["neg"]),
        helper.make_node("ArgMax", ["y"], ["label"], axis=1, keepdims=0),
        helper.make_node("Softmax", ["y"], ["p"], axis=1),
        helper.make_node("ZipMap", ["p"], ["z"], domain="ai.onnx.ml",
                         classlabels_int64s=list(range(6))),
    ]  # fmt: skip
    infos = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in ("y", "neg", "flat")
    }
    infos["label"] = helper.make_tensor_value_info("label", TensorProto.INT64, None)
    row = helper.make_map_type_proto(
        TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    infos["z"] = helper.make_value_info("z", helper.make_sequence_type_proto(row))
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("x", dtype, shape)],
        [infos[name] for name in outputs],
        [numpy_helper.from_array(WEIGHTS, "w"),
         numpy_helper.from_array(np.float32(255), "most")],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


LINEAR = X.reshape(5, -1) @ WEIGHTS


def asked(raw: bytes, output: str | None = None) -> tuple[Any, str]:
    notes: list[str] = []
    values = answer(raw, X.tobytes(), X.shape, (6,), output, (0.0, 1.0), notes)
    return np.frombuffer(values, np.float32).reshape(5, 6), "; ".join(notes)


CASES = {
    "one": (model(), ""),
    "the label first": (model(outputs=("label", "y")), "the output 'y' was taken of label, y"),
    "the features first": (model(outputs=("flat", "y")), "the output 'y' was taken"),
    "channels last": (model(last=True), "channels last"),
    "half precision": (model(dtype=TensorProto.FLOAT16), ""),
    "8-bit pixels": (model(dtype=TensorProto.UINT8), "0 to 1 was sent as 0 to 255, rounded"),
    "batches of two": (model(batch=2, outputs=("label", "y")), "the output 'y'"),
}


@pytest.mark.parametrize(("made", "note"), CASES.values(), ids=CASES.keys())
def test_the_output_of_the_right_shape_is_taken_in_any_layout(made: Any, note: str) -> None:
    values, notes = asked(made.SerializeToString())
    assert np.abs(values - LINEAR).max() < 0.1
    assert note in notes


def test_a_list_of_mappings_is_a_column_for_each_class() -> None:
    values, _ = asked(model(outputs=("label", "z")).SerializeToString())
    expected = np.exp(LINEAR) / np.exp(LINEAR).sum(1, keepdims=True)
    assert np.allclose(values, expected, atol=1e-5)


def test_of_several_outputs_that_fit_one_is_named() -> None:
    raw = model(outputs=("neg", "y")).SerializeToString()
    with pytest.raises(RefusedError, match="neg, y fit; name the right one, as onnx@OUTPUT"):
        asked(raw)
    assert np.allclose(asked(raw, "y")[0], LINEAR, atol=1e-5)
    with pytest.raises(RefusedError, match="expected an output 'z' of the ONNX model, got neg, y"):
        asked(raw, "z")


def test_without_a_fitting_output_all_are_listed() -> None:
    raw = model(outputs=("label", "flat")).SerializeToString()
    with pytest.raises(RefusedError, match=r"of 6 numbers .* got label \(\), flat \(24,\)"):
        asked(raw)


def outside(folder: Path, **changes: str) -> bytes:
    """A model with its weights in another file, as torch.onnx.export writes it."""
    folder.mkdir(exist_ok=True)
    onnx.save(model(), folder / "net.onnx", save_as_external_data=True, location="net.data",
              size_threshold=0)  # fmt: skip
    made = onnx.load(folder / "net.onnx", load_external_data=False)
    for tensor in made.graph.initializer:
        for entry in tensor.external_data:
            entry.value = changes.get(entry.key, entry.value)
    raw: bytes = made.SerializeToString()
    return raw


def test_tensors_beside_the_file_are_read(tmp_path: Path) -> None:
    raw = outside(tmp_path)
    with pytest.raises(RefusedError, match=r"lies in another file; .*external_data=False"):
        asked(raw)
    assert np.allclose(asked(embed(raw, str(tmp_path)))[0], LINEAR, atol=1e-5)


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"location": "../secret"}, "in a file beside the ONNX file, got '../secret'"),
    ({"location": "/etc/passwd"}, "in a file beside the ONNX file, got '/etc/passwd'"),
    ({"location": ".."}, "in a file beside the ONNX file, got '..'"),
    ({"location": "none"}, "in a file beside the ONNX file, got 'none'"),
    ({"location": "link"}, "in a file beside the ONNX file, got 'link'"),
    ({"length": "99999"}, "inside 'net.data'"),
    ({"offset": "-4"}, "inside 'net.data'"),
    ({"offset": "x"}, "inside 'net.data'"),
])  # fmt: skip
def test_tensors_elsewhere_are_not_read(
    tmp_path: Path, changes: dict[str, str], sentence: str
) -> None:
    (tmp_path / "secret").write_bytes(bytes(10_000))
    raw = outside(tmp_path / "mine", **changes)
    (tmp_path / "mine" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(RefusedError, match=sentence):
        embed(raw, str(tmp_path / "mine"))
