"""The operators with weights, each in every form that the standard gives its operands."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
from graph_draft import Draft, Value
from onnx import helper, numpy_helper


def _divisors(number: int) -> list[int]:
    return [each for each in range(1, number + 1) if number % each == 0]


def _bias(draft: Draft, channels: int, x: Value) -> list[str]:
    """The optional bias of a convolution: absent, left out, constant, or computed at run time."""
    way = draft.random.choice(("absent", "empty", "constant", "constant", "constant", "computed"))
    if way in ("absent", "empty"):
        return [""] if way == "empty" and draft.opset >= 11 else []
    name = draft.constant(draft.normal(channels), "b")
    return [draft.node("Mul", [name, draft.one(x)]).name] if way == "computed" and not draft.small else [name]


def conv(draft: Draft, x: Value) -> Value | None:
    """Of one, two or three axes; groups, strides, dilations, pads of both kinds."""
    chance, inside = draft.random, [dim or 0 for dim in x.dims[2:]]
    channels = x.dims[1] or 0
    group = chance.choice([1, 1, *_divisors(channels)])
    out = group * chance.randint(1, max(1, 12 // group))
    kernel = [chance.randint(1, min(3, dim)) for dim in inside]
    auto = chance.choice(("NOTSET", "NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"))
    strides = [chance.choice((1, 1, 2)) for _ in inside]
    dilations, pads = [1] * len(inside), [0] * (2 * len(inside))
    if auto == "NOTSET":
        pads = [chance.choice((0, 0, 1)) for _ in pads]
        room = [n + a + b for n, a, b in zip(inside, pads, pads[len(inside) :], strict=False)]
        dilations = [chance.choice((1, 2)) if (k - 1) * 2 < n else 1 for k, n in zip(kernel, room, strict=True)]
    attributes: dict[str, object] = {"group": group} if group > 1 or draft.chance(0.5) else {}
    if auto != "NOTSET":
        attributes["auto_pad"] = auto
    elif any(pads):
        attributes["pads"] = pads
    attributes |= {"strides": strides} if any(s > 1 for s in strides) or draft.chance(0.5) else {}
    attributes |= {"dilations": dilations} if any(d > 1 for d in dilations) else {}
    attributes |= {"kernel_shape": kernel} if draft.chance(0.5) else {}
    if auto.startswith("SAME"):
        after = [-(-n // s) for n, s in zip(inside, strides, strict=True)]
    else:
        ends = zip(inside, pads, pads[len(inside) :], kernel, dilations, strides, strict=False)
        after = [(n + a + b - (k - 1) * d - 1) // s + 1 for n, a, b, k, d, s in ends]
    fan = channels // group * prod(kernel)
    weight = draft.weight(draft.normal(out, channels // group, *kernel, fan=fan), x)
    return draft.node("Conv", [x.name, weight, *_bias(draft, out, x)], (None, out, *after), **attributes)


def conv_transpose(draft: Draft, x: Value) -> Value | None:
    """Groups, strides, pads and output padding."""
    chance, inside, channels = draft.random, [dim or 0 for dim in x.dims[2:]], x.dims[1] or 0
    group = chance.choice([1, 1, *_divisors(channels)])
    each = chance.randint(1, max(1, 8 // group))
    kernel = [chance.randint(1, 3) for _ in inside]
    strides = [chance.randint(1, 2) for _ in inside]
    pads = [chance.choice((0, 0, 1)) if k > 1 and n > 2 else 0 for k, n in zip(kernel, inside, strict=True)]
    more = [chance.choice((0, 1)) if s > 1 else 0 for s in strides]
    after = [s * (n - 1) + o + k - 2 * p for n, s, o, k, p in zip(inside, strides, more, kernel, pads, strict=True)]
    weight = draft.weight(draft.normal(channels, each, *kernel, fan=channels // group * prod(kernel)), x)
    attributes: dict[str, object] = {"group": group, "strides": strides, "pads": pads * 2}
    attributes |= {"output_padding": more} if any(more) else {}
    operands = [x.name, weight, *_bias(draft, each * group, x)]
    return draft.node("ConvTranspose", operands, (None, each * group, *after), **attributes)


def gemm(draft: Draft, x: Value) -> Value | None:
    """alpha, beta, both transposes, and every C that broadcasts; the weight second, or first."""
    chance, inputs, out = draft.random, x.dims[1] or 0, draft.random.randint(1, 12)
    attributes: dict[str, object] = {}
    for name in ("alpha", "beta"):
        if draft.chance(0.3):
            attributes[name] = chance.choice((0.5, 1.5, -2.0))
    transposed = draft.chance(0.5)
    attributes |= {"transB": 1} if transposed else {"transB": 0} if draft.chance(0.3) else {}
    if draft.chance(0.08) and not draft.small:  # the weight first: (O, I) x (I, N)
        turned = draft.node("Transpose", [x.name], perm=[1, 0]).name
        weight = draft.weight(draft.normal(out, inputs, fan=inputs), x)
        third = [draft.constant(draft.normal(out, 1), "c")]
        made = draft.node("Gemm", [weight, turned, *third]).name
        return draft.node("Transpose", [made], (None, out), perm=[1, 0])
    read = x.name
    if draft.chance(0.1) and not draft.small:
        read, attributes["transA"] = draft.node("Transpose", [x.name], perm=[1, 0]).name, 1
    weight = draft.weight(draft.normal(*((out, inputs) if transposed else (inputs, out)), fan=inputs), x)
    return draft.node("Gemm", [read, weight, *_third(draft, out, x)], (None, out), **attributes)


def _third(draft: Draft, out: int, x: Value) -> list[str]:
    """C of Gemm: absent, a constant of any shape that broadcasts, or an activation."""
    shapes: list[tuple[int, ...]] = [(), (1,), (out,), (out,), (out,), (1, out), (1, 1)]
    alike = [value for value in draft.values if value.dims in ((None, out), (None, 1))]
    if draft.opset >= 11 and draft.chance(0.2):
        return [""] if draft.chance(0.2) else []
    if alike and not draft.small and draft.chance(0.3):
        return [draft.random.choice(alike).name]
    name = draft.constant(draft.normal(*draft.random.choice(shapes)), "c")
    return [draft.node("Mul", [name, draft.one(x)]).name] if draft.chance(0.05) and not draft.small else [name]


def matmul(draft: Draft, x: Value) -> Value | None:
    """With a matrix, a vector or a stack of matrices, after the activation or before it."""
    chance, inputs, out = draft.random, x.dims[-1] or 0, draft.random.randint(1, 12)
    ways = ["matrix"] * 5 + (["vector"] if x.rank > 2 else [])
    ways += ["stack", "stack", "first"] if x.rank > 2 else []
    way = chance.choice(ways)
    if way == "vector":
        return draft.node("MatMul", [x.name, draft.weight(draft.normal(inputs, fan=inputs), x)], x.dims[:-1])
    if way == "first":
        rows = x.dims[-2] or 0
        lead = [chance.choice((1, dim)) for dim in x.dims[1:-2] if dim][: chance.randint(0, 2)]
        lead = lead if len(lead) == x.rank - 3 else []
        weight = draft.weight(draft.normal(*lead, out, rows, fan=rows), x)
        return draft.node("MatMul", [weight, x.name], (*x.dims[:-2], out, inputs))
    lead = []
    if way == "stack":
        lead = [chance.choice((dim or 1, dim or 1, 1)) for dim in x.dims[1:-2]]
        lead = [1, *lead] if draft.chance(0.3) else lead or [1]
    weight = draft.weight(draft.normal(*lead, inputs, out, fan=inputs), x)
    return draft.node("MatMul", [x.name, weight], (*x.dims[:-1], out))


def einsum(draft: Draft, x: Value) -> Value | None:
    """A contraction of the last axis, or of the channels, with a constant on either side."""
    letters, inputs, out = "bcdef"[: x.rank], x.dims[-1] or 0, draft.random.randint(1, 8)
    last, turned, first = letters[-1], draft.chance(0.5), draft.chance(0.3)
    weight = draft.weight(draft.normal(*((out, inputs) if turned else (inputs, out)), fan=inputs), x)
    terms = [letters, f"z{last}" if turned else f"{last}z"]
    operands = [x.name, weight]
    if first:
        terms, operands = terms[::-1], operands[::-1]
    return draft.node("Einsum", operands, (*x.dims[:-1], out), equation=f"{','.join(terms)}->{letters[:-1]}z")


def recurrent(draft: Draft, x: Value) -> Value | None:
    """LSTM, GRU and RNN over the second axis, in one or both directions."""
    operator, gates = draft.random.choice((("LSTM", 4), ("GRU", 3), ("RNN", 1)))
    steps, inputs, size = x.dims[1], x.dims[2] or 0, draft.random.randint(1, 6)
    direction = draft.random.choice(("forward", "reverse", "bidirectional"))
    ways = 2 if direction == "bidirectional" else 1
    turned = draft.node("Transpose", [x.name], perm=[1, 0, 2]).name
    operands = [
        turned,
        draft.weight(draft.normal(ways, gates * size, inputs, fan=inputs), x),
        draft.weight(draft.normal(ways, gates * size, size, fan=size), x),
    ]
    if draft.chance(0.7):
        operands.append(draft.constant(draft.normal(ways, 2 * gates * size, fan=4), "b"))
    attributes: dict[str, object] = {"hidden_size": size, "direction": direction}
    if operator == "GRU" and draft.chance(0.5):
        attributes["linear_before_reset"] = 1
    if draft.chance(0.5):
        every = draft.node(operator, operands, **attributes).name  # (T, D, N, H)
        turned = draft.node("Transpose", [every], perm=[2, 0, 1, 3]).name
        shape = draft.integers(0, steps or 1, ways * size)
        return draft.node("Reshape", [turned, shape], (None, steps, ways * size))
    last = draft.name("h")
    draft.nodes.append(helper.make_node(operator, operands, ["", last], **attributes))
    return draft.node("Transpose", [last], (None, ways, size), perm=[1, 0, 2])


def attention(draft: Draft, x: Value) -> Value | None:
    """One head: three products with weights, two of activations."""
    inputs, size, out = x.dims[2] or 0, draft.random.randint(2, 8), draft.random.randint(2, 8)
    q, k, v = (
        draft.node("MatMul", [x.name, draft.weight(draft.normal(inputs, width, fan=inputs), x)]).name
        for width in (size, size, out)
    )
    if draft.chance(0.5):
        v = draft.node("Add", [v, draft.constant(draft.normal(out), "b")]).name
    keys = draft.node("Transpose", [k], perm=[0, 2, 1]).name
    scores = draft.node("MatMul", [q, keys]).name
    scaled = draft.node("Mul", [scores, draft.constant(np.array(size**-0.5, draft.dtype), "s")]).name
    weights = draft.node("Softmax", [scaled], axis=2 if draft.opset < 13 else -1).name
    return draft.node("MatMul", [weights, v], (None, x.dims[1], out))


def autoencoder(draft: Draft, x: Value) -> Value | None:
    """One matrix read along both axes."""
    inputs, size = x.dims[-1] or 0, draft.random.randint(1, 10)
    weight = draft.constant(draft.normal(inputs, size, fan=inputs))
    if x.rank == 2 and draft.chance(0.5):
        hidden = draft.node("Gemm", [x.name, weight, draft.constant(draft.normal(size), "b")]).name
        hidden = draft.node("Relu", [hidden]).name
        third = draft.constant(draft.normal(inputs), "b")
        return draft.node("Gemm", [hidden, weight, third], x.dims, transB=1)
    hidden = draft.node("Tanh", [draft.node("MatMul", [x.name, weight]).name]).name
    turned = draft.node("Transpose", [weight], perm=[1, 0]).name
    return draft.node("MatMul", [hidden, turned], x.dims)


def branch(draft: Draft, x: Value) -> Value | None:
    """If: both branches read the activation, and constants of the graph around them or of their own."""
    inputs, out = x.dims[-1] or 0, draft.random.randint(1, 8)
    outer = draft.weight(draft.normal(inputs, out, fan=inputs), x)
    number = draft.stored(np.array([0.5], draft.dtype), "t")
    told = draft.node("Greater", [draft.one(x), number]).name if draft.chance(0.7) else ""
    if told:
        told = draft.node("Reshape", [told, draft.stored(np.array([], np.int64), "i")]).name
    condition = told or draft.stored(np.array(True), "c")
    bodies = []
    for way in ("then", "else"):
        made, stored, weight = draft.name(way), [], outer
        if draft.chance(0.4):
            weight = draft.name(f"{way}_w")
            stored.append(numpy_helper.from_array(draft.normal(inputs, out, fan=inputs), weight))
        node = helper.make_node("MatMul", [x.name, weight], [made])
        dims = ["n" if dim is None else dim for dim in (*x.dims[:-1], out)]
        bodies.append(
            helper.make_graph([node], way, [], [helper.make_tensor_value_info(made, draft.kind, dims)], stored)
        )
    return draft.node("If", [condition], (*x.dims[:-1], out), then_branch=bodies[0], else_branch=bodies[1])


def loop(draft: Draft, x: Value) -> Value | None:
    """Loop: a state that is multiplied again and again by a matrix of the graph around it."""
    size = x.dims[-1] or 0
    outer = draft.weight(draft.normal(size, size, fan=size), x)
    turn, go_on, read, kept, made = (draft.name(each) for each in ("turn", "go", "read", "kept", "made"))
    nodes = [helper.make_node("Identity", [go_on], [kept]), helper.make_node("MatMul", [read, outer], [made])]
    turns = draft.loop(x, (turn, go_on, read, kept), nodes, (made,))
    return draft.node("Loop", turns.input, x.dims, body=turns.attribute[0].g)


def scan(draft: Draft, x: Value) -> Value | None:
    """Scan over the second axis, with a state and a matrix of the graph around it."""
    size, steps = x.dims[2] or 0, x.dims[1]
    outer = draft.weight(draft.normal(size, size, fan=size), x)
    first = draft.reduce("ReduceMean", x.name, [1], keep=False)
    state, read, product, after, given = (draft.name(each) for each in ("state", "read", "prod", "after", "given"))
    rows = [helper.make_tensor_value_info(each, draft.kind, ["n", size]) for each in (state, read, after, given)]
    body = helper.make_graph(
        [
            helper.make_node("MatMul", [state, outer], [product]),
            helper.make_node("Add", [product, read], [after]),
            helper.make_node("Tanh", [after], [given]),
        ],
        "body",
        rows[:2],
        rows[2:],
    )
    out, last = draft.name("scan"), draft.name("last")
    attributes = {"num_scan_inputs": 1, "scan_input_axes": [1], "scan_output_axes": [1]}
    draft.nodes.append(helper.make_node("Scan", [first, x.name], [last, out], body=body, **attributes))
    return Value(out, (None, steps, size))


def function(draft: Draft, x: Value) -> Value | None:
    """A layer in a function of the file: its weight an operand, or a Constant node inside."""
    inputs, out, inside = x.dims[-1] or 0, draft.random.randint(1, 8), draft.chance(0.4)
    array, called = draft.normal(inputs, out, fan=inputs), f"Layer{len(draft.functions)}"
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Relu", ["p"], ["y"])]
    if inside:
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(array, "w")))
    domains = [helper.make_opsetid("", draft.opset)]
    draft.functions.append(helper.make_function("mine", called, ["x"] if inside else ["x", "w"], ["y"], nodes, domains))
    operands = [x.name] if inside else [x.name, draft.weight(array, x)]
    return draft.node(called, operands, (*x.dims[:-1], out), domain="mine")


# name -> its function, the ranks that it takes, and the first opset
LAYERS: dict[str, tuple[Callable[[Draft, Value], Value | None], tuple[int, ...], int]] = {
    "Conv": (conv, (3, 4, 4, 5), 7),
    "ConvTranspose": (conv_transpose, (3, 4, 5), 7),
    "Gemm": (gemm, (2,), 7),
    "MatMul": (matmul, (2, 3, 4, 5), 7),
    "Einsum": (einsum, (2, 3, 4), 12),
    "recurrent": (recurrent, (3,), 7),
    "attention": (attention, (3,), 7),
    "autoencoder": (autoencoder, (2, 3), 7),
    "If": (branch, (2, 3), 9),
    "Loop": (loop, (2, 3), 9),
    "Scan": (scan, (3,), 9),
    "function": (function, (2, 3), 13),
}
ALONE = ("Conv", "Gemm", "MatMul")  # single operators, whose error has a bound
