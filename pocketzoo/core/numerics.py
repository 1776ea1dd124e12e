"""Numerics that metrics are made of, each once: softmax, right answers, R2, likelihood and perplexity. numpy only."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

F = TypeVar("F", bound=np.floating[Any])


def softmax(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Probabilities (..., C) of logits (..., C)."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    probabilities: npt.NDArray[np.float64] = shifted / shifted.sum(-1, keepdims=True)
    return probabilities


def log_softmax(logits: npt.NDArray[F]) -> npt.NDArray[F]:
    """Logarithms of the probabilities (..., C) of logits (..., C), in their precision."""
    shifted = logits - logits.max(-1, keepdims=True)
    logs: npt.NDArray[F] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return logs


def predicted(scores: Any) -> Any:
    """The class (N,) that each row of scores (N, C) answers; what is (N,) already are classes. Tensors work as well."""
    return scores if scores.ndim == 1 else scores.argmax(-1)


def right_answers(scores: Any, classes: Any) -> Any:
    """Which rows of scores (N, C) answer their class (N,): accuracy is their mean. Tensors work as well."""
    return predicted(scores) == classes


def log_likelihoods(logits: npt.NDArray[Any], classes: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The logarithm of the probability of each one's class (N,) by logits (N, C), in double precision: (N,)."""
    logits = logits.astype(np.float64)
    largest = logits.max(-1, keepdims=True)
    sums = np.log(np.exp(logits - largest).sum(-1)) + largest[:, 0]
    logs: npt.NDArray[np.float64] = logits[np.arange(len(logits)), classes] - sums
    return logs


def perplexity(log_likelihood: float) -> float:
    """Of the mean log likelihood of a token, in nats: how many tokens, equally likely, it is as unsure between."""
    return math.exp(-log_likelihood)


def r2(out: npt.NDArray[Any], targets: npt.NDArray[Any]) -> float:
    """The coefficient of determination of numbers (N, outputs), averaged over the outputs.

    1 is exact, and 0 what the mean of the targets scores. An output that never changes counts 1 if it is met.
    """
    errors = np.square(out - targets, dtype=np.float64).sum(0)
    spread = np.square(targets - targets.mean(0), dtype=np.float64).sum(0)
    return float(1 - unexplained(errors, spread, ~(spread > 0)).mean())


def unexplained(
    errors: npt.NDArray[np.float64], spread: npt.NDArray[np.float64], constant: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """1 - R2 of each output (outputs,), of sums of squares: of its errors, and of its targets around their mean.

    Where the targets are ``constant`` it is 0 if they are met, and else 1.
    """
    with np.errstate(invalid="ignore", over="ignore"):  # what is infinite has no R2, and says so by being no number
        fractions: npt.NDArray[np.float64] = np.where(constant, errors > 0, errors / np.where(constant, 1.0, spread))
    return fractions
