"""A detector of YOLO's kind with SiLU, as torch writes it: Sigmoid and Mul after each convolution. Random weights.

No package ships one, so what is measured of it is how fast its graph is and how near its numbers are, not its boxes.
Blocks are split, convolved and joined; a pyramid goes up by Resize and down by strides; three scales are one output.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE, WIDTHS = 320, (16, 32, 64, 128, 256)
BINS, CLASSES = 32, 20  # of the distances to a box's sides, and of what is in it


class _Graph:
    """Nodes and weights, one after the other; each method gives the name of what it makes."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.generator = np.random.default_rng(0)

    def constant(self, value: Any) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> list[str]:
        made = [f"{op.lower()}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), made, **attributes))
        return made

    def conv(self, x: str, channels: tuple[int, int], kernel: int = 1, stride: int = 1, *, silu: bool = True) -> str:
        read, made = channels
        weight = self.generator.normal(0, (2.4 / (read * kernel**2)) ** 0.5, (made, read, kernel, kernel))
        bias = self.generator.normal(0, 0.1, made)
        names = [self.constant(value.astype(np.float32)) for value in (weight, bias)]
        sizes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        (out,) = self.node("Conv", x, *names, **sizes)
        return self.node("Mul", out, *self.node("Sigmoid", out))[0] if silu else out

    def concat(self, *parts: str, axis: int = 1) -> str:
        return self.node("Concat", *parts, axis=axis)[0]

    def block(self, x: str, read: int, made: int, *, depth: int = 1, add: bool = True) -> str:
        half = made // 2
        halves = self.constant(np.array([half, half]))
        parts = self.node("Split", self.conv(x, (read, made)), halves, outputs=2, axis=1)
        for _ in range(depth):
            out = self.conv(self.conv(parts[-1], (half, half), 3), (half, half), 3)
            parts.append(self.node("Add", parts[-1], out)[0] if add else out)
        return self.conv(self.concat(*parts), (half * (2 + depth), made))

    def up(self, x: str) -> str:
        scales = self.constant(np.array([1, 1, 2, 2], np.float32))
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.node("Resize", x, "", scales, **how)[0]


def write(path: Path) -> None:
    """The graph: ``images`` (N, 3, 320, 320), 0-1, to ``predictions`` (N, 52, 2100): bins, then classes."""
    g, (a, b, c, d, e) = _Graph(), WIDTHS
    x = g.conv("images", (3, a), 3, 2)
    x = g.block(g.conv(x, (a, b), 3, 2), b, b)
    small = g.block(g.conv(x, (b, c), 3, 2), c, c, depth=2)
    middle = g.block(g.conv(small, (c, d), 3, 2), d, d, depth=2)
    x = g.block(g.conv(middle, (d, e), 3, 2), e, e)
    pooled = [g.conv(x, (e, e // 2))]
    for _ in range(3):
        pooled += g.node("MaxPool", pooled[-1], kernel_shape=[5, 5], pads=[2] * 4, strides=[1, 1])
    large = g.conv(g.concat(*pooled), (2 * e, e))
    middle = g.block(g.concat(g.up(large), middle), e + d, d, add=False)
    small = g.block(g.concat(g.up(middle), small), d + c, c, add=False)
    middle = g.block(g.concat(g.conv(small, (c, c), 3, 2), middle), c + d, d, add=False)
    large = g.block(g.concat(g.conv(middle, (d, d), 3, 2), large), d + e, e, add=False)
    rows = []
    for feature, width in ((small, c), (middle, d), (large, e)):
        ends = [
            g.conv(g.conv(g.conv(feature, (width, 32), 3), (32, 32), 3), (32, count), silu=False)
            for count in (BINS, CLASSES)
        ]
        rows += g.node("Reshape", g.concat(*ends), g.constant(np.array([0, BINS + CLASSES, -1])))
    parts = g.constant(np.array([BINS, CLASSES]))
    bins, classes = g.node("Split", g.concat(*rows, axis=2), parts, outputs=2, axis=1)
    g.nodes.append(helper.make_node("Concat", [bins, *g.node("Sigmoid", classes)], ["predictions"], axis=1))
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        g.nodes,
        "detector",
        [info("images", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [info("predictions", TensorProto.FLOAT, ["n", BINS + CLASSES, None])],
        g.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
