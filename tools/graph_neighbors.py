"""What lies between layers in graphs of real models: activations, norms, additions, moves, pooling."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from graph_draft import Draft, Value
from onnx import helper


def activation(draft: Draft, x: Value) -> Value | None:
    """One that the opset has; SiLU of two nodes."""
    since = {"HardSwish": 14, "Gelu": 20, "Mish": 18, "Swish": 24, "Erf": 9}
    names = ["Relu"] * 4 + ["Sigmoid", "Tanh", "LeakyRelu", "Elu", "HardSigmoid", "Softplus", "Clip", "SiLU", "PRelu"]
    names += [name for name, opset in since.items() if opset <= draft.opset]
    name = draft.random.choice(names)
    if name == "SiLU":
        return draft.node("Mul", [x.name, draft.node("Sigmoid", [x.name]).name], x.dims)
    if name == "PRelu":
        slope = draft.constant(draft.normal(*(x.dims[1] or 1, *[1] * (x.rank - 2)), fan=16), "slope")
        return draft.node("PRelu", [x.name, slope], x.dims)
    if name != "Clip":
        return draft.node(name, [x.name], x.dims)
    if draft.opset < 11:
        return draft.node("Clip", [x.name], x.dims, min=0.0, max=6.0)
    ends = [draft.constant(np.array(end, draft.dtype), "end") for end in (0, 6)]
    return draft.node("Clip", [x.name, *ends[: draft.random.choice((1, 2))]], x.dims)


def norm(draft: Draft, x: Value) -> Value | None:
    """Over the batch with stored moments, over an instance, or over the last axis."""
    channels = x.dims[1] or 1
    ways = ["batch"] + ["instance"] * (x.rank > 2) + ["layer"] * (draft.opset >= 17)
    way = draft.random.choice(ways)
    if way == "layer":
        size = x.dims[-1] or 1
        parts = [draft.constant(1 + draft.normal(size, fan=9), "g"), draft.constant(draft.normal(size), "b")]
        return draft.node("LayerNormalization", [x.name, *parts], x.dims, axis=-1)
    parts = [draft.constant(1 + draft.normal(channels, fan=9), "g"), draft.constant(draft.normal(channels), "b")]
    if way == "instance":
        return draft.node("InstanceNormalization", [x.name, *parts], x.dims)
    mean = draft.constant(draft.normal(channels, fan=4), "mean")
    variance = draft.constant(np.abs(draft.normal(channels)) + draft.dtype(0.5), "var")
    return draft.node("BatchNormalization", [x.name, *parts, mean, variance], x.dims)


def join(draft: Draft, x: Value) -> Value | None:
    """Add, Mul, Sub or Concat with another activation, or with itself."""
    alike = [value for value in draft.values if value.dims == x.dims]
    other = draft.random.choice(alike)
    operator = draft.random.choice(("Add", "Add", "Add", "Concat", "Mul", "Sub", "Max"))
    if operator != "Concat":
        pair = [x.name, other.name]
        draft.random.shuffle(pair)
        return draft.node(operator, pair, x.dims)
    axis = draft.random.randrange(1, x.rank)
    dims = list(x.dims)
    dims[axis] = 2 * (dims[axis] or 1)
    if (dims[axis] or 0) > 24:
        return None
    return draft.node("Concat", [x.name, other.name], tuple(dims), axis=axis)


def arithmetic(draft: Draft, x: Value) -> Value | None:
    """With a constant that broadcasts."""
    shape = [dim or 1 for dim in x.dims[1:]]
    shape = [draft.random.choice((1, dim)) for dim in shape][draft.random.randint(0, len(shape)) :]
    operator = draft.random.choice(("Add", "Mul", "Sub"))
    operands = [x.name, draft.constant(draft.normal(*shape), "k")]
    return draft.node(operator, operands if draft.chance(0.8) else operands[::-1], x.dims)


def move(draft: Draft, x: Value) -> Value | None:
    """Transpose, Flatten, Reshape, Squeeze and Unsqueeze, with the batch in its place."""
    sizes = [dim or 1 for dim in x.dims[1:]]
    way = draft.random.choice(("transpose", "flatten", "merge", "split", "squeeze"))
    if way == "transpose" and x.rank > 2:
        rest = list(range(1, x.rank))
        draft.random.shuffle(rest)
        return draft.node("Transpose", [x.name], (None, *(x.dims[axis] for axis in rest)), perm=[0, *rest])
    if way == "flatten" and x.rank > 2:
        return draft.node("Flatten", [x.name], (None, int(np.prod(sizes))))
    if way == "merge" and x.rank > 2:
        dims = [int(np.prod(sizes[:2])), *sizes[2:]]
        return draft.node("Reshape", [x.name, draft.integers(draft.random.choice((0, -1)), *dims)], (None, *dims))
    if way == "split" and x.rank < 5 and sizes[0] % 2 == 0:
        dims = [2, sizes[0] // 2, *sizes[1:]]
        return draft.node("Reshape", [x.name, draft.integers(-1, *dims)], (None, *dims))
    if way == "squeeze" and x.rank < 5:
        axes = [draft.integers(1)] if draft.opset >= 13 else []
        attributes = {} if axes else {"axes": [1]}
        wider = draft.node("Unsqueeze", [x.name, *axes], **attributes).name
        return draft.node("Squeeze", [wider, *axes], x.dims, **attributes)
    return None


def pool(draft: Draft, x: Value) -> Value | None:
    """Maxima and averages, of windows or of all places."""
    if x.rank < 3:
        return None
    inside = [dim or 1 for dim in x.dims[2:]]
    operator = draft.random.choice(("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean"))
    if operator == "ReduceMean":
        return Value(draft.reduce(operator, x.name, [x.rank - 1], keep=False), x.dims[:-1])
    if operator.startswith("Global"):
        return draft.node(operator, [x.name], (*x.dims[:2], *[1] * len(inside)))
    kernel = [draft.random.randint(1, min(2, dim)) for dim in inside]
    after = [n - k + 1 for n, k in zip(inside, kernel, strict=True)]
    return draft.node(operator, [x.name], (*x.dims[:2], *after), kernel_shape=kernel)


def other(draft: Draft, x: Value) -> Value | None:
    """Softmax, Identity, Split and Slice."""
    way = draft.random.choice(("softmax", "identity", "split", "slice"))
    if way == "softmax":
        return draft.node("Softmax", [x.name], x.dims, axis=x.rank - 1)
    if way == "identity":
        return draft.node("Identity", [x.name], x.dims)
    size = x.dims[1] or 1
    if way == "split" and size % 2 == 0:
        first, second = draft.name("half"), draft.name("half")
        attributes = {"num_outputs": 2} if draft.opset >= 18 else {}
        draft.nodes.append(helper.make_node("Split", [x.name], [first, second], axis=1, **attributes))
        dims = (None, size // 2, *x.dims[2:])
        draft.values.append(Value(second, dims))
        return Value(first, dims)
    if way == "slice" and size > 1 and draft.opset >= 10:
        operands = [x.name, *(draft.integers(each) for each in (0, size - 1, 1))]
        return draft.node("Slice", operands, (None, size - 1, *x.dims[2:]))
    return None


NEIGHBORS: dict[str, Callable[[Draft, Value], Value | None]] = {
    "activation": activation,
    "norm": norm,
    "join": join,
    "arithmetic": arithmetic,
    "move": move,
    "pool": pool,
    "other": other,
}
