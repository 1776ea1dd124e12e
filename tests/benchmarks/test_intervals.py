"""Intervals are over sources: samples of one say no more than one does."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from intervals import of_mean, of_sqnr


def test_as_wide_as_that_of_the_means_of_sources() -> None:
    """Of 400 sources that are 0 or 1 throughout: 1.96 * sqrt(p (1 - p) / 400), however many samples each has."""
    values = np.repeat(np.arange(400) % 4 == 0, 7).astype(np.float64)
    low, high = of_mean(values, np.repeat(np.arange(400), 7))
    wide = 1.96 * np.sqrt(0.25 * 0.75 / 400)
    assert low == pytest.approx(0.25 - wide, abs=0.006)
    assert high == pytest.approx(0.25 + wide, abs=0.006)


def test_holds_the_truth_as_often_as_it_says() -> None:
    generator, held = np.random.default_rng(0), 0
    for _ in range(200):
        means = generator.normal(3.0, 1.0, 40)
        values = np.repeat(means, 5) + generator.normal(0, 0.3, 200)
        low, high = of_mean(values, np.repeat(np.arange(40), 5))
        held += low <= 3.0 <= high
    assert 172 <= held <= 199, "94% of 200, within five standard deviations"


def test_decibels_of_noise_a_tenth_as_large_everywhere() -> None:
    signal = np.random.default_rng(0).uniform(1, 2, 30)
    assert of_sqnr(signal, signal / 100, np.arange(30) // 3) == pytest.approx((20.0, 20.0))
