"""Small ONNX graphs, one for each way in which layers are joined."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper


class GraphBuilder:
    """ONNX graphs by hand, with random weights: each method adds a node and returns the name of its output."""

    def __init__(self, shape: tuple[int, ...] = (3, 10, 10), seed: int = 0) -> None:
        self.shape, self.rng = shape, np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.channels: dict[str, int] = {"x": shape[0]}

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants[name] = value
        return name

    def node(self, op: str, inputs: list[str], channels: int | None = None, **attributes: object) -> str:
        out = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [out], **attributes))
        self.channels[out] = self.channels[inputs[0]] if channels is None else channels
        return out

    def _bias(self, name: str, count: int, bias: str | bool) -> list[str]:
        if isinstance(bias, str):
            return [bias]
        if not bias:
            return []
        return [self.constant(f"{name}.bias", self.rng.normal(size=count).astype(np.float32))]

    def conv(
        self,
        x: str,
        name: str,
        out: int = 8,
        k: int = 3,
        *,
        groups: int = 1,
        bias: str | bool = True,
        weight: str = "",
        **attributes: object,
    ) -> str:
        if not weight:
            fan = self.channels[x] // groups * k * k
            value = self.rng.normal(size=(out, self.channels[x] // groups, k, k)) / fan**0.5
            weight = self.constant(f"{name}.weight", value.astype(np.float32))
        out = self.constants[weight].shape[0]
        inputs = [x, weight, *self._bias(name, out, bias)]
        attributes.setdefault("pads", [k // 2] * 4)
        return self.node("Conv", inputs, out, group=groups, **attributes)

    def gemm(self, x: str, name: str, inner: int, out: int, *, bias: bool = True, transposed: bool = True) -> str:
        shape = (out, inner) if transposed else (inner, out)
        value = self.rng.normal(size=shape) / inner**0.5
        weight = self.constant(f"{name}.weight", value.astype(np.float32))
        return self.node("Gemm", [x, weight, *self._bias(name, out, bias)], out, transB=int(transposed))

    def matmul(self, x: str, name: str, inner: int, out: int) -> str:
        value = self.rng.normal(size=(inner, out)) / inner**0.5
        return self.node("MatMul", [x, self.constant(f"{name}.weight", value.astype(np.float32))], out)

    def clip(self, x: str, low: float | None, high: float | None) -> str:
        ends = [
            "" if v is None else self.constant(f"clip_{len(self.nodes)}_{i}", np.float32(v))
            for i, v in enumerate((low, high))
        ]
        return self.node("Clip", [x, *ends])

    def pool_and_flatten(self, x: str) -> str:
        return self.node("Flatten", [self.node("GlobalAveragePool", [x])], axis=1)

    def model(self, out: str, rank: int = 2) -> onnx.ModelProto:
        free = [f"d{i}" for i in range(rank - 1)]
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", *self.shape])],
            [helper.make_tensor_value_info(out, onnx.TensorProto.FLOAT, ["batch", *free])],
            [numpy_helper.from_array(v, k) for k, v in self.constants.items()],
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
        made.ir_version = 10
        onnx.checker.check_model(made, full_check=True)
        return made


@pytest.fixture(scope="session")
def graph_builder() -> type[GraphBuilder]:
    return GraphBuilder


def _residual(g: GraphBuilder) -> onnx.ModelProto:
    stem = g.node("Relu", [g.conv("x", "stem")])
    inner = g.node("Relu", [g.conv(stem, "conv1")])
    out = g.node("Relu", [g.node("Add", [g.conv(inner, "conv2"), stem])])
    return g.model(g.gemm(g.pool_and_flatten(out), "fc", 8, 5))


def _projection(g: GraphBuilder) -> onnx.ModelProto:
    stem = g.node("Relu", [g.conv("x", "stem")])
    inner = g.node("Relu", [g.conv(stem, "conv1", 12, strides=[2, 2])])
    short = g.conv(stem, "short", 12, 1, strides=[2, 2])
    out = g.node("Relu", [g.node("Add", [short, g.conv(inner, "conv2", 12)])])
    return g.model(g.gemm(g.pool_and_flatten(out), "fc", 12, 5))


def _depthwise(g: GraphBuilder) -> onnx.ModelProto:
    y = g.clip(g.conv("x", "expand", 12, 1), 0.0, 6.0)
    y = g.clip(g.conv(y, "deep", 12, groups=12), 0.0, 6.0)
    return g.model(g.gemm(g.pool_and_flatten(g.conv(y, "project", 6, 1)), "fc", 6, 5))


def _concat(g: GraphBuilder) -> onnx.ModelProto:
    a = g.node("Relu", [g.conv("x", "a")])
    b = g.node("Relu", [g.conv(a, "b", 4)])
    joined = g.node("Concat", [a, b], 12, axis=1)
    return g.model(g.gemm(g.pool_and_flatten(g.node("Relu", [g.conv(joined, "c")])), "fc", 8, 5))


def _pools(g: GraphBuilder) -> onnx.ModelProto:
    y = g.node("MaxPool", [g.node("Relu", [g.conv("x", "a")])], kernel_shape=[2, 2], strides=[2, 2])
    y = g.node("AveragePool", [g.node("Relu", [g.conv(y, "b")])], kernel_shape=[2, 2], strides=[2, 2])
    return g.model(g.gemm(g.node("Flatten", [y], axis=1), "fc", 32, 5))


def _plain(g: GraphBuilder) -> onnx.ModelProto:
    y = g.conv(g.conv(g.conv("x", "a"), "b", bias=False), "c")
    return g.model(g.gemm(g.pool_and_flatten(y), "fc", 8, 5, bias=False))


def _gemms(g: GraphBuilder) -> onnx.ModelProto:
    y = g.node("Flatten", ["x"], axis=1)
    y = g.node("Relu", [g.gemm(y, "fc1", 300, 16, transposed=False)])
    y = g.node("Relu", [g.gemm(y, "fc2", 16, 12, bias=False)])
    return g.model(g.gemm(y, "fc3", 12, 5, transposed=False))


def _shared(g: GraphBuilder) -> onnx.ModelProto:
    """One weight and one bias for two convolutions that read different ranges."""
    y = g.node("Relu", [g.conv("x", "stem")])
    y = g.node("Relu", [g.conv(y, "twice")])
    y = g.node("Relu", [g.conv(y, "again", weight="twice.weight", bias="twice.bias")])
    return g.model(g.gemm(g.pool_and_flatten(y), "fc", 8, 5))


def _ends_in_conv(g: GraphBuilder) -> onnx.ModelProto:
    return g.model(g.conv(g.node("Relu", [g.conv("x", "a")]), "b", 4), 4)


def _ends_in_relu(g: GraphBuilder) -> onnx.ModelProto:
    return g.model(g.node("Relu", [g.conv(g.node("Relu", [g.conv("x", "a")]), "b", 4)]), 4)


def _gates(g: GraphBuilder) -> onnx.ModelProto:
    """Squeeze and excite: operators without integer kernels in between."""
    y = g.conv("x", "body")
    y = g.node("Mul", [y, g.node("Sigmoid", [y])])
    s = g.node("Relu", [g.conv(g.node("GlobalAveragePool", [y]), "squeeze", 4, 1)])
    y = g.node("Mul", [y, g.node("HardSigmoid", [g.conv(s, "excite", 8, 1)])])
    return g.model(g.gemm(g.pool_and_flatten(g.conv(y, "out")), "fc", 8, 5))


def _tokens(g: GraphBuilder) -> onnx.ModelProto:
    """Patches to tokens, MatMul and Add for a linear layer on sequences, a residual sum, the mean over tokens."""
    y = g.conv("x", "patch", 8, 2, strides=[2, 2], pads=[0, 0, 0, 0])
    y = g.node("Reshape", [y, g.constant("shape", np.array([0, 8, 25], np.int64))])
    t = g.node("Transpose", [y], 25, perm=[0, 2, 1])
    h = g.node("Add", [g.matmul(t, "fc1", 8, 16), g.constant("fc1.bias", np.ones(16, np.float32))])
    h = g.node("Add", [g.matmul(g.node("Gelu", [h]), "fc2", 16, 8), g.constant("fc2.bias", np.ones(8, np.float32))])
    y = g.node("Add", [t, h])
    y = g.node("ReduceMean", [y, g.constant("axes", np.array([1], np.int64))], keepdims=0)
    return g.model(g.gemm(y, "head", 8, 5))


GRAPHS: dict[str, Callable[[GraphBuilder], onnx.ModelProto]] = {
    "residual": _residual,
    "projection": _projection,
    "depthwise": _depthwise,
    "concat": _concat,
    "pools": _pools,
    "plain": _plain,
    "gemms": _gemms,
    "shared": _shared,
    "ends in conv": _ends_in_conv,
    "ends in relu": _ends_in_relu,
    "gates": _gates,
    "tokens": _tokens,
}


@pytest.fixture(scope="session")
def graphs() -> dict[str, onnx.ModelProto]:
    """Small graphs by hand, one for each thing that can stand next to a layer."""
    return {name: build(GraphBuilder()) for name, build in GRAPHS.items()}
