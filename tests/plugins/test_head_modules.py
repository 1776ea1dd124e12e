"""Heads on maps, vectors and sequences, against pooling written out by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pocketzoo.plugins.head_modules import (
    ACTIVATIONS,
    Embedding,
    LanguageModel,
    Linear,
    Mlp,
    Pool,
    PooledClassifier,
    QValues,
    Regression,
    TokenClassifier,
)
from pocketzoo.plugins.head_options import EmbeddingOptions, MlpOptions, PooledOptions, QValuesOptions
from pocketzoo.zoo.catalog.specs import FeatureSpec

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


VECTOR, TOKENS = FeatureSpec("vector", ("batch", 6)), FeatureSpec("sequence", ("batch", "sequence", 6))


def texts() -> torch.Tensor:
    """Two of them, of five tokens and of two."""
    x = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))
    x[1, 2:] = 0
    return x


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        ("mean", lambda x: torch.stack([x[0].mean(0), x[1, :2].mean(0)])),
        ("max", lambda x: torch.stack([x[0].amax(0), x[1, :2].amax(0)])),
        ("cls", lambda x: x[:, 0]),
        ("last", lambda x: torch.stack([x[0, 4], x[1, 1]])),
        ("cls+mean", lambda x: torch.stack([torch.cat([x[0, 0], x[0, 1:].mean(0)]), torch.cat([x[1, 0], x[1, 1]])])),
    ],
)
def test_a_sequence_is_pooled_without_its_padding(mode, wanted):
    pool = Pool(TOKENS, mode=mode)
    torch.testing.assert_close(pool(texts()), wanted(texts()))
    assert pool.width == pool(texts()).shape[1]


def test_a_map_is_flattened_or_its_largest_values_taken():
    x = torch.rand(2, 6, 3, 4)
    assert torch.equal(Pool(map_of(6, 3, 4), mode="flatten")(x), x.flatten(1))
    assert Pool(map_of(6, 3, 4), mode="flatten").width == 72
    assert torch.equal(Pool(map_of(6, 3, 4), mode="max")(x), x.amax((2, 3)))
    assert torch.equal(Pool(FeatureSpec("sequence", ("batch", 5, 6)), mode="flatten")(texts()), texts().flatten(1))


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_hidden_layers_are_those_that_were_asked_for(name):
    head = Mlp(VECTOR, 3, MlpOptions(hidden=(7, 5), activation=name, dropout=0.5)).eval()
    act = ACTIVATIONS[name]()
    by_hand = nn.Sequential(head.hidden, act, head.hidden_2, act, head.linear)
    x = torch.randn(4, 6)
    assert torch.equal(head(x), by_hand(x))
    assert [m.out_features for m in head.modules() if isinstance(m, nn.Linear)] == [7, 5, 3]


def test_no_hidden_layer_is_linear():
    head = Mlp(VECTOR, 3, MlpOptions(hidden=()))
    x = torch.randn(4, 6)
    assert torch.equal(head(x), head.linear(x))


def test_numbers_start_where_the_targets_are():
    head = Regression(VECTOR, 2)
    plain = Regression(VECTOR, 2)
    plain.load_state_dict(head.state_dict())
    head.standardize(torch.tensor([100.0, -3.0]), torch.tensor([10.0, 0.5]))
    x = torch.randn(4, 6)
    torch.testing.assert_close(head(x), torch.tensor([100.0, -3.0]) + torch.tensor([10.0, 0.5]) * plain(x))


def test_a_dueling_head_is_the_value_plus_the_advantage():
    """The mean over actions is the state's value, whatever the advantages are."""
    head = QValues(VECTOR, 4, QValuesOptions(dueling=True)).eval()
    x = torch.randn(3, 6)
    torch.testing.assert_close(head(x).mean(1, keepdim=True), head.value(head.to_hidden(x)))
    plain = QValues(VECTOR, 4, QValuesOptions(hidden=(8,))).eval()
    assert torch.equal(plain(x), plain.linear(plain.hidden(x).relu()))


def test_a_pooled_classifier_is_berts():
    head = PooledClassifier(TOKENS, 3).eval()
    wanted = head.linear(head.dense(texts()[:, 0]).tanh())
    assert torch.equal(head(texts()), wanted)
    bare = PooledClassifier(TOKENS, 3, PooledOptions(pool="last", dense=False)).eval()
    torch.testing.assert_close(bare(texts()), bare.linear(torch.stack([texts()[0, 4], texts()[1, 1]])))


def test_heads_of_tokens_give_one_row_a_token():
    for head in (TokenClassifier(TOKENS, 3).eval(), LanguageModel(TOKENS, 11)):
        assert torch.equal(head(texts())[1, 1], head.linear(texts())[1, 1])
    assert LanguageModel(TOKENS, 11).linear.bias is None


@pytest.mark.parametrize("features", [map_of(6, 3, 4), VECTOR, TOKENS], ids=lambda f: f.kind)
def test_an_embedding_has_length_one(features):
    x = texts() if features.kind == "sequence" else torch.rand(2, *map(int, features.shape[1:]))
    own, shorter = Embedding(features, 6), Embedding(features, 4)
    for head, width in ((own, 6), (shorter, 4)):
        out = head(x)
        assert out.shape == (2, width)
        torch.testing.assert_close(out.norm(dim=-1), torch.ones(2))
    assert not list(own.parameters())
    raw = Embedding(features, 6, EmbeddingOptions(normalize=False))(x)
    torch.testing.assert_close(own(x), raw / raw.norm(dim=-1, keepdim=True))
