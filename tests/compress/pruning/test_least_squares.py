"""Least squares from sums: exact where there is something to learn, and nothing at all where there is not."""

from __future__ import annotations

from math import isfinite

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.compress.pruning.least_squares import RIDGES, Sums, _blocks, _fitted, _solved, masked_weights, regress


def halves(x: torch.Tensor, y: torch.Tensor) -> tuple[Sums, Sums]:
    """Sums over the even and over the odd rows."""
    found = []
    for i in (0, 1):
        sums = Sums.empty(y.shape[1], x.shape[1])
        sums.add(x[i::2], y[i::2])
        found.append(sums)
    return found[0], found[1]


def drawn(seed: int, *shapes: tuple[int, ...]) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=g, dtype=torch.float64) for shape in shapes]


@given(outputs=st.integers(1, 5), inputs=st.integers(1, 8), seed=st.integers(0, 10**6))
def test_a_linear_relation_is_found(outputs, inputs, seed):
    x, wanted, now, shift = drawn(seed, (40 * inputs, inputs), (outputs, inputs), (outputs, inputs), (outputs,))
    found = regress(now, halves(x, x @ wanted.T + shift), shifts=True)
    assert found is not None
    torch.testing.assert_close(found[0], wanted, rtol=0, atol=2e-3)
    torch.testing.assert_close(found[1], shift, rtol=0, atol=2e-3)


@pytest.mark.parametrize("shifts", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_of_many_rows_with_noise_the_fit_is_that_of_numpy(seed, shifts):
    """The weight and the shift, less what the smallest ridges take: rows in half the directions are few enough."""
    x, wanted, noise, now = drawn(seed, (2000, 6), (3, 6), (2000, 3), (3, 6))
    x = x @ torch.diag(torch.tensor([3.0, 2, 1, 1, 0.5, 0.3], dtype=torch.float64)) + 1.0
    y = x @ wanted.T + 0.5 * noise + 2.0
    found = regress(now, halves(x, y), shifts=shifts)
    ones = torch.ones(2000, int(shifts), dtype=torch.float64)
    best = torch.from_numpy(np.linalg.lstsq(torch.cat([x, ones], 1).numpy(), y.numpy(), rcond=None)[0]).T
    assert found is not None
    torch.testing.assert_close(found[0], best[:, :6], rtol=0, atol=0.02)
    torch.testing.assert_close(found[1], best[:, 6] if shifts else torch.zeros_like(found[1]), rtol=0, atol=0.03)


def test_sums_are_those_of_rows_however_they_come():
    """In pieces, of some outputs, around the means; the error is the squared one, less the energy of y."""
    x, y, weight, shift = drawn(3, (20, 4), (20, 3), (3, 4), (3,))
    whole, pieces = Sums.empty(3, 4), [Sums.empty(3, 4), Sums.empty(3, 4)]
    whole.add(x, y)
    pieces[0].add(x[:7], y[:7])
    pieces[1].add(x[7:], y[7:])
    joined = pieces[0] + pieces[1]
    for sums in (whole, joined):
        torch.testing.assert_close(sums.gram, x.T @ x)
        torch.testing.assert_close(sums.cross, y.T @ x)
        torch.testing.assert_close(sums.inputs, x.sum(0))
        torch.testing.assert_close(sums.outputs, y.sum(0))
        assert sums.count == 20
        squared = float((y - x @ weight.T - shift).square().sum() - y.square().sum())
        assert sums.error(weight, shift) == pytest.approx(squared)
    few = whole.of(slice(1, 3))
    torch.testing.assert_close(few.cross, whole.cross[1:])
    torch.testing.assert_close(few.outputs, whole.outputs[1:])
    centered, x0, y0 = whole.centered(), x - x.mean(0), y - y.mean(0)
    torch.testing.assert_close(centered.gram, x0.T @ x0)
    torch.testing.assert_close(centered.cross, y0.T @ x0)
    assert centered.count == 20


@given(seed=st.integers(0, 10**6))
def test_where_only_the_mean_is_off_it_is_shifted(seed):
    x, now, shift = drawn(seed, (6, 30), (4, 30), (4,))  # far too few rows for the weights
    found = regress(now, halves(x, x @ now.T + shift), shifts=True)
    assert found is not None
    torch.testing.assert_close(found[0], now)
    torch.testing.assert_close(found[1], shift)


@pytest.mark.parametrize("rows", [8, 16, 24])
@pytest.mark.parametrize("shifts", [False, True])
def test_from_few_rows_of_noise_little_is_learned(rows, shifts):
    """What is wanted lies around what there is, so whatever is learned is an error on other rows."""
    learned = plain = 0.0
    for seed in range(20):
        x, now, noise = drawn(seed, (rows, 40), (4, 40), (rows, 4))
        found = regress(now, halves(x, x @ now.T + noise), shifts=shifts)
        plain += float((torch.linalg.pinv(x) @ noise).square().sum())  # what least squares would learn
        if found is not None:
            learned += float((found[0] - now).square().sum() + found[1].square().sum())
    assert learned < 0.4 * plain


@pytest.mark.parametrize("shifts", [False, True])
def test_what_fits_already_is_left_alone(shifts):
    x, now = drawn(0, (200, 6), (3, 6))
    found = regress(now, halves(x, x @ now.T), shifts=shifts)
    if found is not None:
        torch.testing.assert_close(found[0], now)
        torch.testing.assert_close(found[1], torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-9)


def test_rows_that_nothing_can_be_judged_on_change_nothing():
    x, y, now = drawn(0, (1, 5), (1, 2), (2, 5))
    assert regress(now, halves(x, y), shifts=True) is None


@given(seed=st.integers(0, 10**6))
def test_masked_weights_stay_zero_and_the_others_are_least_squares(seed):
    x, wanted = drawn(seed, (400, 6), (3, 6))
    mask = drawn(seed + 1, (3, 6))[0] > 0
    found = regress(torch.zeros_like(wanted), halves(x, x @ (wanted * mask).T), shifts=False, mask=mask)
    if not mask.any():
        assert found is None or not found[0].any()
        return
    assert found is not None
    assert not found[0][~mask].any()
    torch.testing.assert_close(found[0], wanted * mask, rtol=0, atol=2e-3)


@given(outputs=st.integers(1, 4), inputs=st.integers(1, 9), seed=st.integers(0, 10**6))
def test_masked_weights_of_every_ridge_solve_their_equations(outputs, inputs, seed):
    """Row by row, over the weights that may change alone."""
    x, y, now, drawn_mask = drawn(seed, (30, inputs), (30, outputs), (outputs, inputs), (outputs, inputs))
    x[:, seed % inputs] *= 100  # scales that differ, as the diagonal's do
    mask = drawn_mask > 0
    sums = Sums.empty(outputs, inputs)
    sums.add(x, y)
    diagonal = sums.gram.diagonal()
    for ridge, found in zip(RIDGES, masked_weights(now, sums, RIDGES, mask), strict=True):
        wanted = now.clone()
        for i, free in enumerate(mask):
            if isfinite(ridge) and free.any():
                damped = (sums.gram + ridge * diagonal.diag())[free][:, free]
                wanted[i, free] += torch.linalg.solve(damped, (sums.cross[i] - now[i] @ sums.gram)[free])
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3)


