"""A graph's index: producers and consumers, shapes and types, layers with their channels and weights."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.core.errors import UnknownNameError
from pocketzoo.zoo.graphs.index import (
    EIGHT_BITS,
    GraphIndex,
    left_alone,
    opset_of,
    out_axis,
    quantizable,
    stored_names,
)
from pocketzoo.zoo.graphs.node import layer_name

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


def test_producers_and_consumers(graphs):
    index = GraphIndex(graphs["residual"])
    assert index.producers["conv_0"].op_type == "Conv"
    assert [n.op_type for n in index.consumers["relu_1"]] == ["Conv", "Add"]
    assert index.outputs == {graphs["residual"].graph.output[0].name}
    assert set(index.constants) >= {"stem.weight", "stem.bias", "fc.weight"}
    assert "x" not in index.producers


def test_the_index_does_not_see_later_changes(graphs, graph_builder):
    g = graph_builder()
    model = g.model(g.node("Relu", [g.conv("x", "a")]), 4)
    index = GraphIndex(model)
    model.graph.node[1].input[0] = "other"
    assert index.consumers["conv_0"][0].input[0] == "conv_0"


@pytest.mark.parametrize(
    ("name", "tensor", "behind"),
    [
        ("residual", "conv_0", "relu_1"),  # a relu alone reads it
        ("residual", "conv_4", "conv_4"),  # a sum reads it
        ("residual", "relu_1", "relu_1"),  # two read it
        ("depthwise", "conv_0", "clip_1"),
        ("ends in relu", "conv_2", "relu_3"),
        ("ends in conv", "conv_2", "conv_2"),  # nothing reads it
    ],
)
def test_an_activation_belongs_to_what_it_alone_reads(name, tensor, behind, graphs):
    assert GraphIndex(graphs[name]).after_activation(tensor, {"Relu", "Clip"}) == behind


def test_an_output_of_the_graph_is_itself_even_if_a_relu_reads_it(graph_builder):
    g = graph_builder()
    first = g.conv("x", "a")
    model = g.model(g.node("Relu", [first]), 4)
    model.graph.output.append(model.graph.output[0])
    model.graph.output[1].name = first
    assert GraphIndex(model).after_activation(first, {"Relu"}) == first


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("residual", ["stem", "conv1", "conv2", "fc"]),
        ("gemms", ["fc1", "fc2", "fc3"]),
        ("tokens", ["patch", "fc1", "fc2", "head"]),
        ("shared", ["stem", "twice", "twice", "fc"]),
    ],
)
def test_quantisable_layers_come_in_graph_order(name, layers, graphs):
    found = quantizable(GraphIndex(graphs[name]), ())
    assert [layer_name(n.input[1]) for n in found] == layers


def test_products_of_activations_are_no_layers(graph_builder):
    g = graph_builder((4, 6))
    t = g.node("Transpose", ["x"], perm=[0, 2, 1])
    model = g.model(g.node("MatMul", ["x", t], 4), 3)
    assert quantizable(GraphIndex(model), ()) == []


def test_skip_takes_names_and_globs(graphs, refused):
    index = GraphIndex(graphs["residual"])
    assert len(quantizable(index, ("conv*",))) == 2
    assert quantizable(index, ("*",)) == []
    with refused(UnknownNameError, "'steam'", hint="'stem'"):
        quantizable(index, ("steam",))


def test_the_axis_of_the_output_channels(graphs):
    axes = {n.input[1]: out_axis(n) for g in graphs.values() for n in quantizable(GraphIndex(g), ())}
    assert axes["stem.weight"] == 0
    assert axes["patch.weight"] == 0
    gemms = [out_axis(n) for n in quantizable(GraphIndex(graphs["gemms"]), ())]
    assert gemms == [1, 0, 1]  # transB = 0, 1, 0
    tokens = {layer_name(n.input[1]): out_axis(n) for n in quantizable(GraphIndex(graphs["tokens"]), ())}
    assert (tokens["fc1"], tokens["fc2"]) == (1, 1)


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
    index = GraphIndex(graph(layer, shape=shape, w=zeros(*weight)))
    ((found, *numbers),) = index.layers()
    assert found is index.nodes[0]
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
    assert list(GraphIndex(graph(*nodes, shape=(6, 6), w=zeros(6, 6), v=zeros(6))).layers()) == []


@pytest.mark.parametrize(
    ("kind", "quantized"),
    [(np.int8, "int8"), (np.uint8, "int8"), (np.float32, ""), (np.int32, "")],
)
def test_a_weight_is_found_behind_what_turns_it_back_into_numbers(kind, quantized):
    pair = node("DequantizeLinear", ("w", "s"), "d")
    if kind is np.float32:
        pair = node("Transpose", ("w",), "d", perm=[0, 1])
    index = GraphIndex(
        graph(pair, node("MatMul", ("x", "d")), shape=("batch", 6), w=zeros(6, 4, dtype=kind), s=np.float32(1))
    )
    ((layer, *numbers),) = index.layers()
    assert numbers == [6, 4, 1]
    assert index.weight("d").name == index.weight("w").name == "w"
    assert index.quantized(layer) == quantized
    assert index.weight("x") is None
    assert index.weight("y") is None


def test_shapes_and_types_are_inferred_with_their_free_axes():
    index = GraphIndex(graph(node("Conv", output="a"), node("Relu", ("a",)), w=zeros(4, 6, 3, 3)))
    assert index.shapes["x"] == ["batch", 6, 8, 8]
    assert index.shapes["a"] == ["batch", 4, 6, 6]
    assert index.shapes["w"] == [4, 6, 3, 3]
    assert {index.types[name] for name in ("x", "a", "w")} == {FLOAT}
    assert index.inputs == ["x"]
    assert index.producers["y"] is index.nodes[1]


def test_an_input_that_has_a_value_is_none():
    """Older exporters list the weights among the inputs."""
    model = graph(node("MatMul"), shape=("batch", 6), w=zeros(6, 4))
    model.graph.input.append(helper.make_tensor_value_info("w", FLOAT, [6, 4]))
    assert GraphIndex(model).inputs == ["x"]


def test_the_opset_is_onnxs_own():
    assert GraphIndex(graph(node("Relu", ("x",)), opset=17)).opset == 17
    model = graph(node("Relu", ("x",)))
    del model.opset_import[:]
    assert GraphIndex(model).opset == 1


def test_a_weight_is_found_through_any_number_of_conversions():
    """As in an int8 graph of which the rest was converted to fp16, and in one whose weight is transposed."""
    nodes = (
        node("DequantizeLinear", ("w", "s"), "d"),
        node("Cast", ("d",), "c", to=TensorProto.FLOAT16),
        node("Transpose", ("c",), "t", perm=[0, 1]),
        node("MatMul", ("x", "t")),
    )
    index = GraphIndex(graph(*nodes, shape=("batch", 6), w=zeros(6, 4, dtype=np.int8), s=np.float32(1)))
    ((layer, *numbers),) = index.layers()
    assert numbers == [6, 4, 1]
    assert index.quantized(layer) == "int8"


def test_shapes_are_those_of_the_graph_that_was_indexed():
    model = graph(node("Conv", output="a"), node("Relu", ("a",)), w=zeros(4, 6, 3, 3))
    index = GraphIndex(model)
    model.graph.node[0].op_type = "Relu"
    del model.graph.node[0].input[1:]
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(zeros(9, dtype=np.int8), "other"))
    assert index.shapes["a"] == ["batch", 4, 6, 6]
    assert (index.types["w"], index.shapes["w"]) == (FLOAT, [4, 6, 3, 3])


def test_what_large_constants_say_of_shapes_is_not_lost():
    """They are left out of what is inferred, those that are shapes are not."""
    shape = numpy_helper.from_array(np.int64([0, 3, 2, -1]), "shape")
    model = graph(node("Conv", output="a"), node("Reshape", ("a", "shape")), w=zeros(6, 6, 3, 3))
    model.graph.initializer.append(shape)
    for constants_are_inputs in (False, True):  # as before IR 4
        if constants_are_inputs:
            model.graph.input.append(helper.make_tensor_value_info("w", FLOAT, [6, 6, 3, 3]))
        index = GraphIndex(model)
        assert index.shapes["y"] == ["batch", 3, 2, 36]
        assert index.inputs == ["x"]
        assert not index.is_float("shape")


def test_types_inside_functions_of_the_file_are_inferred():
    body = [helper.make_node("Cast", ["a"], ["b"], to=TensorProto.INT64)]
    own = helper.make_function("own", "Whole", ["a"], ["b"], body, [helper.make_opsetid("", 20)])
    call = helper.make_node("Whole", ["x"], ["i"], domain="own")
    model = graph(call, node("Cast", ("i",), to=FLOAT))
    model.functions.append(own)
    model.opset_import.append(helper.make_opsetid("own", 1))
    assert GraphIndex(model).types["i"] == TensorProto.INT64


def test_an_omitted_operand_has_no_producer_and_no_consumer():
    split = helper.make_node("TopK", ["x", "k"], ["", "places"])
    clip = helper.make_node("Clip", ["x", "", "top"], ["y"])
    index = GraphIndex(graph(split, clip, k=np.int64([1]), top=np.float32(1)))
    assert "" not in index.producers
    assert "" not in index.consumers
    assert [n.op_type for n in index.consumers["x"]] == ["TopK", "Clip"]


def test_a_graph_that_cannot_be_inferred_has_what_it_states():
    model = graph(node("Conv"), shape=("batch", 6), w=zeros(4, 6, 3, 3))
    index = GraphIndex(model)
    assert index.shapes["x"] == ["batch", 6]
    assert index.shapes["w"] == [4, 6, 3, 3]


# -- what has an 8-bit form, and what it is stored under

W = np.ones((6, 4), np.float32)
REASONS = {
    "a layer": ([node("MatMul")], {"w": W}, {}),
    "ints": ([node("MatMul")], {"w": W.astype(np.float64)}, {"w": "its weight is in double"}),
    "a constant input": ([node("MatMul", ("c", "w"))], {"w": W, "c": W.T.copy()}, {"w": "its input is a constant"}),
    "a vector": ([node("MatMul")], {"w": W[:, 0].copy()}, {"w": "its weight is a vector"}),
    "a stack of matrices": ([node("MatMul")], {"w": W[None]}, {}),
    "transA": ([node("Gemm", transA=1)], {"w": W}, {"w": "it transposes its input"}),
    "transB": ([node("Gemm", transB=1)], {"w": W}, {}),
    "alpha": ([node("Gemm", alpha=2.0)], {"w": W}, {}),
    "alpha, shared": ([node("Gemm", alpha=2.0), node("Gemm", output="z")], {"w": W},
                      {"w": "it scales a weight that is shared"}),
    "shared": ([node("Gemm"), node("Gemm", output="z")], {"w": W}, {}),
    "the second is odd": ([node("Gemm"), node("Gemm", output="z", transA=1)], {"w": W},
                          {"w": "it transposes its input"}),
    "comes first": ([node("MatMul", ("w", "x"))], {"w": W}, {"w": "its weight comes first"}),
    "another operator": ([node("ConvTranspose")], {"w": zeros(6, 2, 3, 3)},
                         {"w": "Conv, Gemm and MatMul have an 8-bit form, ConvTranspose has none"}),
    "no weights": ([node("Add")], {"w": W}, {}),
    "an embedding": ([node("Gather", ("w", "x"))], {"w": W}, {}),
    "another domain": ([node("LSTM", domain="elsewhere")], {"w": W}, {}),
}  # fmt: skip


@pytest.mark.parametrize("case", REASONS)
def test_why_a_layer_stays_in_floats_is_said(case):
    nodes, constants, wanted = REASONS[case]
    assert left_alone(GraphIndex(graph(*nodes, shape=None, **constants))) == wanted


def test_layers_inside_a_node_are_left_alone_at_any_depth():
    info = helper.make_tensor_value_info

    def inside(name: str, *nodes, weights=()) -> onnx.NodeProto:
        branch = helper.make_graph(list(nodes), "b", [], [info("z", FLOAT, None)], list(weights))
        return helper.make_node("If", ["c"], [name], then_branch=branch, else_branch=branch)

    deep = inside("z", node("MatMul", ("x", "own"), "z"), weights=[numpy_helper.from_array(W, "own")])
    made = graph(
        inside("y", node("MatMul", ("x", "w"), "m"), node("MatMul", ("x", "m"), "n"), deep),
        node("MatMul", ("x", "v"), "out"),
        w=W, v=W, c=np.array(True),
    )  # fmt: skip
    index = GraphIndex(made)
    assert left_alone(index) == dict.fromkeys(["w", "n", "own"], "it is inside a node of If")  # "n" has no weight
    assert [n.output[0] for n in quantizable(index, ())] == ["out"]


def test_what_may_be_skipped_is_what_has_a_weight(refused):
    nodes = [node("MatMul", output="h"), node("ConvTranspose", ("h", "t"), "y")]
    index = GraphIndex(graph(*nodes, shape=None, w=W, t=zeros(6, 2, 3, 3)))
    assert [n.output[0] for n in quantizable(index, ())] == ["h"]
    assert [n.output[0] for n in quantizable(index, ("t",))] == ["h"]
    assert [n.output[0] for n in quantizable(index, ("e*",), ["embedding.weight"])] == ["h"]
    assert quantizable(index, ("w", "embedding"), ["embedding.weight"]) == []
    with refused(UnknownNameError, "'embedding'"):
        quantizable(index, ("embedding",))


def test_a_weight_is_stored_once_for_each_way_it_is_read():
    nodes = [
        node("Gemm", output="a"),
        node("Gemm", output="b"),
        node("Gemm", output="c", transB=1),
        node("Gemm", output="d", transB=1),
        node("MatMul", ("x", "v"), "e"),
        node("Gemm", ("x", "v"), "y", transB=1),
    ]
    index = GraphIndex(graph(*nodes, shape=None, w=zeros(4, 4), v=zeros(4, 4), **{"w/c": zeros(1)}))
    assert stored_names(index) == {"a": "w", "b": "w", "c": "w/c_1", "d": "w/c_1", "e": "v", "y": "v/y"}
    groups = [node("Conv", output="a", group=1), node("Conv", output="y", group=2)]
    assert stored_names(GraphIndex(graph(*groups, shape=None, w=zeros(4, 4, 1, 1)))) == {"a": "w", "y": "w/y"}


def test_a_tensor_may_change_with_the_one_node_that_reads_it():
    nodes = [node("Relu", ("x",), "a"), node("Relu", ("a",), "b"), node("Add", ("b", "b"), "c"), node("Relu", ("c",))]
    model = graph(*nodes)
    model.graph.output.append(helper.make_tensor_value_info("c", FLOAT, None))
    index = GraphIndex(model)
    assert {name: index.has_one_consumer(name) for name in ("x", "a", "b", "c", "y", "none")} == {
        "x": True, "a": True, "b": False, "c": False, "y": False, "none": False,
    }  # fmt: skip


@pytest.mark.parametrize(("size", "kept"), [(64, True), (65, False)])
def test_constants_of_64_values_may_be_shapes(size, kept):
    model = graph(node("Relu", ("x",)), c=np.zeros(size, np.int64))
    light = GraphIndex(model)._snapshot.graph
    assert [t.name for t in light.initializer] == (["c"] if kept else [])
    assert [v.name for v in light.input] == (["x"] if kept else ["x", "c"])


@pytest.mark.parametrize(
    ("kind", "floats"),
    [(FLOAT, True), (TensorProto.UNDEFINED, True), (TensorProto.INT64, False), (TensorProto.FLOAT16, False)],
)
def test_what_is_not_known_passes_for_floats(kind, floats):
    model = graph(node("Relu", ("x",)))
    model.graph.input[0].type.tensor_type.elem_type = kind
    index = GraphIndex(model)
    assert index.is_float("x") is floats
    assert index.is_float("nowhere")


def test_both_8_bit_floats_are_fp8():
    assert EIGHT_BITS == {
        TensorProto.INT8: "int8", TensorProto.UINT8: "int8",
        TensorProto.FLOAT8E4M3FN: "fp8", TensorProto.FLOAT8E5M2: "fp8",
    }  # fmt: skip
    assert GraphIndex(graph(node("MatMul", ("x", "x")))).quantized(node("MatMul", ("x", "x"))) == ""


def test_the_newest_of_the_standards_opsets_counts():
    model = graph(node("Relu", ("x",)), opset=17)
    model.opset_import.append(helper.make_opsetid("ai.onnx", 19))
    assert opset_of(model) == 19


def test_what_has_no_8_bit_form_is_named_inside_a_node_too():
    info = helper.make_tensor_value_info
    weights = {"w_ih": zeros(1, 16, 4), "w_hh": zeros(1, 16, 4)}
    lstm = helper.make_node("LSTM", ["x", "w_ih", "w_hh"], ["z"], hidden_size=4)
    branch = helper.make_graph([lstm], "b", [], [info("z", FLOAT, None)])
    made = graph(helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
                 shape=None, c=np.array(True), **weights)  # fmt: skip
    assert left_alone(GraphIndex(made)) == {"w_ih": "it is inside a node of If"}


def test_the_number_of_a_constant_that_holds_one_float():
    arrays = {
        "one": np.float32(0.1),
        "in_axes": np.full((1, 1), 2, np.float32),
        "several": np.ones(2, np.float32),
        "none": np.ones(0, np.float32),
        "whole": np.array(3),
    }
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    stored = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()]
    index = GraphIndex(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [], stored)))
    numbers = {name: index.number(name) for name in ("x", *arrays)}
    assert numbers == {"one": float(np.float32(0.1)), "in_axes": 2.0} | dict.fromkeys(("x", "several", "none", "whole"))
