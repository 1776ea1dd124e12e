"""Each way to write a layer: exact where the layer is of that form, the best there is where that is known."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pocketzoo.compress.low_rank import factorizations
from pocketzoo.compress.low_rank.factorizations import (
    InputMetric,
    energies,
    factorize,
    kinds,
    options,
    parameters,
    plain_metric,
    product,
)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def second(x: Tensor) -> Tensor:
    return x.T @ x / len(x)


def linear(out: int, inner: int, seed: int = 0) -> nn.Linear:
    layer = nn.Linear(inner, out).double()
    layer.weight.data = drawn(out, inner, seed=seed)
    return layer


def off(layer: nn.Module, made: nn.Sequential, kind: str, metric: InputMetric) -> float:
    """tr(G D C DT), D being what the factors miss."""
    missed = layer.weight.detach().flatten(1) - product(made, kind)
    return float((missed @ metric.inputs * metric.weigh(missed)).sum())


@settings(max_examples=30, deadline=None)
@given(out=st.integers(2, 14), inner=st.integers(2, 14), rank=st.integers(1, 14), seed=st.integers(0, 999))
def test_svd_is_off_by_what_the_weighed_singular_values_say(out, inner, rank, seed):
    """Eckart and Young 1936, in the metric of inputs and outputs: plain factors are no better."""
    rank = min(rank, out, inner)
    layer = linear(out, inner, seed)
    metric = InputMetric(second(drawn(40, inner, seed=seed + 1)), second(drawn(40, out, seed=seed + 2)))
    roots = [torch.linalg.cholesky(m) for m in (metric.outputs, metric.inputs)]
    s = torch.linalg.svdvals(roots[0].T @ layer.weight.detach() @ roots[1])
    error = off(layer, factorize(layer, "svd", (rank,), metric), "svd", metric)
    scale = float(s.square().sum())
    assert error == pytest.approx(float(s[rank:].square().sum()), abs=1e-6 * scale)
    assert error <= off(layer, factorize(layer, "svd", (rank,), plain_metric(layer)), "svd", metric) + 1e-6 * scale


CASES = [("svd", (4,)), ("tucker", (6, 8)), ("tucker", (3, 4)), ("spatial", (5,))]


@pytest.mark.parametrize(("kind", "ranks"), CASES)
def test_a_layer_of_that_form_is_found_exactly(kind, ranks):
    """A separable kernel, one between few channels, one of few outputs: made by hand, then found again."""
    layer = nn.Conv2d(12, 16, 3, padding=1, stride=2).double()
    if kind == "svd":
        weight = torch.einsum("or,rikl->oikl", drawn(16, ranks[0]), drawn(ranks[0], 12, 3, 3, seed=1))
    elif kind == "tucker":
        weight = torch.einsum(
            "or,rskl,si->oikl",
            drawn(16, ranks[1]),
            drawn(ranks[1], ranks[0], 3, 3, seed=1),
            drawn(ranks[0], 12, seed=2),
        )
    else:
        weight = torch.einsum("rik,orl->oikl", drawn(ranks[0], 12, 3), drawn(16, ranks[0], 3, seed=1))
    layer.weight.data = weight
    metric = InputMetric(second(drawn(400, 108, seed=3)), second(drawn(100, 16, seed=4)))
    for each in (metric, plain_metric(layer)):
        made = factorize(layer, kind, ranks, each)
        torch.testing.assert_close(product(made, kind), weight.flatten(1), rtol=1e-5, atol=1e-6)
        x = drawn(2, 12, 9, 9, seed=5)
        with torch.no_grad():
            torch.testing.assert_close(made(x), layer(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [
    lambda: nn.Conv2d(8, 10, 3, padding=1),
    lambda: nn.Conv2d(8, 10, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
    lambda: nn.Conv2d(8, 10, 3, padding="same", bias=False),
    lambda: nn.Conv2d(8, 10, 3, padding=1, padding_mode="circular"),
], ids=["plain", "oblong", "same", "circular"])  # fmt: skip
@pytest.mark.parametrize(("kind", "ranks"), [("svd", (3,)), ("tucker", (4, 5)), ("spatial", (6,))])
def test_the_layers_in_a_row_are_the_product_of_their_weights(make, kind, ranks):
    """Strides, padding and dilation go where they belong: a merged layer gives the same."""
    layer = make().double()
    made = factorize(layer, kind, ranks, plain_metric(layer))
    assert sum(m.weight.numel() for m in made) == parameters(layer, kind, ranks)
    merged = make().double()
    merged.load_state_dict(layer.state_dict())
    merged.weight.data = product(made, kind).view_as(merged.weight)
    x = drawn(2, 8, 12, 12)
    with torch.no_grad():
        torch.testing.assert_close(made(x), merged(x))


@pytest.mark.parametrize("layer", [nn.Linear(20, 30), nn.Conv2d(12, 16, 3), nn.Conv2d(24, 24, 1)], ids=repr)
def test_options_foretell_what_they_make(layer):
    layer = layer.double()
    inner = layer.weight[0].numel()
    metric = InputMetric(second(drawn(3 * inner, inner)), second(drawn(200, len(layer.weight), seed=1)))
    every = list(options(layer, metric, 4, kinds(layer)))
    assert {o.kind for o in every} == set(kinds(layer))
    for option in every[:: max(len(every) // 12, 1)]:
        made = factorize(layer, option.kind, option.ranks, metric)
        assert sum(m.weight.numel() for m in made) == option.parameters < layer.weight.numel()
        assert off(layer, made, option.kind, metric) == pytest.approx(option.error, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize(
    ("layer", "kind", "ranks"),
    [
        (nn.Linear(20, 6), "svd", (4,)),
        (nn.Linear(6, 20), "svd", (4,)),
        (nn.Conv2d(6, 8, 3), "svd", (5,)),
        (nn.Conv2d(6, 8, 3), "tucker", (4, 5)),
        (nn.Conv2d(3, 40, 3), "tucker", (2, 9)),
        (nn.Conv2d(6, 8, 3), "spatial", (5,)),
    ],
)
def test_a_component_has_the_same_norm_in_both_factors(layer, kind, ranks, weighed):
    """The product says nothing of how it is shared, and int8 does: one scale a tensor."""
    layer = layer.double()
    layer.weight.data *= 100
    inner, out = layer.weight[0].numel(), len(layer.weight)
    metric = InputMetric(second(drawn(400, inner)), second(drawn(200, out, seed=1))) if weighed else plain_metric(layer)
    *_, before, last = factorize(layer, kind, ranks, metric)
    torch.testing.assert_close(before.weight.flatten(1).norm(dim=1), last.weight.movedim(1, 0).flatten(1).norm(dim=1))


def test_inputs_that_never_vary_are_no_trouble():
    """Second moments of rank one, of zeros, and gradients that reach one output only."""
    layer = nn.Conv2d(6, 8, 3).double()
    one = drawn(1, 54)
    for inputs in (one.T @ one, torch.zeros(54, 54, dtype=torch.float64)):
        for outputs in (None, torch.diag(torch.eye(8, dtype=torch.float64)[0])):
            for kind in kinds(layer):
                made = factorize(layer, kind, (2, 3) if kind == "tucker" else (3,), InputMetric(inputs, outputs))
                assert all(torch.isfinite(p).all() for p in made.parameters())


@pytest.mark.parametrize(
    ("channels", "multiple", "tried"),
    [
        (16, 2, {2, 4, 6, 8, 10, 12}),
        (16, 4, {4, 8, 12}),
        (40, 1, {5, 10, 15, 20, 25, 30}),
        (3, 4, {3}),  # fewer than the multiple
        (8, 8, {8}),
    ],
)
def test_the_first_layer_of_tucker_is_tried_with_eighths_of_the_channels(channels, multiple, tried):
    layer = nn.Conv2d(channels, 16, 3).double()
    every = options(layer, plain_metric(layer), multiple, ("tucker",))
    assert {o.ranks[0] for o in every} == tried


class Padded(nn.Conv2d):
    """A subclass may do anything with what it reads."""


@pytest.mark.parametrize(
    ("layer", "ways"),
    [
        (nn.Linear(8, 8), ("svd",)),
        (nn.Conv2d(4, 4, 1), ("svd",)),
        (nn.Conv2d(4, 4, 2), ("svd", "tucker", "spatial")),
        (nn.Conv2d(4, 4, (3, 2)), ("svd", "tucker", "spatial")),
        (nn.Conv2d(4, 4, (1, 3)), ("svd", "tucker")),
        (nn.Conv2d(4, 4, (3, 1)), ("svd", "tucker")),
        (Padded(4, 4, 3), ("svd", "tucker")),
        (Padded(4, 4, 1), ("svd",)),
    ],
    ids=repr,
)
def test_the_ways_that_suit_a_layer(layer, ways):
    assert kinds(layer) == ways


@pytest.mark.parametrize(
    ("layer", "kind", "ranks", "count"),
    [
        (nn.Linear(7, 5), "svd", (2,), 2 * (7 + 5)),
        (nn.Conv2d(3, 5, (2, 4)), "svd", (2,), 2 * (3 * 8 + 5)),
        (nn.Conv2d(3, 5, (2, 4)), "tucker", (2, 3), 3 * 2 + 2 * 3 * 8 + 3 * 5),
        (nn.Conv2d(3, 5, (2, 4)), "spatial", (2,), 2 * (3 * 2 + 5 * 4)),
    ],
)
def test_the_numbers_in_the_factors(layer, kind, ranks, count):
    assert parameters(layer, kind, ranks) == count
    made = factorize(layer.double(), kind, ranks, plain_metric(layer))
    assert sum(m.weight.numel() for m in made) == count
    assert (made[-1].bias is None) == (layer.bias is None)
    assert all(m.bias is None for m in made[:-1])


@pytest.mark.parametrize(
    ("full", "multiple", "ranks"),
    [(8, 1, [1, 2, 3, 4, 5, 6, 7, 8]), (8, 4, [4, 8]), (9, 4, [4, 8]), (3, 4, [3]), (4, 4, [4]), (1, 1, [1])],
)
def test_ranks_are_multiples_or_all_there_is(full, multiple, ranks):
    assert list(factorizations._ranks(full, multiple)) == ranks


@pytest.mark.parametrize("multiple", [1, 4])
@pytest.mark.parametrize(("out", "inner"), [(6, 20), (20, 6), (10, 10)])
def test_every_smaller_svd_is_an_option_with_what_it_loses(out, inner, multiple):
    layer = linear(out, inner)
    squares = torch.linalg.svdvals(layer.weight.detach()).square()
    found = list(options(layer, plain_metric(layer), multiple, ("svd",)))
    fit = [r for r in range(multiple, min(out, inner) + 1, multiple) if r * (out + inner) < out * inner]
    assert [(o.kind, o.ranks, o.parameters) for o in found] == [("svd", (r,), r * (out + inner)) for r in fit]
    assert [o.error for o in found] == pytest.approx([float(squares[r:].sum()) for r in fit], rel=1e-6)
    torch.testing.assert_close(energies(layer, plain_metric(layer)), squares)


def test_as_many_parameters_are_not_fewer():
    assert list(options(linear(4, 4), plain_metric(linear(4, 4)), 2, ("svd",))) == []  # 2 (4 + 4) is 4 x 4
    assert [o.ranks for o in options(linear(4, 5), plain_metric(linear(4, 5)), 2, ("svd",))] == [(2,)]


@pytest.mark.parametrize("multiple", [1, 4, 8, 50])
def test_first_layers_that_are_tried(multiple):
    """Of tucker those of shares of the channels, of spatial up to thirteen, spread from the least to the most."""
    layer = nn.Conv2d(40, 30, (2, 3)).double()
    found = {
        kind: {o.ranks[0] for o in options(layer, plain_metric(layer), multiple, (kind,))} for kind in kinds(layer)
    }
    shares = [max(round(s * 40 / multiple), 1) * multiple for s in (0.125, 0.25, 0.375, 0.5, 0.625, 0.75)]
    tucker = {min(r, 40) for r in shares}
    smallest = min(multiple, 30)
    assert found["tucker"] == {r for r in tucker if parameters(layer, "tucker", (r, smallest)) < layer.weight.numel()}
    ranks = list(range(min(multiple, 80), 81, multiple))  # 40 x 2 rows against 30 x 3 columns
    spread = {ranks[int(i / 12 * (len(ranks) - 1) + 1e-9)] for i in range(13)}
    assert found["spatial"] == {r for r in spread if r * (40 * 2 + 30 * 3) < layer.weight.numel()}
    assert factorizations.SHARES == (0.125, 0.25, 0.375, 0.5, 0.625, 0.75)


def test_spatial_ranks_are_bounded_by_either_side():
    """3 x 4 rows of inputs against 2 x 9 columns of outputs, and the other way round."""
    for layer, most in ((nn.Conv2d(3, 9, (4, 2)), 12), (nn.Conv2d(9, 3, (4, 2)), 6)):
        weight = layer.weight.detach().flatten(1).double()
        tried = [r for _, r in factorizations._fronts(layer, weight, plain_metric(layer), "spatial", 1)]
        most_that_pay = [r for r in range(1, most + 1) if parameters(layer, "spatial", (r,)) < layer.weight.numel()]
        spread = [1 + i * (most - 1) // 12 for i in range(13)]
        assert tried == sorted(set(spread) & set(most_that_pay))


def test_roots_of_what_never_varies_are_lifted_to_a_millionth_of_the_largest():
    matrix = torch.diag(torch.tensor([4.0, 1.0, 0.0, -1.0], dtype=torch.float64))
    root, inverse = factorizations._root(matrix, factorizations.FLOOR)
    wanted = torch.tensor([2.0, 1.0, 2e-3, 2e-3], dtype=torch.float64)
    torch.testing.assert_close(root, torch.diag(wanted))
    torch.testing.assert_close(inverse, torch.diag(1 / wanted))
    turned = torch.linalg.qr(drawn(4, 4))[0]
    root, inverse = factorizations._root(turned @ matrix @ turned.T, 1e-2)
    wanted = torch.tensor([2.0, 1.0, 0.2, 0.2], dtype=torch.float64)
    torch.testing.assert_close(root, turned @ torch.diag(wanted) @ turned.T)
    torch.testing.assert_close(root @ inverse, torch.eye(4, dtype=torch.float64))
    zero = factorizations._root(torch.zeros(2, 2, dtype=torch.float64), 1e-6)
    assert all(torch.isfinite(m).all() for m in zero)
    assert factorizations.FLOOR == 1e-6


def test_energies_are_weighed_by_inputs_and_outputs():
    for out, inner in ((3, 7), (7, 3)):
        layer = linear(out, inner)
        metric = InputMetric(second(drawn(40, inner, seed=1)), second(drawn(40, out, seed=2)))
        roots = [torch.linalg.cholesky(m) for m in (metric.outputs, metric.inputs)]
        wanted = torch.linalg.svdvals(roots[0].T @ layer.weight.detach() @ roots[1]).square()
        torch.testing.assert_close(energies(layer, metric), wanted)
        assert len(wanted) == 3


@pytest.mark.parametrize("kind", ["tucker", "spatial"])
def test_what_stands_behind_a_first_layer_is_by_least_squares(kind):
    """No other core or second layer of that front is nearer to what the layer gives: the gradient is zero."""
    layer = nn.Conv2d(4, 5, (2, 3)).double()
    metric = InputMetric(second(drawn(80, 24)), None)
    weight = layer.weight.detach().flatten(1)
    ((front, rank),) = factorizations._fronts(layer, weight, metric, kind, 1, 2)
    assert rank == 2
    rest, behind = factorizations._behind(front, weight, metric)
    through = front.reads(torch.eye(24, dtype=torch.float64))  # (I, J)
    torch.testing.assert_close(behind.inputs, through.T @ metric.inputs @ through)
    wanted = torch.linalg.solve(behind.inputs, through.T @ metric.inputs @ weight.T).T
    torch.testing.assert_close(rest, wanted, rtol=1e-5, atol=1e-7)
    assert behind.outputs is None


def test_a_given_matrix_stands_for_the_weight():
    layer, other = linear(6, 9), drawn(6, 9, seed=5)
    layer.bias.data.fill_(2.0)
    made = factorize(layer, "svd", (6,), plain_metric(layer), other)
    torch.testing.assert_close(product(made, "svd"), other)
    assert made[-1].bias.tolist() == [2.0] * 6
    assert made[-1].bias is not layer.bias


def test_copies_know_their_new_sizes():
    layer = nn.Conv2d(6, 8, 3, stride=2, padding=1)
    svd, tucker = (factorize(layer, k, r, plain_metric(layer)) for k, r in (("svd", (3,)), ("tucker", (2, 4))))
    shapes = [[(m.in_channels, m.out_channels, m.kernel_size, m.stride) for m in made] for made in (svd, tucker)]
    assert shapes[0] == [(6, 3, (3, 3), (2, 2)), (3, 8, (1, 1), (1, 1))]
    assert shapes[1] == [(6, 2, (1, 1), (1, 1)), (2, 4, (3, 3), (2, 2)), (4, 8, (1, 1), (1, 1))]
    down, up = factorize(nn.Linear(7, 5), "svd", (2,), plain_metric(nn.Linear(7, 5)))
    assert [(m.in_features, m.out_features) for m in (down, up)] == [(7, 2), (2, 5)]
    assert all(tuple(m.weight.shape) == (m.out_features, m.in_features) for m in (down, up))
    assert {p.dtype for made in (svd, tucker) for p in made.parameters()} == {torch.float32}
