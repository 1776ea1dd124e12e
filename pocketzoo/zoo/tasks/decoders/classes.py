"""Decoders to classes and labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import DataError
from pocketzoo.core.numerics import softmax
from pocketzoo.zoo.tasks.decoders.answers import Classes, Labels, TokenClasses
from pocketzoo.zoo.tasks.decoders.configs import OutputConfig, PositionConfig, SigmoidConfig, TokenConfig
from pocketzoo.zoo.tasks.decoders.outputs import is_float, output_named, per_token, table, tokens


@dataclass(frozen=True)
class SoftmaxDecoder:
    """Logits (B, classes) to classes with probabilities; whole numbers (B,) are classes already."""

    config: OutputConfig

    def __call__(self, outputs: Arrays, inputs: Arrays) -> Classes:
        out = output_named(outputs, self.config.output)
        if out.ndim == 1 and out.dtype.kind in "iu":
            return Classes(out)
        if out.ndim != 2 or not is_float(out) or out.shape[1] < 2:
            raise DataError(
                f"the output is {out.dtype} of shape {out.shape}, not a score for each of two or more classes",
                "name another decoder",
            )
        return Classes(out.argmax(-1), out, softmax(out))


@dataclass(frozen=True)
class ActionDecoder:
    """The value of each action (B, actions) to the best one."""

    config: OutputConfig

    def __call__(self, outputs: Arrays, inputs: Arrays) -> Classes:
        out = table(outputs, self.config.output, "a value for each action")
        return Classes(out.argmax(-1), out)


@dataclass(frozen=True)
class SigmoidDecoder:
    """Logits (B, labels) to labels, each with a probability of its own."""

    config: SigmoidConfig

    def __call__(self, outputs: Arrays, inputs: Arrays) -> Labels:
        out = table(outputs, self.config.output, "a score for each label").astype(np.float64)
        with np.errstate(over="ignore"):
            probabilities = np.where(out >= 0, 1 / (1 + np.exp(-np.abs(out))), 1 - 1 / (1 + np.exp(-np.abs(out))))
        return Labels(probabilities, self.config.threshold)


@dataclass(frozen=True)
class TokenClassDecoder:
    """Logits (B, T, classes) to a class for each token."""

    config: TokenConfig

    def __call__(self, outputs: Arrays, inputs: Arrays) -> TokenClasses:
        out = per_token(outputs, self.config.output, "a score for each class of each token")
        return TokenClasses(out, tokens(inputs, self.config, out.shape[:2]))


@dataclass(frozen=True)
class PositionClassDecoder:
    """Scores of classes along any axis, such as (B, classes, H, W), to a class for each position, in their order."""

    config: PositionConfig

    def __call__(self, outputs: Arrays, inputs: Arrays) -> TokenClasses:
        out, axes = output_named(outputs, self.config.output), (self.config.samples, self.config.axis)
        if out.ndim < 3 or max(axes) >= out.ndim or not is_float(out):
            raise DataError(
                f"the output is {out.dtype} of shape {out.shape}, without a score for each class along axis {axes[1]}",
                "name another axis, or another decoder",
            )
        scores = np.moveaxis(out, axes, (0, -1))
        scores = scores.reshape(len(scores), -1, scores.shape[-1])
        return TokenClasses(scores, np.ones(scores.shape[:2], np.bool_))
