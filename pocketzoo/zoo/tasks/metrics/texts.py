"""How alike two models write."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.task import Estimate
from pocketzoo.zoo.tasks.decoders.answers import Texts
from pocketzoo.zoo.tasks.metrics.intervals import proportion, ratio


@dataclass
class TextAgreement:
    """The fraction of the reference's tokens that another model writes in the same place, and of equal texts.

    A token where one text has ended is not equal. The interval is a ratio estimator's over texts; that of equal texts
    is Wilson's.
    """

    same: list[int] = field(default_factory=list)  # tokens of each text
    tokens: list[int] = field(default_factory=list)  # that the reference wrote
    equal: int = 0  # texts

    def update(self, answers: Texts, reference: Texts) -> None:
        """Take in what both wrote for some samples.

        Raises:
            DataError: they have answered different numbers of samples.
        """
        if len(answers) != len(reference):
            raise DataError(
                f"one model wrote {len(answers)} texts, the other {len(reference)}", "give the same samples"
            )
        for ours, theirs in zip(answers.tokens, reference.tokens, strict=True):
            shared = min(len(ours), len(theirs))
            self.same.append(int((np.asarray(ours)[:shared] == np.asarray(theirs)[:shared]).sum()))
            self.tokens.append(len(theirs))
            self.equal += np.array_equal(ours, theirs)

    def merge(self, other: TextAgreement) -> None:
        """Take in what another has counted."""
        self.same += other.same
        self.tokens += other.tokens
        self.equal += other.equal

    def result(self) -> dict[str, Estimate]:
        """Raises DataError: nothing was compared."""
        if not sum(self.tokens):
            raise DataError("no text was compared", "give texts to continue or to answer")
        return {
            "agreement": ratio(self.same, self.tokens, 0.0, 1.0),
            "equal texts": proportion(self.equal, len(self.tokens)),
        }

    def about(self, value: float) -> str:
        """An agreement in words."""
        return f"equal tokens in {value:.1%} of the places"