@pytest.mark.parametrize("shifts", [False, True])
def test_rows_fitted_apart_are_those_fitted_at_once(shifts, monkeypatch):
    x, wanted, noise = drawn(0, (200, 6), (50, 6), (200, 50))
    mask = drawn(1, (50, 6))[0] > 0
    given = {"shifts": shifts, "mask": mask}
    whole = regress(torch.zeros_like(wanted), halves(x, x @ wanted.T + noise), **given)
    monkeypatch.setattr("pocketzoo.compress.pruning.least_squares.BLOCK", 1)
    apart = regress(torch.zeros_like(wanted), halves(x, x @ wanted.T + noise), **given)
    assert whole is not None
    assert apart is not None
    for one, other in zip(whole, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)  # as near as the steps go


def test_ridges_go_from_hardly_any_to_no_fit_at_all():
    assert tuple(sorted(RIDGES)) == RIDGES
    assert (RIDGES[0], RIDGES[-2], RIDGES[-1]) == (1e-4, 10.0, np.inf)
    assert len(RIDGES) == 10


def _sums(seed: int, rows: int, outputs: int, inputs: int) -> Sums:
    x, y = drawn(seed, (rows, inputs), (rows, outputs))
    sums = Sums.empty(outputs, inputs)
    sums.add(x, y)
    return sums


