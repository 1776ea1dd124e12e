"""ONNX graphs of any number of nodes, in the shapes that graphs grow in: what the time of a pass is held against.

Every graph has a free batch axis, small tensors, and about as many nodes as are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

Shape = Sequence[int | str]
WIDTH = 8  # channels, or units
OPSETS = [helper.make_opsetid("", 17)]


def _floats(name: str, shape: Shape) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


class _Draft:
    """A graph that is being written: nodes, and constants drawn at random."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def node(self, op: str, inputs: Sequence[str], **attributes: object) -> str:
        out = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [out], name=f"n{len(self.nodes)}", **attributes))
        return out

    def constant(self, shape: tuple[int, ...], scale: float = 1.0) -> str:
        return self.stored(self.random.normal(size=shape).astype(np.float32) * np.float32(scale))

    def stored(self, value: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def model(self, out: str, shape: Shape, ends: Shape = (), **more: object) -> ModelProto:
        """The graph from "x" of a ``shape`` to "y", of the same one where ``ends`` gives no other."""
        self.nodes.append(helper.make_node("Identity", [out], ["y"], name="last"))
        graph = helper.make_graph(
            self.nodes, "big", [_floats("x", shape)], [_floats("y", ends or shape)], self.constants
        )
        return helper.make_model(graph, opset_imports=OPSETS, ir_version=8, **more)


def residual(count: int) -> ModelProto:
    """A chain of residual blocks of Conv, Relu, Conv, Add, Relu on 8 channels of 4 x 4."""
    draft, x = _Draft(), "x"
    for _ in range(count // 5):
        weights = [draft.constant((WIDTH, WIDTH, 1, 1), 0.5 / WIDTH) for _ in range(2)]
        bias = draft.constant((WIDTH,), 0.1)
        inner = draft.node("Relu", [draft.node("Conv", [x, weights[0], bias])])
        x = draft.node("Relu", [draft.node("Add", [draft.node("Conv", [inner, weights[1]]), x])])
    return draft.model(draft.node("Tanh", [x]), ["batch", WIDTH, 4, 4])


def elementwise(count: int) -> ModelProto:
    """A chain of Mul and Add with constants, Sigmoid and Tanh on 8 values."""
    draft, x = _Draft(), "x"
    for at in range(count):
        if at % 4 in (0, 2):
            x = draft.node("Mul" if at % 4 else "Add", [x, draft.constant((WIDTH,))])
        else:
            x = draft.node("Sigmoid" if at % 4 == 1 else "Tanh", [x])
    return draft.model(x, ["batch", WIDTH])


def wide(count: int) -> ModelProto:
    """Branches of Mul from one input, joined by one Sum and one Concat."""
    draft = _Draft()
    outs = [draft.node("Mul", ["x", draft.constant((WIDTH,))]) for _ in range(count)]
    total = draft.node("Sum", outs[: count // 2])
    joined = draft.node("Concat", [total, *outs[count // 2 :]], axis=1)
    return draft.model(joined, ["batch", WIDTH], ["batch", WIDTH * (1 + count - count // 2)])


def transformer(count: int) -> ModelProto:
    """Blocks of attention (MatMul, Softmax) and a perceptron with residuals and LayerNormalization, 4 tokens of 8."""
    draft, x = _Draft(), "x"

    def project(value: str) -> str:
        return draft.node("MatMul", [value, draft.constant((WIDTH, WIDTH), WIDTH**-0.5)])

    while len(draft.nodes) < count:
        normed = draft.node("LayerNormalization", [x, draft.stored(np.ones(WIDTH, np.float32))])
        q, k, v = (project(normed) for _ in range(3))
        scores = draft.node("MatMul", [q, draft.node("Transpose", [k], perm=[0, 2, 1])])
        attention = draft.node("MatMul", [draft.node("Softmax", [scores], axis=-1), v])
        x = draft.node("Add", [x, project(attention)])
        hidden = draft.node("Relu", [draft.node("Add", [project(x), draft.constant((WIDTH,))])])
        x = draft.node("Add", [x, project(hidden)])
    return draft.model(x, ["batch", 4, WIDTH])


def gathers(count: int) -> ModelProto:
    """Small constants, nine for four nodes: Clip, Slice, Add and Mul, each of what the one before gives."""
    draft, x = _Draft(), "x"
    starts = [draft.stored(np.array([value], np.int64)) for value in (0, WIDTH, 1)]
    for _ in range(count // 4):
        low, high = draft.stored(np.float32(-1.0)), draft.stored(np.float32(1.0))
        cut = draft.node("Slice", [draft.node("Clip", [x, low, high]), *starts])
        x = draft.node("Mul", [draft.node("Add", [cut, draft.constant((WIDTH,))]), draft.constant((WIDTH,))])
    return draft.model(x, ["batch", WIDTH])


def branches(count: int, depth: int = 8) -> ModelProto:
    """If nodes inside If nodes, ``depth`` deep, one tower after the other; each branch computes a little."""
    draft = _Draft()
    flag = draft.node("Greater", [draft.node("ReduceMax", ["x"], keepdims=0), draft.stored(np.float32(0.0))])
    made = 0

    def branch(value: str, level: int) -> GraphProto:
        """A Sigmoid of ``value``, and below the top an If on it."""
        nonlocal made
        made += 1
        name = f"b{made}"
        nodes = [helper.make_node("Sigmoid", [value], [name], name=name)]
        if level:
            then, other = branch(name, level - 1), branch(name, 0)
            nodes.append(helper.make_node("If", [flag], [f"{name}_y"], name=f"{name}_y", **_ways(then, other)))
            made += 1
        return helper.make_graph(nodes, name, [], [_floats(nodes[-1].output[0], ["batch", WIDTH])])

    x = "x"
    while made + len(draft.nodes) < count:
        x = draft.node("If", [flag], **_ways(branch(x, depth - 1), branch(x, 0)))
    return draft.model(x, ["batch", WIDTH])


def _ways(then: GraphProto, other: GraphProto) -> dict[str, GraphProto]:
    return {"then_branch": then, "else_branch": other}


def functions(count: int) -> ModelProto:
    """Calls of a function of five nodes, which calls another of two: many nodes of few lines."""
    local = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    inner = helper.make_function(
        "own", "Squash", ["x"], ["y"],
        [helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Tanh", ["s"], ["y"])], local[:1],
    )  # fmt: skip
    outer = helper.make_function(
        "own", "Block", ["x", "w"], ["y"],
        [
            helper.make_node("Mul", ["x", "w"], ["m"]),
            helper.make_node("Squash", ["m"], ["q"], domain="own"),
            helper.make_node("Add", ["q", "x"], ["a"]),
            helper.make_node("Relu", ["a"], ["y"]),
        ],
        local,
    )  # fmt: skip
    draft, x = _Draft(), "x"
    for _ in range(count // 5):
        x = draft.node("Block", [x, draft.constant((WIDTH,))], domain="own")
    model = draft.model(x, ["batch", WIDTH], functions=[inner, outer])
    model.opset_import.append(helper.make_opsetid("own", 1))
    return model


SHAPES: dict[str, Callable[[int], ModelProto]] = {
    "residual": residual,
    "elementwise": elementwise,
    "wide": wide,
    "transformer": transformer,
    "gathers": gathers,
    "branches": branches,
    "functions": functions,
}
