"""The same graph in fewer nodes, for precisions that round what each node makes.

What frameworks write of one layer in several nodes rounds as often: a scale and a shift after a convolution, which are
in its weights as well (Jacob et al. 2017, arXiv:1712.05877, section 3.2), and hard sigmoids (Howard et al. 2019,
arXiv:1905.02244, section 5.2) as sums that are clipped and divided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pocketzoo.zoo.graphs.contents import drop_dead, drop_unread, replace_nodes
from pocketzoo.zoo.graphs.fresh_names import STANDARD, FreshNames
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.node import attribute

Array = npt.NDArray[np.float64]
SAME = 1e-6  # relative difference of two constants that cancel each other
MODEST = (2.0**-8, 2.0**8)  # factors that take no weight out of the range of 16 bits


def with_fewer_roundings(model: ModelProto) -> ModelProto:
    """A graph that computes the same in float32, but for its own rounding; itself where nothing can be joined.

    Tensors that are left out are those between nodes that became one. Graphs inside nodes stay as they are.
    """
    made = ModelProto()
    made.CopyFrom(model)
    changed = False
    for _ in range(len(model.graph.node)):  # each turn at least one node becomes less
        if not _Joining(made).join():
            break
        changed = True
    return made if changed else model


class _Joining:
    """One turn over a graph, whose nodes are joined where they do not touch what was joined in the same turn."""

    def __init__(self, model: ModelProto) -> None:
        self.graph, self.index = model.graph, GraphIndex(model)
        self.fresh = FreshNames.of(model)
        self.reads = Counter({name: len(nodes) for name, nodes in self.index.consumers.items()})
        self.reads.update(self.index.outputs)
        # The graph's own.
        self.nodes: dict[str, NodeProto] = {node.output[0]: node for node in model.graph.node if node.output}
        self.before: dict[str, NodeProto] = {}  # what a node makes -> a node that is to stand before it
        self.touched: set[str] = set()  # what nodes make that were changed, or go

    def join(self) -> bool:
        ways = (self._shift_or_scale, self._hard_sigmoid, self._scale_of_readers)
        joined = [way(node) for node in list(self.graph.node) if node.domain in STANDARD for way in ways]
        if not any(joined):
            return False
        nodes = list[NodeProto]()
        for node in self.graph.node:
            nodes += [self.before[name] for name in node.output if name in self.before]
            nodes.append(node)
        replace_nodes(self.graph, nodes)
        drop_dead(self.graph)
        drop_unread(self.graph)
        self.graph.ClearField("value_info")
        return True

    def _constant(self, name: str) -> Array | None:
        tensor = self.index.constants.get(name)
        if tensor is None or tensor.data_type != TensorProto.FLOAT:
            return None
        return np.asarray(numpy_helper.to_array(tensor), np.float64)

    def _free(self, *nodes: NodeProto) -> bool:
        return all(node.output[0] not in self.touched for node in nodes)

    def _sides(self, node: NodeProto) -> Iterator[tuple[str, str]]:
        """What a node computes on, and its constant: of a sum or product in either order."""
        yield node.input[0], node.input[1]
        if node.op_type in ("Add", "Mul"):
            yield node.input[1], node.input[0]

    def _made_by(self, name: str, *operators: str) -> NodeProto | None:
        """Who makes a tensor that one node alone reads, where it is one of these operators."""
        node = self.nodes.get(name)
        if node is None or node.op_type not in operators or node.domain not in STANDARD or self.reads[name] != 1:
            return None
        return node

    def _store(self, values: Array, base: str) -> str:
        name = self.fresh(base)
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    # -- a scale or shift after a convolution

    def _shift_or_scale(self, node: NodeProto) -> bool:
        if node.op_type not in ("Add", "Div", "Mul", "Sub"):
            return False
        for read, other in self._sides(node):
            convolution, constant = self._made_by(read, "Conv"), self._constant(other)
            if convolution is None or constant is None or not self._free(node, convolution):
                continue
            old = self._weights(convolution)
            values = None if old is None else _of_channels(constant, len(old[0]), old[0].ndim)
            if old is None or values is None or (node.op_type in ("Div", "Mul") and not _modest(values)):
                continue
            weight, bias = old
            if node.op_type in ("Div", "Mul"):
                factor = 1 / values if node.op_type == "Div" else values
                weight = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
                bias = bias * factor
            else:
                bias = bias + (values if node.op_type == "Add" else -values)
            if not self._in_range(weight, bias):
                continue
            name = convolution.input[1]
            del convolution.input[1:]
            convolution.input.extend([self._store(weight, name), self._store(bias, f"{name}_bias")])
            self.touched.update((convolution.output[0], node.output[0]))
            convolution.output[0] = node.output[0]
            node.output[0] = self.fresh(f"{node.output[0]}_joined")  # nobody reads it
            return True
        return False

    def _weights(self, convolution: NodeProto) -> tuple[Array, Array] | None:
        """The weight of a convolution and its bias by channels, where both are constants; of no other reader."""
        weight = self._constant(convolution.input[1])
        if weight is None or self.reads[convolution.input[1]] != 1:
            return None
        if len(convolution.input) < 3 or not convolution.input[2]:
            return weight, np.zeros(len(weight))
        bias = self._constant(convolution.input[2])
        return None if bias is None else (weight, bias)

    def _in_range(self, *arrays: Array) -> bool:
        most = float(np.finfo(np.float32).max)
        return all(bool((np.abs(array) <= most).all()) for array in arrays)

    # -- clip(x + b, 0, c) / c, which is a hard sigmoid of 1/c and b/c

    def _hard_sigmoid(self, node: NodeProto) -> bool:
        if node.op_type not in ("Div", "Mul"):
            return False
        for read, other in self._sides(node):
            factor = self.index.number(other)
            if not factor or not self._keeps_rank(read, other):
                continue
            divisor = factor if node.op_type == "Div" else 1 / factor
            if self._divided(node, read, divisor):
                return True
        return False

    def _divided(self, node: NodeProto, read: str, divisor: float) -> bool:
        """Join what a node divides: a clip by itself, or its product with something."""
        product = self._made_by(read, "Mul")
        for clipped in [read] if product is None else product.input:
            clip = self._made_by(clipped, "Clip")
            found = None if clip is None else self._clipped_sum(clip)
            if clip is None or found is None or abs(found[2] - divisor) > SAME * abs(divisor):
                continue
            x, shift, most, total = found
            if not self._free(node, clip, total, *([product] if product is not None else [])):
                continue
            self.touched.update((node.output[0], clip.output[0], total.output[0]))
            out = node.output[0] if product is None else self.fresh(f"{node.output[0]}_gate")
            sigmoid = helper.make_node("HardSigmoid", [x], [out], alpha=1 / most, beta=shift / most)
            if product is None:
                node.CopyFrom(sigmoid)
            else:
                self.touched.add(product.output[0])
                rest = product.input[1] if product.input[0] == clipped else product.input[0]
                node.CopyFrom(helper.make_node("Mul", [rest, out], [node.output[0]], name=node.name))
                self.before[node.output[0]] = sigmoid
            return True
        return False

    def _clipped_sum(self, clip: NodeProto) -> tuple[str, float, float, NodeProto] | None:
        """What is clipped between 0 and a bound after a number was added: it, the number, the bound, the sum."""
        if self.index.opset >= 11:
            low, high = (self.index.number(clip.input[i]) if len(clip.input) > i else None for i in (1, 2))
        else:
            low, high = attribute(clip, "min", None), attribute(clip, "max", None)
        total = self._made_by(clip.input[0], "Add")
        if low != 0 or high is None or high <= 0 or total is None:
            return None
        for x, other in self._sides(total):
            shift = self.index.number(other)
            if shift is not None and self.index.types.get(x) == TensorProto.FLOAT and self._keeps_rank(x, other):
                return x, shift, float(high), total
        return None

    def _keeps_rank(self, name: str, constant: str) -> bool:
        """Whether a constant gives no axes to what it is beside."""
        rank = len(self.index.constants[constant].dims)
        return not rank or ((dims := self.index.shapes.get(name)) is not None and len(dims) >= rank)

    # -- a scale before convolutions, behind a shift or not

    def _scale_of_readers(self, node: NodeProto) -> bool:
        if node.op_type != "Mul":
            return False
        for read, other in self._sides(node):
            factor = self.index.number(other)
            if not factor or not _modest(np.array([factor])) or not self._keeps_rank(read, other):
                continue
            if self._constant(read) is not None:
                continue
            readers = self.index.consumers.get(node.output[0], [])
            shift, shifted = None, ""
            if len(readers) == 1 and readers[0].op_type == "Add" and self.reads[node.output[0]] == 1:
                own = self.nodes[readers[0].output[0]]
                sides = [name for name in own.input if name != node.output[0]]
                shift = self.index.number(sides[0]) if len(sides) == 1 else None
                if shift is None or not self._keeps_rank(read, sides[0]) or not self._free(own):
                    return False
                shifted, readers = own.output[0], self.index.consumers.get(own.output[0], [])
            end = shifted or node.output[0]
            convolutions = [self.nodes[each.output[0]] for each in readers if each.op_type == "Conv"]
            if not readers or len(convolutions) < self.reads[end] or not self._free(node, *convolutions):
                return False
            weights = [self._weights(each) for each in convolutions]
            if any(each is None for each in weights) or any(each.input[0] != end for each in convolutions):
                return False
            scaled = [each[0] * factor for each in weights if each is not None]
            moved = np.zeros(1) if shift is None else np.array([shift / factor])
            if not self._in_range(*scaled, moved):
                return False
            for each, weight in zip(convolutions, scaled, strict=True):
                each.input[1] = self._store(weight, each.input[1])
                self.touched.add(each.output[0])
            self.touched.update(name for name in (node.output[0], shifted) if name)
            if shifted:
                own = self.nodes[shifted]
                own.CopyFrom(helper.make_node("Add", [read, self._store(moved, f"{other}_shift")], [shifted],
                                              name=own.name))  # fmt: skip
            else:
                for each in convolutions:
                    each.input[0] = read
            return True
        return False


def _modest(factors: Array) -> bool:
    least, most = MODEST
    return bool(((np.abs(factors) >= least) & (np.abs(factors) <= most)).all())


def _of_channels(constant: Array, channels: int, rank: int) -> Array | None:
    """A constant beside what a convolution makes as one value for each channel; None where it has more, or is wider."""
    if constant.ndim > rank:
        return None
    shape = (1,) * (rank - constant.ndim) + constant.shape
    if any(size != 1 for i, size in enumerate(shape) if i != 1) or shape[1] not in (1, channels):
        return None
    return np.broadcast_to(constant.reshape(-1), (channels,))
