"""One operator at a time, on graphs written by hand: what becomes of an axis of channels, to the number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from pocketzoo.compress.plans import Shortcut
from pocketzoo.compress.pruning.channel_groups import find_channels
from pocketzoo.compress.pruning.channel_tracer import ChannelTracer
from pocketzoo.compress.pruning.channels import Tracked

aten = torch.ops.aten


class Graph:
    """A graph that is traced as it grows."""

    def __init__(self) -> None:
        self.graph, self.tracer = fx.Graph(), ChannelTracer()

    def value(self, *shape: int, dim: int | None = None) -> fx.Node:
        """A tensor, with channels along ``dim``."""
        node = self.graph.placeholder(f"x{len(self.graph.nodes)}")
        node.meta["val"] = torch.empty(shape, device="meta")
        if dim is not None:
            self.tracer.values[node] = Tracked(dim, self.tracer.new(shape[dim]))
        return node

    def parameter(self, name: str, *shape: int) -> fx.Node:
        node = self.value(*shape)
        self.tracer.parameters[node] = name
        return node

    def call(self, op: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        node = self.graph.call_function(op, args, kwargs)
        given = fx.node.map_arg((args, kwargs), lambda n: n.meta["val"])
        node.meta["val"] = op(*given[0], **given[1])
        self.tracer.visit(node)
        return node

    def after(self, op: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[int, list[int]] | None:
        """The axis of channels of what comes out, and their roots; None where they are not followed."""
        node = self.call(op, *args, **kwargs)
        known = self.tracer.values.get(node)
        if known is None:
            inputs = [self.tracer.values[n].ids for n in node.all_input_nodes if n in self.tracer.values]
            assert [ids.tolist() for ids, _ in self.tracer.frozen[len(self.tracer.frozen) - len(inputs) :]] == [
                ids.tolist() for ids in inputs
            ]
            return None
        return known.dim, self.tracer.roots(known.ids).tolist()


@pytest.mark.parametrize(
    ("dims", "keep", "dim"),
    [
        ([0], False, 1),
        ([0, 1], False, 0),
        ([3], False, 2),
        ([-1, 0], False, 1),
        ([1, 3], False, 1),
        ([2], False, None),
        ([-2], False, None),
        ([0, 2], True, None),
        ([0, 3], True, 2),
        ([0, 1, 3], False, 0),
    ],
)
@pytest.mark.parametrize("op", [aten.mean.dim, aten.sum.dim_IntList, aten.amax.default])
def test_an_axis_moves_up_by_the_axes_before_it_that_go(op, dims, keep, dim):
    graph = Graph()
    found = graph.after(op, graph.value(2, 3, 4, 5, dim=2), dims, *([True] if keep else []))
    assert found == (None if dim is None else (dim, [0, 1, 2, 3]))


def test_a_sum_over_everything_is_not_followed():
    graph = Graph()
    assert graph.after(aten.sum.default, graph.value(2, 4, dim=1)) is None
    assert graph.after(aten.mean.dim, graph.value(2, 4), [0]) is None


FOUR, SIX = [0, 1, 2, 3], [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("before", "dim", "after", "found"),
    [
        ((2, 4, 3, 3), 1, (2, 4, 9), (1, FOUR)),
        ((2, 4, 9), 1, (2, 4, 3, 3), (1, FOUR)),
        ((2, 4), 1, (2, 4, 1, 1), (1, FOUR)),
        ((2, 4, 1, 1), 1, (2, 4), (1, FOUR)),
        ((2, 4, 3, 1), 1, (2, 12), (1, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])),
        ((2, 3, 4), 2, (6, 4), (1, FOUR)),
        ((2, 3, 4), 2, (1, 2, 3, 4), (3, FOUR)),
        ((4, 3), 0, (4, 3, 1), (0, FOUR)),
        ((2, 6), 1, (2, 1, 6), (2, SIX)),
        ((2, 6), 1, (2, 3, 2), (1, [0, 2, 4])),
        ((2, 6), 1, (2, 2, 3), (1, [0, 3])),
        ((2, 5, 6), 2, (2, 5, 2, 3), (2, [0, 3])),
        ((2, 4, 3), 1, (2, 6, 2), None),
        ((2, 4, 3, 2), 1, (2, 12, 2), None),
        ((2, 4, 3), 1, (8, 3), None),
        ((2, 4, 3), 1, (2, 2, 6), None),
        ((2, 2, 3), 1, (2, 3, 2), None),
        ((2, 4, 3), 1, (2, 4, 3), (1, FOUR)),
    ],
)
def test_an_axis_is_found_in_another_shape(before, dim, after, found):
    graph = Graph()
    assert graph.after(aten.view.default, graph.value(*before, dim=dim), list(after)) == found


def test_a_shape_of_something_unknown_is_unknown():
    graph = Graph()
    for op, given in ((aten.view.default, [[2, 2, 2]]), (aten.permute.default, [[1, 0]]), (aten.relu.default, [])):
        assert graph.after(op, graph.value(2, 4), *given) is None


@pytest.mark.parametrize(
    ("op", "given", "dim"),
    [
        (aten.permute.default, [[0, 2, 3, 1]], 3),
        (aten.permute.default, [[1, 0, 2, 3]], 0),
        (aten.permute.default, [[0, -1, -3, 2]], 2),
        (aten.transpose.int, [1, 2], 2),
        (aten.transpose.int, [0, 1], 0),
        (aten.transpose.int, [-1, 1], 3),
        (aten.transpose.int, [-3, -1], 3),
        (aten.transpose.int, [2, 3], 1),
    ],
)
def test_an_axis_goes_where_it_is_moved(op, given, dim):
    graph = Graph()
    assert graph.after(op, graph.value(2, 4, 3, 5, dim=1), *given) == (dim, FOUR)


@pytest.mark.parametrize(("over", "kept"), [(1, False), (-3, False), (0, True), (2, True), (-1, True), (3, True)])
def test_a_softmax_over_the_channels_mixes_them(over, kept):
    graph = Graph()
    assert graph.after(aten.softmax.int, graph.value(2, 4, 3, 3, dim=1), over) == ((1, FOUR) if kept else None)


# -- two tensors


@pytest.mark.parametrize("op", [aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor])
@pytest.mark.parametrize(
    ("left", "left_dim", "right", "right_dim", "dim"),
    [
        ((2, 4, 3, 3), 1, (2, 4, 3, 3), 1, 1),
        ((2, 4, 3, 3), 1, (2, 4, 1, 1), 1, 1),
        ((2, 4, 3, 3), 1, (4, 1, 1), 0, 1),
        ((4, 1, 1), 0, (2, 4, 3, 3), 1, 1),
        ((2, 4, 4), 1, (2, 4, 4), 2, None),
        ((2, 4), 1, (2, 1), 1, None),
    ],
)
def test_channels_of_two_tensors_are_tied_where_their_axes_meet(op, left, left_dim, right, right_dim, dim):
    graph = Graph()
    a, b = graph.value(*left, dim=left_dim), graph.value(*right, dim=right_dim)
    found = graph.after(op, a, b)
    roots = [graph.tracer.roots(graph.tracer.values[n].ids).tolist() for n in (a, b)]
    if dim is None:
        assert found is None
        assert set(roots[0]).isdisjoint(roots[1])
    else:
        assert found == (dim, roots[0])
        assert roots[0] == roots[1]
        assert len(set(roots[0])) == 4


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("other", "kept"),
    [
        ((2, 1, 3, 3), True),
        ((3, 3), True),
        ((1,), True),
        ((), True),
        ((1, 1, 1), True),
        ((1, 3, 3), True),
        ((4, 3, 3), False),
        ((4, 1, 1), False),
        ((2, 4, 3, 3), False),
        ((2, 4, 1, 1), False),
    ],
)
def test_a_tensor_of_no_known_channels_may_only_be_the_same_for_all(other, kept, turned):
    graph = Graph()
    pair = [graph.value(2, 4, 3, 3, dim=1), graph.value(*other)]
    assert graph.after(aten.mul.Tensor, *(pair[::-1] if turned else pair)) == ((1, FOUR) if kept else None)


def test_two_tensors_of_no_known_channels_give_none():
    graph = Graph()
    assert graph.after(aten.mul.Tensor, graph.value(2, 4), graph.value(2, 1)) is None


def test_a_number_changes_no_axis():
    graph = Graph()
    x = graph.value(2, 4, dim=1)
    assert graph.after(aten.mul.Tensor, x, 2.0) == (1, FOUR)
    turned = graph.graph.call_function(aten.mul.Tensor, (2.0, x))
    graph.tracer.visit(turned)
    assert graph.tracer.values[turned] is graph.tracer.values[x]


@pytest.mark.parametrize("axis", [[], [0], [1], [-1], [2]])
def test_parts_in_a_row_are_joined_or_laid_end_to_end(axis):
    graph = Graph()
    parts = [graph.value(2, 4, 3, dim=1) for _ in range(3)]
    found = graph.after(aten.cat.default, parts, *axis)
    assert found is not None
    assert found[0] == 1
    roots = [graph.tracer.roots(graph.tracer.values[n].ids).tolist() for n in parts]
    if axis == [1]:
        assert found[1] == list(range(12))
        assert roots == [list(range(i, i + 4)) for i in (0, 4, 8)]
    else:
        assert found[1] == roots[0] == roots[1] == roots[2]
        assert len(set(roots[0])) == 4


@pytest.mark.parametrize("other", [None, 2])
def test_parts_that_are_not_known_or_lie_otherwise_are_not_followed(other):
    graph = Graph()
    parts = [graph.value(2, 4, 4, dim=1), graph.value(2, 4, 4, dim=other)]
    assert graph.after(aten.cat.default, parts, 1) is None
    assert graph.after(aten.cat.default, parts[::-1], 0) is None


@pytest.mark.parametrize(
    ("shapes", "dims", "kept"),
    [
        ([(2, 4, 5, 3)] * 3, (1, 1, 1), True),
        ([(4, 5, 3)] * 3, (0, 0, 0), True),
        ([(2, 4, 5, 3)] * 3, (0, 0, 0), True),
        ([(2, 4, 5, 3)] * 3, (2, 2, 2), False),
        ([(2, 4, 5, 3)] * 3, (3, 3, 3), False),
        ([(2, 4, 5, 3)] * 3, (1, 1, None), False),
        ([(2, 4, 5, 3)] * 3, (1, None, 1), False),
        ([(2, 4, 5, 3)] * 3, (None, 1, 1), False),
        ([(4, 4, 5, 3)] * 3, (1, 0, 1), False),
        ([(4, 4, 5, 3)] * 3, (1, 1, 0), False),
    ],
)
def test_heads_are_tied_where_all_three_count_them_alike(shapes, dims, kept):
    graph = Graph()
    nodes = [graph.value(*shape, dim=dim) for shape, dim in zip(shapes, dims, strict=True)]
    found = graph.after(aten.scaled_dot_product_attention.default, *nodes)
    assert (found is not None) == kept
    if found is not None:
        assert found[0] == dims[0]
        roots = [graph.tracer.roots(graph.tracer.values[n].ids).tolist() for n in nodes]
        assert found[1] == roots[0] == roots[1] == roots[2]


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize(
    ("mask", "kept"), [((5, 5), True), ((1, 5, 5), True), ((2, 1, 5, 5), True), ((4, 5, 5), False)]
)
def test_a_mask_may_only_be_the_same_for_all_heads(mask, kept, by_name):
    graph = Graph()
    nodes = [graph.value(2, 4, 5, 3, dim=1) for _ in range(3)]
    given, named = ([], {"attn_mask": graph.value(*mask)}) if by_name else ([graph.value(*mask)], {})
    found = graph.after(aten.scaled_dot_product_attention.default, *nodes, *given, **named)
    assert (found is not None) == kept


@pytest.mark.parametrize(
    ("left", "right", "dims", "kept"),
    [
        ((2, 4, 3, 5), (2, 4, 5, 3), (1, 1), True),
        ((2, 4, 3, 5), (2, 4, 5, 3), (0, 0), True),
        ((4, 3, 5), (4, 5, 3), (0, 0), True),
        ((4, 4, 4), (4, 4, 4), (1, 1), False),
        ((4, 4, 4), (4, 4, 4), (2, 2), False),
        ((4, 4, 4, 4), (4, 4, 4, 4), (0, 1), False),
        ((2, 4, 3, 5), (2, 4, 5, 3), (1, None), False),
        ((2, 4, 3, 5), (2, 4, 5, 3), (None, 1), False),
        ((2, 4, 3, 5), (2, 1, 5, 3), (1, 1), False),
    ],
)
def test_products_of_matrices_tie_what_counts_the_matrices(left, right, dims, kept):
    graph = Graph()
    nodes = [graph.value(*left, dim=dims[0]), graph.value(*right, dim=dims[1])]
    found = graph.after(aten.matmul.default, *nodes)
    assert (found is not None) == kept
    if found is not None:
        roots = [graph.tracer.roots(graph.tracer.values[n].ids).tolist() for n in nodes]
        assert found == (dims[0], roots[0])
        assert roots[0] == roots[1]


# -- layers


@pytest.mark.parametrize(
    ("shape", "dim", "found"), [((2, 3, 4), 2, (2, [4, 5])), ((2, 4), 1, (1, [4, 5])), ((2, 4, 4), 1, None)]
)
def test_a_linear_layer_reads_channels_on_the_last_axis(shape, dim, found):
    graph = Graph()
    x, weight, bias = graph.value(*shape, dim=dim), graph.parameter("f.weight", 2, 4), graph.parameter("f.bias", 2)
    assert graph.after(aten.linear.default, x, weight, bias) == found
    axes = {} if found is None else {("f.weight", 1): FOUR, ("f.weight", 0): [4, 5], ("f.bias", 0): [4, 5]}
    assert {key: ids.tolist() for key, ids in graph.tracer.axes.items()} == axes
    assert graph.tracer.shifts == ({} if found is None else {"f.weight": "f.bias"})
    assert list(graph.tracer.producers) == ([] if found is None else ["f.weight"])


@pytest.mark.parametrize("op", [aten.linear.default, aten.conv1d.default])
@pytest.mark.parametrize("computed", ["weight", "bias"])
def test_a_layer_of_computed_numbers_is_not_followed(op, computed):
    graph = Graph()
    kernel = (3,) if op is aten.conv1d.default else ()
    weight = graph.value(2, 4, *kernel) if computed == "weight" else graph.parameter("w", 2, 4, *kernel)
    bias = graph.value(2) if computed == "bias" else graph.parameter("b", 2)
    x = graph.value(2, 4, 5, dim=1) if kernel else graph.value(2, 4, dim=1)
    assert graph.after(op, x, weight, bias) is None
    assert graph.tracer.axes == {}
    assert set(graph.tracer.opaque) == ({"b"} if computed == "weight" else {"w"})


@pytest.mark.parametrize(
    ("inputs", "outputs", "groups", "known", "reads", "gives"),
    [
        (4, 6, 1, True, FOUR, [4, 5, 6, 7, 8, 9]),
        (4, 4, 4, True, None, FOUR),
        (4, 8, 4, True, None, [0, 0, 1, 1, 2, 2, 3, 3]),
        (4, 6, 2, True, None, [0, 0, 0, 2, 2, 2]),
        (4, 2, 2, True, None, [0, 2]),
        (4, 6, 1, False, None, SIX),
        (4, 6, 2, False, None, SIX),
        (4, 4, 4, False, None, FOUR),
    ],
)
def test_what_a_convolution_gives_for_what_it_reads(inputs, outputs, groups, known, reads, gives):
    graph = Graph()
    x = graph.value(2, inputs, 5, dim=1 if known else None)
    weight, bias = graph.parameter("c.weight", outputs, inputs // groups, 3), graph.parameter("c.bias", outputs)
    assert graph.after(aten.conv1d.default, x, weight, bias, [1], [0], [1], groups) == (1, gives)
    axes = {key: graph.tracer.roots(ids).tolist() for key, ids in graph.tracer.axes.items()}
    read = {} if reads is None else {("c.weight", 1): reads}
    assert axes == {("c.weight", 0): gives, ("c.bias", 0): gives, **read}
    assert list(graph.tracer.producers) == (["c.weight"] if groups == 1 else [])
    assert graph.tracer.shifts == {"c.weight": "c.bias"}
    frozen = [ids.tolist() for ids, _ in graph.tracer.frozen]
    assert frozen == ([gives] if groups > 1 and not known else [])


def test_a_convolution_along_another_axis_than_the_channels_is_not_followed():
    graph = Graph()
    assert graph.after(aten.conv1d.default, graph.value(2, 4, 5, dim=2), graph.parameter("c", 2, 4, 3)) is None


@pytest.mark.parametrize(("dim", "kept"), [(1, True), (2, False), (None, False)])
def test_a_batch_norm_ties_all_its_numbers_to_the_channels(dim, kept):
    graph = Graph()
    numbers = [graph.parameter(name, 4) for name in ("weight", "bias", "mean", "var")]
    found = graph.after(
        aten.batch_norm.default, graph.value(2, 4, 4, dim=dim), *numbers, False, 0.1, 1e-5, False
    )  # fmt: skip
    assert found == ((1, FOUR) if kept else None)
    axes = {key: ids.tolist() for key, ids in graph.tracer.axes.items()}
    assert axes == ({(name, 0): FOUR for name in ("weight", "bias", "mean", "var")} if kept else {})


@pytest.mark.parametrize(
    ("op", "given", "found"),
    [
        (aten.max_pool2d.default, [[2, 2]], (1, FOUR)),
        (aten.adaptive_avg_pool2d.default, [[1, 1]], (1, FOUR)),
        (aten.constant_pad_nd.default, [[1, 1, 0, 2]], (1, FOUR)),
        (aten.constant_pad_nd.default, [[0, 0, 0, 0, 1, 1]], None),
        (aten.constant_pad_nd.default, [[0, 0, 0, 0, 0, 0, 1, 0]], (1, FOUR)),
    ],
)
def test_channels_pass_where_their_axis_keeps_its_length(op, given, found):
    graph = Graph()
    assert graph.after(op, graph.value(2, 4, 6, 6, dim=1), *given) == found
    assert graph.after(op, graph.value(2, 4, 6, 6, dim=2), *given) is None
    assert graph.after(op, graph.value(2, 4, 6, 6), *given) is None


# -- the union-find, and what is made of it


def test_ids_are_joined_one_by_one_and_stay_joined():
    tracer = ChannelTracer()
    a, b, c = tracer.new(3), tracer.new(3), tracer.new(2)
    assert [ids.tolist() for ids in (a, b, c)] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    tracer.join(a, b)
    tracer.join(b[:2], c)
    assert tracer.roots(np.arange(8)).tolist() == [6, 7, 5, 6, 7, 5, 6, 7]
    with pytest.raises(ValueError, match=r"shorter|longer"):
        tracer.join(a, c)


def test_a_long_chain_of_joins_has_one_root():
    tracer = ChannelTracer()
    ids = tracer.new(20)
    tracer.parents = [*range(1, 20), 19]
    assert tracer.roots(ids).tolist() == [19] * 20


@pytest.mark.parametrize(
    ("count", "firsts", "roots"),
    [(2, [0, 3], [0, 0, 0, 3, 3, 3]), (3, [0, 2, 4], [0, 0, 2, 2, 4, 4]), (6, SIX, SIX), (1, [0], [0] * 6)],
)
def test_neighbors_are_bound_into_blocks(count, firsts, roots):
    tracer = ChannelTracer()
    ids = tracer.new(6)
    assert tracer.bound(ids, count).tolist() == firsts
    assert tracer.roots(ids).tolist() == roots


def test_a_parameter_that_is_used_twice_ties_its_uses():
    graph = Graph()
    weight = graph.parameter("w", 4)
    first, second = graph.tracer.new(4), graph.tracer.new(4)
    graph.tracer.tie(weight, 0, first)
    assert graph.tracer.shared == set()
    graph.tracer.tie(weight, 1, second)
    assert graph.tracer.shared == set()
    assert graph.tracer.roots(second).tolist() == [4, 5, 6, 7]
    graph.tracer.tie(weight, 0, second)
    assert graph.tracer.shared == {"w"}
    assert graph.tracer.roots(first).tolist() == graph.tracer.roots(second).tolist()
    assert graph.tracer.axes["w", 0] is second


def _producing(*ids: list[int], count: int = 8) -> ChannelTracer:
    tracer = ChannelTracer()
    tracer.new(count)
    tracer.producers = {name: np.array(i) for name, i in zip("abc", ids, strict=False)}
    tracer.axes = {(name, 0): i for name, i in tracer.producers.items()}
    return tracer


@pytest.mark.parametrize(
    ("ids", "frozen", "groups"),
    [
        ([[0, 1], [2, 3]], [], [(("a",), [0, 1], 1), (("b",), [2, 3], 1)]),
        ([[0, 1], [2, 3]], [3], [(("a",), [0, 1], 1)]),
        ([[0, 1], [2, 3]], [0, 2], []),
        ([[0], [2, 3]], [], [(("b",), [2, 3], 1)]),
        ([[0, 1], [2, 3], [0, 1, 2, 3]], [], [(("a", "b", "c"), [0, 1, 2, 3], 1)]),
        ([[0, 1, 2], [2, 3]], [0], []),
        ([[0, 0, 0, 1, 1], [2, 3]], [], [(("a",), [0, 1], 3), (("b",), [2, 3], 1)]),
        ([[0, 0, 1, 1, 1], [0, 1]], [], [(("a", "b"), [0, 1], 3)]),
        ([[0, 1], [0, 0, 1]], [], [(("a", "b"), [0, 1], 2)]),
    ],
)
def test_groups_are_what_layers_produce_together(ids, frozen, groups):
    tracer = _producing(*ids)
    tracer.frozen = [(np.array([i]), "held") for i in frozen]
    found = [(g.layers, g.channels.tolist(), g.width) for g in tracer.result().groups]
    assert found == groups


@pytest.mark.parametrize(("opaque", "left"), [(set(), ["a", "b"]), ({"a"}, ["b"]), ({"b"}, ["a"]), ({"x"}, ["a", "b"])])
def test_parameters_that_something_else_is_computed_from_are_kept(opaque, left):
    tracer = _producing([0, 1], [2, 3])
    tracer.opaque = dict.fromkeys(opaque, "held")
    assert [name for g in tracer.result().groups for name in g.layers] == left


# -- what can take a shift, and what a sum joins


class Net(nn.Module):
    def __init__(self, wiring: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.wiring = wiring

    def forward(self, x: Tensor) -> Tensor:
        return self.wiring(self, x)


def conv(i: int = 8, o: int = 8, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(i, o, 3, padding=1, bias=bias)


def layers(**more: nn.Module) -> dict[str, nn.Module]:
    """A stem, two layers and an end."""
    return {"stem": conv(3), "a": conv(), "b": conv(), "end": conv(), **more}


def _found(wiring: Callable[[Any, Tensor], Tensor], **more: nn.Module) -> Any:
    return find_channels(Net(wiring, **layers(**more)).eval(), (torch.zeros(2, 3, 6, 6),))


NORMS = {"norm": nn.BatchNorm2d(8), "bare": nn.BatchNorm2d(8, track_running_stats=False)}


def _norm_twice_used(m: Any, y: Tensor) -> Tensor:
    z = m.norm(m.b(F.relu(m.a(y))))
    return (z + y) + m.end(z)


def _read_late(m: Any, y: Tensor) -> Tensor:
    z = m.b(F.relu(y))
    return (z + y) + m.a(y)


def _other_reader_first(m: Any, y: Tensor) -> Tensor:
    return m.b(torch.tanh(y) + m.a(y))


def _computed_reader_first(m: Any, y: Tensor) -> Tensor:
    return m.b(F.conv2d(y, m.end.weight * 2, padding=1) + m.a(y))


def _two_readers(m: Any, y: Tensor) -> Tensor:
    return m.b(m.end(y) * m.a(y))


@pytest.mark.parametrize(
    ("main", "found"),
    [
        (lambda m, y: m.b(F.relu(m.a(y))), ("a", "")),
        (lambda m, y: m.norm(m.b(F.relu(m.a(y)))), ("a", "norm")),
        (lambda m, y: F.dropout(m.b(m.a(y)), 0.5, m.training).clone(), ("a", "")),
        (lambda m, y: F.dropout(m.norm(m.b(m.a(y))), 0.5, m.training), ("a", "norm")),
        (lambda m, y: m.bare(m.b(F.relu(m.a(y)))), None),
        (lambda m, y: F.relu(m.b(m.a(y))), None),
        (lambda m, y: m.b(F.relu(y)), None),
        (lambda m, y: m.b(m.norm(y)), ("norm", "")),
        (lambda m, y: m.b(m.a(y)).mean((2, 3), keepdim=True), None),
        (lambda m, y: F.adaptive_avg_pool2d(m.b(m.a(y)), 1), None),
        (_other_reader_first, ("a", "")),
        (_computed_reader_first, ("a", "")),
        (_two_readers, ("end", "")),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_a_sum_remembers_who_reads_what_is_added(main, found, turned):
    def wiring(m: Any, x: Tensor) -> Tensor:
        y = F.relu(m.stem(x))
        z = main(m, y)
        return m.last(F.relu(y + z if turned else z + y))

    shortcuts = _found(wiring, last=conv(), **NORMS).shortcuts
    wanted = {} if found is None else {"b.weight": Shortcut(reader=found[0], norm=found[1])}
    assert shortcuts == wanted


@pytest.mark.parametrize("main", [_norm_twice_used, _read_late])
def test_what_is_read_twice_or_late_is_not_remembered(main):
    def wiring(m: Any, x: Tensor) -> Tensor:
        return m.last(F.relu(main(m, F.relu(m.stem(x)))))

    assert "b.weight" not in _found(wiring, last=conv(), **NORMS).shortcuts


def test_a_layer_that_is_read_elsewhere_too_is_not_remembered():
    def wiring(m: Any, x: Tensor) -> Tensor:
        y = F.relu(m.stem(x))
        z = m.b(m.a(y))
        return m.last(F.relu(z + y)) + m.end(F.relu(z))

    assert _found(wiring, last=conv()).shortcuts == {}


@pytest.mark.parametrize("joined", [lambda a, b: a - b, lambda a, b: a * b, lambda a, b: a + b[:1] + b[1:]])
def test_only_sums_of_one_shape_are_remembered(joined):
    def wiring(m: Any, x: Tensor) -> Tensor:
        y = F.relu(m.stem(x))
        return m.end(F.relu(joined(m.b(m.a(y)), y)))

    assert _found(wiring).shortcuts == {}


def test_a_layer_norm_that_reads_what_is_added_is_remembered_by_its_name():
    net = Net(
        lambda m, x: m.fc((y := m.stem(x)) + m.up(F.gelu(m.down(m.norm(y))))),
        stem=nn.Linear(5, 8), norm=nn.LayerNorm(8), down=nn.Linear(8, 6), up=nn.Linear(6, 8), fc=nn.Linear(8, 2),
    )  # fmt: skip
    found = find_channels(net.eval(), (torch.zeros(2, 3, 5),)).shortcuts
    assert found == {"up.weight": Shortcut(reader="norm", norm="")}


@pytest.mark.parametrize(
    ("wiring", "shifts"),
    [
        (lambda m, x: m.end(m.stem(x)), {"stem.weight": "stem.bias", "end.weight": "end.bias"}),
        (lambda m, x: m.end(m.norm(m.stem(x))), {"stem.weight": "norm.running_mean", "end.weight": "end.bias"}),
        (lambda m, x: m.end(m.norm(m.bare_conv(x))), {"bare_conv.weight": "norm.running_mean",
                                                      "end.weight": "end.bias"}),
        (lambda m, x: m.end(m.bare_conv(x)), {"end.weight": "end.bias"}),
        (lambda m, x: m.end(m.bare(m.stem(x))), {"stem.weight": "stem.bias", "end.weight": "end.bias"}),
        (lambda m, x: m.end(m.norm(F.relu(m.stem(x)))), {"stem.weight": "stem.bias", "end.weight": "end.bias"}),
        (lambda m, x: m.end(m.norm(y := m.stem(x)) + y), {"stem.weight": "stem.bias", "end.weight": "end.bias"}),
    ],
)  # fmt: skip
def test_a_shift_goes_to_the_mean_of_a_norm_that_alone_reads_the_layer(wiring, shifts):
    assert _found(wiring, bare_conv=conv(3, bias=False), **NORMS).shifts == shifts


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_convolution_of_three_dimensions_keeps_its_shift(dims):
    """Its norm is not looked for: what refits layers has no three dimensions."""
    layer, norm = (getattr(nn, f"{kind}{dims}d") for kind in ("Conv", "BatchNorm"))
    net = Net(lambda m, x: m.end(m.norm(m.stem(x))), stem=layer(3, 8, 3), norm=norm(8), end=layer(8, 2, 1)).eval()
    found = find_channels(net, (torch.zeros(2, 3, *[5] * dims),)).shifts
    assert found["stem.weight"] == ("stem.bias" if dims == 3 else "norm.running_mean")
