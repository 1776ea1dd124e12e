"""Each way to write a layer: exact where the layer is of that form, the best there is where that is known."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pocketzoo.compress.low_rank.factorizations import (
    Metric,
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


def off(layer: nn.Module, made: nn.Sequential, kind: str, metric: Metric) -> float:
    """tr(G D C DT), D being what the factors miss."""
    missed = layer.weight.detach().flatten(1) - product(made, kind)
    return float((missed @ metric.inputs * metric.weigh(missed)).sum())


@settings(max_examples=30, deadline=None)
@given(out=st.integers(2, 14), inner=st.integers(2, 14), rank=st.integers(1, 14), seed=st.integers(0, 999))
def test_svd_is_off_by_what_the_weighed_singular_values_say(out, inner, rank, seed):
    """Eckart and Young 1936, in the metric of inputs and outputs: plain factors are no better."""
    rank = min(rank, out, inner)
    layer = linear(out, inner, seed)
    metric = Metric(second(drawn(40, inner, seed=seed + 1)), second(drawn(40, out, seed=seed + 2)))
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
    metric = Metric(second(drawn(400, 108, seed=3)), second(drawn(100, 16, seed=4)))
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
    metric = Metric(second(drawn(3 * inner, inner)), second(drawn(200, len(layer.weight), seed=1)))
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
    metric = Metric(second(drawn(400, inner)), second(drawn(200, out, seed=1))) if weighed else plain_metric(layer)
    *_, before, last = factorize(layer, kind, ranks, metric)
    torch.testing.assert_close(before.weight.flatten(1).norm(dim=1), last.weight.movedim(1, 0).flatten(1).norm(dim=1))


def test_inputs_that_never_vary_are_no_trouble():
    """Second moments of rank one, of zeros, and gradients that reach one output only."""
    layer = nn.Conv2d(6, 8, 3).double()
    one = drawn(1, 54)
    for inputs in (one.T @ one, torch.zeros(54, 54, dtype=torch.float64)):
        for outputs in (None, torch.diag(torch.eye(8, dtype=torch.float64)[0])):
            for kind in kinds(layer):
                made = factorize(layer, kind, (2, 3) if kind == "tucker" else (3,), Metric(inputs, outputs))
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
