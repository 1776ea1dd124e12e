"""Image preprocessing as an ONNX graph, for servers that run nothing else.

It does what the processor of images does with Pillow: resize so that the shorter side is as long as the model wants,
 cut out the center, scale, normalize. Resizing is Pillow's own rule, written as a product with one matrix
for each side: row i holds the filter around (i + 1/2) n / m, widened by n / m where that is more than 1, in 22 bits,
and both passes round to whole pixels. ONNX's Resize with antialiasing weighs the pixels at the edges otherwise. Rows
are resized before columns, as Pillow did up to 12; later ones begin with what is cheaper, and then some pixels are
off by one of 255.

Source: Pillow's ``Resample.c``; Keys 1981, doi:10.1109/TASSP.1981.1163711, for the cubic filter with a = -1/2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from pocketzoo.core.files import replacing_file
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.graphs.fresh_names import FreshNames

PIXELS = "pixels"  # uint8 (batch, height, width, channels)
OPSET = 18
UNIT = 2.0**22  # of Pillow's weights, which are intact numbers
FILTERS = ("bilinear", "bicubic")


def save_preparation(spec: InputSpec, path: Path) -> str:
    """Write the graph: pixels (batch, height, width, channels) in uint8 to what the model reads. Returns what the graph
    calls its output: as the model calls its input, if that is not ``PIXELS``."""
    graph = preparation(spec)
    with replacing_file(path) as temporary:
        onnx.save(graph, temporary)
    return str(graph.graph.output[0].name)


def preparation(spec: InputSpec) -> onnx.ModelProto:
    """The graph, for images resized by one of ``FILTERS``."""
    return _Graph(spec).build()


class _Graph:
    """Nodes as they are added; each is called by what it makes. Names give way to that of the model's input."""

    def __init__(self, spec: InputSpec) -> None:
        self.spec = spec
        self.fresh = FreshNames([PIXELS])
        self.out = self.fresh(spec.name)
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, Any] = {}
        self.called: dict[str, str] = {}  # what is said here of a constant -> its name in the graph

    def build(self) -> onnx.ModelProto:
        spec = self.spec
        channels, height, width = spec.size
        cut = self.constant("cut", np.array([height, width], np.int64))
        planes = self.add("Transpose", self.add("Cast", PIXELS, to=TensorProto.DOUBLE), perm=[0, 3, 1, 2])
        sides = self.add("Cast", self.add("Shape", planes, start=2), to=TensorProto.DOUBLE)
        stretched = self.constant("stretched", np.array(spec.stretched or (height, width), np.int64))
        new_sides = self.add("Cast", stretched, to=TensorProto.DOUBLE)
        if not spec.stretch:
            shorter = self.add("ReduceMin", sides, keepdims=0)
            resize = self.constant("resize", np.float64(spec.resize))
            if spec.longer == "floor":  # the product first: a quotient of whole numbers is whole where it should be
                longer = self.add("Floor", self.add("Div", self.add("Mul", sides, resize), shorter))
            else:
                longer = self.add("Round", self.add("Mul", sides, self.add("Div", resize, shorter)))
            new_sides = self.add("Max", longer, new_sides)  # never less than what is cut out
        across = self.add("Transpose", self.matrix(sides, new_sides, 1), perm=[1, 0])
        resized = self.whole(self.add("MatMul", planes, across))
        resized = self.whole(self.add("MatMul", self.matrix(sides, new_sides, 0), resized))
        rest = self.add("Sub", self.add("Shape", resized, start=2), cut)
        if spec.center == "even":
            halves = self.add("Div", self.add("Cast", rest, to=TensorProto.DOUBLE), self.constant("two", np.float64(2)))
            starts = self.add("Cast", self.add("Round", halves), to=TensorProto.INT64)
        else:
            starts = self.add("Div", rest, self.constant("two", np.int64(2)))
        axes = self.constant("axes", np.array([2, 3], np.int64))
        center = self.add("Slice", resized, starts, self.add("Add", starts, cut), axes)
        low, high = spec.value_range
        mean, std = (np.asarray(v, np.float64).reshape(1, channels, 1, 1) for v in (spec.mean, spec.std))
        scale = self.constant("scale", ((high - low) / 255 / std).astype(np.float32))
        shift = self.constant("shift", ((low - mean) / std).astype(np.float32))
        floats = self.add("Cast", center, to=TensorProto.FLOAT)
        self.add("Add", self.add("Mul", floats, scale), shift, out=self.out)
        graph = helper.make_graph(
            self.nodes,
            "preparation",
            [helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, ["batch", "height", "width", channels])],
            [helper.make_tensor_value_info(self.out, TensorProto.FLOAT, ["batch", *spec.size])],
            [numpy_helper.from_array(np.asarray(array), name) for name, array in self.constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        return model

    def add(self, op: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        name = out or self.fresh(f"{op.lower()}_{len(self.nodes)}")
        read = [self.called.get(each, each) for each in inputs]
        self.nodes.append(helper.make_node(op, read, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: Any) -> str:
        if name not in self.called:
            self.called[name] = self.fresh(name)
        self.constants[self.called[name]] = value
        return name

    def whole(self, sums: str) -> str:
        """Pixels of sums of weights: rounded half up and held between 0 and 255, as Pillow does after each pass."""
        raised = self.add("Add", self.add("Div", sums, "unit"), "middle")
        return self.add("Clip", self.add("Floor", raised), "zero", self.constant("white", np.float64(255)))

    def matrix(self, sides: str, new_sides: str, axis: int) -> str:
        """(m, n): how much of each of n pixels is in each of m, in whole parts of ``UNIT``."""
        zero, one = self.constant("zero", np.float64(0)), self.constant("one", np.float64(1))
        half, last = self.constant("middle", np.float64(0.5)), self.constant("last", np.array([1], np.int64))
        which = self.constant(f"axis_{axis}", np.int64(axis))
        n, m = self.add("Gather", sides, which), self.add("Gather", new_sides, which)
        scale = self.add("Div", n, m)
        rows = self.add("Mul", self.add("Add", self.add("Range", zero, m, one), half), scale)
        columns = self.add("Add", self.add("Range", zero, n, one), half)
        apart = self.add("Sub", columns, self.add("Unsqueeze", rows, last))
        distance = self.add("Abs", self.add("Div", apart, self.add("Max", scale, one)))
        weights = self.triangle(distance) if self.spec.interpolation == "bilinear" else self.cubic(distance)
        total = self.add("ReduceSum", weights, last, keepdims=1)
        parts = self.add("Mul", self.add("Div", weights, total), self.constant("unit", np.float64(UNIT)))
        return self.add(
            "Mul", self.add("Sign", parts), self.add("Floor", self.add("Add", self.add("Abs", parts), half))
        )

    def triangle(self, distance: str) -> str:
        """1 - d, and 0 from 1 on."""
        return self.add("Max", self.add("Sub", "one", distance), "zero")

    def cubic(self, distance: str) -> str:
        """1.5 d^3 - 2.5 d^2 + 1 up to 1, -0.5 d^3 + 2.5 d^2 - 4 d + 2 up to 2, and 0 from there on."""
        near = self.polynomial(distance, (1.5, -2.5, 0.0, 1.0))
        far = self.polynomial(distance, (-0.5, 2.5, -4.0, 2.0))
        beyond = self.add("Less", distance, self.constant("number_2", np.float64(2)))
        outer = self.add("Where", beyond, far, "zero")
        return self.add("Where", self.add("Less", distance, "one"), near, outer)

    def polynomial(self, d: str, coefficients: tuple[float, ...]) -> str:
        """By Horner's rule."""
        names = [self.constant(f"number_{c:g}", np.float64(c)) for c in coefficients]
        value = names[0]
        for name in names[1:]:
            value = self.add("Add", self.add("Mul", value, d), name)
        return value
