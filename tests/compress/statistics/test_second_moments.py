from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pocketzoo.compress.statistics.second_moments import (
    DAMPING,
    POSITIONS,
    Half,
    Moments,
    doubt,
    input_moments,
    rows,
    sample_positions,
    shrunk,
    solve,
    split_moments,
)

LAYERS = {
    "3x3": nn.Conv2d(4, 7, 3, padding=1),
    "1x1": nn.Conv2d(4, 7, 1),
    "1x1 strided": nn.Conv2d(4, 7, 1, stride=2),
    "strided": nn.Conv2d(4, 7, 3, stride=2, padding=1),
    "dilated": nn.Conv2d(4, 7, 3, dilation=2),
    "oblong": nn.Conv2d(4, 7, (3, 2), padding=(1, 0), stride=(1, 2)),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_a_convolution_is_its_weight_times_its_rows(layer):
    x = torch.randn(3, 4, 9, 8, generator=torch.Generator().manual_seed(0))
    out = rows(layer, x) @ layer.weight.flatten(1).T + layer.bias
    wanted = layer(x).permute(0, 2, 3, 1).reshape(-1, 7)
    torch.testing.assert_close(out, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 6), (5, 3, 6), (2, 3, 4, 6)])
def test_a_linear_layer_reads_every_position(shape):
    layer = nn.Linear(6, 2)
    x = torch.randn(shape)
    torch.testing.assert_close(rows(layer, x) @ layer.weight.T + layer.bias, layer(x).reshape(-1, 2))


@given(count=st.integers(1, 300), limit=st.integers(1, 100))
def test_rows_are_thinned_evenly_and_without_chance(count, limit):
    layer = nn.Linear(1, 1)
    kept = rows(layer, torch.arange(count, dtype=torch.float32)[:, None], limit).ravel()
    assert len(kept) == count if count <= limit else limit / 2 <= len(kept) <= limit
    assert int(kept[0]) == 0
    assert len(set(kept.diff().tolist())) <= 1


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("limit", [1, 7, 50])
def test_thinned_rows_of_a_convolution_are_some_of_all_rows(layer, limit):
    x = torch.randn(3, 4, 9, 8, generator=torch.Generator().manual_seed(0))
    whole, some = rows(layer, x, 10**6), rows(layer, x, limit)
    step = -(-len(whole) // limit)
    assert torch.equal(some, whole[::step])
    assert len(some) <= limit


def test_a_large_map_gives_no_more_than_the_usual_number_of_rows():
    layer = nn.Conv2d(2, 3, 3, padding=1)
    assert len(rows(layer, torch.zeros(4, 2, 100, 100))) <= POSITIONS


def test_moments_are_those_of_numpy():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(40, 6)).astype(np.float32)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    found = input_moments(model, ["0", "2"], [x[:16], x[16:]])
    assert found["0"].count == found["2"].count == 40
    np.testing.assert_allclose(found["0"].mean.numpy(), x.astype(np.float64).T @ x / 40, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["0"].covariance.numpy(), np.cov(x.T, bias=True), rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        hidden = model[1](model[0](torch.from_numpy(x))).double()
    torch.testing.assert_close(found["2"].mean, hidden.T @ hidden / 40, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [1, 3, 8, 40])
def test_moments_do_not_depend_on_the_batches(size):
    x = np.random.default_rng(0).normal(size=(40, 3, 6, 6)).astype(np.float32)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    whole = input_moments(model, ["0", "3"], [x])
    parts = input_moments(model, ["0", "3"], [x[i : i + size] for i in range(0, 40, size)])
    for name, moments in whole.items():
        assert moments.count == parts[name].count
        torch.testing.assert_close(parts[name].mean, moments.mean, rtol=1e-5, atol=1e-5)


def test_a_layer_that_never_runs_has_no_moments():
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x):
            return self.used(x)

    assert set(input_moments(Idle(), ["used", "idle"], [np.ones((2, 3), np.float32)])) == {"used"}


