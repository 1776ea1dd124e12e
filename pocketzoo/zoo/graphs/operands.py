"""Rewrite layers to the one form int8 supports: a weight, and a bias with one number per output channel.

ONNX lets the third operand of Gemm and Conv be computed, as where a residual addition was folded into a Gemm, and that
of Gemm be anything that broadcasts. Only layers that are quantized are written anew; the rest stays to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, helper, numpy_helper

from pocketzoo.zoo.graphs.contents import replace_nodes
from pocketzoo.zoo.graphs.fresh_names import FreshNames
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.node import attribute, layer_name
from pocketzoo.zoo.graphs.operators import OPERATORS, out_axis


def plain_operands(model: ModelProto, layers: Collection[str]) -> ModelProto:
    """A graph that gives the same, in which the named ``layers`` have no operand but a weight and a bias.

    A third operand that is not a bias is added after the layer. It is ``model`` itself where nothing changes; what is
    made anew has the same names each time.
    """
    index, layer_names = GraphIndex(model), set(layers)

    def changes(node: NodeProto) -> bool:
        return (
            index.is_layer(node)
            and OPERATORS[node.op_type].bias is not None
            and layer_name(node.input[1]) in layer_names
            and not _is_plain(node, index)
        )

    if not any(map(changes, model.graph.node)):
        return model
    plain = ModelProto()
    plain.CopyFrom(model)
    return _OperandWriter(plain).write(changes)


def _is_plain(node: NodeProto, index: GraphIndex) -> bool:
    if attribute(node, "alpha", 1.0) != 1.0:
        return False
    if len(node.input) < 3 or not node.input[2]:
        return True
    bias, channels = index.constants.get(node.input[2]), index.constants[node.input[1]].dims[out_axis(node)]
    return bias is not None and list(bias.dims) == [channels] and attribute(node, "beta", 1.0) == 1.0


class _OperandWriter:
    """Writes the layers of one graph anew, in place."""

    def __init__(self, model: ModelProto) -> None:
        self.model, self.graph = model, model.graph
        self.index, self.fresh = GraphIndex(model), FreshNames.of(model)
        self.nodes: list[NodeProto] = []

    def write(self, changes: Callable[[NodeProto], bool]) -> ModelProto:
        for node in self.graph.node:
            if changes(node):
                self._layer(node)
            else:
                self.nodes.append(node)
        replace_nodes(self.graph, self.nodes)
        return self.model

    def _layer(self, node: NodeProto) -> None:
        alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
        attributes = [a for a in node.attribute if a.name not in ("alpha", "beta")]
        del node.attribute[:]
        node.attribute.extend(attributes)
        weight = self.index.constants[node.input[1]]
        if alpha != 1.0:  # nobody else reads it
            value = numpy_helper.to_array(weight) * np.float32(alpha)
            weight.CopyFrom(numpy_helper.from_array(value, weight.name))
        third = node.input[2] if len(node.input) > 2 else ""
        del node.input[2:]
        self.nodes.append(node)
        if not third:
            return
        out, channels = node.output[0], weight.dims[out_axis(node)]
        if third not in self.index.constants:
            self._add(node, self._scaled(third, out, beta))
            return
        value = numpy_helper.to_array(self.index.constants[third]) * np.float32(beta)
        if value.size == 1 or (value.size == channels and value.shape[-1] == channels):
            node.input.append(self._constant(f"{out}_bias", np.broadcast_to(value.reshape(-1), (channels,))))
        else:
            self._add(node, self._constant(f"{out}_addend", value))

    def _scaled(self, name: str, out: str, beta: float) -> str:
        if beta == 1.0:
            return name
        factor, product = self._constant(f"{out}_beta", np.float32(beta)), self.fresh(f"{out}_addend")
        self.nodes.append(helper.make_node("Mul", [name, factor], [product]))
        return product

    def _add(self, node: NodeProto, addend: str) -> None:
        """Let an addition make what the node made."""
        out = node.output[0]
        if OPERATORS[node.op_type].kind == "convolution":  # a number for each channel
            shape = np.array([1, -1, *[1] * (len(self.index.constants[node.input[1]].dims) - 2)], np.int64)
            turned = self.fresh(f"{out}_addend")
            self.nodes.append(helper.make_node("Reshape", [addend, self._constant(f"{out}_shape", shape)], [turned]))
            addend = turned
        node.output[0] = self.fresh(f"{out}_product")
        self.nodes.append(helper.make_node("Add", [node.output[0], addend], [out]))

    def _constant(self, name: str, value: npt.NDArray[np.generic] | np.generic) -> str:
        name = self.fresh(name)
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name
