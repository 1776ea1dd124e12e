"""A graph in the making: values with their dims, and constants in every role that the standard lets an operand have."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

Array = Any
Dims = tuple[int | None, ...]  # None is the batch
# What a compressor calls what it puts in: a foreign graph may have called something so already.
SUFFIXES = (
    "scale", "zero", "quantized", "dequantized", "bias", "product", "addend", "beta", "shape", "dynamic", "sums",
    "floats", "step", "levels", "smooth", "unscale", "rows", "constant", "dynamic_scale", "1",
)  # fmt: skip
ROLES = ("initializer", "initializer", "initializer", "Constant", "computed")


class Value(NamedTuple):
    """A tensor that depends on the inputs, by name; the first axis is the batch."""

    name: str
    dims: Dims

    @property
    def rank(self) -> int:
        """How many axes it has."""
        return len(self.dims)


class Weight(NamedTuple):
    """A constant that a layer reads, for others to share."""

    name: str
    array: Array


@dataclass
class Draft:
    """Nodes, constants, inputs and outputs of one graph; all chance is that of ``random`` and ``numbers``."""

    random: random.Random
    numbers: np.random.Generator
    opset: int
    dtype: type[np.floating[Any]] = np.float32
    nodes: list[NodeProto] = field(default_factory=list)
    initializers: dict[str, Array] = field(default_factory=dict)
    inputs: list[ValueInfoProto] = field(default_factory=list)
    functions: list[Any] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    weights: list[Weight] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    used: list[str] = field(default_factory=list)  # blocks, in order
    sizes: dict[str, int] = field(default_factory=dict)  # of axes that are free, and count no samples
    swapped: bool = False  # the batch is the second axis of the first input
    separate: bool = False  # there is none
    small: bool = False  # one operator and what its operands need, and nothing besides

    @property
    def kind(self) -> int:
        """The element type of ``dtype``."""
        return int(helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype)))

    def chance(self, of: float) -> bool:
        """True with this probability."""
        return self.random.random() < of

    def name(self, base: str) -> str:
        """A name that nothing else has, sometimes one that looks as if another had been made from it."""
        if self.taken and self.chance(0.08):
            base = f"{self.random.choice(sorted(self.taken))}_{self.random.choice(SUFFIXES)}"
        elif self.chance(0.1):
            base = self.random.choice((f"/block.{len(self.nodes)}/{base}", f"{base}.weight", f"m::{base}"))
        name, count = base, 0
        while name in self.taken:
            count += 1
            name = f"{base}{count}"
        self.taken.add(name)
        return name

    def normal(self, *dims: int, fan: int = 0) -> Array:
        """Random numbers, whose channels have different reach; of a weight by its ``fan`` in."""
        values = self.numbers.normal(size=dims) * (1.0 if not fan else fan**-0.5)
        if fan and not self.small and self.chance(0.06):  # what training leaves behind: nothing, all alike, tiny, huge
            values = self._odd(values)
        if self.chance(0.3) and len(dims) > 1:
            values *= self.numbers.uniform(0.2, 2.0, dims[0])[(..., *[None] * (len(dims) - 1))]
        return values.astype(self.dtype)

    def _odd(self, values: Array) -> Array:
        way = self.random.choice(("zero", "channel", "alike", "small", "one"))
        if way == "channel" and values.ndim > 1:
            values[self.random.randrange(values.shape[0])] = 0
        elif way == "one":
            values.flat[self.random.randrange(values.size)] *= 30
        elif way == "small":
            values = values * (1e-3 if self.dtype == np.float16 else 1e-6)
        elif way == "zero":
            values = np.zeros_like(values)
        elif way == "alike":
            values = np.full_like(values, 0.25)
        return values

    def node(self, operator: str, inputs: Sequence[str], dims: Dims = (), /, **attributes: Any) -> Value:
        """Add a node with one output."""
        out = self.name(operator.lower()[:5])
        self.nodes.append(helper.make_node(operator, list(inputs), [out], **attributes))
        return Value(out, dims)

    def integers(self, *values: int) -> str:
        """A constant list of whole numbers, for operands such as axes and shapes."""
        return self.stored(np.array(values, np.int64), "i")

    def stored(self, array: Array, base: str) -> str:
        """An initializer."""
        name = self.name(base)
        self.initializers[name] = np.asarray(array)
        return name

    def constant(self, array: Array, base: str = "w", role: str = "") -> str:
        """A constant operand: stored, made by a Constant node, or computed from other constants."""
        role = role or self.random.choice(ROLES)
        if role == "initializer":
            return self.stored(array, base)
        listed = self._listed(array) if role == "Constant" and self.opset >= 12 and self.chance(0.3) else None
        if listed is not None:
            return listed
        if role == "Constant":
            tensor = numpy_helper.from_array(np.asarray(array), base)
            return self.node("Constant", [], value=tensor).name
        return self._computed(np.asarray(array), base)

    def _listed(self, array: Array) -> str | None:
        """Of a Constant node that has numbers in place of a tensor, or of ConstantOfShape."""
        if array.dtype != np.float32 or not array.size:
            return None
        if array.ndim == 0:
            return self.node("Constant", [], value_float=float(array)).name
        if array.ndim == 1:
            return self.node("Constant", [], value_floats=array.tolist()).name
        if (array == array.flat[0]).all():
            value = numpy_helper.from_array(array.reshape(-1)[:1], "v")
            return self.node("ConstantOfShape", [self.integers(*array.shape)], value=value).name
        return None

    def _computed(self, array: Array, base: str) -> str:
        ways: list[Callable[[Array, str], str]] = [self._identity, self._halves]
        if array.ndim > 1:
            ways += [self._transposed, self._normalized, self._reshaped, self._joined, self._ordered, self._unsqueezed]
            ways += [self._sliced] * (self.opset >= 10) + [self._expanded] * (self.opset >= 8)
        if array.dtype == np.float32 and self.opset >= 9:
            ways.append(self._widened)
        if not np.abs(array).max(initial=0) < 1e3:  # a mask, of which a half is another or a double none
            ways = [self._identity]
        return self.random.choice(ways)(array, base)

    def _identity(self, array: Array, base: str) -> str:
        return self.node("Identity", [self.stored(array, base)]).name

    def _halves(self, array: Array, base: str) -> str:
        half = array / array.dtype.type(2)
        two = self.stored(np.array([2], array.dtype) if array.ndim else np.array(2, array.dtype), "two")
        return self.node("Mul", [self.stored(half, base), two]).name

    def _transposed(self, array: Array, base: str) -> str:
        perm = list(range(array.ndim))
        self.random.shuffle(perm)
        return self.node("Transpose", [self.stored(array.transpose(np.argsort(perm)), base)], perm=perm).name

    def _reshaped(self, array: Array, base: str) -> str:
        return self.node("Reshape", [self.stored(array.reshape(-1), base), self.integers(*array.shape)]).name

    def _normalized(self, array: Array, base: str) -> str:
        """As weight norm does it."""
        norm = np.sqrt(np.square(array).sum(tuple(range(1, array.ndim)), keepdims=True))
        direction = self.stored(array * array.dtype.type(3), base)
        length = self.reduce("ReduceL2", direction, tuple(range(1, array.ndim)), keep=True)
        return self.node("Mul", [self.node("Div", [direction, length]).name, self.stored(norm, "g")]).name

    def _joined(self, array: Array, base: str) -> str:
        axis = self.random.randrange(array.ndim)
        cut = self.random.randint(1, array.shape[axis])
        parts = [part for part in np.split(array, [cut], axis) if part.size]
        return self.node("Concat", [self.stored(part, base) for part in parts], axis=axis).name

    def _ordered(self, array: Array, base: str) -> str:
        axis = self.random.randrange(array.ndim)
        order = list(range(array.shape[axis]))
        self.random.shuffle(order)
        kept = np.take(array, np.argsort(order), axis)
        return self.node("Gather", [self.stored(kept, base), self.integers(*order)], axis=axis).name

    def _unsqueezed(self, array: Array, base: str) -> str:
        axes = [self.integers(0)] if self.opset >= 13 else []
        attributes: dict[str, Any] = {} if axes else {"axes": [0]}
        stored = self.node("Unsqueeze", [self.stored(array, base), *axes], **attributes).name
        return self.node("Squeeze", [stored, *axes], **attributes).name

    def _sliced(self, array: Array, base: str) -> str:
        wide = self.stored(np.concatenate([array, array * 2]), base)
        return self.node("Slice", [wide, *(self.integers(each) for each in (0, array.shape[0], 0))]).name

    def _expanded(self, array: Array, base: str) -> str:
        return self.node("Expand", [self.stored(array, base), self.integers(*[1] * array.ndim)]).name

    def _widened(self, array: Array, base: str) -> str:
        return self.node("Cast", [self.stored(array.astype(np.float16), base)], to=TensorProto.FLOAT).name

    def reduce(self, operator: str, name: str, axes: Sequence[int], *, keep: bool) -> str:
        """A reduction; its axes became an input with opset 18."""
        if self.opset >= 18:
            return self.node(operator, [name, self.integers(*axes)], keepdims=int(keep)).name
        return self.node(operator, [name], axes=list(axes), keepdims=int(keep)).name

    def weight(self, array: Array, x: Value, *, computed: bool = True) -> str:
        """What a layer multiplies by: a constant in any role, one that another layer has, or computed at run time."""
        shared = [weight for weight in self.weights if weight.array.shape == array.shape]
        if shared and self.chance(0.4):
            return self.random.choice(shared).name
        name = self.constant(array)
        if computed and not self.small and self.chance(0.05):
            return self.node("Mul", [name, self.one(x)]).name
        self.weights.append(Weight(name, array))
        return name

    def loop(self, x: Value, names: Sequence[str], nodes: Sequence[NodeProto], made: Sequence[str]) -> NodeProto:
        """A Loop of two turns that begins with ``x``, still without outputs.

        ``names``: of the turn, whether to go on, what is read, and whether the next turn goes on. ``made`` is the next
        state, and what each turn gives besides.
        """
        turn, go_on, read, kept = names
        dims = ["n" if dim is None else dim for dim in x.dims]
        body = helper.make_graph(
            nodes,
            "body",
            [
                helper.make_tensor_value_info(turn, TensorProto.INT64, []),
                helper.make_tensor_value_info(go_on, TensorProto.BOOL, []),
                helper.make_tensor_value_info(read, self.kind, dims),
            ],
            [
                helper.make_tensor_value_info(kept, TensorProto.BOOL, []),
                *(helper.make_tensor_value_info(name, self.kind, dims) for name in made),
            ],
        )
        count, first = self.stored(np.array(2, np.int64), "m"), self.stored(np.array(True), "c")
        return helper.make_node("Loop", [count, first, x.name], [], body=body)

    def one(self, x: Value) -> str:
        """The number 1, computed from how many channels ``x`` has: no sample changes it, and no runtime has to know."""
        axis = next(axis for axis in range(1, x.rank) if x.dims[axis])
        length = self.node("Gather", [self.node("Shape", [x.name]).name, self.integers(axis)]).name
        number = self.node("Cast", [length], to=self.kind).name
        return self.node("Div", [number, self.stored(np.array([x.dims[axis]], self.dtype), "n")]).name

    def input(self, dims: Dims, kind: int | None = None) -> Value:
        """One more input."""
        name = self.name("x")
        shape = ["n" if dim is None else dim for dim in dims]
        self.inputs.append(helper.make_tensor_value_info(name, kind or self.kind, shape))
        return Value(name, dims)

    def model(self, outputs: Sequence[ValueInfoProto], ir: int) -> onnx.ModelProto:
        """The graph, whose constants are inputs as well up to IR 3."""
        stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in self.initializers.items()]
        inputs = list(self.inputs)
        if ir < 4:
            inputs += [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in stored]
        domains = [helper.make_opsetid("", self.opset), *(helper.make_opsetid("mine", 1) for _ in self.functions[:1])]
        graph = helper.make_graph(self.nodes, "graph", inputs, list(outputs), stored)
        return helper.make_model(graph, opset_imports=domains, ir_version=ir, functions=self.functions)