@pytest.mark.parametrize("ridges", [(np.inf, 0.5), (0.5, np.inf, 2.0), (2.0, 0.5), (np.inf,), (0.5, 0.5)])
def test_ridges_may_come_in_any_order(ridges):
    sums, now = _sums(0, 30, 2, 4), drawn(1, (2, 4))[0]
    wanted = []
    for ridge in ridges:
        damped = sums.gram + ridge * sums.gram.diagonal().diag() if isfinite(ridge) else None
        step = 0.0 if damped is None else (sums.cross - now @ sums.gram) @ torch.linalg.inv(damped)
        wanted.append(now + step)
    for found in (_solved(now, sums, ridges), masked_weights(now, sums, ridges, torch.ones(2, 4))):
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_inputs_that_are_always_zero_change_nothing():
    """Neither their own weights nor the others'; the sums are singular."""
    sums, now = _sums(0, 30, 2, 4), drawn(1, (2, 4))[0]
    wider = Sums.empty(2, 6)
    wider.gram[:4, :4], wider.cross[:, :4], wider.count = sums.gram, sums.cross, 30
    more = torch.cat([now, torch.ones(2, 2, dtype=torch.float64)], 1)
    for ridge in (1e-4, 1.0):
        narrow = next(_solved(now, sums, [ridge]))
        found = next(_solved(more, wider, [ridge]))
        torch.testing.assert_close(found[:, :4], narrow)
        assert torch.equal(found[:, 4:], more[:, 4:])


def test_sums_that_no_factor_is_found_for_are_inverted_as_far_as_they_go():
    """Not positive: what rounding can leave of rows that are the same. Nothing is learned along what is not there."""
    sums = Sums.empty(1, 2)
    sums.gram = torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64)
    sums.cross = torch.tensor([[3.0, 0.0]], dtype=torch.float64)
    now = torch.zeros(1, 2, dtype=torch.float64)
    found = next(_solved(now, sums, [0.5]))
    wanted = sums.cross @ torch.linalg.inv(torch.tensor([[1.5, 2.0], [2.0, 1.5]], dtype=torch.float64))
    torch.testing.assert_close(found, wanted)


def test_forty_steps_of_conjugate_gradients_are_taken_and_no_more():
    """As written down in the plain form, with the diagonal as preconditioner, on moments of very different sizes."""
    size = 150
    x, now, y = drawn(4, (size + 3, size), (1, size), (size + 3, 1))
    sums = Sums.empty(1, size)
    sums.add(x, y)
    found = next(masked_weights(now, sums, [1e-4], torch.ones(1, size)))[0]
    damped = sums.gram + 1e-4 * sums.gram.diagonal().diag()
    residual = (sums.cross - now @ sums.gram)[0]
    diagonal, solution = sums.gram.diagonal(), torch.zeros(size, dtype=torch.float64)
    direction, power, after = residual / diagonal, float(residual @ (residual / diagonal)), []
    for _ in range(41):
        curved = damped @ direction
        step = power / float(direction @ curved)
        solution, residual = solution + step * direction, residual - step * curved
        fresh = float(residual @ (residual / diagonal))
        direction, power = residual / diagonal + fresh / power * direction, fresh
        after.append(now[0] + solution)
    distances = [float((found - wanted).norm()) for wanted in after]
    assert int(np.argmin(distances)) == 39
    assert distances[39] < 0.1 * min(distances[38], distances[40])


@pytest.mark.parametrize(
    ("shape", "masked", "size"),
    [((100, 10), False, 100), ((100, 2**14), True, 16), ((100, 2**13), True, 32), ((100, 5000), True, 52),
     ((40, 2**20), True, 16), ((16, 2**20), True, 16), ((5, 1), True, 5)],
)  # fmt: skip
def test_masked_rows_are_fitted_as_many_at_once_as_memory_allows(shape, masked, size):
    now = torch.empty(shape, device="meta")
    blocks = _blocks(now, now if masked else None)
    assert [range(shape[0])[block] for block in blocks] == [
        range(i, min(i + size, shape[0])) for i in range(0, shape[0], size)
    ]