def test_hooks_are_gone_even_if_the_model_fails():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(5, 2))
    with pytest.raises(RuntimeError):
        input_moments(model, ["0"], [np.ones((2, 3), np.float32)])
    assert not model[0]._forward_pre_hooks


@given(outputs=st.integers(1, 6), size=st.integers(1, 10), seed=st.integers(0, 10**6))
def test_with_many_rows_solving_inverts(outputs, size, seed):
    """A ridge of 1e-4 of the diagonal is all that is added."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(200 * size, size, generator=g, dtype=torch.float64)
    right = torch.randn(outputs, size, generator=g, dtype=torch.float64)
    torch.testing.assert_close(solve(right @ x.T @ x, x.T @ x, len(x)), right, rtol=1e-3, atol=1e-3)


@given(rank=st.integers(0, 5), seed=st.integers(0, 10**6))
def test_a_singular_system_is_solved_as_far_as_it_can_be(rank, seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(2000, rank, generator=g, dtype=torch.float64)
    x = x @ torch.randn(rank, 8, generator=g, dtype=torch.float64)
    right = torch.randn(3, 8, generator=g, dtype=torch.float64)
    found = solve(right @ x.T @ x, x.T @ x, len(x))
    assert torch.isfinite(found).all()
    scale = max(float((x @ right.T).square().mean().sqrt()), 1e-9)
    assert float((x @ (found - right).T).square().mean().sqrt()) <= 0.1 * scale


@pytest.mark.parametrize("size", [1, 5, 20])
def test_fewer_rows_are_trusted_less(size):
    found = [doubt(size, count) for count in (1, size, 10 * size, 1000 * size)]
    assert found == sorted(found, reverse=True)
    assert found[1] == 1.0 or size == 1
    assert found[-1] == DAMPING
    assert doubt(size, 0) >= found[0]


@given(size=st.integers(1, 12), count=st.integers(0, 30), seed=st.integers(0, 10**6))
def test_shrinking_makes_any_second_moments_invertible_and_keeps_their_diagonal(size, count, seed):
    x = torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    second = x.T @ x / max(count, 1)
    found = shrunk(second, count)
    if count:
        torch.testing.assert_close(found.diagonal(), second.diagonal(), rtol=1e-6, atol=1e-9)
    off = ~torch.eye(size, dtype=torch.bool)
    assert (found[off].abs() <= second[off].abs() + 1e-12).all()
    values = torch.linalg.eigvalsh(found)
    assert float(values.min()) > 0
    assert torch.isfinite(torch.linalg.inv(found)).all()


def test_no_rows_give_a_small_correction_and_no_failure():
    zeros = torch.zeros(4, 4, dtype=torch.float64)
    assert torch.equal(solve(torch.zeros(2, 4, dtype=torch.float64), zeros, 0), torch.zeros(2, 4, dtype=torch.float64))


def taken(x: np.ndarray) -> Moments:
    moments = Moments.empty(x.shape[1])
    moments.add(torch.from_numpy(x))
    return moments


@pytest.mark.parametrize("count", [1, 2, 5])
def test_means_and_covariances_are_those_of_numpy(count):
    x = np.random.default_rng(count).normal(3.0, size=(count, 4))
    moments = taken(x)
    np.testing.assert_allclose(moments.mean.numpy(), x.T @ x / count, rtol=1e-9)
    np.testing.assert_allclose(moments.covariance.numpy(), np.cov(x.T, bias=True), atol=1e-9)
    twice = moments + taken(2 * x)
    assert (twice.count, twice.first.tolist()) == (2 * count, pytest.approx((3 * x).sum(0).tolist()))
    np.testing.assert_allclose(twice.second.numpy(), 5 * x.T @ x, rtol=1e-9)


def test_no_rows_have_no_mean_and_no_covariance():
    empty = Moments.empty(3)
    assert empty.count == 0
    assert torch.equal(empty.mean, torch.zeros(3, 3, dtype=torch.float64))
    assert torch.equal(empty.covariance, torch.zeros(3, 3, dtype=torch.float64))


@pytest.mark.parametrize("sizes", [[1], [4], [3, 1, 5, 20], [1, 1, 1], [16, 17]])
def test_halves_are_every_other_sample_however_they_come(sizes):
    x = np.random.default_rng(0).normal(size=(sum(sizes), 3)).astype(np.float32)
    cuts = np.cumsum([0, *sizes])
    model = nn.Sequential(nn.Linear(3, 2))
    halves = split_moments(model, ["0"], [x[a:b] for a, b in pairwise(cuts)])
    assert [half.samples for half in halves] == [len(x[0::2]), len(x[1::2])]
    for half, wanted in zip(halves, (x[0::2], x[1::2]), strict=True):
        assert ("0" in half.moments) == bool(len(wanted))
        if len(wanted):
            assert half.moments["0"].count == len(wanted)
            np.testing.assert_allclose(half.moments["0"].second.numpy(), wanted.T @ wanted, rtol=1e-5)


@pytest.mark.parametrize(("size", "count", "wanted"), [(3, 1, 9.0), (3, 6, 0.25), (4, 0, 16.0), (1, 1000, DAMPING)])
def test_doubt_is_the_square_of_inputs_for_each_row(size, count, wanted):
    assert doubt(size, count) == pytest.approx(wanted)
    second = torch.full((size, size), 2.0, dtype=torch.float64)
    found = shrunk(second, count)
    off = ~torch.eye(size, dtype=torch.bool)
    torch.testing.assert_close(found[off], second[off] / (1 + wanted))


def test_solving_is_ridge_regression():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(9, 4, generator=g, dtype=torch.float64)
    gram, right = x.T @ x, torch.randn(2, 4, generator=g, dtype=torch.float64)
    wanted = right @ torch.linalg.inv(gram + (4 / 9) ** 2 * gram.diagonal().diag())
    torch.testing.assert_close(solve(right, gram, 9), wanted)


@pytest.mark.parametrize(("kernel", "dilation"), [((3, 5), 1), ((5, 2), 1), ((2, 2), (3, 1)), ((2, 3), (1, 2))])
def test_a_map_smaller_than_the_kernel_is_filled_up_at_its_end(kernel, dilation):
    layer = nn.Conv2d(3, 2, kernel, dilation=dilation)
    x = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    down, across = ((k - 1) * d + 1 - 2 for k, d in zip(layer.kernel_size, layer.dilation, strict=True))
    wanted = layer(torch.nn.functional.pad(x, (0, max(across, 0), 0, max(down, 0))))
    found = rows(layer, x) @ layer.weight.flatten(1).T + layer.bias
    torch.testing.assert_close(found, wanted.permute(0, 2, 3, 1).reshape(-1, 2))


# -- counted


@pytest.mark.parametrize(
    ("count", "limit", "taken"),
    [
        (0, 4, []),
        (1, 4, [0]),
        (4, 4, [0, 1, 2, 3]),
        (5, 4, [0, 2, 4]),
        (8, 4, [0, 2, 4, 6]),
        (9, 4, [0, 3, 6]),
        (3, 1, [0]),
        (2049, None, list(range(0, 2049, 2))),
        (2048, None, list(range(2048))),
    ],
)
def test_every_so_many_positions_are_taken(count, limit, taken):
    found = sample_positions(count) if limit is None else sample_positions(count, limit)
    assert found.tolist() == taken


@pytest.mark.parametrize(
    ("kernel", "padding", "stride", "dilation"),
    [
        ((1, 1), (0, 0), (2, 3), (1, 1)),
        ((1, 1), (1, 2), (1, 1), (1, 1)),
        ((1, 3), (0, 1), (2, 1), (1, 2)),
        ((3, 1), (1, 0), (1, 2), (2, 1)),
        ((2, 3), (2, 0), (3, 2), (2, 3)),
        ((1, 1), "valid", (1, 1), (1, 1)),
        ((3, 3), "valid", (2, 2), (1, 1)),
    ],
)
@pytest.mark.parametrize("limit", [5, 10**6])
def test_rows_are_windows_in_the_order_of_a_flattened_weight(kernel, padding, stride, dilation, limit):
    layer = nn.Conv2d(3, 2, kernel, padding=padding, stride=stride, dilation=dilation)
    x = torch.arange(2.0 * 3 * 11 * 13).view(2, 3, 11, 13)
    pad = (0, 0) if padding == "valid" else padding
    windows = torch.nn.functional.unfold(x, kernel, dilation=dilation, padding=pad, stride=stride)
    whole = windows.transpose(1, 2).flatten(0, 1)
    assert torch.equal(rows(layer, x, limit), whole[:: -(-len(whole) // limit)])


@pytest.mark.parametrize("count", [2048, 2049])
def test_of_one_pass_two_thousand_rows_are_taken_and_five_hundred_where_halves_decide(count):
    model = nn.Sequential(nn.Linear(2, 1))
    x = np.random.default_rng(0).normal(size=(1, count, 2)).astype(np.float32)
    assert input_moments(model, ["0"], [x])["0"].count == (2048 if count == 2048 else 1025)
    first, second = split_moments(model, ["0"], [x[:, :512], x[:, :513]])
    assert (first.moments["0"].count, second.moments["0"].count) == (512, 257)


@pytest.mark.parametrize(("sizes", "seen"), [([20], [8, 8, 4]), ([3, 9], [3, 8, 1]), ([8], [8])])
def test_moments_run_eight_samples_at_a_time(sizes, seen):
    ran = []
    model = nn.Sequential(nn.Linear(2, 1))
    model.register_forward_pre_hook(lambda module, inputs: ran.append(len(inputs[0])))
    input_moments(model, ["0"], [np.ones((size, 2), np.float32) for size in sizes])
    assert ran == seen
    ran.clear()
    split_moments(model, ["0"], [np.ones((size, 2), np.float32) for size in sizes])
    assert ran == {20: [8, 8, 2, 2], 3: [2, 1, 4, 5], 8: [4, 4]}[sizes[0]]


def test_a_half_and_moments_begin_with_nothing():
    moments = Moments(torch.zeros(2, 2), torch.zeros(2))
    assert (moments.count, Half({}).samples, len(Half({}).moments)) == (0, 0, 0)
    assert Moments.empty(3).second.dtype == Moments.empty(3).first.dtype == torch.float64
    assert (Moments.empty(3).second.shape, Moments.empty(3).first.shape) == ((3, 3), (3,))


def test_moments_of_one_row_are_it_alone():
    """Not of two, and not of none."""
    moments = taken(np.array([[2.0, -3.0]]))
    assert moments.mean.tolist() == [[4.0, -6.0], [-6.0, 9.0]]
    assert moments.covariance.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert (moments.count, moments.first.tolist()) == (1, [2.0, -3.0])


def test_no_more_than_what_is_damped_is_added_to_zeros():
    zeros = torch.zeros(2, 2, dtype=torch.float64)
    for found, count in ((shrunk(zeros, 1000), 1000), (shrunk(zeros, 1), 1)):
        weight = max((2 / count) ** 2, 1e-4)
        torch.testing.assert_close(found, torch.eye(2, dtype=torch.float64) * 1e-12 * weight / (1 + weight))
    assert DAMPING == 1e-4


def test_what_no_factor_is_found_for_is_solved_as_far_as_it_goes():
    gram = torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64)
    right = torch.tensor([[3.0, 1.0]], dtype=torch.float64)
    wanted = right @ torch.linalg.inv(torch.tensor([[1.25, 2.0], [2.0, 1.25]], dtype=torch.float64))
    torch.testing.assert_close(solve(right, gram, 4), wanted)
