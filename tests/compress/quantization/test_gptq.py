from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.compress.quantization import gptq
from pocketzoo.compress.quantization.fp8 import E4M3
from pocketzoo.compress.quantization.gptq import (
    BLOCK,
    DAMPING,
    INT8,
    cost,
    feedback,
    nearest,
    round_weight,
    widest_scale,
)
from pocketzoo.core.errors import DataError

SHAPES = [(1, 6, 20), (1, 1, 1), (5, 1, 9), (2, 4, 130), (3, 2, 64)]  # (G, O, I)


def drawn(shape: tuple[int, int, int], rows: int = 0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A weight, and second moments of correlated inputs from ``rows`` rows: fewer than I leave it rank-deficient."""
    groups, _, size = shape
    r = np.random.default_rng(seed)
    x = r.normal(size=(groups, rows or 4 * size, size)) @ r.normal(size=(groups, size, size))
    second = x.transpose(0, 2, 1) @ x / x.shape[1]
    return r.normal(size=shape).astype(np.float32), second.astype(np.float32)


def lost(weight: np.ndarray, levels: np.ndarray, scale: np.ndarray, second: np.ndarray) -> np.ndarray:
    """e H eT of each channel, written out again in double precision."""
    error = weight.astype(np.float64) - levels * scale[..., None].astype(np.float64)
    return np.einsum("goi,gij,goj->go", error, second.astype(np.float64), error)


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 12)),
    size=st.sampled_from([1e-20, 1e-6, 1.0, 1e6]),
    seed=st.integers(0, 10**6),
)
def test_nearest_is_off_by_half_a_step_at_the_most(shape, size, seed):
    """None is clipped: the largest of a channel is 127."""
    weight = (np.random.default_rng(seed).normal(size=shape) * size).astype(np.float32)
    scale = widest_scale(weight)
    assert scale.shape == shape[:2]
    assert scale.dtype == np.float32
    levels, wide = nearest(weight, scale), scale[..., None].astype(np.float64)
    assert (np.abs(levels * wide - weight) <= wide / 2 * (1 + 1e-5)).all()
    assert (np.abs(levels.astype(int)).max(axis=2) == 127).all()


def test_a_channel_of_zeros_has_a_scale_that_divides():
    weight = np.zeros((1, 3, 4), np.float32)
    weight[0, 1] = 2.54
    np.testing.assert_allclose(widest_scale(weight), [[1.0, 0.02, 1.0]], rtol=1e-6)
    levels, _ = round_weight(weight, np.eye(4, dtype=np.float32)[None])
    assert (levels == [[[0], [127], [0]]]).all()


@pytest.mark.parametrize("rows", [0, 3], ids=["full rank", "rank-deficient"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_no_channel_loses_more_than_by_rounding_to_nearest(shape, rows, seed):
    weight, second = drawn(shape, rows, seed)
    levels, scale = round_weight(weight, second)
    plain = widest_scale(weight)
    limit = lost(weight, nearest(weight, plain), plain, second)
    assert (lost(weight, levels, scale, second) <= limit * (1 + 1e-4)).all()


def test_feedback_gains_much_where_inputs_are_correlated():
    weight, second = drawn((1, 32, 64))
    levels, scale = round_weight(weight, second)
    limit = lost(weight, nearest(weight, scale), scale, second).sum()
    assert lost(weight, levels, scale, second).sum() < 0.6 * limit


def by_obq(weight: np.ndarray, second: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The levels (O, I) of one group, as OBQ defines them: an inverse of its own for the columns left at each step.

    After column q was rounded, the weights that minimize the error are those less e / F_qq * F_q with F the inverse of
    what is left of the Hessian (arXiv:2208.11580, eq. 2-3). Columns go by the diagonal, the largest first.
    """
    size = len(second)
    hessian = second.astype(np.float64) + DAMPING * np.diag(second).astype(np.float64).mean() * np.eye(size)
    left, levels = weight.astype(np.float64), np.empty(weight.shape, np.int64)
    columns = sorted(range(size), key=lambda i: -second[i, i])
    while columns:
        inverse = np.linalg.inv(hessian[np.ix_(columns, columns)])
        first = columns[0]
        levels[:, first] = np.clip(np.rint(left[:, first] / scale), -127, 127)
        error = (left[:, first] - levels[:, first] * scale) / inverse[0, 0]
        left[:, columns] -= error[:, None] * inverse[0]
        columns = columns[1:]
    return levels


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 6])
def test_feedback_is_the_recursion_of_obq(size):
    """Before ``round_weight`` takes the better of this and rounding to nearest, which hides what goes wrong here."""
    same = total = 0
    for seed in range(20 if size < 10 else 2):
        weight, second = drawn((2, 6, size), seed=seed)
        scale = widest_scale(weight)
        found = feedback(weight, second, scale)
        for group in range(2):
            wanted = by_obq(weight[group], second[group], scale[group])
            same, total = same + (found[group] == wanted).sum(), total + wanted.size
    assert same >= 0.99 * total  # one that lies between two steps may go either way in single precision


