"""int8 on the ONNX graph: the plan holds ranges and layers, and each target gets its own encoding of it.

Weights are symmetric, one scale an output channel; activations one scale a tensor (Krishnamoorthi 2018,
arXiv:1806.08342). The graph is written with QuantizeLinear / DequantizeLinear pairs, which every runtime reads; where
the pairs stand and which integers they use is what differs (``Int8Encoding``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

from pocketzoo.compress import dynamic, embeddings, smooth
from pocketzoo.compress.calibrate import activations, calibrate
from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.graph_index import GraphIndex, out_axis, quantisable
from pocketzoo.compress.layers import matches
from pocketzoo.compress.plans import Int8Plan, Range
from pocketzoo.zoo.cost import layer_name
from pocketzoo.zoo.preprocess import Array
from pocketzoo.zoo.specs import Int8Encoding, TargetSpec

# What the two ways to quantise activations are compared in: onnxruntime is the one runtime that has both.
BOTH = Int8Encoding(activations="uint8", symmetric=False, int32_bias=True, fuses_add=False, dynamic=True)
TRIALS = 16  # samples they are compared on
LAYERS = {"Conv", "Gemm", "MatMul"}
# Operators that integer kernels exist for besides the layers with weights.
ARITHMETIC = {"Add", "Concat", "AveragePool", "GlobalAveragePool"}
MOVES = {
    "MaxPool",
    "Reshape",
    "Flatten",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
}  # values pass unchanged, and so do ranges
ACTIVATIONS = {"Relu", "Clip"}  # fused into the operator before them; only their output is quantised


def plan(model: ModelProto, config: Int8Config, samples: Iterable[Array]) -> Int8Plan:
    """Choose the layers that become int8 and the range of every activation they touch.

    Raises:
        UnknownNameError: ``config.skip`` names no layer.
        DataError: there are no samples, or an activation is not finite.
    """
    index = GraphIndex(model)
    tables = embeddings.tables(index) if config.embeddings else []
    nodes = quantisable(index, config.skip, tables)
    weights = [node.input[1] for node in nodes]
    layers = tuple(layer_name(weight) for weight in weights)
    scales = _scales(model, weights, samples) if config.smooth else {}
    smoothed = smooth.apply(model, scales) if scales else model
    index = GraphIndex(smoothed)
    tensors = _tensors(index, set(layers))
    ranges, count = calibrate(smoothed, tensors, samples, config)
    for node in smoothed.graph.node:  # in graph order, so that a chain of moves carries its first range through
        if node.op_type in MOVES and node.input[0] in ranges and node.output[0] in ranges:
            ranges[node.output[0]] = ranges[node.input[0]]
    found = Int8Plan(
        ranges=ranges,
        layers=layers,
        samples=count,
        scales={name: tuple(s.tolist()) for name, s in scales.items()},
        tables=tuple(name for name in tables if not matches(layer_name(name), config.skip)),
    )
    dynamic_ = replace(found, dynamic=tuple(map(layer_name, dynamic.suits(index, weights))))
    if config.activations == "auto" and dynamic_.dynamic:
        return _more_accurate(model, [found, dynamic_], samples)
    return dynamic_ if config.activations == "dynamic" else found


def _scales(model: ModelProto, weights: Sequence[str], samples: Iterable[Array]) -> dict[str, smooth.Floats]:
    """The divisors of channels that pay, to four digits: what a saved plan replays is what was calibrated."""
    tensors = [group.tensor for group in smooth.groups(GraphIndex(model), weights)]
    if not tensors:
        return {}
    seen = smooth.ChannelStatistics()
    for values in activations(model, tensors, samples):
        for name, value in values.items():
            seen.add(name, value)
    found = smooth.plan(model, weights, seen.channels())
    return {name: np.array([float(f"{v:.4g}") for v in s.tolist()], np.float32) for name, s in found.items()}


def _more_accurate(model: ModelProto, plans: Sequence[Int8Plan], samples: Iterable[Array]) -> Int8Plan:
    """The plan that onnxruntime errs less with, on the outputs for the first samples."""
    few = list(islice((batch[i : i + 1] for batch in samples for i in range(len(batch))), TRIALS))
    outputs = [o.name for o in model.graph.output]
    wanted = [values[outputs[0]] for values in activations(model, outputs[:1], few)]

    def error(plan: Int8Plan) -> float:
        given = activations(_encode(model, plan, BOTH), outputs[:1], few)
        return sum(float(np.square(a - b[outputs[0]]).sum()) for a, b in zip(wanted, given, strict=True))

    return min(plans, key=error)


def apply(model: ModelProto, plan: Int8Plan, target: TargetSpec) -> ModelProto:
    """A new graph with the planned layers in int8, encoded for ``target``."""
    return _encode(model, plan, target.int8)


def _encode(model: ModelProto, plan: Int8Plan, encoding: Int8Encoding) -> ModelProto:
    scales = {name: np.array(s, np.float32) for name, s in plan.scales.items()}
    quantised = smooth.apply(model, scales)
    if encoding.dynamic:
        embeddings.quantise(quantised, plan.tables)
        dynamic.quantise(quantised, plan.dynamic, lambda weight: rounded(weight, 1))
        rest = tuple(layer for layer in plan.layers if layer not in plan.dynamic)
        ranges = {name: plan.ranges[name] for name in _tensors(GraphIndex(quantised), set(rest))}
        plan = replace(plan, layers=rest, ranges=ranges)
    _Encoder(quantised, plan, encoding).run()
    onnx.checker.check_model(quantised)
    return quantised


def _tensors(index: GraphIndex, layers: set[str]) -> list[str]:
    """Activations next to an operator that will be int8: what it reads, and what it gives once its activation ran.

    What a Gemm or MatMul gives is left alone: integer kernels give floats there, and in a transformer the next operator
    is a bias or a normalisation, which wants them.
    """
    integers = Integers(index, layers)
    wanted: dict[str, None] = {}
    for node in index.model.graph.node:
        if not integers(node):
            continue
        for name in node.input:
            if name and name not in index.constants and index.is_float(name):
                wanted.setdefault(name)
        out = index.after_activation(node.output[0], ACTIVATIONS)
        if out not in index.outputs and node.op_type not in ("Gemm", "MatMul"):
            wanted.setdefault(out)
    return list(wanted)


class Integers:
    """Which operators run on integers: planned layers, and arithmetic between them.

    An addition whose inputs come as floats (attention masks reach -1e38) or that nothing integer reads (before a layer
    norm) gains no speed and loses accuracy.
    """

    def __init__(self, index: GraphIndex, layers: set[str]) -> None:
        self.index, self.layers = index, layers
        self.known: dict[str, bool] = {}  # output -> whether its maker does; concatenations would ask again and again

    def __call__(self, node: NodeProto) -> bool:
        name = node.output[0]
        if name not in self.known:
            self.known[name] = self._decide(node)
        return self.known[name]

    def _decide(self, node: NodeProto) -> bool:
        index = self.index
        if not self.layers or not index.is_float(node.output[0]):
            return False
        if node.op_type in LAYERS:
            return node.input[1] in index.constants and layer_name(node.input[1]) in self.layers
        if node.op_type in MOVES:
            return self._made(node.input[0])
        if node.op_type not in ARITHMETIC or any(name in index.constants for name in node.input):
            return False
        read = index.readers.get(index.after_activation(node.output[0], ACTIVATIONS), [])
        useful = any(r.op_type in LAYERS | ARITHMETIC | MOVES for r in read)
        joins = node.op_type in ("Add", "Concat")  # an average lies within the range of what it reads
        return useful and (not joins or all(self._made(name) for name in node.input))

    def _made(self, name: str) -> bool:
        """Whether what makes a tensor runs on integers, seen through one activation."""
        maker = self.index.makers.get(name)
        if maker is not None and maker.op_type in ACTIVATIONS:
            maker = self.index.makers.get(maker.input[0])
        return maker is not None and self(maker)


class _Encoder:
    """Rewrites one graph in place."""

    def __init__(self, model: ModelProto, plan: Int8Plan, encoding: Int8Encoding) -> None:
        self.index = GraphIndex(model)
        self.graph, self.plan, self.encoding = model.graph, plan, encoding
        self.is_integer = Integers(self.index, set(plan.layers))
        self.nodes: list[NodeProto] = []  # the new list, in order
        self.scales: dict[str, float] = {}  # of quantised activations

    def run(self) -> None:
        nodes = list(self.graph.node)
        renamed = {}  # activation -> its dequantised twin
        if (entry := self.graph.input[0].name) in self.plan.ranges:
            renamed[entry] = self._pair(entry)
        for node in nodes:
            integer = self.is_integer(node)
            self.nodes.append(node)
            if integer and node.op_type in LAYERS:
                self.nodes.pop()
                self._layer(node)
                self.nodes.append(node)
            for i, name in enumerate(node.input):
                # A layer that is to stay float reads the float tensor: between two pairs onnxruntime would quantise its
                # weights after all, with one scale for the whole tensor.
                if name in renamed and (integer or node.op_type not in LAYERS):
                    node.input[i] = renamed[name]
            for name in node.output:
                if name in self.plan.ranges and not self._stays_float(name):
                    renamed[name] = self._pair(name)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        used = {name for node in self.nodes for name in node.input}
        kept = [t for t in self.graph.initializer if t.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)

    def _stays_float(self, name: str) -> bool:
        """NVIDIA fuses convolution and addition when the tensor between them is not quantised; one summand at most."""
        readers = self.index.readers.get(name, [])
        maker = self.index.makers.get(name)
        if not self.encoding.fuses_add or maker is None or maker.op_type != "Conv":
            return False
        if len(readers) != 1 or readers[0].op_type != "Add":
            return False
        others = [n for n in readers[0].input if n != name]
        rival = self.index.makers.get(others[0]) if others else None
        both = rival is not None and rival.op_type == "Conv" and len(self.index.readers[others[0]]) == 1
        return not both or readers[0].input[0] == name

    def _layer(self, node: NodeProto) -> None:
        """Quantise a layer's weight, and its bias where the encoding wants that."""
        name = node.input[1]
        weight = numpy_helper.to_array(self.index.constants[name])
        axis = out_axis(node)
        scale = weight_scale(weight, axis)
        bias = node.input[2] if len(node.input) > 2 and self.encoding.int32_bias else ""
        if bias and node.input[0] in self.scales:
            # A channel of tiny weights would have steps so small that its bias saturates.
            values = np.abs(numpy_helper.to_array(self.index.constants[bias]))
            scale = np.maximum(scale, (values / (self.scales[node.input[0]] * 2.0**30)).astype(np.float32))
        levels = _levels(weight, scale, axis)
        node.input[1] = self._constant_dequantise(name, levels, scale, axis)
        if bias and node.input[0] in self.scales:
            step = scale.astype(np.float64) * self.scales[node.input[0]]
            wide = np.round(numpy_helper.to_array(self.index.constants[bias]) / step)
            limit = 2.0**31 - 1
            node.input[2] = self._constant_dequantise(
                # The scale depends on the layer's input, so a bias that two layers share gets a name of its own.
                f"{bias}/{node.output[0]}",
                np.clip(wide, -limit, limit).astype(np.int32),
                step.astype(np.float32),
                0,
            )

    def _constant_dequantise(self, name: str, levels: np.ndarray, scale: np.ndarray, axis: int) -> str:
        out = f"{name}_dequantized"
        if any(out in n.output for n in self.nodes):
            return out  # a weight that two layers share
        self._initializer(f"{name}_quantized", levels)
        self._initializer(f"{name}_scale", scale)
        self._initializer(f"{name}_zero", np.zeros(scale.shape, levels.dtype))
        inputs = [f"{name}_quantized", f"{name}_scale", f"{name}_zero"]
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [out], axis=axis))
        return out

    def _pair(self, name: str) -> str:
        """Quantise and dequantise an activation; returns the name to read instead."""
        scale, zero = activation_parameters(self.plan.ranges[name], self.encoding)
        self._initializer(f"{name}_scale", np.float32(scale))
        self._initializer(f"{name}_zero", zero)
        parameters = [f"{name}_scale", f"{name}_zero"]
        out = f"{name}_dequantized"
        self.nodes.append(helper.make_node("QuantizeLinear", [name, *parameters], [f"{name}_quantized"]))
        self.nodes.append(helper.make_node("DequantizeLinear", [f"{name}_quantized", *parameters], [out]))
        self.scales[name] = self.scales[out] = scale
        return out

    def _initializer(self, name: str, value: np.ndarray | np.generic) -> None:
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))


