"""Layer normalization (Ba et al. 2016, arXiv:1607.06450) in many nodes as ONNX's one, which sums in float32.

A variance as the mean of squares less the square of the mean, as Flax has it, cancels: 11 bits leave nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pocketzoo.zoo.graphs.contents import drop_dead, drop_unread, replace_nodes
from pocketzoo.zoo.graphs.fresh_names import STANDARD, FreshNames
from pocketzoo.zoo.graphs.index import Dims, GraphIndex
from pocketzoo.zoo.graphs.node import attribute

NORM_OPSET = 17  # that has LayerNormalization
MOVED = ("Expand", "Identity", "Reshape", "Squeeze", "Unsqueeze")  # which keep the order of values
NEAR = 1e-5  # relative difference of 1/n and what a graph multiplies by


@dataclass(frozen=True, slots=True)
class Norm:
    """Of what, along which axes, with which number added to the variance; the nodes whose last makes the answer."""

    x: str
    axes: tuple[int, ...]
    epsilon: float
    last: str  # what the normalized values are called,
    scale: npt.NDArray[np.float32] | None  # which are multiplied by this
    shift: npt.NDArray[np.float32] | None  # and to which this is added


def has_norms(model: ModelProto) -> bool:
    """Whether a graph has a layer normalization in many nodes."""
    return any(True for _ in _Norms(model).found())


def join_norms(model: ModelProto) -> bool:
    """Write each as a LayerNormalization, in place; whether there were any. The opset is one that has it.

    Where the axes are not the last ones they are brought there, and back.
    """
    norms = list(_Norms(model).found())
    if not norms:
        return False
    graph, fresh = model.graph, FreshNames.of(model)
    shapes = GraphIndex(model).shapes
    made: dict[str, list[NodeProto]] = {}
    for norm in norms:
        rank, dims = len(shapes[norm.x]), [int(shapes[norm.x][axis]) for axis in norm.axes]
        names = []
        for values, word in ((norm.scale, "scale"), (norm.shift, "shift")):
            if values is not None or word == "scale":
                full = np.ones(dims, np.float32) if values is None else values
                names.append(fresh(f"{norm.last}_{word}"))
                graph.initializer.append(numpy_helper.from_array(full, names[-1]))
        order = [axis for axis in range(rank) if axis not in norm.axes] + list(norm.axes)
        there, back = norm.x, norm.last
        nodes = []
        if order != list(range(rank)):
            there, back = fresh(f"{norm.last}_turned"), fresh(f"{norm.last}_normal")
            nodes.append(helper.make_node("Transpose", [norm.x], [there], perm=order))
        nodes.append(helper.make_node("LayerNormalization", [there, *names], [back], axis=rank - len(norm.axes),
                                      epsilon=norm.epsilon))  # fmt: skip
        if back != norm.last:
            nodes.append(helper.make_node("Transpose", [back], [norm.last], perm=[int(i) for i in np.argsort(order)]))
        made[norm.last] = nodes
    written: list[NodeProto] = []
    for node in graph.node:
        written += made.get(node.output[0] if node.output else "", [node])
    replace_nodes(graph, written)
    drop_dead(graph)
    drop_unread(graph)
    graph.ClearField("value_info")
    return True


class _Norms:
    def __init__(self, model: ModelProto) -> None:
        self.index = GraphIndex(model)

    def found(self) -> Iterator[Norm]:
        """Those of the graph itself."""
        for node in self.index.nodes:
            if node.op_type == "Sub" and node.domain in STANDARD:
                norm = self._norm(node)
                if norm is not None:
                    yield norm

    def _norm(self, centered: NodeProto) -> Norm | None:
        """The norm of what a node takes the mean from."""
        x, subtracted = centered.input
        mean = self._mean(subtracted)
        if mean is None or mean[0] != x or not self._beside(subtracted, x, mean[1]):
            return None
        if self.index.types.get(x) != TensorProto.FLOAT:
            return None
        axes = mean[1]
        for node in self.index.consumers.get(centered.output[0], []):
            if node.domain not in STANDARD or node.op_type not in ("Div", "Mul"):
                continue
            if node.op_type == "Div" and node.input[0] != centered.output[0]:
                continue
            for other in (each for each in node.input if each != centered.output[0]):
                scale: npt.NDArray[np.float32] | None = None
                deviation = other if node.op_type == "Div" else self._inverse(other)
                if deviation is None and (product := self._made(other, "Mul")) is not None:
                    for part, factor in (product.input, reversed(product.input)):
                        deviation, scale = self._inverse(part), self._of_axes(factor, x, axes)
                        if deviation is not None and scale is not None:
                            break
                    else:
                        continue
                epsilon = None if deviation is None else self._epsilon(deviation, x, centered.output[0], axes)
                if epsilon is not None and self._beside(other if scale is None else part, x, axes):
                    return self._with_scale_and_shift(Norm(x, axes, epsilon, node.output[0], scale, None))
        return None

    def _with_scale_and_shift(self, norm: Norm) -> Norm:
        """With what is multiplied and added behind it."""
        x, axes, epsilon, last, scale, shift = (
            norm.x, norm.axes, norm.epsilon, norm.last, norm.scale, norm.shift
        )  # fmt: skip
        for op in ("Mul", "Add"):
            readers = self.index.consumers.get(last, [])
            if len(readers) != 1 or last in self.index.outputs or readers[0].op_type != op:
                continue
            others = [name for name in readers[0].input if name != last]
            values = self._of_axes(others[0], x, axes) if len(others) == 1 else None
            if values is None or (op == "Mul" and scale is not None):
                continue
            last = readers[0].output[0]
            scale, shift = (values, shift) if op == "Mul" else (scale, values)
        return Norm(x, axes, epsilon, last, scale, shift)

    def _epsilon(self, deviation: str, x: str, centered: str, axes: tuple[int, ...]) -> float | None:
        """What is added to the variance, of which this is the root."""
        root = self._made(deviation, "Sqrt")
        total = None if root is None else self._made(root.input[0], "Add")
        for part, other in () if total is None else (total.input, reversed(total.input)):
            epsilon = self.index.number(other)
            if epsilon is not None and epsilon > 0 and self._is_variance(part, x, centered, axes):
                return epsilon
        return None

    def _is_variance(self, name: str, x: str, centered: str, axes: tuple[int, ...]) -> bool:
        if (most := self._made(name, "Max")) is not None and len(most.input) == 2:  # of it and 0
            for part, other in (most.input, reversed(most.input)):
                if self.index.number(other) == 0:
                    name = part
        if (mean := self._mean(name)) is not None:
            return mean[1] == axes and self._is_square(mean[0], centered)
        difference = self._made(name, "Sub")
        if difference is None:
            return False
        squares, square = self._mean(difference.input[0]), self._made(difference.input[1], "Mul", "Pow")
        if squares is None or square is None or squares[1] != axes or not self._is_square(squares[0], x):
            return False
        mean = self._mean(square.input[0])
        return mean == (x, axes) and self._is_square(square.output[0], square.input[0])

    def _is_square(self, name: str, of: str) -> bool:
        node = self.index.producers.get(name)  # laid out as that is, by which axes are counted
        if node is None or node.op_type not in ("Mul", "Pow") or node.domain not in STANDARD or node.input[0] != of:
            return False
        return node.input[1] == of if node.op_type == "Mul" else self.index.number(node.input[1]) == 2

    def _inverse(self, name: str) -> str | None:
        """What 1 is divided by."""
        node = self._made(name, "Div", "Reciprocal")
        if node is None or (node.op_type == "Div" and self.index.number(node.input[0]) != 1):
            return None
        return str(node.input[-1])

    def _mean(self, name: str) -> tuple[str, tuple[int, ...]] | None:
        """Of what a tensor is the mean, along which axes; whatever axes of length 1 it has in their place."""
        node = self._made(name, "Div", "Mul", "ReduceMean")
        if node is None:
            return None
        if node.op_type == "ReduceMean":
            return self._reduced(node)
        for part, other in (node.input, reversed(node.input)) if node.op_type == "Mul" else (node.input,):
            total, factor = self._made(part, "ReduceSum"), self.index.number(other)
            found = None if total is None else self._reduced(total)
            if found is None or not factor:
                continue
            dims = [self.index.shapes[found[0]][axis] for axis in found[1]]
            count = np.prod([d for d in dims if isinstance(d, int)])
            if all(isinstance(d, int) for d in dims) and count:
                share = factor if node.op_type == "Mul" else 1 / factor
                if abs(share * float(count) - 1) < NEAR:
                    return found
        return None

    def _reduced(self, node: NodeProto) -> tuple[str, tuple[int, ...]] | None:
        """What a node reduces, and along which axes, of which it says all."""
        dims: Dims | None = self.index.shapes.get(node.input[0])
        axes = attribute(node, "axes", None)
        if len(node.input) > 1 and (stored := self.index.constants.get(node.input[1])) is not None:
            axes = numpy_helper.to_array(stored).reshape(-1).tolist()
        if dims is None or not axes:
            return None
        return str(node.input[0]), tuple(sorted(int(axis) % len(dims) for axis in axes))

    def _of_axes(self, name: str, x: str, axes: tuple[int, ...]) -> npt.NDArray[np.float32] | None:
        """A constant that differs along these axes of x alone, as long as they are."""
        stored, dims = self.index.constants.get(name), self.index.shapes.get(x)
        if stored is None or dims is None or stored.data_type != TensorProto.FLOAT or len(stored.dims) > len(dims):
            return None
        shape = [1] * (len(dims) - len(stored.dims)) + list(stored.dims)
        if any(size != 1 for i, size in enumerate(shape) if i not in axes):
            return None
        if any(not isinstance(dims[axis], int) for axis in axes):
            return None
        full = [int(dims[axis]) for axis in axes]
        own = numpy_helper.to_array(stored).reshape([shape[axis] for axis in axes])
        if any(size not in (1, length) for size, length in zip(own.shape, full, strict=True)):
            return None
        return np.ascontiguousarray(np.broadcast_to(own, full))

    def _beside(self, name: str, x: str, axes: tuple[int, ...]) -> bool:
        """Whether what is computed along axes is laid beside x with 1 in their place."""
        own, dims = self.index.shapes.get(name), self.index.shapes.get(x)
        if own is None or dims is None or len(own) != len(dims):
            return False
        if any(not isinstance(dims[axis], int) for axis in axes):
            return False
        known = [(a, b) for a, b in zip(own, dims, strict=True) if isinstance(a, int) and isinstance(b, int)]
        return all(own[axis] == 1 for axis in axes) and sum(a != b for a, b in known) <= len(axes)

    def _made(self, name: str, *operators: str) -> NodeProto | None:
        """Who computes a tensor, as far as it was only laid out anew since, where it is one of these operators."""
        node = self.index.producers.get(name)
        while node is not None and node.op_type in MOVED and node.domain in STANDARD:
            node = self.index.producers.get(node.input[0])
        return node if node is not None and node.op_type in operators and node.domain in STANDARD else None
