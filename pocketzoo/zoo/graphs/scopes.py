"""A graph, and the graphs inside its nodes, each as one by itself with the sizes of all its tensors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pocketzoo.core.arrays import Arrays
from pocketzoo.zoo.catalog.signature import Dim, TensorSpec
from pocketzoo.zoo.graphs.fresh_names import STANDARD, captured, inner_graphs
from pocketzoo.zoo.graphs.index import GraphIndex, graph_inputs
from pocketzoo.zoo.graphs.node import attribute
from pocketzoo.zoo.graphs.operator_macs import Sizes, computes
from pocketzoo.zoo.graphs.signature import signature_of
from pocketzoo.zoo.graphs.states import calls_axis

STRUCTURE = (TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING)  # of constants that are shapes or axes
MOST_PASSES = 1 << 20  # of a loop; a count above stands for any number
# Runs a graph: inputs, and the tensors whose dims and whose values are asked for. What it cannot tell is left out.
Observed = tuple[dict[str, tuple[int, ...]], dict[str, npt.NDArray[Any]]]
Observe = Callable[[ModelProto, Arrays, Collection[str], Collection[str]], Observed]


def outermost(model: ModelProto, example: Arrays | None, observe: Observe | None) -> Scope:
    """A graph as it reads one sample, ``example``, by which free axes have lengths; without, the batch has one of 1."""
    specs, example = signature_of(model).inputs, example or {}
    given = {spec.name: _one_call(spec, example[spec.name]) for spec in specs if spec.name in example}
    lengths = {
        str(dim): given[spec.name].shape[axis]
        for spec in specs
        if spec.name in given and given[spec.name].ndim == len(spec.shape)
        for axis, dim in spec.free.items()
    }
    dims: dict[str, Sequence[Dim]] = {}
    for spec in specs:
        if spec.name in given and given[spec.name].ndim == len(spec.shape):
            dims[spec.name] = given[spec.name].shape
        else:
            dims[spec.name] = [
                1 if axis == spec.batch else lengths.get(str(dim), _dim(dim)) for axis, dim in enumerate(spec.shape)
            ]
    feeds: dict[str, npt.NDArray[Any]] = {}
    for spec in specs:
        sizes = [dim for dim in dims[spec.name] if isinstance(dim, int)]
        if len(sizes) == len(spec.shape) and spec.dtype != "str" and _is_type(spec.dtype):
            feeds[spec.name] = np.resize(given.get(spec.name, np.zeros(1)), sizes).astype(spec.dtype)
    return Scope(model, dims, feeds, observe)


def _one_call(spec: TensorSpec, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Of a sequence of calls, which is what a model with states reads as a sample, the first.

    And of samples, where no axis of the graph counts them: both are before its own axes. What has more than that is
    not an input of the graph.
    """
    more = x.ndim - len(spec.shape)
    if more > (2 if spec.batch is None else 1):
        return x
    for _ in range(more):
        x = x.take(0, axis=calls_axis(spec))
    return x


def _dim(dim: Dim) -> Dim:
    """Some exporters write an axis of any length as -1."""
    return dim if isinstance(dim, str) or dim >= 0 else f"any{dim}"


def _is_type(name: str) -> bool:
    try:
        np.dtype(name)
    except TypeError:  # of a sequence or map, or a type of ml_dtypes by a name that numpy does not know
        return False
    return True


