"""Trace channels through an exported torch graph, with one rule per operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from torch import fx

from pocketzoo.compress.plans import Shortcut
from pocketzoo.compress.pruning.channels import Channels, Group, Ids, Tracked


@dataclass
class ChannelTracer:
    """State of one walk over the graph."""

    parameters: dict[fx.Node, str] = field(default_factory=dict)
    values: dict[fx.Node, Tracked] = field(default_factory=dict)
    parents: list[int] = field(default_factory=list)
    frozen: list[tuple[Ids, str]] = field(default_factory=list)  # with the reason
    axes: dict[tuple[str, int], Ids] = field(default_factory=dict)
    producers: dict[str, Ids] = field(default_factory=dict)
    shifts: dict[str, str] = field(default_factory=dict)
    shared: set[str] = field(default_factory=set)
    shortcuts: dict[str, Shortcut] = field(default_factory=dict)
    products: list[tuple[Ids, int]] = field(default_factory=list)  # of two activations, with what they multiply
    # Parameters that something not followed here is computed from -> what computes it.
    opaque: dict[str, str] = field(default_factory=dict)

    # -- union-find
    def new(self, count: int) -> Ids:
        start = len(self.parents)
        self.parents.extend(range(start, start + count))
        return np.arange(start, start + count)

    def root(self, i: int) -> int:
        while self.parents[i] != i:
            self.parents[i] = self.parents[self.parents[i]]  # path halving
            i = self.parents[i]
        return i

    def roots(self, ids: Ids) -> Ids:
        return np.array([self.root(int(i)) for i in ids], dtype=np.int64)

    def join(self, a: Ids, b: Ids) -> None:
        for i, j in zip(a, b, strict=True):
            self.parents[self.root(int(i))] = self.root(int(j))

    def bound(self, ids: Ids, count: int) -> Ids:
        """Bind ids into ``count`` blocks of neighbors that go together; returns one id of each."""
        blocks = ids.reshape(count, -1)
        for i in range(1, blocks.shape[1]):
            self.join(blocks[:, i], blocks[:, 0])
        return blocks[:, 0]

    # -- the walk
    def visit(self, node: fx.Node) -> None:
        if _op(node) == "_assert_tensor_metadata":  # what a cast was traced with: it computes nothing
            return
        rule = _RULES.get(_op(node))
        out = rule(self, node) if rule else None
        if out is None:
            self.freeze_inputs(node)
        else:
            self.values[node] = out

    def freeze_inputs(self, node: fx.Node) -> None:
        if node.op == "output":
            why = "it makes an output of the model, and what it reads loses no channels"
        else:
            why = f"its channels reach {_op(node)!r}, through which they are not followed"
        for arg in node.all_input_nodes:
            if arg in self.values:
                self.freeze(self.values[arg].ids, why)
            elif arg in self.parameters:
                self.opaque.setdefault(self.parameters[arg], f"{_op(node)!r} computes with its weight")

    def freeze(self, ids: Ids, why: str) -> None:
        """Keep these channels; ``why`` ends up in a plan, of a layer that has no others."""
        self.frozen.append((ids, why))

    def tie(self, node: Any, dim: int, ids: Ids) -> None:
        """Say that an axis of a parameter carries ``ids``; used twice, both uses are joined."""
        key = (self.parameters[node], dim)
        if key in self.axes:
            self.join(ids, self.axes[key])
            self.shared.add(key[0])
        self.axes[key] = ids

    def result(self) -> Channels:
        axes = {key: self.roots(ids) for key, ids in self.axes.items()}
        held: dict[int, str] = {}
        opaque = [(ids, self.opaque[name]) for (name, _), ids in self.axes.items() if name in self.opaque]
        for ids, why in [*self.frozen, *opaque]:
            for i in self.roots(ids):
                held.setdefault(int(i), why)
        # A second union-find over roots: channels that some layer produces side by side are alternatives.
        group_of: dict[int, int] = {}

        def find(i: int) -> int:
            while group_of.setdefault(i, i) != i:
                i = group_of[i]
            return i

        outputs = {name: self.roots(ids) for name, ids in self.producers.items()}
        for ids in outputs.values():
            for i in ids[1:]:
                group_of[find(int(i))] = find(int(ids[0]))
        members: dict[int, list[str]] = {}
        for name, ids in outputs.items():
            members.setdefault(find(int(ids[0])), []).append(name)
        groups = []
        for names in members.values():
            channels = np.unique(np.concatenate([outputs[name] for name in names]))
            if held.keys().isdisjoint(channels.tolist()) and len(channels) > 1:
                width = max(int(np.unique(outputs[name], return_counts=True)[1].max()) for name in names)
                groups.append(Group(tuple(names), channels, width))
        products = tuple((self.roots(ids), macs) for ids, macs in self.products)
        return Channels(axes, tuple(groups), self.shifts, frozenset(self.shared), self.shortcuts, products, held)


def _op(node: fx.Node) -> str:
    """The operator's name without namespace, overload and in-place mark: "aten.relu_.default" -> "relu"."""
    name = str(node.target).removeprefix("aten.").split(".")[0]
    return name if name.startswith("__") else name.rstrip("_")


