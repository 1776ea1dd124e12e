"""Least squares from sums: exact where there is something to learn, and nothing at all where there is not."""

from __future__ import annotations

from math import isfinite

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.compress.pruning.least_squares import RIDGES, Sums, masked_weights, regress


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
