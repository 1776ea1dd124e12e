"""A model that reads an image and a row of numbers and outputs scores and a vector, as module and as graph."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from pocketzoo.core.arrays import Arrays

OPSET = 17
OUTPUTS = {"scores": 3, "vector": 8}


class TwoOfEach(nn.Module):
    """(B, 3, 8, 8) images and (B, 4) rows to (B, 3) scores and (B, 8) vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.features = nn.Linear(16, 8)
        self.columns = nn.Linear(4, 8)
        self.last = nn.Linear(8, 3)

    def forward(self, image: Tensor, row: Tensor) -> dict[str, Tensor]:
        pooled = self.conv(image).relu().mean((2, 3))
        vector = self.features(pooled) + self.columns(row)
        return {"scores": self.last(vector.relu()), "vector": vector}


def module() -> nn.Module:
    """The same weights each time, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TwoOfEach().eval()


def inputs(count: int = 4) -> Arrays:
    """A batch, the same each time."""
    generator = np.random.default_rng(0)
    image, row = generator.normal(size=(count, 3, 8, 8)), generator.normal(size=(count, 4))
    return {"image": image.astype(np.float32), "row": row.astype(np.float32)}


def graph() -> onnx.ModelProto:
    """Of the module, written by hand: it takes no export to try a runtime."""
    state = {name: tensor.numpy() for name, tensor in module().state_dict().items()}
    nodes = [
        helper.make_node("Conv", ["image", "conv.weight", "conv.bias"], ["map"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["map"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "features.weight", "features.bias"], ["of_image"], transB=1),
        helper.make_node("Gemm", ["row", "columns.weight", "columns.bias"], ["of_row"], transB=1),
        helper.make_node("Add", ["of_image", "of_row"], ["vector"]),
        helper.make_node("Relu", ["vector"], ["above"]),
        helper.make_node("Gemm", ["above", "last.weight", "last.bias"], ["scores"], transB=1),
    ]
    reads = [_value("image", ["batch", 3, 8, 8]), _value("row", ["batch", 4])]
    outputs = [_value(name, ["batch", size]) for name, size in OUTPUTS.items()]
    weights = [numpy_helper.from_array(x, name) for name, x in state.items()]
    return _model(helper.make_graph(nodes, "two of each", reads, outputs, weights))


def unknown_operator() -> onnx.ModelProto:
    """A graph of an operator that no runtime has."""
    node = helper.make_node("Unheard", ["x"], ["y"], domain="nowhere")
    graph = helper.make_graph([node], "unknown", [_value("x", ["batch", 4])], [_value("y", ["batch", 4])])
    return _model(graph, helper.make_opsetid("nowhere", 1))


def _value(name: str, shape: list[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _model(graph: onnx.GraphProto, *opsets: onnx.OperatorSetIdProto) -> onnx.ModelProto:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET), *opsets])
    model.ir_version = 9
    return model
