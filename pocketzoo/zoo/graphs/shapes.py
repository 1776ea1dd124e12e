"""Read an ONNX graph with inferred shapes, types, producers, and layers with their weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, shape_inference

from pocketzoo.core.errors import ExportError

Dims = list[int | str]
LAYERS = ("Conv", "Gemm", "MatMul")
EIGHT_BITS: dict[int, str] = {
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "int8",
    TensorProto.FLOAT8E4M3FN: "fp8",
    TensorProto.FLOAT8E5M2: "fp8",
}


class Reading:
    """A graph with the shapes and types of its tensors, as far as they can be inferred."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        try:
            inferred = shape_inference.infer_shapes(model, data_prop=True)
        except shape_inference.InferenceError:  # of a graph that is refused for it later
            inferred = model
        graph = inferred.graph
        self.nodes: Sequence[NodeProto] = graph.node
        self.constants = {t.name: t for t in graph.initializer}
        self.makers = {name: node for node in graph.node for name in node.output}
        self.shapes: dict[str, Dims] = {t.name: list(t.dims) for t in graph.initializer}
        self.types: dict[str, int] = {t.name: t.data_type for t in graph.initializer}
        for value in (*graph.input, *graph.value_info, *graph.output):
            tensor = value.type.tensor_type
            self.types[value.name] = tensor.elem_type
            if tensor.HasField("shape"):
                self.shapes[value.name] = [d.dim_param or d.dim_value for d in tensor.shape.dim]
        self.inputs = [value.name for value in graph.input if value.name not in self.constants]

    def opset(self) -> int:
        return max((o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx")), default=1)

    def weight(self, name: str) -> TensorProto | None:
        """The constant that a layer's second input stands for, through a DequantizeLinear if there is one."""
        maker = self.makers.get(name)
        if maker is not None and maker.op_type in ("DequantizeLinear", "Cast", "Transpose"):
            name = maker.input[0]
        return self.constants.get(name)

    def layers(self) -> Iterator[tuple[NodeProto, int, int, int]]:
        """Each layer with a constant weight: its channels in and out, and its groups."""
        for node in self.nodes:
            if node.op_type not in LAYERS or len(node.input) < 2:
                continue
            weight = self.weight(node.input[1])
            if weight is None or len(weight.dims) < 2:
                continue
            groups = int(attribute(node, "group", 1))
            if node.op_type == "Conv":
                yield node, weight.dims[1] * groups, weight.dims[0], groups
            elif node.op_type == "Gemm" and attribute(node, "transB", 0):
                yield node, weight.dims[1], weight.dims[0], 1
            else:
                yield node, weight.dims[-2], weight.dims[-1], 1

    def quantized(self, node: NodeProto) -> str:
        """What a layer's weight is in, "int8" or "fp8"; "" where it is in floats."""
        weight = self.weight(node.input[1])
        return "" if weight is None else EIGHT_BITS.get(weight.data_type, "")


def node_name(node: NodeProto) -> str:
    """A node's name, or what it makes."""
    return str(node.name or node.output[0])


def attribute(node: NodeProto, name: str, default: object) -> Any:
    """An attribute's value, or what it is where it is left out."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def load_graph(path: Path) -> ModelProto:
    """An ONNX file, without what it may refer to outside itself.

    Raises:
        ExportError: there is none, or it is not a graph.
    """
    if not path.is_file():
        raise ExportError(f"there is no file {path}", "check the path")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own types
        raise ExportError(f"{path} is not an ONNX graph", "give a file that an exporter wrote") from error
    if outside := [t.name for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL]:
        raise ExportError(f"{path} keeps weights in other files, {outside[0]} for one", "save it as one file")
    if not model.graph.node:
        raise ExportError(f"{path} is not an ONNX graph, or an empty one", "give a file that an exporter wrote")
    return model
