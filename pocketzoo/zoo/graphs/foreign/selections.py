"""Outputs that are selected by what is computed: what selects them, and the last tensors before that.

A detector that ends in NonMaxSuppression gives another number of boxes for each image, and another one again where its
scores are a little different: nothing of it can be held against another model's, value by value. What it selects from
can be: boxes and scores, which have a shape of their own. Nor can the boxes of the best scores, which stand elsewhere
once two scores have changed places.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

from pocketzoo.zoo.graphs.float_precision import OTHER_FLOATS
from pocketzoo.zoo.graphs.fresh_names import STANDARD, captured, inner_graphs, nodes
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.node import attribute, layer_name

# What selects -> of its first output, which says which, how many axes it has, and the one that these are counted along.
# Compress gives values alone.
SELECTS: Mapping[str, tuple[int, int] | None] = {
    "NonMaxSuppression": (2, 0),
    "NonZero": (2, 1),
    "Unique": (1, 0),
    "Compress": None,
}
# The operands by whose values the shape of an output is.
SHAPED_BY: Mapping[str, tuple[int, ...]] = {
    "CenterCropPad": (1,),
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Loop": (0,),
    "MaxUnpool": (2,),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Upsample": (1,),
}
# Every value stays what it is, and all of them; or some of them do. What is read of exact inputs is exact.
KEEPS = (
    *("Cast", "DequantizeLinear", "Flatten", "Identity", "QuantizeLinear"),
    *("Reshape", "Squeeze", "Transpose", "Unsqueeze"),
)
PICKS = ("Compress", "Concat", "Expand", "Gather", "GatherElements", "GatherND", "Pad", "Slice", "Split", "Tile")
MOVES = (*KEEPS, *PICKS)
# What is computed of each value by itself, as boxes are of what is left of them: the places stay.
EACH = (
    *("Abs", "Add", "And", "Ceil", "Clip", "Div", "Equal", "Exp", "Floor", "Greater", "GreaterOrEqual", "Less"),
    *("LessOrEqual", "Log", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow", "Reciprocal", "Relu", "Round"),
    *("Sigmoid", "Sign", "Sqrt", "Sub", "Tanh", "Where", "Xor"),
)
FLOATS = (TensorProto.FLOAT, *OTHER_FLOATS)


@dataclass(frozen=True, slots=True)
class Selection:
    """How an output is selected, by the names of tensors in the graph."""

    by: str  # the operator
    before: tuple[str, ...]  # what it is computed from: the last tensors whose shape is not computed from their values
    chosen: str = ""  # which are selected; "": no tensor says it
    rank: int = 0  # how many axes that has, of one run,
    along: int = 0  # and the one that they are counted along: from the end, where as many are selected in each run
    fixed: bool = False  # as many are, and the output has one shape

    def compared(self, output: str) -> dict[str, str]:
        """The tensors before ``output``, by what each is called in any graph."""
        return {f"{output}, before {i}": name for i, name in enumerate(self.before)}

    def tensors(self, output: str) -> dict[str, str]:
        """The same, with the one that says which are selected where there is one."""
        return self.compared(output) | ({self.which(output): self.chosen} if self.chosen else {})

    def which(self, output: str) -> str:
        """What the tensor is called in any graph that says which are selected."""
        return f"{output}, which"


def compared_tensors(index: GraphIndex, outputs: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """What is compared of outputs, by their names: each itself, or what it is selected from."""
    selected = selections(index)
    return {name: selected[name].before if name in selected else (name,) for name in outputs}


def unseen_nodes(index: GraphIndex) -> dict[str, str]:
    """What is computed after a selection, where no output is compared -> why nothing says how well it is computed.

    By the names of the tensors. What such nodes make worse is not measured: they are to compute as they did.
    """
    selected = selections(index)
    if not selected:
        return {}
    outputs = (value.name for value in index.model.graph.output)
    compared = compared_tensors(index, outputs)
    seen = _made_for(index, (name for tensors in compared.values() for name in tensors), set())
    unseen: dict[str, str] = {}
    for output, selection in selected.items():
        reason = f"it comes after {selection.by}, where nothing can be compared"
        unseen |= dict.fromkeys(sorted(_made_for(index, [output], seen | unseen.keys())), reason)
    return unseen


def unseen_layers(index: GraphIndex) -> dict[str, str]:
    """The layers among ``unseen_nodes``, by the names of their weights -> why they stay in float."""
    unseen = unseen_nodes(index)
    found = (node for node in index.nodes if index.is_layer(node) and node.output[0] in unseen)
    return {layer_name(node.input[1]): unseen[node.output[0]] for node in found}


def _made_for(index: GraphIndex, tensors: Iterable[str], known: Collection[str]) -> set[str]:
    """All that nodes make of which tensors are computed, those too, but for what is known and before that."""
    found, open_ = set[str](), list(tensors)
    while open_:
        name = open_.pop()
        node = index.producers.get(name)
        if node is None or name in found or name in known:
            continue
        found.update(made for made in node.output if made and made not in known)
        open_ += [*node.input, *captured(node)]
    return found


def with_outputs(model: ModelProto, tensors: Iterable[str]) -> ModelProto:
    """The graph with tensors that it has inside as outputs; itself, where they are."""
    known = {value.name for value in model.graph.output}
    more = [name for name in dict.fromkeys(tensors) if name not in known]
    if not more:
        return model
    watched = ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(ValueInfoProto(name=name) for name in more)
    return watched


def selections(index: GraphIndex) -> dict[str, Selection]:
    """Of the outputs whose length depends on what the graph computes of its inputs; none of others.

    And of those of one length of which it depends on that what stands where, such as the boxes of the best scores by
    TopK; with no layer after it, since what layers make is compared as it is.

    Where a length follows from whole numbers or truth values of the inputs alone, nothing that is done to the graph
    changes it. The order of the tensors is that of the graph, the same before it is encoded and after.
    """
    if not any(_may_select(node, index.constants) for node in nodes(index.model.graph.node)):
        return {}  # as mostly: no shape is inferred for it
    lengths = _Lengths(index)
    chosen = (*lengths.loose, *lengths.picked)
    found = {name: _selection(index, lengths, name) for name in chosen if name in index.outputs}
    return {name: found[name] for name in (value.name for value in index.model.graph.output) if name in found}


def _may_select(node: NodeProto, constants: Collection[str]) -> bool:
    places = [place for place in SHAPED_BY.get(node.op_type, ()) if place < len(node.input)]
    ranks = node.op_type == "TopK"
    return (
        ranks
        or node.op_type in SELECTS
        or any(node.input[place] not in constants for place in places if node.input[place])
    )


class _Lengths:
    """Which tensors hold what is computed of the inputs, in floats somewhere, and whose shapes follow from such."""

    def __init__(self, index: GraphIndex) -> None:
        self._index = index
        self.inexact, self.loose = set[str](), set[str]()
        self.picked = set[str]()  # of one shape, and what stands where depends on what is computed
        depends = set(index.inputs)
        for node in index.nodes:
            read = [name for name in (*node.input, *sorted(captured(node))) if name]
            loose = not self.loose.isdisjoint(read)
            if node.op_type in ("Shape", "Size") and node.domain in STANDARD:
                if loose:
                    self.inexact.update(node.output)
                continue
            if depends.isdisjoint(read):
                continue
            depends.update(node.output)
            inexact = not self.inexact.isdisjoint(read)
            moves = node.domain in STANDARD and node.op_type in MOVES
            for name in filter(None, node.output):
                if inexact or (not moves and index.types.get(name, TensorProto.FLOAT) in FLOATS):
                    self.inexact.add(name)
                if (loose or self._is_shaped(node)) and not self._is_fixed(name):
                    self.loose.add(name)
                    self.inexact.add(name)
                elif name in self.inexact and self._picks(node, read):
                    self.picked.add(name)

    def _is_shaped(self, node: NodeProto) -> bool:
        if node.domain not in STANDARD:
            return False
        read = {*node.input, *captured(node)}
        if selecting(node):
            return not self.inexact.isdisjoint(read)
        places = SHAPED_BY.get(node.op_type, ())
        return any(node.input[place] in self.inexact for place in places if place < len(node.input))

    def _picks(self, node: NodeProto, read: Collection[str]) -> bool:
        if node.domain not in STANDARD:
            return False
        if node.op_type == "TopK":
            return node.input[0] in self.inexact
        chosen = not (self.loose.isdisjoint(read) and self.picked.isdisjoint(read))
        return chosen and node.op_type in (*MOVES, *EACH)

    def _is_fixed(self, name: str) -> bool:
        dims = self._index.shapes.get(name)
        return dims is not None and all(isinstance(dim, int) and dim > 0 for dim in dims)


def selecting(node: NodeProto) -> str:
    """The operator in a node, or in graphs inside it, that selects; "" where none does."""
    inside = (each for graph in inner_graphs(node) for each in nodes(graph.node))
    return next((n.op_type for n in (node, *inside) if n.op_type in SELECTS and n.domain in STANDARD), "")


def _selection(index: GraphIndex, lengths: _Lengths, output: str) -> Selection:
    by, chosen, rank, along = "", "", 0, 0
    fixed = output not in lengths.loose
    before: dict[str, str] = {}  # by where it comes from: boxes that are squeezed are the same boxes
    seen, open_ = set[str](), [output]
    while open_:
        name = open_.pop()
        node = index.producers.get(name)
        if name in seen or node is None or name not in lengths.inexact:
            continue
        seen.add(name)
        if name in lengths.loose or name in lengths.picked:
            if not by and fixed and node.op_type == "TopK" and node.domain in STANDARD:
                by, (chosen, along) = "TopK", _ranked(index, node)
            elif not by and (operator := selecting(node)):
                by, place = operator, SELECTS[operator]
                if place is not None and node.op_type == operator:
                    chosen, (rank, along) = node.output[0], place
            open_ += reversed([*node.input, *sorted(captured(node))])
        elif index.types.get(name, TensorProto.FLOAT) in FLOATS:
            root = _root(index, name)
            if root not in index.inputs:
                before.setdefault(root, name)
        else:
            open_ += reversed(node.input)
    return Selection(by or _maker(index, output), tuple(before.values()), chosen, rank, along, fixed)


def _ranked(index: GraphIndex, node: NodeProto) -> tuple[str, int]:
    """The indices that a TopK gives, and the axis that they are along, from the end; "" where that is not known."""
    axis = int(attribute(node, "axis", -1))
    dims = index.shapes.get(node.input[0])
    if axis >= 0:
        axis = axis - len(dims) if dims is not None else 0
    given = node.output[1] if len(node.output) > 1 else ""
    return (given, axis) if axis < 0 else ("", 0)


def _root(index: GraphIndex, name: str) -> str:
    while (node := index.producers.get(name)) is not None and node.domain in STANDARD and node.op_type in KEEPS:
        name = node.input[0]
    return name


def _maker(index: GraphIndex, name: str) -> str:
    node = index.producers.get(name)
    return "" if node is None else str(node.op_type)