def _args(node: fx.Node) -> tuple[Any, ...]:
    """Positional arguments: nodes, numbers and lists of them, as the operator's schema orders them."""
    return node.args


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(int(d) for d in node.meta["val"].shape)


Rule = Callable[[ChannelTracer, fx.Node], Tracked | None]  # None: freeze the inputs


def _convolution(t: ChannelTracer, node: fx.Node) -> Tracked | None:
    args = _args(node)
    x, weight, bias = args[0], args[1], args[2] if len(args) > 2 else None
    groups = int(args[6]) if len(args) > 6 else 1
    if weight not in t.parameters or (bias is not None and bias not in t.parameters):
        return None
    out, inner = _shape(weight)[0], _shape(weight)[1]
    known = t.values.get(x)
    if known is not None and known.dim != 1:
        return None
    if groups == 1:
        ids = t.new(out)
        if known is not None:
            t.tie(weight, 1, known.ids)
    elif inner == 1 and known is not None:  # depthwise: output channel j reads input channel j // multiplier only
        ids = np.repeat(known.ids, out // groups)
    elif known is not None:  # grouped: a block goes whole, with all it reads, so that the others stay equal
        ids = np.repeat(t.bound(known.ids, groups), out // groups)
    else:
        ids = t.new(out)
        t.freeze(ids, "its groups read channels that are not followed")
    t.tie(weight, 0, ids)
    if groups == 1:
        t.producers[t.parameters[weight]] = ids
    if bias is not None:
        t.tie(bias, 0, ids)
        t.shifts[t.parameters[weight]] = t.parameters[bias]
    return Tracked(1, ids)


def _linear(t: ChannelTracer, node: fx.Node) -> Tracked | None:
    args = _args(node)
    x, weight, bias = args[0], args[1], args[2] if len(args) > 2 else None
    if weight not in t.parameters or (bias is not None and bias not in t.parameters):
        return None
    last = len(_shape(x)) - 1
    known = t.values.get(x)
    if known is not None:
        if known.dim != last:
            return None
        t.tie(weight, 1, known.ids)
    ids = t.new(_shape(weight)[0])
    t.tie(weight, 0, ids)
    t.producers[t.parameters[weight]] = ids
    if bias is not None:
        t.tie(bias, 0, ids)
        t.shifts[t.parameters[weight]] = t.parameters[bias]
    return Tracked(last, ids)


def _batch_norm(t: ChannelTracer, node: fx.Node) -> Tracked | None:
    known = t.values.get(_args(node)[0])
    if known is None or known.dim != 1:
        return None
    for parameter in _args(node)[1:5]:
        if parameter is not None:
            t.tie(parameter, 0, known.ids)
    layer, mean = _args(node)[0], _args(node)[3]
    if _op(layer) in ("conv1d", "conv2d", "linear") and len(layer.users) == 1 and mean is not None:
        t.shifts[t.parameters[_args(layer)[1]]] = t.parameters[mean]
    return known


def _same(t: ChannelTracer, node: fx.Node) -> Tracked | None:
    return t.values.get(_args(node)[0])


def _spatial(t: ChannelTracer, node: fx.Node) -> Tracked | None:
    """Pooling and padding: channels pass where their axis keeps its length."""
    known = t.values.get(_args(node)[0])
    if known is None or known.dim != 1 or _shape(node)[1] != len(known.ids):
        return None
    return known


def _binary(t: ChannelTracer, node: fx.Node) -> Tracked | None:
    a, b = _args(node)[0], _args(node)[1]
    if not isinstance(b, fx.Node) or not isinstance(a, fx.Node):
        return t.values.get(a if isinstance(a, fx.Node) else b)
    if _op(node) == "add" and _shape(a) == _shape(b):
        _note_shortcut(t, a, b)
        _note_shortcut(t, b, a)
    left, right = t.values.get(a), t.values.get(b)
    if left is None or right is None:  # a tensor whose channels are not known may only be the same for all of them
        known, one, other = (left, a, b) if left is not None else (right, b, a)
        return known if known is not None and _is_one(other, known.dim - len(_shape(one))) else None
    # Axes are counted from the end, as broadcasting does.
    if left.dim - len(_shape(a)) != right.dim - len(_shape(b)) or len(left.ids) != len(right.ids):
        return None
    t.join(left.ids, right.ids)
    return left if len(_shape(a)) >= len(_shape(b)) else right


def _note_shortcut(t: ChannelTracer, layer: fx.Node, other: fx.Node) -> None:
    """Remember that ``other`` is added to what ``layer`` gives, if a module that ran before reads ``other`` too."""
    norm = ""
    while _op(layer) in ("dropout", "clone", "contiguous") and len(layer.users) == 1:
        layer = _args(layer)[0]
    if _op(layer) == "batch_norm" and len(layer.users) == 1 and _args(layer)[3] in t.parameters:
        norm = t.parameters[_args(layer)[3]].rpartition(".")[0]
        layer = _args(layer)[0]
    if _op(layer) not in ("conv1d", "conv2d", "linear") or len(layer.users) > 1:
        return
    for user in other.users:
        if not user < layer or _op(user) not in ("conv1d", "conv2d", "linear", "layer_norm", "batch_norm"):
            continue
        weight = _args(user)[2 if _op(user) == "layer_norm" else 1] if len(_args(user)) > 1 else None
        if _args(user)[0] is other and weight in t.parameters and _args(layer)[1] in t.parameters:
            t.shortcuts[t.parameters[_args(layer)[1]]] = Shortcut(
                reader=t.parameters[weight].rpartition(".")[0], norm=norm
            )
            return


def _is_one(node: fx.Node, axis: int) -> bool:
    """Whether an axis, counted from the end, is one that broadcasting repeats."""
    shape = _shape(node)
    return -axis > len(shape) or shape[axis] == 1


def _attention(t: ChannelTracer, node: fx.Node) -> Tracked | None:
    """Scaled dot products of queries, keys and values (B, heads, T, size): a head goes from all three."""
    known = [t.values.get(arg) for arg in _args(node)[:3]]
    first = known[0]
    if first is None or any(k is None or k.dim != first.dim or len(k.ids) != len(first.ids) for k in known):
        return None
    axis = first.dim - len(_shape(node))
    mask = _args(node)[3] if len(_args(node)) > 3 else node.kwargs.get("attn_mask")
    if axis > -3 or (isinstance(mask, fx.Node) and not _is_one(mask, axis)):
        return None
    for k in known[1:]:
        t.join(first.ids, k.ids)  # type: ignore[union-attr]
    query, key, value = map(_shape, _args(node)[:3])
    t.products.append((first.ids, prod(query[:-1]) * key[-2] * (query[-1] + value[-1])))
    return first


def _matmul(t: ChannelTracer, node: fx.Node) -> Tracked | None:
    """Products of batches of matrices, where channels count the batches: heads."""
    left, right = (t.values.get(arg) for arg in _args(node)[:2])
    if left is None or right is None or left.dim != right.dim or len(left.ids) != len(right.ids):
        return None
    if left.dim > len(_shape(node)) - 3:
        return None
    t.join(left.ids, right.ids)
    t.products.append((left.ids, prod(_shape(node)) * _shape(_args(node)[0])[-1]))
    return left


def _softmax(t: ChannelTracer, node: fx.Node) -> Tracked | None:
    known = t.values.get(_args(node)[0])
    return None if known is None or known.dim == int(_args(node)[1]) % len(_shape(node)) else known


def _concatenate(t: ChannelTracer, node: fx.Node) -> Tracked | None:
    parts = [t.values.get(n) for n in _args(node)[0]]
    known = [p for p in parts if p is not None]
    if len(known) < len(parts) or len({p.dim for p in known}) > 1:
        return None
    axis = int(_args(node)[1]) % len(_shape(node)) if len(_args(node)) > 1 else 0
    if axis == known[0].dim:
        return Tracked(axis, np.concatenate([p.ids for p in known]))
    for part in known[1:]:
        t.join(known[0].ids, part.ids)
    return known[0]


def _reduce(t: ChannelTracer, node: fx.Node) -> Tracked | None:
    known = t.values.get(_args(node)[0])
    if known is None or len(_args(node)) < 2 or not isinstance(_args(node)[1], (list, tuple)):
        return None
    rank = len(_shape(_args(node)[0]))
    dims = {int(d) % rank for d in _args(node)[1]}
    if known.dim in dims:
        return None
    keep = bool(_args(node)[2]) if len(_args(node)) > 2 else False
    return Tracked(known.dim if keep else known.dim - sum(d < known.dim for d in dims), known.ids)


def _reshape(t: ChannelTracer, node: fx.Node) -> Tracked | None:
    """Channels survive where their axis stays whole, alone or with the axes right after it flattened in.

    Where it is split in two (heads, size of a head), each head becomes one channel.
    """
    known = t.values.get(_args(node)[0])
    if known is None:
        return None
    before, after = _shape(_args(node)[0]), _shape(node)
    lead, channels = prod(before[: known.dim]), before[known.dim]
    for j in range(len(after)):
        if prod(after[:j]) != lead:
            continue
        if after[j] == channels and prod(after[j + 1 :]) == prod(before[known.dim + 1 :]):
            return Tracked(j, known.ids)
        if j == len(after) - 1 and after[j] == prod(before[known.dim :]):
            return Tracked(j, np.repeat(known.ids, after[j] // channels))
        if 1 < after[j] < channels and prod(after[j : j + 2]) == channels:
            return Tracked(j, t.bound(known.ids, after[j]))
    return None


def _permute(t: ChannelTracer, node: fx.Node) -> Tracked | None:
    known = t.values.get(_args(node)[0])
    if known is None:
        return None
    rank = len(_shape(_args(node)[0]))
    if _op(node) == "permute":
        order = [int(d) % rank for d in _args(node)[1]]
    else:
        order = list(range(rank))
        i, j = int(_args(node)[1]) % rank, int(_args(node)[2]) % rank
        order[i], order[j] = order[j], order[i]
    return Tracked(order.index(known.dim), known.ids)


# Only functions with f(0) = 0 need no care when a channel goes: the rest (sigmoid) still act on each channel alone.
_UNARY = (
    "relu relu6 hardtanh silu gelu sigmoid hardswish hardsigmoid elu leaky_relu tanh mish softplus clamp clamp_min "
    "dropout clone contiguous detach to _to_copy alias neg abs exp sqrt square celu selu"
)
_POOLS = (
    "max_pool2d avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d pad constant_pad_nd upsample_nearest2d "
    "upsample_bilinear2d max_pool1d avg_pool1d adaptive_avg_pool1d"
)
_RULES: dict[str, Rule] = {
    "conv1d": _convolution,
    "conv2d": _convolution,
    "conv3d": _convolution,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "cat": _concatenate,
    "concat": _concatenate,
    "mean": _reduce,
    "sum": _reduce,
    "amax": _reduce,
    "scaled_dot_product_attention": _attention,
    "matmul": _matmul,
    "bmm": _matmul,
    "softmax": _softmax,
    "_softmax": _softmax,
    **dict.fromkeys(["view", "reshape", "flatten", "unflatten", "_unsafe_view", "squeeze", "unsqueeze"], _reshape),
    **dict.fromkeys(["permute", "transpose"], _permute),
    **dict.fromkeys(["add", "sub", "mul", "div"], _binary),
    **dict.fromkeys(_UNARY.split(), _same),
    **dict.fromkeys(_POOLS.split(), _spatial),
}
