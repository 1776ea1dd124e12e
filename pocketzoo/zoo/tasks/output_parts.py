"""Parts of an output: where a graph ends by joining unlike things, such as boxes in pixels beside scores.

The power of an output that is 300 pixels large hides whatever happens to scores below 1, so each part is held for
itself. Parts are told apart by what makes them: the levels of a pyramid, made in the same way, are one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import Path

import onnx
from onnx import NodeProto, TensorProto

from pocketzoo.zoo.graphs.float_precision import OTHER_FLOATS
from pocketzoo.zoo.graphs.foreign.selections import selections
from pocketzoo.zoo.graphs.fresh_names import STANDARD
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.node import attribute
from pocketzoo.zoo.tasks.output_forms import OutputForms, OutputParts

KEEPS = ("Cast", "DequantizeLinear", "Identity", "QuantizeLinear")  # every value where it is
SHAPES = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")  # the order of values
PICKS = ("Slice", "Split")  # some of the values
FLOATS = (TensorProto.FLOAT, *OTHER_FLOATS)
DEPTH = 8  # of concatenations in one another


@dataclass(frozen=True, slots=True)
class _Made:
    """What makes a tensor: an operator, or pieces of several, by their lengths along an axis."""

    by: str
    axis: int = 0
    pieces: tuple[tuple[int, str], ...] = ()  # lengths, and what each is made by


def forms_of_graph(path: Path) -> OutputForms:
    """Of the outputs of an ONNX file."""
    index = GraphIndex(onnx.load(path, load_external_data=False))
    rounded = frozenset(name for name in index.outputs if _is_rounded(index, name))
    return OutputForms(output_parts(index), rounded, selections(index))


def _is_rounded(index: GraphIndex, name: str) -> bool:
    while (node := index.producers.get(name)) is not None and node.domain in STANDARD:
        if node.op_type == "QuantizeLinear" or (node.op_type == "Cast" and index.types.get(node.input[0]) in FLOATS):
            return index.types.get(name) not in (*FLOATS, TensorProto.BOOL)
        if node.op_type not in (*KEEPS, *SHAPES, *PICKS, "Clip", "Transpose"):
            return False
        name = node.input[0]
    return False


def output_parts(index: GraphIndex) -> dict[str, OutputParts]:
    """The parts of each output that joins unlike ones, where their lengths are known; others are left out."""
    if not any(node.op_type == "Concat" for node in index.nodes):
        return {}
    found = {}
    for name in index.outputs:
        made = _made(index, name, DEPTH)
        if made.pieces:
            lengths = [length for length, _ in made.pieces]
            found[name] = OutputParts(made.axis - len(index.shapes[name]), tuple(accumulate(lengths)))
    return found


def _made(index: GraphIndex, name: str, depth: int) -> _Made:
    moved: list[NodeProto] = []  # from the end on
    picked = False
    while (node := index.producers.get(name)) is not None and node.domain in STANDARD:
        if node.op_type in (*KEEPS, *SHAPES, "Transpose"):
            moved.append(node)
        elif node.op_type in PICKS:
            picked = True
        else:
            break
        name = node.input[0]
    if node is None:
        return _Made("constant" if name in index.constants else "input")
    if node.op_type != "Concat" or not depth:
        return _Made(node.op_type)
    made = _joined(index, node, depth)
    if picked:
        return _Made(made.by)
    for move in reversed(moved):
        made = _moved(index, move, made)
    return made


def _joined(index: GraphIndex, node: NodeProto, depth: int) -> _Made:
    dims = index.shapes.get(node.output[0])
    parts = [_made(index, name, depth - 1) for name in node.input]
    kinds = {part.by for part in parts}
    by = kinds.pop() if len(kinds) == 1 else "Concat"
    if dims is None:
        return _Made(by)
    axis = attribute(node, "axis", 0) % len(dims)
    pieces: list[tuple[int, str]] = []
    for name, part in zip(node.input, parts, strict=True):
        inside = part.pieces if part.axis == axis else ()
        length = (index.shapes.get(name) or [0] * len(dims))[axis]
        if not inside and not (isinstance(length, int) and length > 0):
            pieces = []
            break
        pieces += inside or [(int(length), part.by)]
    merged = tuple((sum(length for length, _ in same), kind) for kind, same in groupby(pieces, lambda piece: piece[1]))
    if len(merged) > 1:
        return _Made(by, axis, merged)
    alike = {(part.axis, part.pieces) for part in parts}
    if len(alike) == 1 and parts[0].pieces and parts[0].axis != axis:
        return _Made(by, *alike.pop())
    return _Made(by)


def _moved(index: GraphIndex, node: NodeProto, made: _Made) -> _Made:
    """What was made, after a node that only moves it; without its pieces where they are not found again."""
    if not made.pieces or node.op_type in KEEPS:
        return made
    before, after = index.shapes.get(node.input[0]), index.shapes.get(node.output[0])
    if before is None or after is None:
        return _Made(made.by)
    if node.op_type == "Transpose":
        order = list(attribute(node, "perm", None) or reversed(range(len(before))))
        return _Made(made.by, order.index(made.axis), made.pieces)
    axes = [
        axis
        for axis, length in enumerate(after)
        if length == before[made.axis]
        and (_same(before[: made.axis], after[:axis]) or _same(before[made.axis + 1 :], after[axis + 1 :]))
    ]
    return _Made(made.by, axes[0], made.pieces) if len(axes) == 1 else _Made(made.by)


def _same(before: Sequence[int | str], after: Sequence[int | str]) -> bool:
    """Whether two lists of lengths hold equally many values, as far as is known."""
    known = all(isinstance(length, int) and length > 0 for length in (*before, *after))
    return math.prod(before) == math.prod(after) if known else list(before) == list(after)
