"""Map the nodes of onnxruntime's optimized graph back to layers of the module."""

from __future__ import annotations

import re
from collections.abc import Sequence

import onnx

from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.node import layer_name
from pocketzoo.zoo.graphs.operators import runs_layer


class NodeLayers:
    """The layers of a graph as it was before it was optimized, looked up by node."""

    def __init__(self, index: GraphIndex) -> None:
        self.index = index
        self.named = {node.name: node for node in index.nodes if node.name}
        # "conv.weight", "conv.bias": the layers that have parameters
        self.weights = {node.input[1]: layer_name(node.input[1]) for node in index.nodes if index.is_layer(node)}
        self.known = {name.rpartition(".")[0] for name in index.constants if "." in name}

    def of(self, node: onnx.NodeProto, name: str, before: Sequence[str]) -> str:
        """By its parameters; else by what the graph computed under its name or its output's before it was optimized.

        ``before`` are the layers of the nodes that it reads: of those that unpack its parameters among them.
        """
        for each in node.input:
            if layer := self._owner(each):
                return layer
        if not runs_layer(node.op_type):
            return ""
        plain = re.sub(r"(_nchwc|_token_\d+|_fused.*)+$", "", name)
        for source in (self.named.get(plain), *(self.index.producers.get(out) for out in (plain, *node.output))):
            if source is not None and (layer := self._back(source)):
                return layer
        return next(iter(filter(None, before[1:])), "")

    def _owner(self, tensor: str) -> str:
        """The layer whose parameter this is, whatever was added to its name: "conv.weight_quantized", "conv.bias"."""
        if layer := self.weights.get(tensor.removesuffix("_quantized")):
            return layer
        parts = tensor.split(".")
        for end in range(len(parts) - 1, 0, -1):
            if (layer := ".".join(parts[:end])) in self.known:
                return layer
        return ""

    def _back(self, node: onnx.NodeProto | None) -> str:
        """The layer that ends in this node: back through what was fused after it."""
        for _ in range(4):
            if node is None:
                return ""
            for each in node.input:
                if layer := self._owner(each):
                    return layer
            node = self.index.producers.get(node.input[0]) if node.input else None
        return ""
