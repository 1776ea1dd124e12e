"""Scores of a training run, epoch by epoch: which was best, and how many came since."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class EpochScores:
    """How far a run by epochs is, and what each was worth; a greater score is a better one."""

    epoch: int = 0  # the next one
    scores: list[float] = field(default_factory=list)  # epoch by epoch
    best: float = -math.inf
    best_epoch: int = 0
    stale: int = 0  # epochs since the best: early stopping holds these against its patience

    def note(self, epoch: int, score: float, *, counts: bool = True) -> bool:
        """Take in a finished epoch; whether it is the best. One that does not count is never stale."""
        better = score > self.best
        if better:
            self.best, self.best_epoch = score, epoch
        self.epoch = epoch + 1
        self.scores.append(score)
        self.stale = 0 if better or not counts else self.stale + 1
        return better
