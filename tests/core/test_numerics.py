"""Numerics of metrics: against torch, and against what the definitions say of small cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pocketzoo.core import numerics
from pocketzoo.core.numerics import r2

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(5,), (7, 3), (2, 4, 6), (3, 1)])
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_softmax_and_its_logarithm_are_torchs(shape, scale):
    logits = (RNG.normal(size=shape) * scale).astype(np.float32)
    wide = torch.from_numpy(logits).double()
    np.testing.assert_allclose(numerics.softmax(logits), wide.softmax(-1).numpy(), rtol=1e-12)
    found = numerics.log_softmax(logits)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wide.log_softmax(-1).numpy(), rtol=1e-5, atol=1e-5)


def test_likelihoods_are_what_cross_entropy_lacks():
    logits, classes = (RNG.normal(size=(9, 5)) * 30).astype(np.float32), RNG.integers(0, 5, 9)
    wanted = -F.cross_entropy(torch.from_numpy(logits).double(), torch.from_numpy(classes), reduction="none")
    np.testing.assert_allclose(numerics.log_likelihoods(logits, classes), wanted.numpy(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("count", [1, 2, 50])
def test_perplexity_of_equally_likely_tokens_is_their_number(count):
    logs = numerics.log_likelihoods(np.zeros((3, count)), np.zeros(3, int))
    assert numerics.perplexity(float(logs.mean())) == pytest.approx(count)
    assert numerics.perplexity(-math.inf) == math.inf


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy], ids=["array", "tensor"])
def test_answers_are_right_where_the_largest_is_the_class(kind):
    scores, classes = kind(np.eye(4, dtype=np.float32)[[0, 1, 3, 3]]), kind(np.arange(4))
    assert numerics.predicted(scores).tolist() == [0, 1, 3, 3]
    assert numerics.predicted(classes).tolist() == [0, 1, 2, 3], "these are classes already"
    assert numerics.right_answers(scores, classes).tolist() == [True, True, False, True]


def test_r2_is_1_for_what_is_met_and_0_for_the_mean():
    targets = RNG.normal(size=(50, 3))
    assert r2(targets, targets) == 1
    assert r2(np.broadcast_to(targets.mean(0), targets.shape), targets) == pytest.approx(0)


def test_r2_is_the_mean_over_outputs_and_an_output_that_never_changes_is_met_or_not():
    steady, moving = np.ones((5, 1)), np.arange(5.0)[:, None]
    assert (r2(steady, steady), r2(steady + 1, steady)) == (1, 0)
    both = np.concatenate([steady, moving], 1)
    assert r2(both + np.array([1, 0]), both) == 0.5
    assert r2(both + np.array([0, 1]), both) == pytest.approx((1 + 1 - 5 / 10) / 2)


def test_r2_of_what_is_no_number_is_none():
    targets = np.arange(5.0)[:, None]
    assert math.isnan(r2(np.full_like(targets, np.nan), targets))
    spread = np.array([np.inf])
    assert np.isnan(numerics.unexplained(spread, spread, np.array([False]))).all()
