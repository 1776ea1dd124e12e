"""If nodes whose condition is known: the branch that runs takes the node's place.

What torch exports of a ``squeeze`` is an If on a length, and its branches have different ranks, which engines refuse.
Where the lengths are known the condition is a constant. No value of a tensor is computed but shapes, and what is made
of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pocketzoo.zoo.graphs.contents import held_tensor, replace_nodes
from pocketzoo.zoo.graphs.fresh_names import STANDARD, FreshNames, defined_names, graphs, inner_graphs, rename
from pocketzoo.zoo.graphs.node import attribute
from pocketzoo.zoo.graphs.shape_inference import inferred

Values = npt.NDArray[Any]  # of whole numbers or truth values; None where one is not known
MANY = 4096  # values of a constant that may be a shape
ROUNDS = 64  # branches inside branches
DEEP = 200  # nodes between a condition and the shapes that it comes from


Runs = Callable[[ModelProto], bool]


def settled(model: ModelProto, lengths: Mapping[str, int], runs: Runs | None = None) -> ModelProto:
    """The graph without the If nodes that need not be asked where free axes have these ``lengths``.

    What it says of its axes stays. The graph itself where there is no such node. ``runs`` says whether a graph runs
    with these lengths: of an If whose condition is not known the branch is taken that alone does.
    """
    if not any(node.op_type == "If" for graph in graphs(model.graph) for node in graph.node):
        return model
    made = _settled(model, lengths)
    while runs is not None:
        choices = (_settled(each, lengths) for each in _either(made))
        able = [each for each in choices if runs(each)]
        if len(able) != 1:
            break
        made = able[0]
    return made


def _settled(model: ModelProto, lengths: Mapping[str, int]) -> ModelProto:
    made = ModelProto()
    made.CopyFrom(model)
    for _ in range(ROUNDS):
        if not _settle(made, lengths):
            break
        made.graph.ClearField("value_info")
    return made


def _either(model: ModelProto) -> list[ModelProto]:
    """The graph with one, and with the other, of the branches of its first If; none where it has no If."""
    found = next((i for i, node in enumerate(model.graph.node) if node.op_type == "If"), None)
    made = []
    for name in ("then_branch", "else_branch") if found is not None else ():
        each = ModelProto()
        each.CopyFrom(model)
        node = each.graph.node[found or 0]
        defined = Counter(name for graph in graphs(each.graph) for name in defined_names(graph))
        nodes = list(each.graph.node)
        inlined = _inlined(node, attribute(node, name, None), each.graph, defined, FreshNames.of(each))
        replace_nodes(each.graph, [*nodes[:found], *inlined, *nodes[(found or 0) + 1 :]])
        each.graph.ClearField("value_info")
        made.append(each)
    return made


def _settle(model: ModelProto, lengths: Mapping[str, int]) -> bool:
    """Put branches in the place of nodes, once; whether there were any."""
    known = _Known(model, lengths)
    defined = Counter(name for graph in graphs(model.graph) for name in defined_names(graph))
    fresh = FreshNames.of(model)
    changed = False
    for graph in list(graphs(model.graph)):
        nodes: list[NodeProto] = []
        found = False
        for node in graph.node:
            condition = known(node.input[0]) if node.op_type == "If" and node.domain in STANDARD else None
            if condition is None or condition.size != 1 or condition.item() is None:
                nodes.append(node)
                continue
            branch = attribute(node, "then_branch" if condition.item() else "else_branch", None)
            nodes += _inlined(node, branch, graph, defined, fresh)
            found = True
        if found:
            replace_nodes(graph, nodes)
            changed = True
            break  # graphs further inside may be gone, or elsewhere
    return changed


def _inlined(
    node: NodeProto, branch: GraphProto, graph: GraphProto, defined: Mapping[str, int], fresh: FreshNames
) -> list[NodeProto]:
    """The nodes of a branch, under names of their own where others have them; constants go to the graph around."""
    inside = GraphProto()
    inside.CopyFrom(branch)
    own = {name for each in graphs(inside) for name in defined_names(each)}
    renamed = {name: fresh(name) for name in sorted(own) if defined[name] > 1}
    for each in graphs(inside):
        rename(each, renamed)
    graph.initializer.extend(inside.initializer)
    graph.sparse_initializer.extend(inside.sparse_initializer)
    ends = [
        helper.make_node("Identity", [given.name], [name], name=fresh(f"{name}_branch"))
        for given, name in zip(inside.output, node.output, strict=False)
        if name
    ]
    return [*inside.node, *ends]


class _Known:
    """The values of tensors that follow from shapes and constants alone."""

    def __init__(self, model: ModelProto, lengths: Mapping[str, int]) -> None:
        light = ModelProto()
        light.CopyFrom(model)
        for value in light.graph.input:
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param in lengths:
                    dim.dim_value = lengths[dim.dim_param]
        for graph in graphs(light.graph):  # they may say less, or an axis that is fixed now
            graph.ClearField("value_info")
            for value in graph.output:
                value.type.tensor_type.ClearField("shape")
        self.shapes: dict[str, list[int | None]] = {}
        self.kinds: dict[str, int] = {}
        self.constants: dict[str, TensorProto] = {}
        self.producers: dict[str, NodeProto] = {}
        for graph in graphs(model.graph):
            self.constants |= {t.name: t for t in graph.initializer}
            self.producers |= {name: node for node in graph.node for name in node.output if name}
        # Two branches may call different things the same.
        often = Counter(name for graph in graphs(model.graph) for name in defined_names(graph))
        self.ambiguous = {name for name, count in often.items() if count > 1}
        self.cache: dict[str, Values | None] = {}
        for _ in range(ROUNDS):
            self._infer(light)
            # onnx follows fewer values than this does: what is known it is told, until nothing is new.
            if not self._tell(light.graph):
                break
            self.cache.clear()

    def _infer(self, light: ModelProto) -> None:
        for found in inferred(light):
            for graph in graphs(found):
                self.shapes |= {t.name: list(t.dims) for t in graph.initializer}
                for value in (*graph.input, *graph.value_info, *graph.output):
                    if value.type.tensor_type.elem_type:
                        self.kinds[value.name] = value.type.tensor_type.elem_type
                    if (tensor := value.type.tensor_type).HasField("shape"):
                        dims = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
                        if value.name not in self.shapes or None in self.shapes[value.name]:
                            self.shapes[value.name] = dims

    def _tell(self, graph: GraphProto) -> bool:
        """Store what nodes of a graph are known to make; whether there was any."""
        told, rest = False, []
        for node in graph.node:
            for inner in inner_graphs(node):
                told |= self._tell(inner)
            name = str(node.output[0]) if len(node.output) == 1 else ""
            value = self(name) if name and node.op_type != "Constant" else None
            if value is None or value.size > MANY or None in value.reshape(-1).tolist():
                rest.append(node)
                continue
            if name not in self.kinds:
                rest.append(node)
                continue
            kind = helper.tensor_dtype_to_np_dtype(self.kinds[name])
            graph.initializer.append(numpy_helper.from_array(value.astype(kind), name))
            told = True
        if told:
            replace_nodes(graph, rest)
        return told

    def __call__(self, name: str, depth: int = 0) -> Values | None:
        """The values of a tensor; None where nothing is known of them."""
        if name in self.ambiguous or depth > DEEP:
            return None
        if name not in self.cache:
            self.cache[name] = None  # of a circle, which no valid graph has
            self.cache[name] = self._value(name, depth)
        return self.cache[name]

    def _value(self, name: str, depth: int) -> Values | None:
        if (constant := self.constants.get(name)) is not None:
            return _as_values(constant)
        node = self.producers.get(name)
        if node is None or node.domain not in STANDARD or inner_graphs(node) or len(node.output) != 1:
            return None
        if node.op_type == "Constant":
            return _as_values(constant) if (constant := held_tensor(node)) is not None else None
        if node.op_type == "Shape":
            dims = self._dims(node.input[0])
            return None if dims is None else dims[attribute(node, "start", 0) : attribute(node, "end", None)]
        if node.op_type == "Size":
            dims = self._dims(node.input[0])
            return None if dims is None or None in dims else np.array(np.prod([int(d) for d in dims]), object)
        if node.op_type not in RULES:
            return None
        read = [self(each, depth + 1) for each in node.input if each]
        if any(each is None for each in read):
            return None
        try:
            return RULES[node.op_type](node, [each for each in read if each is not None])
        except (ValueError, IndexError, TypeError, ZeroDivisionError):  # of a graph that does not run either
            return None

    def _dims(self, name: str) -> Values | None:
        if name in self.ambiguous or (dims := self.shapes.get(name)) is None:
            return None
        return np.array([*dims, None], object)[:-1]


def _as_values(tensor: TensorProto) -> Values | None:
    if np.prod(tensor.dims) > MANY or tensor.data_location == TensorProto.EXTERNAL:
        return None
    array = numpy_helper.to_array(tensor)
    return array.astype(object) if array.dtype.kind in "iub" else None


def _each(function: Callable[..., Any]) -> Callable[[NodeProto, Sequence[Values]], Values]:
    """A rule of an operator that takes values one by one."""

    def rule(node: NodeProto, read: Sequence[Values]) -> Values:
        every = np.broadcast_arrays(*read)
        made = [None if None in values else function(*values) for values in zip(*(e.flat for e in every), strict=True)]
        return np.array([*made, None], object)[:-1].reshape(every[0].shape)

    return rule


def _axes(node: NodeProto, read: Sequence[Values]) -> tuple[int, ...]:
    """Of Squeeze and Unsqueeze: an attribute before opset 13, an input since."""
    given = read[1].reshape(-1) if len(read) > 1 else attribute(node, "axes", ())
    return tuple(int(axis) for axis in given)


def _slice(node: NodeProto, read: Sequence[Values]) -> Values:
    data, starts, ends = read[0], read[1].reshape(-1), read[2].reshape(-1)
    axes = read[3].reshape(-1) if len(read) > 3 else range(len(starts))
    steps = read[4].reshape(-1) if len(read) > 4 else [1] * len(starts)
    cut = [slice(None)] * data.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        # The least whole number as the end of a step backwards is before the first.
        cut[int(axis)] = slice(int(start), None if step < 0 and end < -data.shape[int(axis)] else int(end), int(step))
    return data[tuple(cut)]


def _squeeze(node: NodeProto, read: Sequence[Values]) -> Values:
    return np.squeeze(read[0], _axes(node, read) or None)


def _cast(node: NodeProto, read: Sequence[Values]) -> Values:
    kind = attribute(node, "to", 0)
    if kind == TensorProto.BOOL:
        return _each(bool)(node, read)
    if kind in (TensorProto.INT64, TensorProto.INT32):
        return _each(int)(node, read)
    raise ValueError("values are not followed as floats")


def _filled(node: NodeProto, read: Sequence[Values]) -> Values:
    value = attribute(node, "value", None)
    array = None if value is None else numpy_helper.to_array(value)
    if array is None or array.dtype.kind not in "iub" or np.prod([int(n) for n in read[0]]) > MANY:
        raise ValueError("of floats, or too many")
    return np.full([int(n) for n in read[0]], array.item(), object)


def _quotient(a: int, b: int) -> int:
    """Towards zero, as ONNX divides whole numbers."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


