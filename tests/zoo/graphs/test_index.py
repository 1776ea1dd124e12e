from __future__ import annotations

import pytest

from pocketzoo.core.errors import UnknownNameError
from pocketzoo.zoo.graphs.cost import layer_name
from pocketzoo.zoo.graphs.index import GraphIndex, out_axis, quantizable


def test_makers_and_readers(graphs):
    index = GraphIndex(graphs["residual"])
    assert index.makers["conv_0"].op_type == "Conv"
    assert [n.op_type for n in index.readers["relu_1"]] == ["Conv", "Add"]
    assert index.outputs == {graphs["residual"].graph.output[0].name}
    assert set(index.constants) >= {"stem.weight", "stem.bias", "fc.weight"}
    assert "x" not in index.makers


def test_the_index_does_not_see_later_changes(graphs, graph_builder):
    g = graph_builder()
    model = g.model(g.node("Relu", [g.conv("x", "a")]), 4)
    index = GraphIndex(model)
    model.graph.node[1].input[0] = "other"
    assert index.readers["conv_0"][0].input[0] == "conv_0"


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
