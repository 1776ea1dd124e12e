"""What exporters write between layers: shapes that are computed, norms in parts, masks, gates, resizing, sequences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from graph_draft import Draft, Value
from onnx import TensorProto, helper


def size(*dims: int | None) -> int:
    """How many values a sample has."""
    return int(np.prod([dim or 1 for dim in dims]))


def scalar(draft: Draft, number: float) -> str:
    """A constant of rank 0."""
    return draft.constant(np.array(number, draft.dtype), "k")


def batch_size(draft: Draft, x: Value) -> str:
    """The length of the first axis, as a list of one, computed."""
    shape = draft.node("Shape", [x.name]).name
    if draft.chance(0.5):
        return draft.node("Gather", [shape, draft.integers(0)], axis=0).name
    if draft.opset >= 10:
        return draft.node("Slice", [shape, *(draft.integers(each) for each in (0, 1, 0))]).name
    return draft.node("Slice", [shape], starts=[0], ends=[1], axes=[0]).name


def shaped(draft: Draft, x: Value) -> Value | None:
    """Reshape to what Shape, Gather and Concat make."""
    dims = (None, size(*x.dims[1:])) if x.rank > 2 and draft.chance(0.5) else x.dims
    rest = [dim or 1 for dim in dims[1:]]
    if draft.chance(0.4):
        rest[draft.random.randrange(len(rest))] = -1
    parts = [batch_size(draft, x), draft.integers(*rest)]
    return draft.node("Reshape", [x.name, draft.node("Concat", parts, axis=0).name], dims)


def swapped(draft: Draft, x: Value) -> Value | None:
    """The batch second, or last, for an operation."""
    if x.rank == 2 and draft.chance(0.5):
        turned = draft.node("Transpose", [x.name]).name  # without a perm: all axes reversed
        return draft.node("Transpose", [draft.node("Relu", [turned]).name], x.dims)
    perm = [1, 0, *range(2, x.rank)]
    turned = draft.node("Transpose", [x.name], perm=perm).name
    between = draft.random.choice(("Sigmoid", "Relu", "Add"))
    operands = [turned, scalar(draft, 0.5)] if between == "Add" else [turned]
    return draft.node("Transpose", [draft.node(between, operands).name], x.dims, perm=perm)


def pad(draft: Draft, x: Value) -> Value | None:
    """Around all but the batch: with a constant, at times not zero, reflected or repeated; or cut off."""
    if x.rank < 3:
        return None
    mode = draft.random.choice(("constant", "constant", "reflect", "edge"))
    lead = 1 if mode == "constant" else 2
    pads = [0] * (2 * x.rank)
    for axis in range(lead, x.rank):
        least = -1 if mode == "constant" and (x.dims[axis] or 0) > 3 else 0
        most = 1 if (x.dims[axis] or 0) > 1 else 0
        pads[axis], pads[axis + x.rank] = (draft.random.randint(least, most) for _ in range(2))
    dims = tuple(dim and dim + pads[axis] + pads[axis + x.rank] for axis, dim in enumerate(x.dims))
    number = draft.random.choice((0.0, 0.0, -1.0, 2.5))
    if draft.opset < 11:
        return draft.node("Pad", [x.name], dims, mode=mode, pads=pads, value=number)
    operands = [x.name, draft.integers(*pads)]
    if mode == "constant" and draft.chance(0.7):
        operands.append(scalar(draft, number))
    return draft.node("Pad", operands, dims, mode=mode)


def resize(draft: Draft, x: Value) -> Value | None:
    """Upsample, and Resize by scales or to sizes, with a region that is left out or empty."""
    if x.rank != 4:
        return None
    dims = (None, x.dims[1], *(2 * (dim or 1) for dim in x.dims[2:]))
    mode = draft.random.choice(("nearest", "nearest", "linear"))
    scales = np.array([1, 1, 2, 2], np.float32)
    if draft.opset < 9:
        return draft.node("Upsample", [x.name], dims, mode=mode, scales=scales.tolist())
    if draft.opset < 11:
        operator = "Upsample" if draft.opset == 9 else "Resize"
        return draft.node(operator, [x.name, draft.stored(scales, "scales")], dims, mode=mode)
    region = "" if draft.opset >= 13 else draft.stored(np.array([], np.float32), "roi")
    way = draft.random.choice(("align_corners", "half_pixel", "asymmetric", "pytorch_half_pixel"))
    attributes = {"mode": mode, "coordinate_transformation_mode": way}
    if draft.chance(0.5):
        return draft.node("Resize", [x.name, region, draft.stored(scales, "scales")], dims, **attributes)
    none = "" if draft.opset >= 13 else draft.stored(np.array([], np.float32), "scales")
    if draft.opset >= 18 and draft.chance(0.5):
        axes, sizes = [2, 3], draft.integers(*(dim or 1 for dim in dims[2:]))
        return draft.node("Resize", [x.name, "", "", sizes], dims, axes=axes, **attributes)
    rest = draft.integers(*(dim or 1 for dim in dims[1:]))
    sizes = draft.node("Concat", [batch_size(draft, x), rest], axis=0).name
    return draft.node("Resize", [x.name, region, none, sizes], dims, **attributes)


def pick(draft: Draft, x: Value) -> Value | None:
    """Gather of an activation: one place of an axis, counted from either end, or all in another order."""
    axis = draft.random.randrange(1, x.rank)
    length, told = x.dims[axis] or 1, axis if draft.chance(0.5) else axis - x.rank
    if x.rank > 2 and draft.chance(0.5):
        place = draft.random.randrange(-length if draft.opset >= 11 else 0, length)
        dims = (*x.dims[:axis], *x.dims[axis + 1 :])
        kind = draft.random.choice((np.int64, np.int32))
        return draft.node("Gather", [x.name, draft.stored(np.array(place, kind), "i")], dims, axis=told)
    order = list(range(length))
    draft.random.shuffle(order)
    return draft.node("Gather", [x.name, draft.integers(*order)], x.dims, axis=told)


def largest(draft: Draft, x: Value) -> Value | None:
    """TopK, whose indices nobody reads."""
    count = draft.random.randint(1, x.dims[-1] or 1)
    names = [draft.name("top"), draft.name("at")]
    axis = x.rank - 1 if draft.opset < 11 or draft.chance(0.5) else -1
    if draft.opset < 10:
        draft.nodes.append(helper.make_node("TopK", [x.name], names, axis=axis, k=count))
    else:
        draft.nodes.append(helper.make_node("TopK", [x.name, draft.integers(count)], names, axis=axis))
    return Value(names[0], (*x.dims[:-1], count))


def depth(draft: Draft, x: Value) -> Value | None:
    """Blocks of places to channels, and back."""
    if x.rank != 4:
        return None
    channels, high, wide = (dim or 1 for dim in x.dims[1:])
    if channels % 4 == 0 and draft.chance(0.7):
        mode = {"mode": draft.random.choice(("DCR", "CRD"))} if draft.opset >= 11 else {}
        dims = (None, channels // 4, high * 2, wide * 2)
        return draft.node("DepthToSpace", [x.name], dims, blocksize=2, **mode)
    if high % 2 or wide % 2 or channels > 6:
        return None
    return draft.node("SpaceToDepth", [x.name], (None, channels * 4, high // 2, wide // 2), blocksize=2)


def bounds(draft: Draft, x: Value) -> Value | None:
    """Clip between bounds that are left out, or computed at run time."""
    if draft.opset < 12:
        return None
    one = draft.one(x)
    high = draft.node("Squeeze", [one, draft.integers(0)] if draft.opset >= 13 else [one]).name
    low = draft.random.choice(("", scalar(draft, -0.75)))
    return draft.node("Clip", [x.name, low, high], x.dims)


def dropout(draft: Draft, x: Value) -> Value | None:
    """As it is left in by exporters, with a mask that nobody reads, or none."""
    outputs = [draft.name("drop")] + ([draft.name("mask")] if draft.chance(0.4) else [])
    if draft.opset < 12:
        draft.nodes.append(helper.make_node("Dropout", [x.name], outputs, ratio=0.3))
    else:
        operands = [x.name, draft.stored(np.array(0.3, np.float32), "ratio")]
        if draft.chance(0.5):
            operands.append(draft.stored(np.array(False), "training"))
        draft.nodes.append(helper.make_node("Dropout", operands, outputs))
    return Value(outputs[0], x.dims)


def variadic(draft: Draft, x: Value) -> Value | None:
    """Sum, Mean, Max and Min of one to three, with itself among them and constants."""
    if draft.opset < 8:
        return None
    alike = [value.name for value in draft.values if value.dims == x.dims]
    others = [draft.random.choice((*alike, scalar(draft, 0.4))) for _ in range(draft.random.randint(0, 2))]
    return draft.node(draft.random.choice(("Sum", "Mean", "Max", "Min")), [x.name, *others], x.dims)


def gate(draft: Draft, x: Value) -> Value | None:
    """Squeeze and excite: channels times what two convolutions make of their means."""
    if x.rank < 3:
        return None
    channels = x.dims[1] or 1
    ones = [1] * (x.rank - 2)
    inner = draft.random.randint(1, 4)
    squeezed = draft.node("GlobalAveragePool", [x.name]).name
    down = draft.constant(draft.normal(inner, channels, *ones, fan=channels))
    up = draft.constant(draft.normal(channels, inner, *ones, fan=inner))
    hidden = draft.node("Relu", [draft.node("Conv", [squeezed, down]).name]).name
    told = draft.node("Conv", [hidden, up, draft.constant(draft.normal(channels), "b")]).name
    opened = draft.node(draft.random.choice(("Sigmoid", "HardSigmoid")), [told]).name
    operands = [x.name, opened]
    draft.random.shuffle(operands)
    return draft.node("Mul", operands, x.dims)


def parts(draft: Draft, x: Value) -> Value | None:
    """Norms and activations written out in simple operators."""
    way = draft.random.choice(("layer", "rms", "gelu", "tanh", "hard", "length"))
    if way in ("layer", "rms"):
        centered = x.name
        if way == "layer":
            centered = draft.node("Sub", [x.name, draft.reduce("ReduceMean", x.name, [-1 + x.rank], keep=True)]).name
        square = draft.node("Pow", [centered, scalar(draft, 2.0)]).name
        mean = draft.reduce("ReduceMean", square, [x.rank - 1], keep=True)
        root = draft.node("Sqrt", [draft.node("Add", [mean, scalar(draft, 0.01)]).name]).name
        made = draft.node("Div", [centered, root]).name
        return draft.node("Mul", [made, draft.constant(1 + draft.normal(x.dims[-1] or 1, fan=9), "g")], x.dims)
    if way == "length":
        length = draft.reduce("ReduceL2", x.name, [x.rank - 1], keep=True)
        return draft.node("Div", [x.name, draft.node("Add", [length, scalar(draft, 0.1)]).name], x.dims)
    if way == "hard":
        if draft.opset < 11:
            return draft.node("HardSigmoid", [x.name], x.dims, alpha=1 / 6)
        moved = draft.node("Add", [x.name, scalar(draft, 3.0)]).name
        cut = draft.node("Clip", [moved, *(draft.stored(np.array(end, draft.dtype), "end") for end in (0, 6))]).name
        return draft.node("Div", [draft.node("Mul", [x.name, cut]).name, scalar(draft, 6.0)], x.dims)
    if way == "tanh" or draft.opset < 9:
        cube = draft.node("Mul", [draft.node("Pow", [x.name, scalar(draft, 3.0)]).name, scalar(draft, 0.044715)]).name
        sums = draft.node("Mul", [draft.node("Add", [x.name, cube]).name, scalar(draft, 0.7978846)]).name
        bent = draft.node("Tanh", [sums]).name
    else:
        bent = draft.node("Erf", [draft.node("Div", [x.name, scalar(draft, 1.4142135)]).name]).name
    more = draft.node("Add", [bent, scalar(draft, 1.0)]).name
    return draft.node("Mul", [draft.node("Mul", [x.name, more]).name, scalar(draft, 0.5)], x.dims)


def masked(draft: Draft, x: Value) -> Value | None:
    """Softmax of what a mask hides in part: by minus infinity, the least number, or a large one."""
    length = x.dims[-1] or 1
    hidden = draft.numbers.random(length) < 0.4
    hidden[0] = False
    far = draft.random.choice((-1e4, -1e4, float(np.finfo(draft.dtype).min), -np.inf))
    axis = x.rank - 1 if draft.opset < 13 else -1
    if draft.opset >= 9 and draft.chance(0.5):
        out = draft.node("Where", [draft.stored(hidden, "mask"), scalar(draft, far), x.name]).name
    else:
        out = draft.node("Add", [x.name, draft.constant(np.where(hidden, far, 0).astype(draft.dtype), "mask")]).name
    return draft.node("Softmax", [out], x.dims, axis=axis)


def island(draft: Draft, x: Value) -> Value | None:
    """An operation in another type."""
    kind, dtype = draft.random.choice(((TensorProto.FLOAT16, np.float16), (TensorProto.DOUBLE, np.float64)))
    other = draft.node("Cast", [x.name], to=kind).name
    number = draft.stored(np.array(1.5, dtype), "k")
    return draft.node("Cast", [draft.node("Mul", [other, number]).name], x.dims, to=draft.kind)


def silent(draft: Draft, x: Value) -> Value | None:
    """A tensor that is the same for every sample: zero, or a constant."""
    zero = draft.node("Mul", [x.name, scalar(draft, 0.0)]).name
    if draft.chance(0.4):
        return draft.node("Relu", [zero], x.dims)
    return draft.node("Add", [zero, draft.constant(draft.normal(x.dims[-1] or 1), "k")], x.dims)


def sequence(draft: Draft, x: Value) -> Value | None:
    """Into a sequence of tensors and out of it."""
    if draft.opset < 11 or draft.dtype != np.float32:
        return None
    if draft.chance(0.5):
        pair = draft.node("SequenceConstruct", [x.name, x.name]).name
        return draft.node("SequenceAt", [pair, draft.stored(np.array(1, np.int64), "i")], x.dims)
    every = draft.node("SplitToSequence", [x.name], axis=1, keepdims=1).name
    return draft.node("ConcatFromSequence", [every], x.dims, axis=1)


def choose(draft: Draft, x: Value) -> Value | None:
    """Where, by a comparison with zero: continuous there."""
    if draft.opset < 9:
        return None
    zero = scalar(draft, 0.0)
    told = draft.node("Greater", [x.name, zero]).name
    if draft.chance(0.5):
        told = draft.node("Not", [draft.node("Less", [x.name, zero]).name]).name
    return draft.node("Where", [told, x.name, draft.node("Mul", [x.name, scalar(draft, 0.2)]).name], x.dims)


def unary(draft: Draft, x: Value) -> Value | None:
    """Functions of one operand that are smooth enough."""
    since = {"Sin": 7, "Cos": 7, "Abs": 7, "Neg": 7, "Softsign": 7, "Selu": 7, "Atan": 7, "Celu": 12, "LogSoftmax": 13}
    since |= {"CumSum": 11, "Trilu": 14, "Exp": 7, "Reciprocal": 7, "LRN": 7, "Tile": 7, "Expand": 8, "Round trip": 9}
    name = draft.random.choice([name for name, opset in since.items() if opset <= draft.opset])
    if name == "Celu" and draft.dtype != np.float32:  # which has no other
        return None
    if name == "Exp":
        return draft.node("Exp", [draft.node("Tanh", [x.name]).name], x.dims)
    if name == "Reciprocal":
        above = draft.node("Add", [draft.node("Abs", [x.name]).name, scalar(draft, 1.0)]).name
        return draft.node("Reciprocal", [above], x.dims)
    if name == "CumSum":
        return draft.node("CumSum", [x.name, draft.stored(np.array(-1, np.int32), "axis")], x.dims, reverse=1)
    if name == "LRN":
        return draft.node("LRN", [x.name], x.dims, size=3) if x.rank == 4 else None
    if name == "Trilu":
        return draft.node("Trilu", [x.name], x.dims) if x.rank > 2 else None
    if name == "Tile":
        return draft.node("Tile", [x.name, draft.integers(*[1] * x.rank)], x.dims)
    if name == "Expand":
        return draft.node("Expand", [x.name, draft.integers(*[1] * x.rank)], x.dims)
    if name == "Round trip":
        return draft.node("Reshape", [x.name, draft.node("Shape", [x.name]).name], x.dims)
    return draft.node(name, [x.name], x.dims)


def reduced(draft: Draft, x: Value) -> Value | None:
    """Over the last axis, or all but the batch, kept as axes of one."""
    operator = draft.random.choice(("ReduceMax", "ReduceMin", "ReduceSum", "ReduceL1", "ReduceLogSumExp"))
    axes = [x.rank - 1] if draft.chance(0.6) else list(range(1, x.rank))
    if draft.opset >= 11 and draft.chance(0.5):
        axes = [axis - x.rank for axis in axes]
    dims = [1 if axis in axes or axis - x.rank in axes else dim for axis, dim in enumerate(x.dims)]
    if operator == "ReduceSum" and draft.opset >= 13:
        return draft.node(operator, [x.name, draft.integers(*axes)], tuple(dims), keepdims=1)
    return Value(draft.reduce(operator, x.name, axes, keep=True), tuple(dims))


def nothing(draft: Draft, x: Value) -> Value | None:
    """Joined with a part that has no values."""
    if draft.opset < 10:
        return None
    axis = draft.random.randrange(1, x.rank)
    empty = draft.node("Slice", [x.name, *(draft.integers(each) for each in (0, 0, axis))]).name
    operands = [x.name, empty]
    draft.random.shuffle(operands)
    return draft.node("Concat", operands, x.dims, axis=axis - x.rank if draft.opset >= 11 else axis)


def windows(draft: Draft, x: Value) -> Value | None:
    """Pooling with pads, rounded up, dilated, with indices that nobody reads."""
    if x.rank < 3 or draft.opset < 10:
        return None
    inside = [dim or 1 for dim in x.dims[2:]]
    if min(inside) < 2:
        return None
    after = tuple(n + 1 for n in inside)
    attributes = {"kernel_shape": [2] * len(inside), "pads": [1] * (2 * len(inside)), "ceil_mode": 1}
    if draft.chance(0.5):
        counted = {"count_include_pad": draft.random.choice((0, 1))}
        return draft.node("AveragePool", [x.name], (*x.dims[:2], *after), **attributes, **counted)
    names = [draft.name("pool")] + ([draft.name("at")] if draft.chance(0.4) else [])
    draft.nodes.append(helper.make_node("MaxPool", [x.name], names, **attributes))
    return Value(names[0], (*x.dims[:2], *after))


def samples(draft: Draft, x: Value) -> Value | None:
    """GridSample at places that are constant, once for each sample."""
    if x.rank != 4 or draft.opset < 16 or draft.dtype != np.float32:
        return None
    high, wide = 2, 3
    grid = draft.stored(draft.numbers.uniform(-1.1, 1.1, (1, high, wide, 2)).astype(np.float32), "grid")
    shape = draft.node("Concat", [batch_size(draft, x), draft.integers(high, wide, 2)], axis=0).name
    mode = (
        draft.random.choice(("bilinear", "nearest")) if draft.opset < 20 else draft.random.choice(("linear", "nearest"))
    )
    spread = draft.node("Expand", [grid, shape]).name
    return draft.node("GridSample", [x.name, spread], (None, x.dims[1], high, wide), mode=mode)


IDIOMS: dict[str, Callable[[Draft, Value], Value | None]] = {
    each.__name__: each
    for each in (
        shaped, swapped, pad, resize, pick, largest, depth, bounds, dropout, variadic, gate, parts, masked, island,
        silent, sequence, choose, unary, reduced, nothing, windows, samples,
    )
}  # fmt: skip