def test_what_columns_far_away_can_make_up_for_is_handed_on(monkeypatch):
    """The last input is nearly the sum of all others, so it can take what they lose: more than ``BLOCK`` away too."""
    monkeypatch.setattr(gptq, "DAMPING", 1e-2)  # little, so that it takes nearly all
    size = 2 * BLOCK
    r = np.random.default_rng(0)
    x = r.normal(size=(4000, size)) * np.linspace(2.0, 1.0, size)  # the order of the diagonal is that of the inputs
    x[:, -1] = x[:, 0] / 4  # what the first column loses, four steps of the last one make up for, and no other
    second = (x.T @ x / len(x))[None].astype(np.float32)
    weight = r.normal(size=(1, 40, size)).astype(np.float32)
    scale = widest_scale(weight)
    error = (weight - feedback(weight, second, scale) * scale[..., None])[0] / scale[0][:, None]
    together = error[:, 0] + error[:, -1] / 4  # in steps of the first input
    assert np.abs(together).max() < 0.25
    assert np.abs(error[:, 0]).max() > 0.4


@pytest.mark.parametrize("shape", SHAPES)
def test_weights_on_the_grid_are_kept(shape):
    r = np.random.default_rng(0)
    levels = r.integers(-127, 128, shape).astype(np.int8)
    levels[:, :, 0] = 127
    scale = r.uniform(0.5, 2.0, shape[:2]).astype(np.float32)
    found, scales = round_weight(levels * scale[..., None], drawn(shape)[1])
    np.testing.assert_array_equal(found, levels)
    np.testing.assert_allclose(scales, scale, rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_inputs_without_correlation_leave_nothing_to_hand_on(shape):
    weight, _ = drawn(shape)
    scale = widest_scale(weight)
    diagonal = np.eye(shape[2], dtype=np.float32) * np.ones((shape[0], 1, 1), np.float32)
    np.testing.assert_array_equal(feedback(weight, diagonal, scale), nearest(weight, scale))


def test_inputs_that_are_never_there_cost_nothing():
    """A dead input's row and column of H are zero; a layer that sees only zeros has no H at all."""
    weight, second = drawn((1, 4, 10))
    second[:, 3], second[:, :, 3] = 0, 0
    levels, scale = round_weight(weight, second)
    assert (lost(weight, levels, scale, second) <= lost(weight, nearest(weight, scale), scale, second) * 1.0001).all()
    levels, scale = round_weight(weight, np.zeros_like(second))
    np.testing.assert_array_equal(levels, nearest(weight, scale))


def test_twins_among_inputs_share_the_error():
    """Two inputs that are always equal: only the sum of their weights counts, to half a step."""
    weight, second = drawn((1, 16, 8))
    second[:, 1], second[:, :, 1] = second[:, 0], second[:, :, 0]
    second[:, 1, 1] = second[:, 0, 1] = second[:, 1, 0] = second[:, 0, 0]
    only = np.zeros_like(second)
    only[:, :2, :2] = second[:, :2, :2]
    levels, scale = round_weight(weight, only)
    error = (weight - levels * scale[..., None])[:, :, :2].sum(2)
    assert (np.abs(error) <= scale * 0.51).all()


def test_a_scale_that_must_not_be_smaller_is_taken():
    weight, second = drawn((1, 4, 10))
    _, scale = round_weight(weight, second, np.full((1, 4), 0.5, np.float32))
    assert (scale == 0.5).all()


def test_cost_is_the_mean_square_of_what_a_channel_gives():
    r = np.random.default_rng(0)
    x, error = r.normal(size=(2, 50, 6)).astype(np.float32), r.normal(size=(2, 3, 6)).astype(np.float32)
    wanted = np.square(error @ x.transpose(0, 2, 1)).mean(2)
    np.testing.assert_allclose(cost(error, x.transpose(0, 2, 1) @ x / 50), wanted, rtol=1e-4)


@pytest.mark.parametrize("parts", [2, 5])
@pytest.mark.parametrize("groups", [1, 3])
def test_blocks_of_the_diagonal_are_the_whole_of_a_hessian_that_has_no_more(parts, groups):
    weight, _ = drawn((groups, 4, 20))
    _, blocks = drawn((groups * parts, 1, 20 // parts), seed=1)
    whole = np.zeros((groups, 20, 20), np.float32)
    for i, block in enumerate(blocks):
        place = slice(i % parts * len(block), (i % parts + 1) * len(block))
        whole[i // parts, place, place] = block
    levels, scale = round_weight(weight, blocks)
    _, wanted = round_weight(weight, whole)
    np.testing.assert_array_equal(scale, wanted)
    plain = nearest(weight, scale)
    assert (lost(weight, levels, scale, whole) <= lost(weight, plain, scale, whole) * (1 + 1e-4)).all()
    assert lost(weight, levels, scale, whole).sum() < 0.95 * lost(weight, plain, scale, whole).sum()


def test_levels_are_rounded_to_even_and_end_at_127():
    weight = np.array([[[0.24, 0.25, 0.26, -0.75, 63.4, 63.6, 70.0, -63.4, -70.0]]], np.float32)
    levels = nearest(weight, np.array([[0.5]], np.float32))
    assert levels.tolist() == [[[0, 0, 1, -2, 127, 127, 127, -127, -127]]]
    assert levels.dtype == np.int8
    assert (DAMPING, BLOCK) == (1e-1, 64)


def test_a_hessian_is_damped_by_a_part_of_its_own_mean_diagonal():
    hessian = np.array([[[4.0, 1.0], [1.0, 2.0]], [[0.0, 0.5], [0.5, 0.0]], [[-1.0, 0.0], [0.0, -1.0]]], np.float32)
    found = gptq.damped(hessian, 0.1)
    np.testing.assert_allclose(found[0], [[4.3, 1.0], [1.0, 2.3]])
    np.testing.assert_allclose(found[1], [[1.0, 0.5], [0.5, 1.0]])
    np.testing.assert_allclose(found[2], [[0.0, 0.0], [0.0, 0.0]])
    assert found.dtype == np.float64


@pytest.mark.parametrize(
    ("diagonal", "damping"),
    [((2.0, 1.0, 3.0), 1e-1), ((1.0, -0.02, 1.0), 1e-1), ((1.0, -0.2, 1.0), 1.0), ((1.0, -0.95, 1.0), 10.0)],
)
def test_the_root_is_of_the_inverse_damped_tenfold_until_there_is_one(diagonal, damping):
    hessian = np.diag(diagonal).astype(np.float32)[None]
    hessian[0, 0, 2] = hessian[0, 2, 0] = 0.5
    upper = gptq.root(hessian)
    assert upper.dtype == np.float32
    assert (upper == np.triu(upper)).all()
    wanted = hessian[0] + damping * np.mean(diagonal) * np.eye(3)
    np.testing.assert_allclose(upper[0].T.astype(np.float64) @ upper[0], np.linalg.inv(wanted), rtol=1e-4, atol=1e-5)


def test_where_both_cost_the_same_the_nearest_is_kept():
    """Moments so rounded that no error costs anything: there is nothing to gain."""
    second = np.array([[[-0.5, 0.45], [0.45, -0.5]]], np.float32)
    weight = np.random.default_rng(0).normal(size=(1, 50, 2)).astype(np.float32)
    scale = widest_scale(weight) * 4
    assert (feedback(weight, second, scale) != nearest(weight, scale)).any()
    assert (cost(weight, second) == 0).sum() > 10
    levels, _ = round_weight(weight, second, scale)
    error = weight - nearest(weight, scale) * scale[..., None]
    same = cost(error, second)[0] == 0
    assert same.any()
    np.testing.assert_array_equal(levels[0][same], nearest(weight, scale)[0][same])


def test_costs_below_nothing_are_nothing():
    error = np.array([[[1.0, 2.0], [0.0, 1.0]]], np.float32)
    assert cost(error, np.array([[[3.0, -1.0], [-1.0, -0.5]]], np.float32)).tolist() == [[0.0, 0.0]]
    assert cost(error, np.array([[[3.0, 1.0], [1.0, 0.5]]], np.float32)).tolist() == [[9.0, 0.5]]


def test_scales_are_the_larger_of_what_is_needed_and_the_least():
    weight = np.array([[[1.27, 0.1], [12.7, 0.2], [0.0, 0.0]]], np.float32)
    second = np.eye(2, dtype=np.float32)[None]
    least = np.array([[0.05, 0.05, 0.05]], np.float64)
    levels, scale = round_weight(weight, second, least)
    np.testing.assert_allclose(scale, [[0.05, 0.1, 1.0]], rtol=1e-6)
    assert scale.dtype == np.float32
    assert levels.tolist() == [[[25, 2], [127, 2], [0, 0]]]


def test_inputs_that_matter_alike_go_in_their_order():
    """A correlation matrix: OBQ takes the first of them first, and so must this."""
    weight, second = drawn((1, 6, 48))
    deviation = np.sqrt(np.einsum("gii->gi", second))
    second = second / deviation[:, :, None] / deviation[:, None, :]
    second[:, np.arange(48), np.arange(48)] = 1.0
    scale = widest_scale(weight)
    assert (feedback(weight, second, scale)[0] == by_obq(weight[0], second[0], scale[0])).mean() > 0.99


def test_another_grid_is_rounded_to():
    """Whole numbers that are even, with scales that are given."""
    grid = gptq.Grid(
        scales=lambda weight: np.full(weight.shape[:2], 0.25, np.float32),
        nearest=lambda weight, scale: (2 * np.rint(weight / scale[..., None] / 2)).astype(np.int16),
    )
    weight, second = drawn((2, 3, 8))
    numbers, scale = round_weight(weight, second, grid=grid)
    assert (scale == 0.25).all()
    assert numbers.dtype == np.int16
    assert (numbers % 2 == 0).all()
    plain = grid.nearest(weight, scale)
    assert (lost(weight, numbers, scale, second) <= lost(weight, plain, scale, second) * (1 + 1e-4)).all()
    assert (numbers != plain).any()


@pytest.mark.parametrize("size", [2, 5, 12, 13])
def test_the_root_of_a_large_hessian_is_the_one_of_a_small(size, monkeypatch):
    rows = np.random.default_rng(size).normal(size=(2, size, 3 * size)).astype(np.float32)
    hessian = rows @ rows.mT
    whole = gptq.root(hessian)
    monkeypatch.setattr(gptq, "WHOLE", 1)
    monkeypatch.setattr(gptq, "PART", 4)
    parts = gptq.root(hessian)
    assert (parts.dtype, parts.shape) == (np.float32, whole.shape)
    assert (parts == np.triu(parts)).all()
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6 * float(np.abs(whole).max()))


@pytest.mark.parametrize(
    ("diagonal", "damping"),
    [((2.0, 1.0, 3.0), 1e-1), ((1.0, -0.02, 1.0), 1e-1), ((1.0, -0.2, 1.0), 1.0), ((1.0, -0.95, 1.0), 10.0)],
)
def test_a_large_hessian_is_damped_until_it_has_a_root(diagonal, damping, monkeypatch):
    monkeypatch.setattr(gptq, "WHOLE", 1)
    monkeypatch.setattr(gptq, "PART", 2)
    test_the_root_is_of_the_inverse_damped_tenfold_until_there_is_one(diagonal, damping)


def test_a_large_hessian_is_worked_on_within_one_copy(monkeypatch):
    """LAPACK gets no more than a part at once: it copies what it is given."""
    monkeypatch.setattr(gptq, "WHOLE", 256)
    monkeypatch.setattr(gptq, "PART", 64)
    size = 768
    hessian = np.eye(size, dtype=np.float32)[None] * 2 + 1
    tracemalloc.start()
    try:
        gptq.root(hessian)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2.4 * 8 * size**2  # in double precision once, the root twice in single, and products of a part


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("grid", [INT8, E4M3], ids=["int8", "fp8"])
def test_weights_that_are_no_numbers_are_refused(grid, value):
    weight = np.ones((1, 3, 4), np.float32)
    weight[0, 1, 2] = value
    with pytest.raises(DataError, match="weights of the model are not finite") as error:
        grid.scales(weight)
    assert "NaN" in error.value.hint