@dataclass
class Scope:
    """One graph with what is around it: constants of outer graphs are its own, their tensors its inputs."""

    model: ModelProto
    given: Mapping[str, Sequence[Dim]]  # dims of its inputs, of which names are not known
    feeds: Arrays  # one value for each input that is known
    observe: Observe | None
    around: Scope | None = None
    read: frozenset[str] = frozenset()  # what it reads from around it
    number: int = field(default_factory=count().__next__)

    def key(self, name: str) -> tuple[int, str]:
        """The same for a tensor wherever it is read, and no other's."""
        return self.around.key(name) if self.around is not None and name in self.read else (self.number, name)

    def stored(self, name: str) -> dict[tuple[int, str], TensorProto] | None:
        """The constants that a tensor is computed from, by key: not scales, shapes or axes. None where inputs are."""
        found: dict[tuple[int, str], TensorProto] = {}
        seen, open_ = set[str](), [name]
        while open_:
            each = open_.pop()
            if each in seen:
                continue
            seen.add(each)
            if self.around is not None and each in self.read:
                below = self.around.stored(each)
                if below is None:
                    return None
                found |= below
                continue
            if each not in self._constant:
                return None
            node = self.index.producers.get(each)
            tensor = self.index.constants.get(each) or _constant(node)
            if tensor is None:
                assert node is not None
                quantizes = node.op_type in ("DequantizeLinear", "QuantizeLinear")
                operands = node.input[:1] if quantizes else node.input
                open_ += [operand for operand in reversed(operands) if operand]
            elif tensor.data_type not in STRUCTURE:
                found[self.key(each)] = tensor
        return found

    @cached_property
    def _constant(self) -> set[str]:
        """The tensors that depend on no input, those of outer graphs aside."""
        known = set(self.index.constants)

        def is_known(name: str) -> bool:
            if self.around is not None and name in self.read:
                return self.around.stored(name) is not None
            return not name or name in known

        for node in self.index.nodes:
            if _constant(node) is not None or (
                node.input and not inner_graphs(node) and all(is_known(name) for name in node.input)
            ):
                known.update(node.output)
        return known

    @cached_property
    def index(self) -> GraphIndex:
        """Nodes and constants."""
        return GraphIndex(self.model)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The dims of each tensor, as far as inference knows them, or a run of those it does not know shows them."""
        shapes = self.index.shapes_at(self.given)
        shapes |= {name: tuple(tensor.dims) for name, tensor in self.index.constants.items()}
        wanted = [
            name
            for node in self.index.nodes
            if computes(node)
            for name in (*node.input, *node.output[:1])
            if name and name not in shapes
        ]
        if wanted and self.observe is not None and self._is_fed:
            shapes |= self.observe(self.model, self.feeds, dict.fromkeys(wanted), ())[0]
        return shapes

    @property
    def _is_fed(self) -> bool:
        return all(value.name in self.feeds for value in graph_inputs(self.model))

    def dims(self, node: NodeProto) -> tuple[list[Sizes | None], list[Sizes | None]]:
        """The dims of a node's operands and outputs; None where one is left out or not known."""
        shapes = self.shapes
        return [shapes.get(name) for name in node.input], [shapes.get(name) for name in node.output]

    def values(self, names: Collection[str]) -> dict[str, npt.NDArray[Any]]:
        """What tensors hold for the sample, those that depend on nothing and those that a run shows."""
        constants = {
            name: numpy_helper.to_array(self.index.constants[name]) for name in names if name in self.index.constants
        }
        found = {name: np.asarray(self.feeds[name]) for name in names if name in self.feeds} | constants
        wanted = [name for name in names if name and name not in found]
        if wanted and self.observe is not None and self._is_fed:
            found |= self.observe(self.model, self.feeds, (), dict.fromkeys(wanted))[1]
        return found

    def passes(self, node: NodeProto) -> int | None:
        """How often the graph inside a node runs; None where that is not known."""
        if node.domain not in STANDARD:
            return None
        if node.op_type == "Scan" and (scanned := int(attribute(node, "num_scan_inputs", 0))):
            name = node.input[-scanned]
            first = self.shapes_of([name]).get(name)
            axis = next(iter(attribute(node, "scan_input_axes", [])), 0)
            return None if first is None or self.index.opset < 9 else first[axis]
        if node.op_type == "Loop" and node.input[0]:
            most = self.values([node.input[0]]).get(node.input[0])
            times = None if most is None or most.size != 1 else int(most.reshape(()))
            return times if times is not None and 0 <= times <= MOST_PASSES else None
        return None

    def shapes_of(self, names: Collection[str]) -> dict[str, tuple[int, ...]]:
        """The dims of tensors, by a run where inference does not know them."""
        found = {name: self.shapes[name] for name in names if name in self.shapes}
        return found | {name: value.shape for name, value in self.values([n for n in names if n not in found]).items()}

    def inside(self, node: NodeProto, graph: GraphProto) -> Scope:
        """A graph inside a node, as it first runs: with what it reads from around it as inputs."""
        inner = ModelProto(ir_version=self.model.ir_version, opset_import=self.model.opset_import)
        inner.graph.CopyFrom(graph)
        around = [name for name in sorted(captured(node)) if name not in _own(graph)]
        constants = [name for name in around if name in self.index.constants]
        inner.graph.initializer.extend(self.index.constants[name] for name in constants)
        outer = [name for name in around if name not in constants]
        formal = [value.name for value in graph.input]
        shapes = self.shapes_of([*outer, *(name for name in node.input if name)])
        types = self.index.types
        for name in outer:
            inner.graph.input.append(helper.make_tensor_value_info(name, types.get(name, 1), shapes.get(name)))
        values = self.values([*outer, *(name for name in node.input if name)]) if self.observe is not None else {}
        given: dict[str, Sequence[Dim]] = {name: shapes[name] for name in outer if name in shapes}
        feeds = {name: values[name] for name in outer if name in values}
        for name, (shape, value, kind) in self._bound(node, formal, shapes, values).items():
            declared = next(each for each in inner.graph.input if each.name == name)
            if kind and not declared.type.tensor_type.elem_type:
                declared.CopyFrom(helper.make_tensor_value_info(name, kind, shape))
            if shape is not None:
                given[name] = shape
            if value is not None:
                feeds[name] = value
        return Scope(inner, given, feeds, self.observe, self, frozenset(around))

    def _bound(
        self,
        node: NodeProto,
        formal: Sequence[str],
        shapes: Mapping[str, tuple[int, ...]],
        values: Arrays,
    ) -> dict[str, tuple[tuple[int, ...] | None, npt.NDArray[Any] | None, int]]:
        """What the inputs of a loop's body are at the first pass: dims, value and type, as far as they are known."""
        bound: dict[str, tuple[tuple[int, ...] | None, npt.NDArray[Any] | None, int]] = {}
        operands = list(node.input)
        if node.op_type == "Loop":
            first: list[npt.NDArray[Any]] = [np.array(0, np.int64), np.array(True)]
            for name, begins in zip(formal, first, strict=False):
                bound[name] = ((), begins, helper.np_dtype_to_tensor_dtype(begins.dtype))
            formal, operands = formal[2:], operands[2:]
        scans = int(attribute(node, "num_scan_inputs", 0)) if node.op_type == "Scan" else 0
        axes = list(attribute(node, "scan_input_axes", [])) or [0] * scans
        for place, (name, operand) in enumerate(zip(formal, operands, strict=False)):
            shape, value = shapes.get(operand), values.get(operand)
            scanned = place - (len(operands) - scans)
            if scanned >= 0 and scans:
                axis = axes[scanned]
                if shape is not None:
                    axis %= len(shape)
                    shape = (*shape[:axis], *shape[axis + 1 :])
                value = None if value is None or not value.shape[axis] else value.take(0, axis=axis)
            bound[name] = (shape, value, self.index.types.get(operand, 0))
        return bound


def _constant(node: NodeProto | None) -> TensorProto | None:
    """What a node holds that is a constant, by the name that others read it by."""
    if node is None or node.op_type != "Constant" or not node.attribute:
        return None
    value = helper.get_attribute_value(node.attribute[0])
    if not isinstance(value, TensorProto):
        kind = np.float32 if "float" in node.attribute[0].name else None
        try:
            value = numpy_helper.from_array(np.asarray(value, kind))
        except (TypeError, ValueError):  # texts, and what is sparse
            return None
    named = TensorProto()
    named.CopyFrom(value)
    named.name = node.output[0]
    return named


def _own(graph: GraphProto) -> set[str]:
    return {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
