"""Scores of a run, epoch by epoch: the best, and what early stopping counts."""

from __future__ import annotations

import math

import pytest

from pocketzoo.train.epoch_scores import EpochScores


def test_epochs_since_the_best_are_stale_and_those_that_do_not_count_are_not():
    scores, best, stale = EpochScores(best=-1.0), [], []
    for epoch, (score, counts) in enumerate(
        [(-2.0, False), (-2.0, False), (-2.0, True), (-1.0, True), (-0.5, True), (-0.6, True), (-0.4, False)]
    ):
        best.append(scores.note(epoch, score, counts=counts))
        stale.append(scores.stale)
    assert stale == [0, 0, 1, 2, 0, 1, 0]
    assert best == [False, False, False, False, True, False, True], "an equal score is no better"
    assert (scores.epoch, scores.best, scores.best_epoch) == (7, -0.4, 6)
    assert scores.scores == [-2.0, -2.0, -2.0, -1.0, -0.5, -0.6, -0.4]


@pytest.mark.parametrize("score", [-math.inf, math.nan])
def test_what_is_no_score_is_never_the_best(score):
    scores = EpochScores()
    assert not scores.note(0, score)
    assert (scores.best, scores.stale, scores.epoch) == (-math.inf, 1, 1)
