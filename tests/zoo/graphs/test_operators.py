"""The table of operators: its axes and costs against ONNX's own reference, and that there is no second table."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, defs, helper
from onnx.reference import ReferenceEvaluator

import pocketzoo
from pocketzoo.zoo.graphs.operator_macs import Dims, macs
from pocketzoo.zoo.graphs.operators import (
    OPERATORS,
    QUANTIZABLE,
    RECURRENT,
    channels,
    is_quantizable,
    operator_of,
    out_axis,
    runs_layer,
    weight_axes,
)

ROOT = Path(pocketzoo.__file__).parent
# What a module besides the table says of some of its operators, and why it may.
ALONE = {
    "compress/low_rank/layer_timing.py": ({"Conv", "MatMul"}, "writes a chain of them to be timed"),
    "compress/quantization/embedding_tables.py": ({"Gather"}, "writes it"),
    "compress/quantization/qdq.py": ({"Conv"}, "NVIDIA fuses a convolution alone with the addition after it"),
    "compress/quantization/smoothquant.py": ({"MatMul"}, "walks the products of an attention, and scales their rows"),
    "compress/samples/input_values.py": ({"Gather"}, "asks how many rows the table has that it picks from"),
    "deploy/triton/image_preprocessing_graph.py": ({"Gather", "MatMul"}, "writes them"),
    "plugins/targets.py": (
        {"Conv", "ConvTranspose", "GRU", "Gemm", "LSTM", "MatMul", "MatMulInteger", "RNN"},
        "what each device's runtime takes",
    ),
    "testing/two_of_each.py": ({"Conv", "Gemm"}, "writes a graph of them"),
    "zoo/backends/tensorrt/dla_rules.py": ({"Conv", "ConvTranspose"}, "NVIDIA's limits of windows"),
    "zoo/graphs/rewriting/batch_norms.py": ({"Conv"}, "takes in what scales its channels after it"),
    "zoo/graphs/rewriting/branches.py": ({"Gather"}, "takes a length out of a shape"),
    "zoo/graphs/cost.py": ({"Gather"}, "looks behind the lookup of a codebook"),
    "deploy/half_rescue.py": ({"Gather"}, "takes the flag of a place out of all of them"),
    "zoo/graphs/rewriting/fewer_roundings.py": ({"Conv"}, "joins what rounds after a convolution with it"),
    "zoo/graphs/rewriting/wide_biases.py": ({"Conv", "ConvTranspose", "Gemm"}, "adds their biases apart from them"),
    "zoo/graphs/rewriting/half_limits.py": ({"Gather"}, "hands values on as they are, whatever it gathers"),
    "zoo/graphs/operator_macs.py": (
        {"Conv", "ConvTranspose", "Einsum", "GRU", "Gemm", "LSTM", "MatMul", "MatMulInteger", "RNN"},
        "what they multiply, with that of operators that need no weight",
    ),
    "zoo/models/export_graph.py": ({"MatMul"}, "torch's exporter transposes its weights alone"),
    "zoo/graphs/foreign/selections.py": ({"Gather"}, "picks some of the values as they are"),
    "zoo/graphs/foreign/quantized.py": ({"MatMulInteger"}, "one of those that show a graph to be quantized already"),
}


def texts(tree: ast.AST) -> set[str]:
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_no_other_module_lists_operators_with_weights():
    found = {}
    for path in ROOT.rglob("*.py"):
        name = path.relative_to(ROOT).as_posix()
        listed = texts(ast.parse(path.read_text("utf8"))) & set(OPERATORS)
        if listed and name != "zoo/graphs/operators.py":
            found[name] = listed
    assert found == {name: listed for name, (listed, _) in ALONE.items()}
    assert all(reason for _, reason in ALONE.values())


def node(op: str, **attributes: object):
    return helper.make_node(op, ["x", "w"], ["y"], **attributes)


def outputs(made, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [made],
        "g",
        [info("x", TensorProto.FLOAT, x.shape), info("w", TensorProto.FLOAT, w.shape)],
        [info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return ReferenceEvaluator(model).run(None, {"x": x, "w": w})[0]


# node, shape of x, shape of the weight, axis of the channels in x and in y
LAYERS = [
    (node("Conv"), (1, 6, 5, 5), (4, 6, 3, 3), 1, 1),
    (node("Conv"), (1, 6, 9), (4, 6, 3), 1, 1),
    (node("Conv", group=2), (1, 6, 5, 5), (4, 3, 3, 3), 1, 1),
    (node("Conv", group=6), (1, 6, 5, 5), (12, 1, 3, 3), 1, 1),
    (node("Gemm"), (2, 6), (6, 4), 1, 1),
    (node("Gemm", transB=1), (2, 6), (4, 6), 1, 1),
    (node("Gemm", transB=0, transA=1), (6, 2), (6, 4), 0, 1),
    (node("MatMul"), (2, 6), (6, 4), 1, 1),
    (node("MatMul"), (2, 3, 6), (6, 4), 2, 2),
    (node("MatMul"), (3, 2, 6), (3, 6, 4), 2, 2),
    (node("ConvTranspose"), (1, 6, 5, 5), (6, 4, 3, 3), 1, 1),
]  # fmt: skip
NAMES = [f"{made.op_type} {x} {w}" for made, x, w, *_ in LAYERS]


@pytest.mark.parametrize(("made", "shape", "weight", "reads", "gives"), LAYERS, ids=NAMES)
def test_axes_are_those_that_the_reference_reads_and_writes(made, shape, weight, reads, gives):
    rng = np.random.default_rng(0)
    x, w = (rng.integers(1, 5, each).astype(np.float32) for each in (shape, weight))
    plain = outputs(made, x, w)
    inputs, outs, groups = channels(made, weight)
    assert (inputs, outs) == (shape[reads], plain.shape[gives])
    in_axis, last = weight_axes(made, len(weight))
    assert last == out_axis(made, len(weight)) != in_axis
    for i in range(outs):  # scaling one slice of the weight scales that output channel, and no other
        scaled = w.copy()
        scaled[(slice(None),) * last + (i,)] *= 2
        factor = np.ones(outs, np.float32)
        factor[i] = 2
        wanted = plain * factor.reshape([-1 if axis == gives else 1 for axis in range(plain.ndim)])
        assert np.array_equal(outputs(made, x, scaled), wanted)
    for i in range(inputs):  # and what one input channel adds is what its slice of the weight adds
        if groups == 1:
            less, without = x.copy(), w.copy()
            less[(slice(None),) * reads + (i,)] = 0
            without[(slice(None),) * in_axis + (i,)] = 0
            assert np.array_equal(outputs(made, less, w), outputs(made, x, without))


@pytest.mark.parametrize(("made", "shape", "weight", "reads", "gives"), LAYERS[:-2], ids=NAMES[:-2])
def test_multiply_accumulates_are_the_sum_of_a_graph_of_ones(made, shape, weight, reads, gives):
    """Each output is then how many products it adds."""
    ones = outputs(made, np.ones(shape, np.float32), np.ones(weight, np.float32))
    assert macs(made, Dims([shape, weight], [ones.shape])) == int(ones.sum())


def test_the_table_is_of_operators_that_onnx_has():
    for name, operator in OPERATORS.items():
        schema = defs.get_schema(name, 20)
        parameters = [parameter.name for parameter in schema.inputs]
        for place in operator.weights:
            assert parameters[place] in ("W", "R", "B", "A", "data"), name
        if operator.bias is not None:
            assert parameters[operator.bias] in ("B", "C")
        if operator.transposed_by:
            assert operator.transposed_by in schema.attributes
        if operator.dynamic:
            assert OPERATORS[operator.dynamic].form == "integers"
        assert operator.kind != "convolution" or "group" in schema.attributes


def test_only_what_stands_for_a_layer_of_the_standard_is_one():
    assert QUANTIZABLE == ("Conv", "Gemm", "MatMul")
    assert RECURRENT == ("GRU", "LSTM", "RNN")
    assert is_quantizable(node("Conv"))
    assert is_quantizable(helper.make_node("Conv", ["x", "w"], ["y"], domain="ai.onnx"))
    assert not is_quantizable(helper.make_node("Conv", ["x", "w"], ["y"], domain="elsewhere"))
    assert not is_quantizable(node("ConvTranspose"))
    assert operator_of(helper.make_node("MatMul", ["x", "w"], ["y"], domain="elsewhere")) is None
    assert operator_of(node("Relu")) is None


@pytest.mark.parametrize(
    ("operator", "is_one"),
    [
        *[(op, True) for op in ("QLinearConv", "FusedConv", "FusedMatMul", "MatMulIntegerToFloat", "Gemm")],
        *[(op, False) for op in ("Relu", "LSTM", "QLinearAdd", "Gather")],
    ],
)
def test_a_runtime_s_operators_are_known_by_the_name_they_are_made_of(operator, is_one):
    assert runs_layer(operator) is is_one
