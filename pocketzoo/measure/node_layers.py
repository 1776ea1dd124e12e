"""Map the nodes of onnxruntime's optimized graph back to layers of the module."""

from __future__ import annotations

import re
from collections.abc import Sequence

import onnx

WEIGHTED = ("Conv", "Gemm", "MatMul")


class Layers:
    """The layers of a graph as it was before it was optimized, looked up by node."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.made = {out: node for node in graph.node for out in node.output}
        self.named = {node.name: node for node in graph.node if node.name}
        self.constants = {tensor.name for tensor in graph.initializer}
        # "conv.weight", "conv.bias": the layers that have parameters
        self.known = {name.rpartition(".")[0] for name in self.constants if "." in name}

    def of(self, node: onnx.NodeProto, name: str, before: Sequence[str]) -> str:
        """By its parameters; else by what the graph computed under its name or its output's before it was optimized.

        ``before`` are the layers of the nodes that it reads: of those that unpack its parameters among them.
        """
        for each in node.input:
            if layer := self._owner(each):
                return layer
        if not any(op in node.op_type for op in WEIGHTED):
            return ""
        plain = re.sub(r"(_nchwc|_token_\d+|_fused.*)+$", "", name)
        for source in (self.named.get(plain), *(self.made.get(out) for out in (plain, *node.output))):
            if source is not None and (layer := self._back(source)):
                return layer
        return next(iter(filter(None, before[1:])), "")

    def _owner(self, tensor: str) -> str:
        """The layer whose parameter this is, whatever was added to its name: "conv.weight_quantized", "conv.bias"."""
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
            node = self.made.get(node.input[0]) if node.input else None
        return ""
