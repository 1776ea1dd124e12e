"""Agreement of embeddings, and returns of agents."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.task import Estimate
from pocketzoo.zoo.tasks.decoders.answers import Embeddings
from pocketzoo.zoo.tasks.metrics.intervals import mean, proportion

NEIGHBORS = 256  # embeddings it takes until nearest neighbors say something: among few, the nearest is often far


@dataclass
class NeighborAgreement:
    """For how many samples both models have the same nearest neighbor among the samples, with Wilson's interval."""

    vectors: list[npt.NDArray[Any]] = field(default_factory=list)
    references: list[npt.NDArray[Any]] = field(default_factory=list)

    def update(self, answers: Embeddings, reference: Embeddings) -> None:
        """Take in the embeddings of both of some samples."""
        self.vectors.append(answers.vectors)
        self.references.append(reference.vectors)

    def merge(self, other: NeighborAgreement) -> None:
        """Take in what another has seen."""
        self.vectors += other.vectors
        self.references += other.references

    def result(self) -> dict[str, Estimate]:
        """Raises DataError: there are fewer than ``NEIGHBORS`` samples."""
        count = sum(map(len, self.vectors))
        if count < NEIGHBORS:
            raise DataError(
                f"{count} embeddings are too few to compare nearest neighbors",
                f"give {NEIGHBORS} samples or more to validate on",
            )
        ours, theirs = (nearest_neighbors(np.concatenate(part)) for part in (self.vectors, self.references))
        return {"agreement": proportion(int((ours == theirs).sum()), count)}

    def about(self, value: float) -> str:
        """An agreement in words."""
        return f"equal nearest neighbors for {value:.1%} of the samples"


def nearest_neighbors(vectors: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """For each vector (N, C) the other one of the largest cosine: (N,)."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    return np.asarray(cosines.argmax(-1))


@dataclass
class Unscored:
    """Of a task whose answers are compared and not scored: no data set has targets for them."""

    what: str

    @property
    def unscored(self) -> str:
        """Why."""
        return f"no data set has targets for {self.what}"

    def update(self, answers: object, targets: object) -> None:
        """Raises DataError: always."""
        raise DataError(self.unscored, "compare models: pocketzoo bench")

    def merge(self, other: Unscored) -> None:
        """Nothing is added up."""

    def result(self) -> dict[str, Estimate]:
        """Raises DataError: always."""
        raise DataError(self.unscored, "compare models: pocketzoo bench")


@dataclass
class ReturnScores:
    """The mean of what an agent collected in each episode, with Student's interval."""

    returns: list[float] = field(default_factory=list)
    unscored = "what an agent is worth, its environment says: pocketzoo play"

    def update(self, answers: object, targets: npt.NDArray[Any]) -> None:
        """Take in the returns (B,) of some episodes; what was answered does not matter."""
        self.returns += np.asarray(targets, np.float64).tolist()

    def merge(self, other: ReturnScores) -> None:
        """Take in what another has seen."""
        self.returns += other.returns

    def result(self) -> dict[str, Estimate]:
        """Raises DataError: no episode was played."""
        if not self.returns:
            raise DataError("no episode was played", "play one: pocketzoo play")
        values = np.asarray(self.returns)
        shift = float(values.mean())  # sums of squares around it lose nothing
        found = mean(float((values - shift).sum()), float(np.square(values - shift).sum()), len(values))
        ends = (None if end is None else end + shift for end in (found.low, found.high))
        return {"return": Estimate(shift, *ends)}
