"""Canonical answers: what decoders make of outputs, and what tasks score, compare and show. One item per sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Classes:
    """One class of several for each sample."""

    classes: npt.NDArray[np.integer[Any]]  # (N,), the answer
    scores: Floats | None = None  # (N, classes), in any unit: greater is likelier; None where the graph gives labels
    probabilities: Floats | None = None  # (N, classes), which sum to 1; None where scores are not such

    def __len__(self) -> int:
        return len(self.classes)


@dataclass(frozen=True, slots=True)
class Labels:
    """Any number of labels for each sample."""

    probabilities: Floats  # (N, labels), each of 0 to 1 on its own
    threshold: float = 0.5  # from which on a label is said

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def said(self) -> Mask:
        """Which labels are answered, (N, labels)."""
        return np.asarray(self.probabilities >= self.threshold)


@dataclass(frozen=True, slots=True)
class TokenClasses:
    """A class for each token of a text."""

    scores: Floats  # (N, T, classes), in any unit
    known: Mask  # (N, T), where a text has a token: not where it was filled up

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def best(self) -> npt.NDArray[np.intp]:
        """The class of each, (N, T), also where there is no token."""
        return np.asarray(self.scores.argmax(-1))


@dataclass(frozen=True, slots=True)
class NextTokens:
    """What comes next, after each token of a text."""

    logits: Floats  # (N, T, vocabulary)
    known: Mask  # (N, T), as of ``TokenClasses``

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def best(self) -> npt.NDArray[np.intp]:
        """The likeliest, (N, T), also where there is no token."""
        return np.asarray(self.logits.argmax(-1))


@dataclass(frozen=True, slots=True)
class Values:
    """Numbers for each sample, in the unit of the targets."""

    values: Floats  # (N, outputs)

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A vector for each sample, near to those of samples that are alike."""

    vectors: Floats  # (N, channels)

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True, slots=True)
class Texts:
    """A text for each sample, as a model wrote it."""

    tokens: Sequence[npt.NDArray[np.integer[Any]]]  # of each the ids that were written, (T,), their end included
    texts: tuple[str, ...] = ()  # the same in letters; none where there is no tokenizer

    def __len__(self) -> int:
        return len(self.tokens)