def rounded(weight: np.ndarray, axis: int) -> dynamic.Quantised:
    """Integers and scales of a weight, one scale an output channel."""
    scale = weight_scale(weight, axis)
    return _levels(weight, scale, axis), scale


def _levels(weight: np.ndarray, scale: np.ndarray, axis: int) -> np.ndarray:
    shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
    levels: np.ndarray = np.clip(np.round(weight / scale.reshape(shape)), -127, 127).astype(np.int8)
    return levels


def weight_scale(weight: np.ndarray, axis: int) -> np.ndarray:
    """One scale an output channel, so that the largest weight is 127; a channel of zeros gets 1."""
    largest = np.abs(weight).max(axis=tuple(i for i in range(weight.ndim) if i != axis))
    return np.where(largest > 0, largest / 127.0, 1.0).astype(np.float32)


def activation_parameters(range_: Range, encoding: Int8Encoding) -> tuple[float, np.generic]:
    """Scale and zero point of a range: x ~ (q - zero_point) * scale."""
    if encoding.symmetric:
        scale = max(range_.magnitude, 1e-12) / 127.0
        return float(np.float32(scale)), np.int8(0)
    scale = max(range_.high - range_.low, 1e-12) / 255.0
    zero = int(np.clip(round(-range_.low / scale), 0, 255))
    if encoding.activations == "int8":
        return float(np.float32(scale)), np.int8(zero - 128)
    return float(np.float32(scale)), np.uint8(zero)
