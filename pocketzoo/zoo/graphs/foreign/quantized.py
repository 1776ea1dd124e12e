"""Whether a graph is quantized already, by the kinds of its nodes, wherever they are: in functions and branches too."""

from __future__ import annotations

from onnx import ModelProto, NodeProto

from pocketzoo.zoo.graphs.fresh_names import STANDARD, nodes
from pocketzoo.zoo.graphs.safety import ONNXRUNTIME

# Operators of the standard, and of onnxruntime, where these are what no rule of names says.
QUANTIZED = frozenset({
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
    "MatMulInteger",
})  # fmt: skip
ONNXRUNTIMES = frozenset({
    "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "GatherBlockQuantized", "MatMulBnb4", "MatMulFpQ4",
    "MatMulInteger16", "MatMulIntegerToFloat", "MatMulNBits", "MulInteger", "QAttention", "QEmbedLayerNormalization",
    "QGemm", "QMoE", "QuantizeLinear", "DequantizeLinear", "QuantizeWithOrder", "DequantizeWithOrder",
    "ReduceSumInteger",
})  # fmt: skip
PREFIXES = ("QLinear", "QOrdered")  # of onnxruntime's others


def quantizing_nodes(model: ModelProto) -> tuple[str, ...]:
    """The kinds of nodes by which a graph is quantized already, sorted; none where it is not."""
    inside = (node for function in model.functions for node in function.node)
    return tuple(sorted({node.op_type for node in nodes(model.graph.node, inside) if _quantizes(node)}))


def _quantizes(node: NodeProto) -> bool:
    if node.domain in STANDARD:
        return node.op_type in QUANTIZED
    return node.domain == ONNXRUNTIME and (node.op_type in ONNXRUNTIMES or node.op_type.startswith(PREFIXES))
