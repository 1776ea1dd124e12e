"""Operators without weights in 8 bits: the ones onnxruntime is said to have kernels for, gates, and their ranges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.plans import Range
from pocketzoo.compress.quantization import int8
from pocketzoo.compress.quantization.elementwise import cut_below, gated, whole_gates, with_equal_ends
from pocketzoo.compress.statistics.histogram import Histogram
from pocketzoo.plugins.targets import pocketzoo_targets
from pocketzoo.zoo.catalog.specs import Int8Encoding
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.tasks.agreement import sqnr

TARGETS = {t.name: t for t in pocketzoo_targets()}
CPU = TARGETS["cpu"]
BEFORE = ("Add", "AveragePool", "Concat", "GlobalAveragePool")
NUMBERS = {"three": 3.0, "none": 0.0, "six": 6.0, "five": 5.0, "sixth": 1.0 / 6.0, "zero": 0.0}


def node(kind: str, inputs: str, outputs: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


SILU = [node("Sigmoid", "a", "s"), node("Mul", "a s", "b")]
CLIPPED = [node("Add", "a three", "u"), node("Clip", "u none six", "c")]
# What lies between two convolutions a and b, by what onnxruntime makes of it.
BETWEEN = {
    "Mul, Sigmoid": SILU,
    "HardSigmoid": [node("HardSigmoid", "a", "s", alpha=1 / 6, beta=0.5), node("Mul", "a s", "b")],
    "HardSigmoid, falling": [node("HardSigmoid", "a", "s", alpha=0.5, beta=-0.25), node("Mul", "s a", "b")],
    "HardSigmoid, no offset": [node("HardSigmoid", "a", "s", alpha=0.25, beta=0.0), node("Mul", "s a", "b")],
    "hard swish, divided": [*CLIPPED, node("Mul", "a c", "p"), node("Div", "p six", "b")],
    "hard swish, multiplied": [
        node("Add", "three a", "u"), node("Clip", "u none six", "c"), node("Mul", "c a", "p"),
        node("Mul", "sixth p", "b"),
    ],
    "LeakyRelu": [node("LeakyRelu", "a", "b", alpha=0.1)],
    "Split": [node("Split", "a", "l r", axis=1, num_outputs=2), node("Mul", "l r", "b")],
    "Slice": [node("Slice", "a first middle axis", "b")],
    "Resize": [node("Resize", "a nothing scales", "b", mode="nearest")],
    "Concat": [*SILU[:1], node("Mul", "a s", "m"), node("Concat", "m a", "b", axis=1)],
}  # fmt: skip
HALF = ("Split", "Slice")  # what has half as many channels afterwards


def model(name: str) -> onnx.ModelProto:
    generator = np.random.default_rng(7)
    channels = {"Split": 8, "Slice": 8, "Concat": 32}.get(name, 16)
    constants = {
        "w": generator.normal(0, 0.5, (16, 3, 3, 3)).astype(np.float32),
        "v": generator.normal(0, 0.2, (8, channels, 3, 3)).astype(np.float32),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "first": np.array([0]), "middle": np.array([8]), "axis": np.array([1]), "nothing": np.zeros(0, np.float32),
        **{key: np.array(value, np.float32) for key, value in NUMBERS.items()},
    }  # fmt: skip
    nodes = [node("Conv", "x w", "a", pads=[1] * 4), *BETWEEN[name], node("Conv", "b v", "y")]
    read = {each for one in nodes for each in one.input}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 12, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8, None, None])],
        [numpy_helper.from_array(value, key) for key, value in constants.items() if key in read],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(made, full_check=True)
    return made


def run(graph: onnx.ModelProto, x: np.ndarray, *, as_written: bool = False) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    if as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(graph.SerializeToString(), options).run(None, {"x": x})[0]


def rewritten(graph: onnx.ModelProto, folder) -> set[str]:
    """The operators that onnxruntime runs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(folder / "o.onnx"), 4
    onnxruntime.InferenceSession(graph.SerializeToString(), options)
    return {each.op_type for each in onnx.load(folder / "o.onnx").graph.node}


X = np.random.default_rng(8).normal(size=(24, 3, 12, 12)).astype(np.float32)


@pytest.mark.parametrize("name", BETWEEN)
def test_onnxruntime_runs_all_between_two_convolutions_on_8_bits(name, tmp_path):
    graph = model(name)
    plan = int8.plan(graph, Int8Config(), [{"x": X[:16]}])
    quantized = int8.apply(graph, plan, CPU)
    kinds = rewritten(quantized, tmp_path)
    floats = {"Add", "Clip", "Concat", "Div", "HardSigmoid", "LeakyRelu", "Mul", "Sigmoid"}
    assert not kinds & floats, kinds
    assert "QLinearConv" in kinds
    reference = run(graph, X[16:])
    for as_written in (False, True):
        assert sqnr(run(quantized, X[16:], as_written=as_written), reference) > 25.0


