"""Graphs over ONNX's own operators by seed: operator x role of each operand x rank x readers x opset x dtype.

Each is valid by onnx.checker and runs in onnxruntime as it is written; ``generate`` says what is in it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from graph_composed import COMPOSED
from graph_draft import Draft, Value
from graph_dressing import dressed
from graph_idioms import IDIOMS
from graph_layers import ALONE, LAYERS
from graph_neighbors import NEIGHBORS
from graph_runs import FEED, Separate
from onnx import TensorProto, ValueInfoProto, helper

OLDEST, RAISED, NEWEST = 7, 13, 25  # opsets; those before ``RAISED`` an importer has to raise
DTYPES = (*[np.float32] * 18, np.float16, np.float64)
LARGEST = 3000  # values of a sample's tensor
VOCABULARY = 12
EVERY_LAYER = {**LAYERS, **COMPOSED}
BETWEEN = [*NEIGHBORS, *NEIGHBORS, *IDIOMS]
IR_OF = {21: 10, 22: 10, 23: 11, 24: 12, 25: 13}  # opset -> the first IR it may be in


@dataclass(frozen=True, slots=True)
class Generated:
    """A graph, what is in it, and how to feed it."""

    model: onnx.ModelProto
    seed: int
    alone: str  # the operator, where it is the only one that computes
    blocks: tuple[str, ...]
    sizes: dict[str, int]  # of axes that are free, and count no samples

    fixed: bool  # the first axis counts samples, and is given as a number
    separate: bool  # no axis counts samples: each is a run
    whole: int = 0  # a run takes so many samples; 0: any number

    @property
    def rows(self) -> int:
        """How many samples a run takes as the file is; 0: any number."""
        return int(self.model.graph.input[0].type.tensor_type.shape.dim[0].dim_value) if self.fixed else 0

    def listed(self, rows: int, seed: int) -> FEED:
        """``feed`` with samples along the first axis of each input, as a person has them."""
        listed = dict(self.feed(rows, seed))
        for value in self.model.graph.input if not (self.separate or self.fixed) else ():
            places = [i for i, dim in enumerate(value.type.tensor_type.shape.dim) if dim.dim_param == "n"]
            if value.name in listed:
                array = listed[value.name]
                listed[value.name] = np.moveaxis(array, places[0], 0) if places else np.stack([array] * rows)
        return listed

    def feed(self, rows: int, seed: int) -> FEED:
        """Random samples of its inputs."""
        numbers = np.random.default_rng([self.seed, seed])
        stored = {tensor.name for tensor in self.model.graph.initializer}
        rows = -(-rows // self.whole) * self.whole if self.whole else rows
        feed: FEED = Separate(self.whole) if self.separate or self.whole else {}
        for value in self.model.graph.input:
            if value.name in stored:
                continue
            kind = value.type.tensor_type
            dims = [dim.dim_value or self.sizes.get(dim.dim_param, rows) for dim in kind.shape.dim]
            if self.separate:
                dims = [rows, *dims]
            elif self.fixed:
                dims[0] = rows
            dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
            if dtype.kind in "iu":
                feed[value.name] = numbers.integers(0, VOCABULARY, dims).astype(dtype)
            elif dtype.kind == "b":
                feed[value.name] = numbers.random(dims) < 0.5
            else:
                feed[value.name] = numbers.normal(size=dims).astype(dtype)
        return feed


def generate(seed: int) -> Generated:
    """The graph of a seed."""
    chance = random.Random(seed)
    opset = chance.randint(OLDEST, RAISED - 1) if chance.random() < 0.25 else chance.randint(RAISED, NEWEST)
    alone = chance.choice(ALONE) if chance.random() < 0.25 else ""
    dtype: Any = np.float32 if alone else chance.choice(DTYPES)
    draft = Draft(chance, np.random.default_rng(seed), opset, dtype, small=bool(alone))
    x = _first(draft, LAYERS[alone][1] if alone else (2, 3, 3, 4, 4, 5))
    draft.values.append(x)
    if alone:
        made = LAYERS[alone][0](draft, x)
        assert made is not None
        draft.used, x = [alone], made
        draft.values.append(x)
    else:
        _grow(draft, x)
    way = "separate" if draft.separate else ""
    if not way and not draft.swapped and len(draft.inputs) == 1 and chance.random() < 0.12:
        way = "fixed"
    count = 1 if way != "fixed" else chance.choice((1, 1, 3))
    model = dressed(_model(draft, count if way else 0), chance, alone=bool(alone or way))
    return Generated(model, seed, alone, tuple(draft.used), draft.sizes, way == "fixed", way == "separate")


def _first(draft: Draft, ranks: tuple[int, ...]) -> Value:
    """The first input: an activation, or ids that rows of a table are gathered by."""
    rank = draft.random.choice(ranks)
    dims = [draft.random.randint(2, 8 if rank < 5 else 4) for _ in range(rank - 1)]
    if draft.small:
        return draft.input((None, *dims))
    if rank == 3 and draft.chance(0.3):
        return _gathered(draft, dims)
    way = draft.random.choices(("plain", "pixels", "second", "free", "absent", "vector"), (70, 6, 6, 8, 4, 4))[0]
    if way == "pixels" and rank == 4:  # what a camera gives, with what is done to it inside
        image = draft.input((None, dims[1], dims[2], 3), TensorProto.UINT8)
        numbers = draft.node("Cast", [image.name], to=draft.kind).name
        scaled = draft.node("Mul", [numbers, draft.constant(np.array(1 / 12, draft.dtype), "k")]).name
        moved = draft.node("Sub", [scaled, draft.constant(np.array([0.4, 0.5, 0.6], draft.dtype), "mean")]).name
        return draft.node("Transpose", [moved], (None, 3, dims[1], dims[2]), perm=[0, 3, 1, 2])
    if way == "second" and rank > 2:
        draft.swapped = True
        x = draft.input((dims[0], None, *dims[1:]))
        return draft.node("Transpose", [x.name], (None, *dims), perm=[1, 0, *range(2, rank)])
    if way == "free" and rank != 4:  # any length, in this file; here it always has one (of an image it has to be told)
        x = draft.input((None, *dims))
        axis = draft.random.randrange(1, rank)
        draft.inputs[-1].type.tensor_type.shape.dim[axis].dim_param = "long"
        draft.sizes["long"] = dims[axis - 1]
        return x
    if way == "absent":
        draft.separate = True
        x = draft.input(tuple(dims))
        axes = [draft.integers(0)] if draft.opset >= 13 else []
        attributes = {} if axes else {"axes": [0]}
        return draft.node("Unsqueeze", [x.name, *axes], (None, *dims), **attributes)
    if way == "vector" and rank == 2:
        x = draft.input((None,))
        axes = [draft.integers(1)] if draft.opset >= 13 else []
        attributes = {} if axes else {"axes": [1]}
        return draft.node("Unsqueeze", [x.name, *axes], (None, 1), **attributes)
    return draft.input((None, *dims))


def _gathered(draft: Draft, dims: list[int]) -> Value:
    ids = draft.input((None, dims[0]), draft.random.choice((TensorProto.INT64, TensorProto.INT64, TensorProto.INT32)))
    rows = 1300 if draft.chance(0.3) else VOCABULARY  # some are large enough to be worth eight bits
    table = draft.constant(draft.normal(rows, dims[1]), "table")
    draft.used.append("Gather")
    return draft.node("Gather", [table, ids.name], (None, *dims), axis=0)


def _more(draft: Draft, x: Value) -> Value:
    """One more input: an activation, a mask, a number or a row that all samples share."""
    way = draft.random.choice(("like", "like", "mask", "number", "row"))
    if way == "mask" and draft.opset >= 9:
        mask = draft.input(x.dims, TensorProto.BOOL)
        return draft.node("Where", [mask.name, x.name, draft.constant(np.array(0.1, draft.dtype), "k")], x.dims)
    if way == "number":
        return draft.node("Mul", [x.name, draft.input(()).name], x.dims)
    if way == "row":
        return draft.node("Add", [draft.input((x.dims[-1],)).name, x.name], x.dims)
    return draft.node("Add", [x.name, draft.input(x.dims).name], x.dims)


def _grow(draft: Draft, x: Value) -> None:
    """Layers, with neighbors between them."""
    for _ in range(draft.random.randint(1, 4)):
        names = [name for name, (_, ranks, since) in EVERY_LAYER.items() if x.rank in ranks and since <= draft.opset]
        x = _taken(draft, x, draft.random.choice(names), layer=True)
        for _ in range(draft.random.choice((0, 1, 1, 2))):
            x = _taken(draft, x, draft.random.choice(BETWEEN), layer=False)
        if draft.chance(0.2):  # what was before is read once more
            x = draft.random.choice(draft.values)
        if draft.chance(0.05):
            x = _more(draft, x)
            draft.values.append(x)


def _taken(draft: Draft, x: Value, name: str, *, layer: bool) -> Value:
    """``x`` after one more block; ``x`` itself where that does not suit it."""
    made = EVERY_LAYER[name][0](draft, x) if layer else (NEIGHBORS | IDIOMS)[name](draft, x)
    if made is None:
        return x
    draft.used.append(name)
    draft.values.append(made)
    large = int(np.prod([dim or 1 for dim in made.dims])) > LARGEST
    return x if large else made


def _model(draft: Draft, fixed: int) -> onnx.ModelProto:
    """The model, with one output or several; with so many samples where that is ``fixed``."""
    inputs = {value.name for value in draft.inputs}
    made = [value for value in draft.values if value.name not in inputs]
    made = made or [draft.node("Relu", [draft.values[-1].name], draft.values[-1].dims)]
    last = made[-1]
    chosen = [value for value in made[:-1] if draft.chance(0.12)]
    chosen = [*chosen, last] if draft.chance(0.5) else [last, *chosen]
    outputs = [_info(value.name, draft.kind, value.dims) for value in chosen]
    if draft.small:
        outputs = outputs[-1:] if chosen[-1] == last else outputs[:1]
    elif draft.chance(0.08) and draft.opset >= 11:
        label = draft.node("ArgMax", [last.name], last.dims[:-1], axis=last.rank - 1, keepdims=0)
        outputs.append(_info(label.name, TensorProto.INT64, label.dims))
    constants = [weight for weight in draft.weights if weight.name in draft.initializers]
    if constants and not draft.small and draft.chance(0.06):  # a weight that is an output as well
        weight = draft.random.choice(constants)
        outputs.append(helper.make_tensor_value_info(weight.name, draft.kind, list(weight.array.shape)))
    if draft.chance(0.05):
        draft.stored(draft.normal(3), "unused")
    least = max(IR_OF.get(draft.opset, 3), 8 if draft.functions else 3)
    if least == 3 and (draft.opset > 8 or draft.chance(0.5)):
        least = 4
    ir = draft.random.randint(least, max(least, 10))
    if draft.sizes:
        for value in outputs:
            _without_lengths(value)
    model = draft.model(outputs, ir)
    if fixed:
        for value in (*model.graph.input, *model.graph.output):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param == "n":
                    dim.dim_value = fixed
    return model


def _info(name: str, kind: int, dims: tuple[int | None, ...]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["n" if dim is None else dim for dim in dims])


def _without_lengths(value: ValueInfoProto) -> None:
    for dim in value.type.tensor_type.shape.dim:
        if not dim.dim_param:
            dim.Clear()
