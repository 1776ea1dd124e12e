"""How far eight bits may be off: by simulation for a whole graph, by an inequality for one operator.

The simulation knows nothing of how the graph is written: it cuts each quantized tensor of the float graph at its range,
rounds it to whole steps, and adds noise of half a step either way to each weight. The inequality is
|y' - y| <= |dW| |x| + |W| |dx| + |dW| |dx| + |db|, of what is stored against what was given.
"""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

Array = Any
GRAPHS = count()  # what is put into each graph has names of its own; none that was generated has two strokes


def noisy(
    model: ModelProto,
    ranges: dict[str, tuple[float, float, float]],
    layers: set[str],
    *,
    symmetric: bool,
    draw: int = 0,
) -> ModelProto:
    """The float graph with tensors rounded in ``ranges`` (name -> ends, magnitude), and noise on weights of ``layers``.

    ``symmetric``: ranges are those of int8 around zero. Each ``draw`` has other noise; from 1 on steps begin elsewhere.
    """
    made, tag = ModelProto(), f"//{next(GRAPHS)}"
    made.CopyFrom(model)
    graph, stored = made.graph, {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes: list[NodeProto] = []
    renamed: dict[str, str] = {}

    def cut(name: str) -> None:
        low, high, magnitude = ranges[name]
        if symmetric:
            step = max(magnitude, 1e-12) / 127
            low, high = -127 * step, 127 * step
        else:  # zero is one of the levels
            step = max(high - low, 1e-12) / 255
            zero = round(-low / step)
            low, high = -zero * step, (255 - zero) * step
        base = f"{name}{tag}"
        ends = [(f"{base}//low", low), (f"{base}//high", high)]
        graph.initializer.extend(numpy_helper.from_array(np.array(end, np.float32), each) for each, end in ends)
        nodes.append(helper.make_node("Clip", [name, *(each for each, _ in ends)], [f"{base}//cut"]))
        nodes.extend(_rounded(base, step, graph, draw))
        renamed[name] = f"{base}//noisy"

    for value in graph.input:
        if value.name in ranges:
            cut(value.name)
    for node in list(graph.node):
        _rename(node, renamed)
        nodes.append(node)
        weight = node.input[1] if len(node.input) > 1 else ""
        if node.op_type in ("Conv", "Gemm", "MatMul") and weight in stored and _layer(weight) in layers:
            _shake(node, stored[weight], graph, draw)
        if node.op_type == "Gather" and node.input[0] in stored and _layer(node.input[0]) in layers:
            _shake(node, stored[node.input[0]], graph, draw)
        for name in node.output:
            if name in ranges:
                cut(name)
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return made


def _layer(weight: str) -> str:
    return weight.removesuffix(".weight")


def _shake(node: NodeProto, weight: Array, graph: GraphProto, draw: int) -> None:
    """Let a node read its weight with noise of half a step of each of its channels."""
    place = 0 if node.op_type == "Gather" else 1
    step = _steps(node, weight)
    made = f"{node.output[0]}//{next(GRAPHS)}//weight"
    value = weight + np.random.default_rng([weight.size, draw]).uniform(-0.5, 0.5, weight.shape) * step
    graph.initializer.append(numpy_helper.from_array(value.astype(weight.dtype), made))
    node.input[place] = made


def _axis(node: NodeProto, rank: int) -> int:
    """The axis of a weight that each index of has a step of its own."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return 0 if node.op_type in ("Conv", "Gather") or attributes.get("transB") else rank - 1


def _steps(node: NodeProto, weight: Array) -> Array:
    """The step of each channel: the largest of its weights over 127."""
    axis = _axis(node, weight.ndim)
    rest = tuple(each for each in range(weight.ndim) if each != axis)
    return np.abs(weight).max(rest, keepdims=True) / 127


def _rounded(name: str, step: float, graph: GraphProto, draw: int) -> list[NodeProto]:
    """What is cut already, to whole steps."""
    start = np.random.default_rng([draw, len(graph.initializer)]).uniform(-0.5, 0.5) * step if draw else 0.0
    for what, number in (("step", step), ("start", start)):
        graph.initializer.append(numpy_helper.from_array(np.array(number, np.float32), f"{name}//{what}"))
    return [
        helper.make_node("Add", [f"{name}//cut", f"{name}//start"], [f"{name}//moved"]),
        helper.make_node("Div", [f"{name}//moved", f"{name}//step"], [f"{name}//steps"]),
        helper.make_node("Round", [f"{name}//steps"], [f"{name}//whole"]),
        helper.make_node("Mul", [f"{name}//whole", f"{name}//step"], [f"{name}//back"]),
        helper.make_node("Sub", [f"{name}//back", f"{name}//start"], [f"{name}//noisy"]),
    ]


def _rename(node: NodeProto, renamed: dict[str, str]) -> None:
    for i, name in enumerate(node.input):
        node.input[i] = renamed.get(name, name)
    for attribute in node.attribute:
        for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            for each in inner.node:
                _rename(each, renamed)


def operands(model: ModelProto, x: Array, operator: str) -> tuple[Array, Array]:
    """What the one layer of an 8-bit graph reads for the input ``x``: the activation, and the weight, as floats."""
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    made = {name: node for node in model.graph.node for name in node.output}
    layer = next(node for node in model.graph.node if node.op_type == operator)
    values = []
    for name in layer.input[:2]:
        if name not in made:
            values.append(stored.get(name, x))
            continue
        node = made[name]
        assert node.op_type == "DequantizeLinear", f"{name} is made by {node.op_type}"
        scale, zero = (stored[each] for each in node.input[1:3])
        if node.input[0] in stored:
            levels = stored[node.input[0]]
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            shape = [1] * levels.ndim
            if scale.ndim:
                shape[axis] = -1
            scale, zero = scale.reshape(shape), zero.reshape(shape)
        else:
            ends = np.iinfo(zero.dtype)
            levels = np.clip(np.rint(x / scale) + zero.astype(np.int32), ends.min, ends.max)
        values.append((levels.astype(np.float64) - zero) * scale.astype(np.float64))
    return values[0], values[1]


def bound(
    layer: NodeProto, opset: int, given: tuple[Array, Array], taken: tuple[Array, Array], bias: float, *, refine: bool
) -> Array:
    """The largest |y' - y| where a layer is ``given`` (x, W) and an 8-bit graph has ``taken`` (x', W') of them.

    ``refine``: its bias may take up the mean of dW x, which is no more than the largest of |x| makes of |dW|.
    """
    (x, w), (x8, w8) = given, taken
    dx, dw = np.abs(x8 - x), np.abs(w8 - w)
    x, w = np.abs(x), np.abs(w)
    total = product(layer, opset, x + dx, dw) + product(layer, opset, dx, w) + 1e-5 * product(layer, opset, x, w) + bias
    if refine:
        axis = _axis(layer, w.ndim)
        mean = dw.sum(tuple(each for each in range(w.ndim) if each != axis)) * x.max(initial=0.0)
        total = total + (mean.reshape(-1, *[1] * (w.ndim - 2)) if layer.op_type == "Conv" else mean)
    return total


def product(layer: NodeProto, opset: int, x: Array, w: Array) -> Array:
    """What a layer without its bias makes of these operands, by onnxruntime."""
    from onnxruntime import InferenceSession

    bare = NodeProto()
    bare.CopyFrom(layer)
    del bare.input[:], bare.output[:]
    bare.input.extend(["x", "w"])
    bare.output.append("y")
    attributes = [a for a in bare.attribute if a.name not in ("alpha", "beta")]
    del bare.attribute[:]
    bare.attribute.extend(attributes)
    if layer.op_type == "Gemm" and opset < 11:
        bare.input.append("zero")
    kinds = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * a.ndim) for name, a in (("x", x), ("w", w))
    ]
    zero = [numpy_helper.from_array(np.zeros(1, np.float32), "zero")] if len(bare.input) > 2 else []
    out = [onnx.helper.make_empty_tensor_value_info("y")]
    graph = helper.make_graph([bare], "layer", kinds, out, zero)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    feed = {"x": x.astype(np.float32), "w": w.astype(np.float32)}
    return InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feed)[0]