@pytest.mark.parametrize("name", BETWEEN)
@pytest.mark.parametrize("symmetric", [False, True])
def test_other_runtimes_that_have_such_kernels_get_what_is_right_for_theirs(name, symmetric):
    encoding = Int8Encoding(
        activations="int8",
        symmetric=symmetric,
        int32_bias=False,
        fuses_add=False,
        operators=CPU.int8.operators,
    )
    graph = model(name)
    plan = int8.plan(graph, Int8Config(), [{"x": X[:16]}])
    quantized = int8.apply(graph, plan, replace(CPU, int8=encoding))
    assert sqnr(run(quantized, X[16:], as_written=True), run(graph, X[16:])) > 20.0


@pytest.mark.parametrize("target", ["tensorrt-rtx", "openvino"])
def test_a_runtime_without_such_kernels_gets_no_steps_for_them(target):
    graph = model("Mul, Sigmoid")
    quantized = int8.apply(graph, int8.plan(graph, Int8Config(), [{"x": X}]), TARGETS[target])
    index = GraphIndex(quantized)
    made = {each.input[0] for each in index.nodes if each.op_type == "QuantizeLinear"}
    assert "s" not in made
    assert "b" in made  # a layer reads it


def test_a_gate_that_somebody_else_reads_in_floats_is_kept_for_him():
    graph = model("HardSigmoid")
    graph.graph.output.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, ["n", 16, 12, 12]))
    quantized = int8.apply(graph, int8.plan(graph, Int8Config(), [{"x": X}]), CPU)
    session = onnxruntime.InferenceSession(quantized.SerializeToString())
    outputs = dict(zip(("y", "s"), session.run(["y", "s"], {"x": X}), strict=True))
    reference = onnxruntime.InferenceSession(graph.SerializeToString()).run(["y", "s"], {"x": X})
    assert all(sqnr(outputs[key], value) > 25.0 for key, value in zip(outputs, reference, strict=True))