RULES: dict[str, Callable[[NodeProto, Sequence[Values]], Values]] = {
    "Add": _each(lambda a, b: a + b),
    "And": _each(lambda a, b: bool(a and b)),
    "Cast": _cast,
    "Concat": lambda node, read: np.concatenate(list(read), attribute(node, "axis", 0)),
    "ConstantOfShape": _filled,
    "Div": _each(_quotient),
    "Equal": _each(lambda a, b: a == b),
    "Gather": lambda node, read: np.array(
        np.take(read[0], read[1].astype(np.int64), attribute(node, "axis", 0)), object
    ),
    "Greater": _each(lambda a, b: a > b),
    "GreaterOrEqual": _each(lambda a, b: a >= b),
    "Identity": lambda node, read: read[0],
    "Less": _each(lambda a, b: a < b),
    "LessOrEqual": _each(lambda a, b: a <= b),
    "Mul": _each(lambda a, b: a * b),
    "Not": _each(lambda a: not a),
    "Or": _each(lambda a, b: bool(a or b)),
    "Reshape": lambda node, read: read[0].reshape([int(n) for n in read[1]]),
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": _each(lambda a, b: a - b),
    "Transpose": lambda node, read: read[0].transpose(attribute(node, "perm", None)),
    "Unsqueeze": lambda node, read: np.expand_dims(read[0], _axes(node, read)),
}
