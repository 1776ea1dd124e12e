"""Decoders to numbers, embeddings and next tokens: what models give as it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pocketzoo.core.arrays import Arrays
from pocketzoo.zoo.tasks.decoders.answers import Embeddings, NextTokens, Values
from pocketzoo.zoo.tasks.decoders.configs import OutputConfig, TokenConfig
from pocketzoo.zoo.tasks.decoders.outputs import per_token, table, tokens


@dataclass(frozen=True)
class ValuesDecoder:
    """Numbers (B, outputs)."""

    config: OutputConfig

    def __call__(self, outputs: Arrays, inputs: Arrays) -> Values:
        return Values(table(outputs, self.config.output, "numbers for each sample"))


@dataclass(frozen=True)
class EmbeddingDecoder:
    """A vector (B, channels)."""

    config: OutputConfig

    def __call__(self, outputs: Arrays, inputs: Arrays) -> Embeddings:
        return Embeddings(table(outputs, self.config.output, "a vector for each sample"))


@dataclass(frozen=True)
class NextTokenDecoder:
    """Logits (B, T, vocabulary) of what follows each token."""

    config: TokenConfig

    def __call__(self, outputs: Arrays, inputs: Arrays) -> NextTokens:
        out = per_token(outputs, self.config.output, "a score for each token that may follow")
        return NextTokens(out, tokens(inputs, self.config, out.shape[:2]))


@dataclass(frozen=True)
class FirstTokenDecoder:
    """Logits (B, vocabulary) of the first token of an answer."""

    config: OutputConfig

    def __call__(self, outputs: Arrays, inputs: Arrays) -> NextTokens:
        out = table(outputs, self.config.output, "a score for each token that may come first")[:, None]
        return NextTokens(out, np.ones(out.shape[:2], np.bool_))
