"""Layers of several operators, as models have them: folded rows, heads, tied tables, split weights, nested bodies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from graph_draft import Draft, Value
from graph_idioms import batch_size
from onnx import NodeProto, TensorProto, helper, numpy_helper


def folded(draft: Draft, x: Value) -> Value | None:
    """All but the last axis as rows of a matrix for a Gemm or MatMul, and back."""
    inputs, out = x.dims[-1] or 0, draft.random.randint(1, 8)
    rows = draft.node("Reshape", [x.name, draft.integers(-1, inputs)]).name
    weight = draft.weight(draft.normal(inputs, out, fan=inputs), x)
    third = draft.constant(draft.normal(out), "b")
    if draft.chance(0.6):
        made = draft.node("Gemm", [rows, weight, third]).name
    else:
        made = draft.node("Add", [third, draft.node("MatMul", [rows, weight]).name]).name
    rest = [dim or 1 for dim in (*x.dims[1:-1], out)]
    if draft.chance(0.5):
        shape = draft.integers(-1, *rest)
    else:
        shape = draft.node("Concat", [batch_size(draft, x), draft.integers(*rest)], axis=0).name
    return draft.node("Reshape", [made, shape], (*x.dims[:-1], out))


def heads(draft: Draft, x: Value) -> Value | None:
    """Attention of two heads, whose three weights are one that is split, or whose product is; with a mask."""
    steps, inputs, each = x.dims[1] or 1, x.dims[2] or 0, draft.random.randint(1, 3)
    wide = 2 * each
    packed = draft.constant(draft.normal(inputs, 3 * wide, fan=inputs))
    names = [draft.name("qkv") for _ in range(3)]
    attributes = {"num_outputs": 3} if draft.opset >= 18 else {}
    if draft.chance(0.5):  # the constant
        draft.nodes.append(helper.make_node("Split", [packed], names, axis=1, **attributes))
        names = [draft.node("MatMul", [x.name, name]).name for name in names]
    else:
        product = draft.node("MatMul", [x.name, packed]).name
        product = draft.node("Add", [product, draft.constant(draft.normal(3 * wide), "b")]).name
        last = -1 if draft.opset >= 11 else 2
        draft.nodes.append(helper.make_node("Split", [product], names, axis=last, **attributes))
    turns = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    shape = draft.integers(0, steps, 2, each)
    q, k, v = (
        draft.node("Transpose", [draft.node("Reshape", [name, shape]).name], perm=perm).name
        for name, perm in zip(names, turns, strict=True)
    )
    scores = draft.node("MatMul", [q, k]).name
    scores = draft.node("Div", [scores, draft.constant(np.array(each**0.5, draft.dtype), "s")]).name
    if draft.chance(0.5):
        far = draft.random.choice((-1e4, float(np.finfo(draft.dtype).min)))
        hidden = np.triu(np.full((1, 1, steps, steps), far), 1).astype(draft.dtype)
        scores = draft.node("Add", [scores, draft.constant(hidden, "mask")]).name
    weights = draft.node("Softmax", [scores], axis=3).name
    mixed = draft.node("Transpose", [draft.node("MatMul", [weights, v]).name], perm=[0, 2, 1, 3]).name
    mixed = draft.node("Reshape", [mixed, draft.integers(0, 0, wide)]).name
    out = draft.weight(draft.normal(wide, inputs, fan=wide), x)
    made = draft.node("MatMul", [mixed, out], x.dims)
    return draft.node("Add", [made.name, x.name], x.dims) if draft.chance(0.6) else made


def tied(draft: Draft, x: Value) -> Value | None:
    """A table that is gathered from, by ids of an input of its own, and multiplied by."""
    wide = x.dims[-1] or 1
    table = draft.constant(draft.normal(12, wide, fan=wide), "table")
    ids = draft.input((None, *x.dims[1:-1]), draft.random.choice((TensorProto.INT64, TensorProto.INT32)))
    rows = draft.node("Gather", [table, ids.name], x.dims)
    added = draft.node("Add", [x.name, rows.name], x.dims)
    if x.rank == 2:
        return draft.node("Gemm", [added.name, table], (None, 12), transB=1) if draft.opset >= 11 else added
    turned = draft.node("Transpose", [table], perm=[1, 0]).name
    return draft.node("MatMul", [added.name, turned], (*x.dims[:-1], 12))


def contraction(draft: Draft, x: Value) -> Value | None:
    """Einsum of two activations, with an ellipsis, with spaces, without what it makes, or of three operands."""
    inputs, out = x.dims[-1] or 0, draft.random.randint(1, 6)
    weight = draft.weight(draft.normal(inputs, out, fan=inputs), x)
    way = draft.random.choice(("ellipsis", "spaces", "implicit", "pair", "three"))
    if way == "ellipsis":
        return draft.node("Einsum", [x.name, weight], (*x.dims[:-1], out), equation="...i,io->...o")
    letters = "bcde"[: x.rank]
    if way == "spaces":
        equation = f"{letters} , {letters[-1]}z -> {letters[:-1]}z"
        return draft.node("Einsum", [x.name, weight], (*x.dims[:-1], out), equation=equation)
    if way == "implicit":
        equation = f"{letters},{letters[-1]}z"
        return draft.node("Einsum", [x.name, weight], (*x.dims[:-1], out), equation=equation)
    if way == "pair" or x.rank < 3:
        equation = f"{letters},{letters[:-1]}z->{letters[:-2]}{letters[-1]}z"
        if x.rank < 3:
            return None
        return draft.node("Einsum", [x.name, x.name], (*x.dims[:-2], inputs, inputs), equation=equation)
    second = draft.weight(draft.normal(out, inputs, fan=out), x)
    equation = f"{letters},{letters[-1]}y,yz->{letters[:-1]}z"
    return draft.node("Einsum", [x.name, weight, second], x.dims, equation=equation)


def cell(draft: Draft, x: Value) -> Value | None:
    """LSTM, GRU and RNN with first states, lengths, peepholes and activations given, and several outputs read."""
    operator, gates = draft.random.choice((("LSTM", 4), ("GRU", 3), ("RNN", 1)))
    steps, inputs, size = x.dims[1] or 1, x.dims[2] or 0, draft.random.randint(1, 5)
    turned = draft.node("Transpose", [x.name], perm=[1, 0, 2]).name
    state = draft.constant(draft.normal(1, 1, size, fan=4), "h0")
    shape = draft.node("Concat", [draft.integers(1), batch_size(draft, x), draft.integers(size)], axis=0).name
    first = draft.node("Expand", [state, shape]).name
    operands = [
        turned,
        draft.weight(draft.normal(1, gates * size, inputs, fan=inputs), x),
        draft.weight(draft.normal(1, gates * size, size, fan=size), x),
        draft.constant(draft.normal(1, 2 * gates * size, fan=4), "b") if draft.chance(0.6) else "",
        "",
        first,
    ]
    attributes: dict[str, object] = {"hidden_size": size}
    if operator == "LSTM":
        operands.append(first if draft.chance(0.7) else "")
        if draft.chance(0.4):
            operands.append(draft.constant(draft.normal(1, 3 * size, fan=9), "p"))
    elif draft.chance(0.4):
        attributes["activations"] = ["Sigmoid", "Tanh"] if operator == "GRU" else ["Relu"]
    if draft.chance(0.3):
        attributes["clip"] = 3.0
    names = [draft.name("every"), draft.name("last")]
    draft.nodes.append(helper.make_node(operator, operands, names, **attributes))
    last = draft.node("Transpose", [names[1]], (None, 1, size), perm=[1, 0, 2])
    draft.values.append(last)
    turned = draft.node("Transpose", [names[0]], perm=[2, 0, 1, 3]).name
    return draft.node("Reshape", [turned, draft.integers(-1, steps, size)], (None, steps, size))


def nested(draft: Draft, x: Value) -> Value | None:
    """If inside Loop, which reads a matrix of the graph around both, and gives what each turn made as well."""
    wide = x.dims[-1] or 0
    outer = draft.weight(draft.normal(wide, wide, fan=wide), x)
    turn, go_on, read, kept, made, told = (draft.name(each) for each in ("turn", "go", "read", "kept", "made", "told"))
    dims = ["n" if dim is None else dim for dim in x.dims]

    def branch(name: str, node: NodeProto) -> object:
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(node.output[0], draft.kind, dims)])

    ways = [draft.name("way"), draft.name("way")]
    half = draft.stored(np.array(0.5, draft.dtype), "half")
    then = branch("then", helper.make_node("MatMul", [read, outer], [ways[0]]))
    other = branch("else", helper.make_node("Mul", [read, half], [ways[1]]))
    zero, copy = draft.stored(np.array(0, np.int64), "zero"), draft.name("copy")
    nodes = [
        helper.make_node("Identity", [go_on], [kept]),
        helper.make_node("Equal", [turn, zero], [told]),
        helper.make_node("If", [told], [made], then_branch=then, else_branch=other),
        helper.make_node("Tanh", [made], [copy]),
    ]
    turns = draft.loop(x, (turn, go_on, read, kept), nodes, (made, copy))
    names = [draft.name("last"), draft.name("turns")]
    turns.output.extend(names)
    draft.nodes.append(turns)
    if draft.chance(0.5):
        return Value(names[0], x.dims)
    total = draft.reduce("ReduceMean", names[1], [0], keep=False)
    return draft.node("Add", [total, names[0]], x.dims)


def told_function(draft: Draft, x: Value) -> Value | None:
    """A function with attributes of its own that calls another; both have a layer."""
    inputs, out, number = x.dims[-1] or 0, draft.random.randint(1, 8), len(draft.functions)
    domains = [helper.make_opsetid("", draft.opset), helper.make_opsetid("mine", 1)]
    inner = helper.make_node("LeakyRelu", ["p"], ["y"])
    attribute = onnx_reference("alpha", "slope")
    inner.attribute.append(attribute)
    called = f"Inner{number}"
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), inner]
    draft.functions.append(helper.make_function("mine", called, ["x", "w"], ["y"], nodes, domains, ["slope"]))
    nodes = [
        helper.make_node(called, ["x", "w"], ["h"], domain="mine", slope=0.1),
        helper.make_node("Constant", [], ["v"], value=numpy_helper.from_array(draft.normal(out, out, fan=out), "v")),
        helper.make_node("MatMul", ["h", "v"], ["y"]),
    ]
    outside = f"Outer{number}"
    draft.functions.append(helper.make_function("mine", outside, ["x", "w"], ["y"], nodes, domains))
    weight = draft.weight(draft.normal(inputs, out, fan=inputs), x)
    return draft.node(outside, [x.name, weight], (*x.dims[:-1], out), domain="mine")


def onnx_reference(name: str, of: str) -> object:
    """An attribute that is what the function was given."""
    from onnx import AttributeProto

    return AttributeProto(name=name, ref_attr_name=of, type=AttributeProto.FLOAT)


def dynamic(draft: Draft, x: Value) -> Value | None:
    """A convolution whose filters are computed from the sizes of its input, and one whose input is a constant."""
    if x.rank != 4:
        return None
    channels, out = x.dims[1] or 1, draft.random.randint(1, 6)
    filters = draft.constant(draft.normal(out, channels, 1, 1, fan=channels))
    scaled = draft.node("Mul", [filters, draft.one(x)]).name
    made = draft.node("Conv", [x.name, scaled], (None, out, *x.dims[2:]))
    field = draft.constant(draft.normal(1, channels, *[dim or 1 for dim in x.dims[2:]]), "field")
    more = draft.node("Conv", [field, filters]).name
    return draft.node("Add", [made.name, more], made.dims)


def residual(draft: Draft, x: Value) -> Value | None:
    """Two convolutions and what went into them, with weights that are shared or the same."""
    channels, ones = x.dims[1] or 1, [1] * (x.rank - 2)
    first = draft.constant(draft.normal(channels, channels, *ones, fan=channels))
    bias = draft.constant(draft.normal(channels), "b")
    hidden = draft.node("Relu", [draft.node("Conv", [x.name, first, bias]).name]).name
    second = first if draft.chance(0.3) else draft.constant(draft.normal(channels, channels, *ones, fan=channels))
    made = draft.node("Conv", [hidden, second, bias]).name
    operands = [made, x.name]
    draft.random.shuffle(operands)
    added = draft.node("Add", operands, x.dims)
    return draft.node("Relu", [added.name], x.dims) if draft.chance(0.6) else added


def looked_up(draft: Draft, x: Value) -> Value | None:
    """A weight whose rows are read by Gather as well, and added to."""
    inputs, out = x.dims[-1] or 0, draft.random.randint(2, 8)
    weight = draft.constant(draft.normal(inputs, out, fan=inputs))
    made = draft.node("MatMul", [x.name, weight], (*x.dims[:-1], out))
    row = draft.node("Gather", [weight, draft.stored(np.array(0, np.int64), "i")], axis=0).name
    if draft.chance(0.5):
        row = draft.node("Mul", [row, draft.one(x)]).name
    return draft.node("Add", [made.name, row], made.dims)


# name -> its function, the ranks that it takes, and the first opset
COMPOSED: dict[str, tuple[Callable[[Draft, Value], Value | None], tuple[int, ...], int]] = {
    "folded": (folded, (2, 3, 4), 7),
    "heads": (heads, (3,), 7),
    "tied": (tied, (2, 3), 7),
    "contraction": (contraction, (2, 3, 4), 12),
    "cell": (cell, (3,), 8),
    "nested": (nested, (2, 3), 11),
    "told_function": (told_function, (2, 3), 13),
    "dynamic": (dynamic, (4,), 7),
    "residual": (residual, (3, 4, 5), 7),
    "looked_up": (looked_up, (2, 3), 7),
}
