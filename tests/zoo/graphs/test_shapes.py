"""A graph as rules read it: layers with their channels, weights behind conversions, shapes, and what is no graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.core.errors import ExportError
from pocketzoo.zoo.graphs.shapes import Reading, attribute, load_graph, node_name

FLOAT = TensorProto.FLOAT


def graph(*nodes, shape=("batch", 6, 8, 8), opset=20, **constants) -> onnx.ModelProto:
    """x through the nodes, which make y."""
    info = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes, "g", [info("x", FLOAT, shape)], [info("y", FLOAT, None)],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("elsewhere", 99), helper.make_opsetid("", opset)]
    return helper.make_model(made, opset_imports=opsets, ir_version=10)


def node(op, inputs=("x", "w"), output="y", name="", **attributes):
    return helper.make_node(op, inputs, [output], name, **attributes)


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("layer", "weight", "shape", "channels"),
    [
        (node("Conv"), (4, 6, 3, 3), ("batch", 6, 8, 8), (6, 4, 1)),
        (node("Conv", group=2), (4, 3, 3, 3), ("batch", 6, 8, 8), (6, 4, 2)),
        (node("Conv", group=6), (12, 1, 3, 3), ("batch", 6, 8, 8), (6, 12, 6)),
        (node("Gemm"), (6, 4), ("batch", 6), (6, 4, 1)),
        (node("Gemm", transB=1), (4, 6), ("batch", 6), (6, 4, 1)),
        (node("Gemm", transB=0), (6, 4), ("batch", 6), (6, 4, 1)),
        (node("MatMul"), (6, 4), ("batch", 6), (6, 4, 1)),
        (node("MatMul"), (3, 6, 4), ("batch", 3, 5, 6), (6, 4, 1)),
    ],
)
def test_a_layer_has_channels_in_and_out_and_groups(layer, weight, shape, channels):
    reading = Reading(graph(layer, shape=shape, w=zeros(*weight)))
    ((found, *numbers),) = reading.layers()
    assert found is reading.nodes[0]
    assert tuple(numbers) == channels


@pytest.mark.parametrize(
    "nodes",
    [
        (node("MatMul", ("x", "x")),),  # of two activations
        (node("Add"),),
        (node("MatMul", ("x", "v")),),  # a vector has no channels
        (node("Relu", ("x",)),),
    ],
)
def test_what_has_no_matrix_of_weights_is_no_layer(nodes):
    assert list(Reading(graph(*nodes, shape=(6, 6), w=zeros(6, 6), v=zeros(6))).layers()) == []


@pytest.mark.parametrize(
    ("kind", "quantised"),
    [(np.int8, "int8"), (np.uint8, "int8"), (np.float32, ""), (np.int32, "")],
)
def test_a_weight_is_found_behind_what_turns_it_back_into_numbers(kind, quantised):
    pair = node("DequantizeLinear", ("w", "s"), "d")
    if kind is np.float32:
        pair = node("Transpose", ("w",), "d", perm=[0, 1])
    reading = Reading(
        graph(pair, node("MatMul", ("x", "d")), shape=("batch", 6), w=zeros(6, 4, dtype=kind), s=np.float32(1))
    )
    ((layer, *numbers),) = reading.layers()
    assert numbers == [6, 4, 1]
    assert reading.weight("d").name == reading.weight("w").name == "w"
    assert reading.quantized(layer) == quantised
    assert reading.weight("x") is None
    assert reading.weight("y") is None


def test_shapes_and_types_are_inferred_with_their_free_axes():
    reading = Reading(graph(node("Conv", output="a"), node("Relu", ("a",)), w=zeros(4, 6, 3, 3)))
    assert reading.shapes["x"] == ["batch", 6, 8, 8]
    assert reading.shapes["a"] == ["batch", 4, 6, 6]
    assert reading.shapes["w"] == [4, 6, 3, 3]
    assert {reading.types[name] for name in ("x", "a", "w")} == {FLOAT}
    assert reading.inputs == ["x"]
    assert reading.makers["y"] is reading.nodes[1]


def test_an_input_that_has_a_value_is_none():
    """Older exporters list the weights among the inputs."""
    model = graph(node("MatMul"), shape=("batch", 6), w=zeros(6, 4))
    model.graph.input.append(helper.make_tensor_value_info("w", FLOAT, [6, 4]))
    assert Reading(model).inputs == ["x"]


def test_the_opset_is_onnxs_own():
    assert Reading(graph(node("Relu", ("x",)), opset=17)).opset() == 17
    model = graph(node("Relu", ("x",)))
    del model.opset_import[:]
    assert Reading(model).opset() == 1


def test_a_node_is_called_by_its_name_or_what_it_makes():
    assert [node_name(n) for n in (node("Relu", ("x",), name="r"), node("Relu", ("x",)))] == ["r", "y"]


def test_an_attribute_is_its_value_or_what_it_is_where_it_is_left_out():
    conv = node("Conv", strides=[2, 3], group=2)
    assert [attribute(conv, n, d) for n, d in (("strides", [1]), ("group", 1), ("pads", [0]))] == [[2, 3], 2, [0]]


def test_what_is_no_graph_is_refused(tmp_path, refused):
    model = graph(node("MatMul"), shape=("batch", 6), w=zeros(6, 400))
    onnx.save(model, tmp_path / "whole.onnx")
    assert load_graph(tmp_path / "whole.onnx") == model
    onnx.save(model, tmp_path / "split.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "text.onnx").write_text("no graph")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name, message, hint in [
        ("none.onnx", "there is no file", "check the path"),
        ("text.onnx", "is not an ONNX graph", "an exporter wrote"),
        ("empty.onnx", "is not an ONNX graph, or an empty one", "an exporter wrote"),
        ("split.onnx", "keeps weights in other files, w for one", "one file"),
    ]:
        with refused(ExportError, name, message, hint=hint):
            load_graph(tmp_path / name)
