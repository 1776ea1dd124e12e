"""Entities of tagged tokens, and how many of them are found: precision, recall and F1."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pocketzoo.zoo.catalog.task import Estimate
from pocketzoo.zoo.tasks.metrics.intervals import jackknife, ratio

OUTSIDE = "O"
TAG = re.compile(r"[BIESLU]-.+", re.DOTALL)
BEGINS, ENDS = "BSU", "ESL"  # S and U are one token; L is what others call E
Entity = tuple[str, int, int]  # its type, its first token, and its last


def has_entities(labels: Sequence[str]) -> bool:
    """Whether labels are tags of BIO, BIOES or BILOU: "O", "B-PER", ..."""
    return any(map(TAG.fullmatch, labels)) and all(label == OUTSIDE or TAG.fullmatch(label) for label in labels)


def entities(tags: Sequence[str]) -> Iterator[Entity]:
    """The entities of a text, by the rules of conlleval, which seqeval has too where it is not strict.

    One begins with B, S or U, after O or the end of another, and where the type changes; it goes on while there are
    other tags of its type. So "I-PER" after "O" begins one: a model's answers need not be well formed.
    """
    start, kind, before = 0, "", ""  # of the entity that is open, and the letter of the tag before
    for i, tag in enumerate([*tags, OUTSIDE]):
        letter, _, own = tag.partition("-")
        if kind and (letter in BEGINS + OUTSIDE or before in ENDS or own != kind):
            yield kind, start, i - 1
            kind = ""
        if letter != OUTSIDE and not kind:
            start, kind = i, own
        before = letter if letter != "U" else "S"


@dataclass
class EntityScores:
    """The fraction of entities that are found with their type and both ends, as F1, precision and recall over texts.

    The interval of F1 is the jackknife's over texts, and those of the others are a ratio estimator's.
    """

    labels: Sequence[str]
    right: list[int] = field(default_factory=list)  # entities of each text
    answered: list[int] = field(default_factory=list)
    there: list[int] = field(default_factory=list)

    def add(self, answers: npt.NDArray[np.integer], targets: npt.NDArray[np.integer]) -> None:
        """Take in the class of each token of one text, (T,), and those that are right."""
        found, expected = (set(entities([self.labels[int(i)] for i in row])) for row in (answers, targets))
        self.right.append(len(found & expected))
        self.answered.append(len(found))
        self.there.append(len(expected))

    def merge(self, other: EntityScores) -> None:
        """Take in what another has seen."""
        self.right += other.right
        self.answered += other.answered
        self.there += other.there

    def result(self) -> dict[str, Estimate]:
        """Nothing where no text has entities: there is nothing to find."""
        if not sum(self.there):
            return {}
        right, answered, there = (np.asarray(each, np.float64) for each in (self.right, self.answered, self.there))

        def f1(kept: npt.NDArray[np.bool_]) -> float:
            both = answered[kept].sum() + there[kept].sum()
            return float(2 * right[kept].sum() / both) if both else float("nan")

        value = f1(np.ones(len(right), np.bool_))
        return {
            "entity f1": jackknife(value, len(right), f1, 0.0, 1.0),
            "entity precision": ratio(self.right, self.answered, 0.0, 1.0) if answered.any() else Estimate(0.0),
            "entity recall": ratio(self.right, self.there, 0.0, 1.0),
        }
