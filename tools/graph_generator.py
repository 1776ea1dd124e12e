"""Graphs over ONNX's own operators by seed: operator x role of each operand x rank x readers x opset x dtype.

Each is valid by onnx.checker and runs in onnxruntime as it is written; ``generate`` says what is in it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from graph_draft import Array, Draft, Value
from graph_layers import ALONE, LAYERS
from graph_neighbors import NEIGHBORS
from onnx import TensorProto, ValueInfoProto, helper

OLDEST, RAISED, NEWEST = 7, 13, 25  # opsets; those before ``RAISED`` an importer has to raise
DTYPES = (*[np.float32] * 18, np.float16, np.float64)
LARGEST = 3000  # values of a sample's tensor
VOCABULARY = 12
IR_OF = {21: 10, 22: 10, 23: 11, 24: 12, 25: 13}  # opset -> the first IR it may be in


@dataclass(frozen=True, slots=True)
class Generated:
    """A graph, what is in it, and how to feed it."""

    model: onnx.ModelProto
    seed: int
    alone: str  # the operator, where it is the only one that computes
    blocks: tuple[str, ...]

    def feed(self, rows: int, seed: int) -> dict[str, Array]:
        """Random samples of its inputs."""
        numbers = np.random.default_rng([self.seed, seed])
        stored = {tensor.name for tensor in self.model.graph.initializer}
        feed = {}
        for value in self.model.graph.input:
            if value.name in stored:
                continue
            kind = value.type.tensor_type
            dims = [dim.dim_value or rows for dim in kind.shape.dim]
            dims[0] = rows
            if kind.elem_type == TensorProto.INT64:
                feed[value.name] = numbers.integers(0, VOCABULARY, dims)
            else:
                feed[value.name] = numbers.normal(size=dims).astype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
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
    fixed = chance.random() < 0.1 and len(draft.inputs) == 1
    return Generated(_model(draft, fixed), seed, alone, tuple(draft.used))


def _first(draft: Draft, ranks: tuple[int, ...]) -> Value:
    """The first input: an activation, or ids that rows of a table are gathered by."""
    rank = draft.random.choice(ranks)
    dims = [draft.random.randint(2, 8 if rank < 5 else 4) for _ in range(rank - 1)]
    if draft.small or not (rank == 3 and draft.chance(0.3)):
        return draft.input((None, *dims))
    ids = draft.input((None, dims[0]), TensorProto.INT64)
    rows = 1300 if draft.chance(0.3) else VOCABULARY  # some are large enough to be worth eight bits
    table = draft.constant(draft.normal(rows, dims[1]), "table")
    draft.used.append("Gather")
    return draft.node("Gather", [table, ids.name], (None, *dims), axis=0)


def _grow(draft: Draft, x: Value) -> None:
    """Layers, with neighbors between them."""
    for _ in range(draft.random.randint(1, 4)):
        names = [name for name, (_, ranks, since) in LAYERS.items() if x.rank in ranks and since <= draft.opset]
        x = _taken(draft, x, draft.random.choice(names), layer=True)
        for _ in range(draft.random.choice((0, 1, 1, 2))):
            x = _taken(draft, x, draft.random.choice(list(NEIGHBORS)), layer=False)
        if draft.chance(0.2):  # what was before is read once more
            x = draft.random.choice(draft.values)
        if draft.chance(0.05):
            second = draft.input(x.dims)
            x = draft.node("Add", [x.name, second.name], x.dims)
            draft.values.append(x)


def _taken(draft: Draft, x: Value, name: str, *, layer: bool) -> Value:
    """``x`` after one more block; ``x`` itself where that does not suit it."""
    made = LAYERS[name][0](draft, x) if layer else NEIGHBORS[name](draft, x)
    if made is None:
        return x
    draft.used.append(name)
    draft.values.append(made)
    large = int(np.prod([dim or 1 for dim in made.dims])) > LARGEST
    return x if large else made


def _model(draft: Draft, fixed: bool) -> onnx.ModelProto:
    """The model, with one output or several."""
    inputs = {value.name for value in draft.inputs}
    made = [value for value in draft.values if value.name not in inputs]
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
    model = draft.model(outputs, ir)
    if fixed:
        for value in (*model.graph.input, *model.graph.output):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param == "n":
                    dim.dim_value = 1
    return model


def _info(name: str, kind: int, dims: tuple[int | None, ...]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["n" if dim is None else dim for dim in dims])