@pytest.mark.parametrize("name", ["hard swish, divided", "hard swish, multiplied"])
def test_a_hard_gate_in_four_operators_is_one(name):
    graph = model(name)
    whole = whole_gates(graph)
    onnx.checker.check_model(whole, full_check=True)
    assert [each.op_type for each in whole.graph.node] == ["Conv", "HardSigmoid", "Mul", "Conv"]
    assert whole_gates(graph).SerializeToString() == whole.SerializeToString()
    np.testing.assert_allclose(run(whole, X), run(graph, X), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("inside", ["u", "c", "p"])
def test_a_gate_whose_parts_somebody_else_reads_stays(inside):
    graph = model("hard swish, divided")
    graph.graph.output.append(helper.make_empty_tensor_value_info(inside))
    assert whole_gates(graph) is graph


@pytest.mark.parametrize(("wrong", "right"), [("six", "five"), ("none", "sixth")])
def test_what_is_no_gate_stays(wrong, right):
    graph = model("hard swish, divided")
    clip = next(each for each in graph.graph.node if each.op_type == "Clip")
    clip.input[list(clip.input).index(wrong)] = right
    graph.graph.initializer.append(numpy_helper.from_array(np.float32(NUMBERS[right]), right))
    assert whole_gates(graph) is graph


@pytest.mark.parametrize("name", ["Mul, Sigmoid", "HardSigmoid"])
def test_steps_are_not_spent_where_a_gate_is_shut(name):
    function = gated(GraphIndex(model(name)))["a"]
    values = np.random.default_rng(0).uniform(-30.0, 10.0, 20_000).astype(np.float32)
    histogram = Histogram()
    histogram.add(values)
    whole = Range(low=-30.0, high=10.0, magnitude=30.0)
    cut = cut_below(histogram, whole, function)
    assert -9.0 < cut.low < -1.0
    assert (cut.high, cut.magnitude) == (10.0, 30.0)

    def error(low: float) -> float:
        step = (10.0 - low) / 255
        zero = round(-low / step)
        rounded = (np.clip(np.round(values / step) + zero, 0, 255) - zero) * step
        return float(np.square(function(rounded) - function(values.astype(np.float64))).sum())

    assert error(cut.low) < 0.3 * error(-30.0)


def test_what_two_read_is_not_cut():
    graph = model("Concat")
    assert "a" not in gated(GraphIndex(graph))


def test_what_only_a_concatenation_reads_has_its_steps():
    index = GraphIndex(model("Concat"))
    ranges = {name: Range(low=-x, high=x, magnitude=x) for name, x in (("a", 2.0), ("m", 1.0), ("s", 1.0), ("b", 3.0))}
    equal = with_equal_ends(index, ranges)
    assert equal == {**ranges, "m": ranges["b"]}  # two others read a


def test_operators_of_before_are_those_of_a_target_that_says_nothing():
    encoding = Int8Encoding(activations="uint8", symmetric=False, int32_bias=True, fuses_add=False)
    assert encoding.operators == BEFORE


def detector(*, layer: bool) -> onnx.ModelProto:
    """Boxes of up to hundreds of pixels beside scores between 0 and 1, of two levels; ``layer`` reads them last."""
    generator = np.random.default_rng(11)
    tensors, nodes = {"shape": np.array([0, 6, -1])}, []
    for level in "kl":
        tensors[f"{level}.w"] = generator.normal(0, 1, (8, 3, 3, 3)).astype(np.float32)
        tensors[f"{level}.box"] = generator.normal(0, 30, (4, 8, 1, 1)).astype(np.float32)
        tensors[f"{level}.score"] = generator.normal(0, 0.3, (2, 8, 1, 1)).astype(np.float32)
        nodes += [
            node("Conv", f"x {level}.w", f"{level}.c"),
            node("Relu", f"{level}.c", f"{level}.r"),
            node("Conv", f"{level}.r {level}.box", f"{level}.b"),
            node("Conv", f"{level}.r {level}.score", f"{level}.s"),
            node("Sigmoid", f"{level}.s", f"{level}.p"),
            node("Concat", f"{level}.b {level}.p", f"{level}.j", axis=1),
            node("Reshape", f"{level}.j shape", f"{level}.f"),
        ]
    nodes += [node("Concat", "k.f l.f", "o", axis=2), node("Transpose", "o", "moved" if layer else "y", perm=(0, 2, 1))]
    if layer:
        tensors["m"] = generator.normal(0, 1, (6, 5)).astype(np.float32)
        nodes.append(node("MatMul", "moved m", "y"))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", None, 5 if layer else 6])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("target", ["cpu", "tensorrt-rtx"])
def test_scores_beside_boxes_keep_their_steps(target):
    model = detector(layer=False)
    samples = [{"x": x} for x in np.random.default_rng(3).normal(0, 1, (4, 8, 3, 8, 8)).astype(np.float32)]
    plan = int8.plan(model, Int8Config(), samples[:3])
    assert not {"k.j", "l.j", "k.f", "l.f", "o"} & set(plan.ranges)
    quantized = int8.apply(model, plan, TARGETS[target])
    expected, actual = (
        onnxruntime.InferenceSession(m.SerializeToString()).run(None, samples[3])[0] for m in (model, quantized)
    )
    assert sqnr(actual[..., :4], expected[..., :4]) > 25
    assert sqnr(actual[..., 4:], expected[..., 4:]) > 25
    assert len(np.unique(actual[..., 4:])) > 50


def test_what_a_layer_reads_joined_is_joined_in_eight_bits():
    model = detector(layer=True)
    samples = [{"x": x} for x in np.random.default_rng(3).normal(0, 1, (2, 8, 3, 8, 8)).astype(np.float32)]
    assert {"k.j", "l.j", "o", "moved"} <= set(int8.plan(model, Int8Config(skip=()), samples).ranges)


@pytest.mark.parametrize(("opset", "fused"), [(21, True), (22, False)])
def test_gates_are_one_operator_where_onnxruntime_has_a_kernel_of_it(opset, fused):
    given = model("hard swish, divided")
    given.opset_import[0].version = opset
    made = whole_gates(given)
    assert ("HardSigmoid" in {n.op_type for n in made.graph.node}) == fused
    session = onnxruntime.InferenceSession(made.SerializeToString())
    (value,) = session.get_inputs()
    assert session.run(None, {value.name: np.ones((1, *value.shape[1:]), np.float32)})


def test_a_gate_of_doubles_stays_as_it_is():
    """onnxruntime has a kernel of HardSigmoid for float32 alone."""
    wide = [helper.make_node("Cast", ["x"], ["a"], to=TensorProto.DOUBLE), *BETWEEN["hard swish, divided"]]
    graph = helper.make_graph(
        wide, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("b", TensorProto.DOUBLE, ["n", 4])],
        [numpy_helper.from_array(np.array(value), name) for name, value in NUMBERS.items()],
    )  # fmt: skip
    given = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert whole_gates(given) is given
