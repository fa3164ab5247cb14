"""ONNX files of people who mean harm: what leaves the file is refused, the rest is bounded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from fpbench import ResourceError
from fpbench.owner.model_file import kind_of
from fpbench.owner.onnx_session import answer
from fpbench.owner.sandbox import run_in_sandbox
from fpbench.owner.tensor_layout import RefusedError

QUERIES = np.ones((3, 2), np.float32)


def graph(
    *nodes: Any, weights: Any = (), domains: tuple[str, ...] = (), shape: Any = ("n", 2)
) -> bytes:
    """An ONNX file from x to y."""
    made = helper.make_graph(
        nodes or [helper.make_node("MatMul", ["x", "w"], ["y"])], "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        weights or [numpy_helper.from_array(np.ones((2, 3), np.float32), "w")],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(d, 1) for d in domains)]
    model: bytes = helper.make_model(made, opset_imports=opsets, ir_version=9).SerializeToString()
    return model


def outside(location: str) -> TensorProto:
    """A tensor that says it lies in another file."""
    tensor = numpy_helper.from_array(np.ones((2, 3), np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": "24"}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def branch(tensor: TensorProto) -> Any:
    """A node that hides a tensor in a graph of its own."""
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=tensor)], "inner", [],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, None)],
    )  # fmt: skip
    return helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)


GRAPHS = {
    "a path that leaves": (graph(weights=[outside("../../etc/passwd")]), "'w' lies in another"),
    "a path hidden in a branch": (graph(branch(outside("/etc/passwd"))), "lies in another file"),
    "somebody's operators": (
        graph(helper.make_node("Run", ["x"], ["y"], domain="evil"), domains=("evil",)),
        "operators of the ONNX standard, got some of 'evil'",
    ),
    "an operator of nobody": (
        graph(helper.make_node("Run", ["x"], ["y"], domain="com.microsoft")), "got Run of 'com.mic",
    ),
    "a tensor larger than its bytes": (
        graph(weights=[
            TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2**31, 3], raw_data=b"1234")
        ]),
        "expected an ONNX model that runs",
    ),
    "other inputs": (
        graph(helper.make_node("Relu", ["x"], ["y"]), shape=("n", 5)),
        r"expected an ONNX model of inputs \(2,\), got \(5,\)",
    ),
    "no protobuf": (b"\x08\x08" + b"\xff" * 40, "expected an ONNX model"),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "sentence"), GRAPHS.values(), ids=GRAPHS.keys())
def test_a_graph_that_reaches_beyond_its_file_is_refused(raw: bytes, sentence: str) -> None:
    assert kind_of(raw) == "onnx"
    with pytest.raises(RefusedError, match=sentence):
        answer(raw, QUERIES.tobytes(), QUERIES.shape, (3,))


def test_a_graph_for_batches_of_one_size_answers_any_number() -> None:
    values = answer(graph(shape=(2, 2)), QUERIES.tobytes(), QUERIES.shape, (3,))
    assert np.frombuffer(values, np.float32).tolist() == [2.0] * 9


def test_answers_of_another_size_are_not_handed_over() -> None:
    with pytest.raises(RefusedError, match=r"expected answers of \(10,\) .* got \(3,\)"):
        answer(graph(), QUERIES.tobytes(), QUERIES.shape, (10,))


def test_a_graph_that_wants_all_memory_harms_its_own_process_alone() -> None:
    big = helper.make_tensor("big", TensorProto.INT64, [1], [10**9])  # 4 GB
    nodes = [
        helper.make_node("Constant", [], ["n"], value=big),
        helper.make_node("ConstantOfShape", ["n"], ["c"]),
        helper.make_node("ReduceSum", ["c"], ["s"]),
        helper.make_node("Add", ["x", "s"], ["y"]),
    ]
    with pytest.raises((RefusedError, ResourceError)):
        run_in_sandbox("answer_queries", graph(*nodes), QUERIES.tobytes(), shape=[3, 2],
                       output_shape=[3])  # fmt: skip


def test_a_job_without_end_is_given_up() -> None:
    count = helper.make_tensor("count", TensorProto.INT64, [], [2**62])
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["go"]), helper.make_node("Identity", ["a"], ["b"])],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("on", TensorProto.BOOL, []),
         helper.make_tensor_value_info("a", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("go", TensorProto.BOOL, []),
         helper.make_tensor_value_info("b", TensorProto.FLOAT, None)],
    )  # fmt: skip
    nodes = [
        helper.make_node("Constant", [], ["n"], value=count),
        helper.make_node("Constant", [], ["c"], value=yes),
        helper.make_node("Loop", ["n", "c", "x"], ["y"], body=body),
    ]
    with pytest.raises(ResourceError, match=r"took longer|died"):
        run_in_sandbox(
            "answer_queries",
            graph(*nodes),
            QUERIES.tobytes(),
            shape=[3, 2],
            output_shape=[3],
            seconds=4,
        )