@pytest.mark.parametrize("shifts", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_some_rows_are_fitted_as_all_are(shifts, masked):
    """Weight, and a shift that takes the means; nothing of rows that are not asked for."""
    sums, now = _sums(0, 30, 5, 4), drawn(1, (5, 4))[0]
    mask = torch.ones(5, 4) if masked else None
    whole = next(_fitted(now, sums, [0.1], shifts, mask, slice(None)))
    some = next(_fitted(now, sums, [0.1], shifts, mask, slice(1, 3)))
    torch.testing.assert_close(some[0], whole[0][1:3], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(some[1], whole[1][1:3], rtol=1e-4, atol=1e-4)
    about = sums.centered() if shifts else sums
    plain = next(_solved(now, about, [0.1]))
    torch.testing.assert_close(whole[0], plain, rtol=1e-4, atol=1e-4)
    shift = (sums.outputs - whole[0] @ sums.inputs) / 30 if shifts else torch.zeros(5, dtype=torch.float64)
    torch.testing.assert_close(whole[1], shift)


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("where", ["gram", "cross"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_sums_that_are_not_finite_change_nothing(part, where, bad):
    x, wanted, now = drawn(0, (60, 4), (2, 4), (2, 4))
    parts = halves(x, x @ wanted.T)
    assert regress(now, parts, shifts=False) is not None
    getattr(parts[part], where)[0, 0] = bad
    assert regress(now, parts, shifts=False) is None


@pytest.mark.parametrize("empty", [0, 1])
def test_one_empty_half_is_nothing_to_judge_on(empty):
    x, wanted, now = drawn(0, (60, 4), (2, 4), (2, 4))
    parts = list(halves(x, x @ wanted.T))
    parts[empty] = Sums.empty(2, 4)
    assert regress(now, parts, shifts=False) is None


def test_the_ridge_is_the_one_that_errs_least_on_the_half_it_was_not_fitted_on():
    """Each half judges the other, and the errors of both count; all rows make the fit."""
    for seed in range(4):
        x, wanted, noise = drawn(seed, (24, 8), (2, 8), (24, 2))
        now, y = torch.zeros(2, 8, dtype=torch.float64), x @ wanted.T + 2.0 * noise
        parts = halves(x, y)
        errors = {}
        for ridge in RIDGES[:-1]:
            errors[ridge] = 0.0
            for train, test in ((0, 1), (1, 0)):
                a, b = x[train::2], y[train::2]
                gram = a.T @ a
                fit = (b.T @ a) @ torch.linalg.inv(gram + ridge * gram.diagonal().diag())
                errors[ridge] += float((y[test::2] - x[test::2] @ fit.T).square().sum())
        best = min(errors, key=errors.__getitem__)
        gram = x.T @ x
        expected = (y.T @ x) @ torch.linalg.inv(gram + best * gram.diagonal().diag())
        found = regress(now, parts, shifts=False)
        assert found is not None
        assert errors[best] < float(y.square().sum())
        torch.testing.assert_close(found[0], expected)


def test_around_the_means_of_no_rows_is_nothing():
    centered = Sums.empty(2, 3).centered()
    assert (centered.count, float(centered.gram.abs().sum()), float(centered.cross.abs().sum())) == (0, 0.0, 0.0)
    assert [tuple(t.shape) for t in (centered.gram, centered.cross, centered.inputs, centered.outputs)] == [
        (3, 3), (2, 3), (3,), (2,)
    ]  # fmt: skip


@pytest.mark.parametrize("size", [1e-7, 1.0, 1e7])
def test_how_long_masked_weights_are_solved_for_does_not_depend_on_units(size):
    """Outputs of any size: as near as of size one, in their units."""
    x, wanted = drawn(0, (60, 5), (2, 5))
    mask = torch.tensor([[1.0, 0, 1, 1, 0], [1, 1, 1, 1, 1]])
    sums = Sums.empty(2, 5)
    sums.add(x, size * x @ (wanted * mask).T)
    found = next(masked_weights(torch.zeros(2, 5, dtype=torch.float64), sums, [1e-4], mask))
    torch.testing.assert_close(found / size, wanted * mask, rtol=0, atol=2e-3)


@pytest.mark.parametrize("ridges", [RIDGES, RIDGES[::-1], (np.inf, 0.1), (0.3, np.inf, 0.3), (np.inf,), ()])
@pytest.mark.parametrize("masked", [False, True])
def test_every_ridge_has_its_weights_in_whatever_order_they_are_asked_for(ridges, masked):
    x, y, now = drawn(0, (60, 4), (60, 3), (3, 4))
    sums = Sums.empty(3, 4)
    sums.add(x, y)
    found = masked_weights(now, sums, ridges, torch.ones_like(now)) if masked else _solved(now, sums, ridges)
    for weight, ridge in zip(found, ridges, strict=True):
        damped = sums.gram + (ridge * sums.gram.diagonal() if isfinite(ridge) else 0 * sums.inputs).diag()
        change = torch.linalg.solve(damped, (sums.cross - now @ sums.gram).T).T
        torch.testing.assert_close(weight, now + change if isfinite(ridge) else now, rtol=0, atol=1e-6)
