"""int8 graphs run in onnxruntime with its rewriting as they do without: each of these was once found not to."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.quantization import int8
from pocketzoo.plugins.targets import pocketzoo_targets
from pocketzoo.zoo.tasks.agreement import sqnr

TARGETS = {t.name: t for t in pocketzoo_targets() if t.name in ("cpu", "openvino", "tensorrt-rtx")}


def graph(nodes: list[Any], size: tuple[int, ...], opset: int = 21, **constants: np.ndarray) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *size])
    stored = [numpy_helper.from_array(np.asarray(value), name.replace("__", ".")) for name, value in constants.items()]
    body = helper.make_graph(nodes, "g", [x], [helper.make_empty_tensor_value_info("y")], stored)
    made = helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    inferred = onnx.shape_inference.infer_shapes(made)
    made.graph.output[0].CopyFrom(inferred.graph.output[0])
    onnx.checker.check_model(made, full_check=True)
    return made


def weight(*shape: int, seed: int = 0) -> np.ndarray:
    fan = max(int(np.prod(shape[1:])), 1)
    return (np.random.default_rng(seed).normal(size=shape) * fan**-0.5).astype(np.float32)


def samples(model: onnx.ModelProto, count: int, seed: int) -> np.ndarray:
    size = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    return np.random.default_rng(seed).normal(size=(count, *size)).astype(np.float32)


def run(model: onnx.ModelProto, x: np.ndarray, level: str = "ORT_ENABLE_ALL") -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    out: np.ndarray = session.run(["y"], {"x": x})[0]
    return out


def node(op: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [output], **attributes)


def conv_then(*nodes: onnx.NodeProto, **constants: np.ndarray) -> onnx.ModelProto:
    return graph([node("Conv", "x w b", "c"), *nodes], (4, 6, 6), w=weight(8, 4, 3, 3), b=weight(8), **constants)


def norm_in_a_branch() -> onnx.ModelProto:
    """A norm whose channels differ, which smoothing divides: its constants are those of the graph around."""
    branches = [
        helper.make_graph(
            [node("LayerNormalization", "x g b", f"{name}_n"), node("MatMul", f"{name}_n {w}", name)], name, [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 5, 6])],
        )
        for name, w in (("then", "w"), ("else", "v"))
    ]  # fmt: skip
    nodes = [node("Shape", "x", "s"), node("ReduceMax", "s", "m", keepdims=0), node("Greater", "m", "c")]
    nodes[-1].input.append("two")
    nodes.append(helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1]))
    spread = np.geomspace(0.05, 50, 16).astype(np.float32)
    return graph(
        nodes, (5, 16), 18, g=spread, b=weight(16) * spread, w=weight(16, 6) / spread[:, None],
        v=weight(16, 6, seed=1) / spread[:, None], two=np.array(2),
    )  # fmt: skip


def branches_of(name: str) -> list[onnx.NodeProto]:
    """An If whose branches read a tensor of the graph around."""
    out = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
    branches = [helper.make_graph([node(op, name, "o")], op, [], [out]) for op in ("Sigmoid", "Tanh")]
    nodes = [node("Shape", name, "z"), node("ReduceMax", "z", "most", keepdims=0), node("Greater", "most two", "if")]
    return [*nodes, node("If", "if", "y", then_branch=branches[0], else_branch=branches[1])]


def with_output(name: str, model: onnx.ModelProto) -> onnx.ModelProto:
    """The same with one more output, which is not rounded to 8 bits."""
    inferred = onnx.shape_inference.infer_shapes(model)
    model.graph.output.append(next(value for value in inferred.graph.value_info if value.name == name))
    return model


MOVES = {
    "Reshape": (["s"], {}, {"s": np.array([-1, 128])}),
    "Transpose": ([], {"perm": [0, 2, 3, 1]}, {}),
    "MaxPool": ([], {"kernel_shape": [2, 2]}, {}),
    "Unsqueeze": (["s"], {}, {"s": np.array([1])}),
    "Flatten": ([], {}, {}),
    "Slice": (["s", "e"], {}, {"s": np.array([0, 0]), "e": np.array([9, 4])}),
}
CASES = {
    **{f"{op} at the end": conv_then(node(op, " ".join(["c", *more]), "y", **attributes), **constants)
       for op, (more, attributes, constants) in MOVES.items()},
    **{f"{op} before a layer": conv_then(
        node(op, " ".join(["c", *more]), "m", **attributes), node("Sigmoid", "m", "y"), **constants)
       for op, (more, attributes, constants) in MOVES.items()},
    **{f"{op} before branches": with_output("m", conv_then(
        node(op, " ".join(["c", *more]), "m", **attributes), *branches_of("m"), two=np.array(2), **constants))
       for op, (more, attributes, constants) in MOVES.items()},
    "two moves before branches": with_output("m", conv_then(
        node("Transpose", "c", "t", perm=[0, 2, 3, 1]), node("Flatten", "t", "m"), *branches_of("m"), two=np.array(2))),
    "the table's rows moved": graph(
        [node("MatMul", "x w", "a"), node("Slice", "x s e", "h"), node("Tanh", "h", "t"),
         node("Concat", "a t", "y", axis=1)],
        (6,), w=weight(6, 5), s=np.array([0, 0]), e=np.array([2**40, 4])),
    "an activation after a move": conv_then(
        node("Transpose", "c", "t", perm=[0, 2, 3, 1]), node("Relu", "t", "r"), node("MatMul", "r v", "y"),
        v=weight(8, 5)),
    "an activation after a move at the end": conv_then(
        node("Transpose", "c", "t", perm=[0, 2, 3, 1]), node("Relu", "t", "y")),
    "a stack of matrices": graph(
        [node("MatMul", "x w", "a"), node("Relu", "a", "r"), node("MatMul", "r v", "y")], (4, 3, 16),
        w=weight(4, 16, 24) * np.geomspace(0.05, 20, 24).astype(np.float32), v=weight(1, 24, 8)),
    "a stack that is read along other axes of an activation": graph(
        [node("MatMul", "x w", "a"), node("Tanh", "a", "t"), node("MatMul", "x v", "b"), node("Add", "t b", "y")],
        (2, 4, 3, 16), w=weight(2, 1, 16, 8), v=weight(4, 16, 8)),
    "a norm in a branch": norm_in_a_branch(),
    "Softmax over one value": graph(
        [node("Conv", "x w", "c"), node("Softmax", "c", "s", axis=2), node("Conv", "s v", "y")],
        (4, 3), w=weight(5, 4, 3), v=weight(2, 5, 1)),
    "Softmax over one value, which is moved there": with_output("t", graph(
        [node("Conv", "x w", "c"), node("Reshape", "c shape", "t"), node("Softmax", "t", "s", axis=1),
         node("Conv", "s v", "y")],
        (4, 3), w=weight(5, 4, 3), v=weight(2, 1, 5), shape=np.array([0, 1, 5]))),
    "ConvTranspose between layers": graph(
        [node("Conv", "x w", "c"), node("ConvTranspose", "c t", "d"), node("Conv", "d v", "y")],
        (4, 6), w=weight(5, 4, 3), t=weight(5, 6, 2), v=weight(2, 6, 1)),
    "two weights of one layer's name": graph(
        [node("MatMul", "x w", "a"), node("Transpose", "a", "t", perm=[0, 2, 1]), node("Conv", "t w.weight", "y")],
        (7, 4), w=weight(4, 6), w__weight=weight(3, 6, 2)),
}  # fmt: skip


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
@pytest.mark.parametrize("name", CASES)
def test_rewritten_or_not_it_gives_what_the_float_graph_gives(name, target):
    model = CASES[name]
    config = Int8Config(activations="dynamic" if "name" in name else "static")
    plan = int8.plan(model, config, [{"x": samples(model, 64, 1)}])
    assert plan.layers or plan.bodies
    encoded, fresh = int8.apply(model, plan, target), samples(model, 32, 2)
    onnx.checker.check_model(encoded, full_check=True)
    reference = run(model, fresh, "ORT_DISABLE_ALL")
    rewritten, written = (run(encoded, fresh, level) for level in ("ORT_ENABLE_ALL", "ORT_DISABLE_ALL"))
    for ratio, least in ((sqnr(written, reference), 24), (sqnr(rewritten, written), 48)):
        assert ratio is None or ratio > least


@pytest.mark.parametrize("op", MOVES)
def test_an_output_that_is_moved_first_is_not_rounded(op):
    more, attributes, constants = MOVES[op]
    model = conv_then(node(op, " ".join(["c", *more]), "y", **attributes), **constants)
    plan = int8.plan(model, Int8Config(), [{"x": samples(model, 16, 1)}])
    assert set(plan.ranges) == ({"x"} if op != "Slice" else {"x", "c"})
    encoded = int8.apply(model, plan, TARGETS["cpu"])
    read = {name for each in encoded.graph.node if each.op_type == op for name in each.input[:1]}
    assert read == {"c"}, "no Q/DQ nodes between"
