"""Heads on maps, vectors and sequences, against pooling written out by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pocketzoo.plugins.head_modules import Linear, Mlp, Pool
from pocketzoo.zoo.specs import FeatureSpec

SIZES = st.integers(1, 12)


def map_of(channels: int, height: int, width: int) -> FeatureSpec:
    return FeatureSpec("map", ("batch", channels, height, width))


@given(st.integers(1, 5), SIZES, SIZES, st.integers(1, 4))
def test_a_grid_on_a_map_has_the_width_it_says(channels, height, width, grid):
    pool = Pool(map_of(channels, height, width), grid)
    x = torch.arange(2.0 * channels * height * width).view(2, channels, height, width)
    assert pool(x).shape == (2, pool.width)
    assert pool.width == channels * min(grid, height) * min(grid, width)


@given(st.integers(1, 5), SIZES, SIZES)
def test_a_grid_of_one_is_the_mean(channels, height, width):
    x = torch.rand(2, channels, height, width)
    torch.testing.assert_close(Pool(map_of(channels, height, width), 1)(x), x.mean((2, 3)))


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.integers(2, 3))
def test_a_grid_that_divides_the_map_is_the_mean_of_each_window(channels, rows, columns, grid):
    x = torch.rand(2, channels, rows * grid, columns * grid)
    windows = x.view(2, channels, grid, rows, grid, columns).mean((3, 5)).flatten(1)
    torch.testing.assert_close(Pool(map_of(channels, rows * grid, columns * grid), grid)(x), windows)


@given(SIZES, SIZES, st.integers(1, 4), st.floats(-100, 100, width=32))
def test_pooling_a_constant_is_the_constant(height, width, grid, value):
    pooled = Pool(map_of(3, height, width), grid)(torch.full((1, 3, height, width), value))
    torch.testing.assert_close(pooled, torch.full_like(pooled, value))


@given(SIZES, SIZES, st.integers(1, 4))
def test_every_place_of_a_map_is_seen(height, width, grid):
    """No window leaves out a row or column: each place changes the result."""
    pool = Pool(map_of(1, height, width), grid)
    weights = torch.zeros(1, 1, height, width, requires_grad=True)
    pool(weights).sum().backward()
    assert (weights.grad > 0).all()


def test_a_sequence_is_the_mean_of_its_tokens():
    x = torch.rand(2, 7, 5)
    assert torch.equal(Pool(FeatureSpec("sequence", ("batch", 7, 5)), 2)(x), x.mean(1))


def test_a_vector_stays():
    x = torch.rand(2, 5)
    assert Pool(FeatureSpec("vector", ("batch", 5)), 2)(x) is x


@pytest.mark.parametrize("grid", [1, 2])
@pytest.mark.parametrize(
    "features",
    [map_of(6, 7, 7), FeatureSpec("vector", ("batch", 6)), FeatureSpec("sequence", ("batch", 4, 6))],
    ids=lambda f: f.kind,
)
def test_linear_is_pooling_and_one_layer(features, grid):
    head = Linear(features, 3, grid).eval()
    x = torch.rand(2, *features.shape[1:])
    assert torch.equal(head(x), nn.functional.linear(head.pool(x), head.linear.weight, head.linear.bias))
    assert head.linear.in_features == 6 * (grid**2 if features.kind == "map" else 1)


def test_mlp_drops_only_while_it_learns():
    head = Mlp(map_of(6, 7, 7), 3)
    x = torch.rand(2, 6, 7, 7)
    assert not torch.equal(head(x), head(x))
    head.eval()
    assert torch.equal(head(x), head(x))
    assert (head.hidden.in_features, head.hidden.out_features, head.linear.in_features) == (24, 256, 256)


@pytest.mark.parametrize(("name", "kind", "grid"), [("linear", Linear, 2), ("mlp", Mlp, 2)])
def test_the_registered_heads(registry, name, kind, grid):
    head = registry.get("head", name).build(map_of(6, 7, 7), 3)
    assert type(head) is kind
    assert head.pool.width == 6 * grid**2


def test_a_pretrained_classifier_pools_globally(registry):
    head = registry.get("head", "tinynet-fashion-mnist").build(map_of(128, 7, 7), 10)
    assert head.pool.width == 128
