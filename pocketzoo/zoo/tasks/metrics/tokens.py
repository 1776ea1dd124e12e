"""Metrics of tokens: likelihood and perplexity, token classes, and agreement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from pocketzoo.core.errors import DataError
from pocketzoo.core.numerics import log_likelihoods, perplexity
from pocketzoo.zoo.catalog.dataset import Targets
from pocketzoo.zoo.catalog.task import Estimate
from pocketzoo.zoo.data.target_kinds import IGNORED
from pocketzoo.zoo.tasks.decoders.answers import NextTokens, TokenClasses
from pocketzoo.zoo.tasks.metrics.entities import EntityScores, has_entities
from pocketzoo.zoo.tasks.metrics.intervals import proportion, ratio


@dataclass
class LikelihoodScores:
    """The mean log likelihood of a token, in nats, and its perplexity; the interval is a ratio estimator's over texts.

    Targets are the ids that follow (B, T), ``IGNORED`` where none is known. Of what stands after all texts of a batch
    there may be no answers.
    """

    logs: list[float] = field(default_factory=list)  # of each text, the sum
    tokens: list[int] = field(default_factory=list)  # of each text

    def update(self, answers: NextTokens, targets: Targets) -> None:
        """Take in the answers to some texts, and the tokens that follow."""
        targets = targets[:, : answers.logits.shape[1]]
        if targets.shape != answers.logits.shape[:2]:
            raise DataError(f"targets have shape {targets.shape}, answers {answers.logits.shape}", "give other data")
        for logits, following in zip(answers.logits, targets, strict=True):
            known = following != IGNORED
            if known.any():
                self.logs.append(float(log_likelihoods(logits[known], following[known]).sum()))
                self.tokens.append(int(known.sum()))

    def merge(self, other: LikelihoodScores) -> None:
        """Take in what another has seen."""
        self.logs += other.logs
        self.tokens += other.tokens

    def result(self) -> dict[str, Estimate]:
        """Raises DataError: nothing was seen."""
        if not self.tokens:
            raise DataError("no token was scored", "give more texts")
        found = ratio(self.logs, self.tokens, high=0.0)
        ends = (None if end is None else _perplexity(end) for end in (found.high, found.low))
        return {"log_likelihood": found, "perplexity": Estimate(_perplexity(found.value), *ends)}

    def details(self) -> dict[str, int]:
        """How many tokens were scored."""
        return {"tokens": sum(self.tokens)}


def _perplexity(log_likelihood: float) -> float:
    try:
        return perplexity(log_likelihood)
    except OverflowError:
        return math.inf


@dataclass
class TokenClassScores:
    """The fraction of tokens whose class is right; targets are classes (B, T), ``IGNORED`` where none is known.

    The interval is a ratio estimator's over texts, since tokens of one text are not independent. Where the labels are
    tags of BIO or BIOES, there are the scores of entities too.
    """

    labels: Sequence[str]
    right: list[int] = field(default_factory=list)  # tokens of each text
    tokens: list[int] = field(default_factory=list)
    entities: EntityScores | None = None

    def __post_init__(self) -> None:
        if self.entities is None and has_entities(self.labels):
            self.entities = EntityScores(self.labels)

    def update(self, answers: TokenClasses, targets: Targets) -> None:
        """Take in the answers to some texts."""
        targets = targets[:, : answers.scores.shape[1]]
        if targets.shape != answers.known.shape:
            raise DataError(f"targets have shape {targets.shape}, answers {answers.scores.shape}", "give other data")
        known, best = (targets != IGNORED) & answers.known, answers.best
        self.right += ((best == targets) & known).sum(1).tolist()
        self.tokens += known.sum(1).tolist()
        if self.entities is not None:
            for row, own, target in zip(best, known, targets, strict=True):
                self.entities.add(row[own], target[own])

    def merge(self, other: TokenClassScores) -> None:
        """Take in what another has seen."""
        self.right += other.right
        self.tokens += other.tokens
        if self.entities is not None and other.entities is not None:
            self.entities.merge(other.entities)

    def result(self) -> dict[str, Estimate]:
        """Raises DataError: nothing was seen."""
        if not sum(self.tokens):
            raise DataError("no token was scored", "give texts with a class for each token")
        accuracy = {"token accuracy": ratio(self.right, self.tokens, 0.0, 1.0)}
        return accuracy | ({} if self.entities is None else self.entities.result())


@dataclass
class TokenAgreement:
    """For how many tokens two models answer the same: a class of each, or the likeliest that follows.

    The interval is a ratio estimator's over texts, and Wilson's where each has one token.
    """

    same: list[int] = field(default_factory=list)  # of each text
    tokens: list[int] = field(default_factory=list)

    def update(self, answers: TokenClasses | NextTokens, reference: TokenClasses | NextTokens) -> None:
        """Take in the answers of both to some texts."""
        ours, theirs = answers.best, reference.best
        if ours.shape != theirs.shape:
            raise DataError(f"one model answers {ours.shape} tokens, the other {theirs.shape}", "give the same texts")
        self.same += ((ours == theirs) & reference.known).sum(1).tolist()
        self.tokens += reference.known.sum(1).tolist()

    def merge(self, other: TokenAgreement) -> None:
        """Take in what another has counted."""
        self.same += other.same
        self.tokens += other.tokens

    def result(self) -> dict[str, Estimate]:
        """Raises DataError: nothing was compared."""
        if not sum(self.tokens):
            raise DataError("no answers were compared", "give texts")
        if max(self.tokens) == 1:
            return {"agreement": proportion(sum(self.same), sum(self.tokens))}
        return {"agreement": ratio(self.same, self.tokens, 0.0, 1.0)}

    def about(self, value: float) -> str:
        """An agreement in words."""
        return f"equal predictions for {value:.1%} of the tokens"
