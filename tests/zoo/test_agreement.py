from __future__ import annotations

import numpy as np
import pytest

from pocketzoo.zoo.agreement import CLOSE, nearest_neighbours, r2, same, sqnr

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("error", "decibel"), [(1.0, 0.0), (0.1, 20.0), (0.01, 40.0)])
def test_sqnr_is_a_ratio_of_powers(error, decibel):
    x = RNG.normal(size=(8, 8))
    assert sqnr(x * (1 + error), x) == pytest.approx(decibel)
    assert sqnr(x, x) == np.inf
    assert sqnr(x * np.nan, x) == sqnr(x[:1], x) == sqnr(x, 0 * x) == -np.inf


def test_top_answers_agree_where_the_largest_is_the_same():
    wanted = np.eye(4, dtype=np.float32)
    given = wanted[[0, 1, 3, 3]]
    assert same(given, wanted, "logits").tolist() == [True, True, False, True]


def test_numbers_agree_within_a_share_of_their_spread():
    wanted = RNG.normal(size=(100, 2))
    step = CLOSE * wanted.std(0)
    assert same(wanted + 0.99 * step, wanted, "values").all()
    assert not same(wanted + step * [0, 1.01], wanted, "values").any()


def test_the_nearest_neighbour_is_by_the_angle():
    vectors = np.array([[1, 0], [100, 1], [0, 1], [-1, 5]], np.float32)
    assert nearest_neighbours(vectors).tolist() == [1, 0, 3, 2]
    assert same(vectors * [[7], [0.1], [3], [2]], vectors, "embedding").all()


def test_r2_is_1_for_what_is_met_and_0_for_the_mean():
    wanted = RNG.normal(size=(50, 3))
    assert r2(wanted, wanted) == 1
    assert r2(np.broadcast_to(wanted.mean(0), wanted.shape), wanted) == pytest.approx(0)
    steady = np.ones((5, 1))
    assert (r2(steady, steady), r2(steady + 1, steady)) == (1, 0)
