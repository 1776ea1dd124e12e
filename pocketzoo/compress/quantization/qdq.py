"""Insert Q/DQ nodes (QuantizeLinear, DequantizeLinear) into a planned graph, where one target wants them.

Every runtime reads them; where they stand and which integers they use is what differs (``Int8Encoding``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, helper, numpy_helper

from pocketzoo.compress.plans import Range
from pocketzoo.compress.quantization.elementwise import GATE, UNARY, Gate
from pocketzoo.zoo.catalog.specs import Int8Encoding
from pocketzoo.zoo.graphs.contents import drop_unread, replace_nodes
from pocketzoo.zoo.graphs.fresh_names import FreshNames, captured
from pocketzoo.zoo.graphs.index import GraphIndex, stored_names
from pocketzoo.zoo.graphs.node import attribute, layer_name
from pocketzoo.zoo.graphs.operators import OPERATORS, QUANTIZABLE, RECURRENT, is_quantizable, operator_of, out_axis

# Operators besides the layers with weights that some runtime has integer kernels for; which has, its encoding says.
ARITHMETIC = {"Add", "Concat", "AveragePool", "GlobalAveragePool", "Mul", *UNARY} - {"Softmax"}
MOVES = {
    "MaxPool",
    "Reshape",
    "Flatten",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
}  # values pass unchanged, and so do ranges
PASSING = {"Resize", "Slice", "Split"}  # so do they here, where a runtime has integer kernels for them
MOVED = {*MOVES, "Slice"}  # what onnxruntime puts before the Q/DQ nodes of what is read
SIZES = {"Shape", "Size"}  # what reads no values
ACTIVATIONS = {"Relu", "Clip"}  # fused into the operator before them; only their output is quantized


class Integers:
    """Which operators run on integers: planned layers, and arithmetic between them.

    An addition whose inputs come as floats (attention masks reach -1e38) or that nothing integer reads (before a layer
    norm) gains no speed and loses accuracy. ``operators`` are those that there are kernels for.
    """

    def __init__(self, index: GraphIndex, layers: set[str], operators: Collection[str]) -> None:
        self.index, self.layers = index, layers
        self.operators = {*operators} & {*ARITHMETIC, *PASSING}
        self._wanting = {*QUANTIZABLE, *MOVES, *self.operators}
        self.known: dict[
            str, bool
        ] = {}  # output -> whether its producer does; concatenations would ask again and again

    def __call__(self, node: NodeProto) -> bool:
        name = node.output[0]
        if name not in self.known:
            self.known[name] = self._decide(node)
        return self.known[name]

    def _decide(self, node: NodeProto) -> bool:
        index = self.index
        if not self.layers or not index.is_float(node.output[0]):
            return False
        if is_quantizable(node):
            return index.is_layer(node) and layer_name(node.input[1]) in self.layers
        if moves(node) and (node.op_type in MOVES or node.op_type in self.operators):
            left = self._stays(node.output) or node.output[0] in self._sliced | self._ones
            return self._made_by_integers(node.input[0]) and not left
        if node.op_type not in self.operators - PASSING or any(name in index.constants for name in node.input):
            return False
        consumers = index.consumers.get(index.after_activation(node.output[0], ACTIVATIONS), [])
        useful = any(n.op_type in self._wanting for n in consumers)
        # An average lies within the range of what it reads, so one that reads floats is worth it.
        joins = node.op_type not in ("AveragePool", "GlobalAveragePool")
        return useful and (not joins or all(self._made_by_integers(name) for name in node.input))

    def recurs(self, name: str) -> bool:
        """Whether only recurrent layers and whoever takes the outputs read a tensor, moved or as it is.

        NVIDIA's builder fails on recurrent layers that read Q/DQ nodes, through moves as well, and an output is not
        rounded for being moved first.
        """
        return name in self._recurring

    @cached_property
    def _recurring(self) -> set[str]:
        """What ``recurs``, found from the end of the graph on, or long chains of moves would be walked again and again.

        A node reads what earlier nodes make, so its own output is known by then.
        """
        recurring = set(self.index.outputs)
        others: set[str] = set()  # that something else reads as well
        for node in reversed(self.index.nodes):
            if node.op_type in SIZES:
                continue
            moved = node.op_type in MOVES and node.output[0] in recurring and node.output[0] not in others
            here = recurring if moved or node.op_type in RECURRENT else others
            here.update((*node.input, *captured(node)))
        return recurring - others - {""}  # what is left out

    def _stays(self, outputs: Collection[str]) -> bool:
        """Whether what moves a tensor to there moves floats, for those who read it."""
        return any(map(self.recurs, outputs)) or not self.captured.isdisjoint(outputs)

    @cached_property
    def _sliced(self) -> set[str]:
        """What a Slice of floats reads, moved or as it is.

        onnxruntime 1.31 takes Q/DQ nodes on over moves, and those after a Slice have the wrong type for int8 from opset
        21 on.
        """

        def sliced(node: NodeProto) -> Sequence[str]:
            slices = node.op_type == "Slice" and ("Slice" not in self.operators or self._stays(node.output))
            return node.input[:1] if slices else ()

        return self.index.read_through(sliced, lambda node: node.op_type in MOVES)

    @cached_property
    def _ones(self) -> set[str]:
        """What a Softmax over one value reads, moved or as it is."""
        return self.index.read_through(lambda node: node.input[:1] if self.is_one(node) else (), moves)

    def is_one(self, node: NodeProto) -> bool:
        """A Softmax over one value: between Q/DQ nodes onnxruntime 1.31 makes 0 of it."""
        if node.op_type != "Softmax" or not (dims := self.index.shapes.get(node.input[0])):
            return False
        axis = attribute(node, "axis", -1 if self.index.opset >= 13 else 1)
        return bool(dims[axis] == 1)

    @cached_property
    def captured(self) -> set[str]:
        """What graphs inside nodes read, moved or as it is: onnxruntime 1.31 aborts where it moves Q/DQ nodes there."""
        return self.index.read_through(captured, moves)

    def _made_by_integers(self, name: str) -> bool:
        """Whether the producer of a tensor runs on integers, seen through one activation."""
        producer = self.index.producers.get(name)
        if producer is not None and producer.op_type in ACTIVATIONS:
            producer = self.index.producers.get(producer.input[0])
        return producer is not None and self(producer)


def moves(node: NodeProto) -> bool:
    """Whether values pass a node unchanged."""
    nearest = node.op_type != "Resize" or attribute(node, "mode", b"nearest") == b"nearest"
    nearest = nearest and not names_axes(node)
    return node.op_type in MOVES or (node.op_type in PASSING and nearest)


def names_axes(node: NodeProto) -> bool:
    """A Resize of some axes alone: between Q/DQ nodes onnxruntime 1.31 loses their sizes and fails."""
    return node.op_type == "Resize" and attribute(node, "axes", None) is not None


class QdqWriter:
    """Writes the Q/DQ nodes of one graph in place. ``tensors`` are those of ``Int8Plan``, or of another 8-bit type;
    ``parameters`` gives the scale and zero point of a range."""

    def __init__(
        self,
        model: ModelProto,
        ranges: Mapping[str, Range],
        tensors: Mapping[str, npt.NDArray[Any]],
        parameters: Callable[[Range], tuple[float, np.generic]],
        *,
        int32_bias: bool = False,
    ) -> None:
        self.graph, self.index, self.ranges, self.tensors = model.graph, GraphIndex(model), ranges, tensors
        self.parameters, self.int32_bias = parameters, int32_bias
        self.fresh, self.stored = FreshNames.of(model), stored_names(self.index)
        self.nodes: list[NodeProto] = []  # the new list, in order
        self.dequantized: dict[str, str] = {}  # constants that are written already: what to read of them
        self.scales: dict[str, float] = {}  # of quantized activations

    def finish(self) -> None:
        """Put the new list in place of the old, and let go of the constants that nobody reads any more."""
        replace_nodes(self.graph, self.nodes)
        drop_unread(self.graph)

    def layer(self, node: NodeProto) -> list[NodeProto]:
        """Put a layer's 8-bit numbers in, and its bias, as int32 where the encoding wants that.

        Returns the nodes that are to follow it.
        """
        out = node.output[0]
        name = self.stored[out]
        scale = self.tensors[f"{name}.scale"]
        quantized = self.tensors[f"{name}.levels"]
        after = []
        if OPERATORS[node.op_type].kind == "product" and quantized.ndim > 2:
            # No kernel of onnxruntime takes a stack of matrices with a scale for each column: they follow the product.
            largest = scale.max()
            factors = self._initializer(f"{out}_factors", scale / largest)
            node.output[0] = self.fresh(f"{out}_levels")
            after = [helper.make_node("Mul", [node.output[0], factors], [out])]
            scale = np.asarray(largest)
        node.input[1] = self._constant_dequantize(name, quantized, scale, out_axis(node, quantized.ndim))
        if f"{out}.bias" not in self.tensors:
            return after
        bias = self.tensors[f"{out}.bias"]
        if len(node.input) < 3:
            node.input.append("")
        # The bias depends on what the layer reads, so one that two layers share gets a name of its own.
        own = f"{node.input[2] or name}/{out}"
        if not (self.int32_bias and node.input[0] in self.scales):
            node.input[2] = self._initializer(own, bias)
            return after
        step = scale.astype(np.float64) * self.scales[node.input[0]]
        limit = 2.0**31 - 1
        wide = np.clip(np.round(bias / step), -limit, limit).astype(np.int32)
        node.input[2] = self._constant_dequantize(own, wide, step.astype(np.float32), 0)
        return after

    def _constant_dequantize(self, name: str, quantized: np.ndarray, scale: np.ndarray, axis: int) -> str:
        if name not in self.dequantized:  # or it is a weight that two layers share
            inputs = [
                self._initializer(f"{name}_quantized", quantized),
                self._initializer(f"{name}_scale", scale),
                self._initializer(f"{name}_zero", np.zeros(scale.shape, quantized.dtype)),
            ]
            self.dequantized[name] = self.fresh(f"{name}_dequantized")
            channels: dict[str, Any] = {"axis": axis} if scale.ndim else {}
            self.nodes.append(helper.make_node("DequantizeLinear", inputs, [self.dequantized[name]], **channels))
        return self.dequantized[name]

    def quantize_dequantize(self, name: str, of: str = "") -> str:
        """Quantize and dequantize an activation, in the range ``of`` another; returns the name to read instead."""
        scale, zero = self.parameters(self.ranges[of or name])
        parameters = [self._initializer(f"{name}_scale", np.float32(scale)), self._initializer(f"{name}_zero", zero)]
        quantized, out = self.fresh(f"{name}_quantized"), self.fresh(f"{name}_dequantized")
        self.nodes.append(helper.make_node("QuantizeLinear", [name, *parameters], [quantized]))
        self.nodes.append(helper.make_node("DequantizeLinear", [quantized, *parameters], [out]))
        self.scales[out] = scale
        if not of:
            self.scales[name] = scale
        return out

    def _initializer(self, name: str, value: np.ndarray | np.generic) -> str:
        name = self.fresh(name)
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name


class Int8Writer(QdqWriter):
    """Writes the planned layers of one graph in int8, in place. ``tensors`` are those of ``Int8Plan``."""

    def __init__(
        self,
        model: ModelProto,
        ranges: Mapping[str, Range],
        layers: set[str],
        tensors: Mapping[str, npt.NDArray[Any]],
        encoding: Int8Encoding,
    ) -> None:
        parameters = partial(activation_parameters, encoding=encoding)
        super().__init__(model, ranges, tensors, parameters, int32_bias=encoding.int32_bias)
        self.encoding = encoding
        self.is_integer = Integers(self.index, layers, encoding.operators)

    def run(self) -> None:
        nodes = list(self.graph.node)
        renamed = {}  # activation -> its dequantized twin
        for entry in (value.name for value in self.graph.input if value.name in self.ranges):
            renamed[entry] = self.quantize_dequantize(entry)
        for node in nodes:
            integer = self.is_integer(node)
            if integer and node.op_type == GATE and node.input[0] in renamed and node.output[0] in self.ranges:
                self._gate(node, renamed)
                continue
            floats = self._reads_floats(node)
            outputs, after = list(node.output), list[NodeProto]()
            if integer and is_quantizable(node):
                after = self.layer(node)
            if floats and (moved := self._moved_of_shared(node)):
                node.input[0] = self.quantize_dequantize(node.input[0], of=moved)
            self.nodes += [node, *after]
            for i, name in enumerate(node.input):
                if name in renamed and not floats:
                    node.input[i] = renamed[name]
            for name in outputs:
                if name in self.ranges and not self._stays_float(name):
                    renamed[name] = self.quantize_dequantize(name)
        self.finish()

    def _gate(self, node: NodeProto, renamed: dict[str, str]) -> None:
        """Write a gate as an addition whose levels are read with another step."""
        gate, out = Gate.of(node), node.output[0]
        width, shift = 1.0 / gate.slope, gate.offset / gate.slope
        scale, zero = self.parameters(Range(low=0.0, high=width, magnitude=width))
        step, middle = self.parameters(Range(low=min(shift, 0.0), high=max(shift, 0.0), magnitude=abs(shift)))
        level = np.array(round(shift / step) + int(middle), middle.dtype)
        shifted, total, quantized, twin = (self.fresh(f"{out}_{part}") for part in ("shift", "sum", "levels", "gate"))
        values: tuple[Any, ...] = (level, np.float32(step), middle)
        constant = [self._initializer(f"{shifted}_{i}", value) for i, value in enumerate(values)]
        levels = [self._initializer(f"{out}_step", np.float32(scale)), self._initializer(f"{out}_zero", zero)]
        read = [self._initializer(f"{out}_scale", np.float32(scale * gate.slope)), levels[1]]
        self.nodes.append(helper.make_node("DequantizeLinear", constant, [shifted]))
        self.nodes.append(helper.make_node("Add", [renamed[node.input[0]], shifted], [total]))
        if self.encoding.symmetric:  # its levels reach below zero
            ends = [self._initializer(f"{out}_{part}", np.float32(v)) for part, v in (("low", 0.0), ("high", width))]
            self.nodes.append(helper.make_node("Clip", [total, *ends], [total := self.fresh(f"{out}_clipped")]))
        self.nodes.append(helper.make_node("QuantizeLinear", [total, *levels], [quantized]))
        self.nodes.append(helper.make_node("DequantizeLinear", [quantized, *read], [twin]))
        renamed[out] = twin
        self.scales[out] = self.scales[twin] = scale * gate.slope
        readers = self.index.consumers.get(out, [])
        if out in self.index.outputs or any(self._reads_floats(reader) for reader in readers):
            self.nodes.append(node)  # these want it as it is

    def _reads_floats(self, node: NodeProto) -> bool:
        """Whether a node reads the float tensor where there is a dequantized one.

        A layer that is to stay float does: between Q/DQ nodes onnxruntime would quantize its weights after all, with
        one scale for the whole tensor. So does what moves floats: onnxruntime 1.31 would make Q/DQ nodes after it, of
        the wrong type for int8 from opset 21 on.
        """
        floats = (
            operator_of(node) is not None or node.op_type in MOVED or self.is_integer.is_one(node) or names_axes(node)
        )
        return floats and not self.is_integer(node)

    def _moved_of_shared(self, node: NodeProto) -> str:
        """What the floats are called when they are quantized that a node begins to move, where others read them too.

        onnxruntime 1.31 would put the Q/DQ nodes before all the moves, and round what all of them read. "" elsewhere.
        """
        name, out = node.input[0], node.output[0]
        shared = name in self.index.outputs or len(self.index.consumers.get(name, [])) > 1
        if node.op_type not in MOVED or name in self.ranges or not shared:
            return ""
        while out not in self.ranges and self.index.has_one_consumer(out):
            (reader,) = self.index.consumers[out]
            if reader.op_type not in MOVED or reader.input[0] != out or self.is_integer(reader):
                return ""
            out = reader.output[0]
        left = out not in self.ranges or out in self.index.outputs or out in self.is_integer.captured
        return "" if left else str(out)

    def _stays_float(self, name: str) -> bool:
        """NVIDIA fuses convolution and addition when the tensor between them is not quantized; one summand at most."""
        consumers = self.index.consumers.get(name, [])
        producer = self.index.producers.get(name)
        if not self.encoding.fuses_add or producer is None or producer.op_type != "Conv":
            return False
        if len(consumers) != 1 or consumers[0].op_type != "Add":
            return False
        others = [n for n in consumers[0].input if n != name]
        rival = self.index.producers.get(others[0]) if others else None
        both = rival is not None and rival.op_type == "Conv" and len(self.index.consumers[others[0]]) == 1
        return not both or consumers[0].input[0] == name


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
