"""Heads that fit any backbone whose features they take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pocketzoo.plugins.head_options import (
    EmbeddingOptions,
    LinearOptions,
    MlpOptions,
    PooledOptions,
    QValuesOptions,
    RegressionOptions,
    TokenOptions,
)
from pocketzoo.plugins.hookspecs import hookimpl
from pocketzoo.zoo.specs import FeatureKind, FeatureSpec, HeadSpec

if TYPE_CHECKING:
    from torch import nn

ANY: tuple[FeatureKind, ...] = ("map", "vector", "sequence")


def build_linear(features: FeatureSpec, outputs: int, options: LinearOptions | None = None) -> nn.Module:
    from pocketzoo.plugins.head_modules import Linear

    options = options or LinearOptions()
    return Linear(features, outputs, options.grid, options.pool)


def build_global(features: FeatureSpec, outputs: int) -> nn.Module:
    """Global average pooling and one linear layer: what most pretrained classifiers end in."""
    from pocketzoo.plugins.head_modules import Linear

    return Linear(features, outputs)


def build_mlp(features: FeatureSpec, outputs: int, options: MlpOptions | None = None) -> nn.Module:
    from pocketzoo.plugins.head_modules import Mlp

    return Mlp(features, outputs, options)


def build_regression(features: FeatureSpec, outputs: int, options: RegressionOptions | None = None) -> nn.Module:
    from pocketzoo.plugins.head_modules import Regression

    return Regression(features, outputs, options)


def build_q_values(features: FeatureSpec, outputs: int, options: QValuesOptions | None = None) -> nn.Module:
    from pocketzoo.plugins.head_modules import QValues

    return QValues(features, outputs, options)


def build_pooled(features: FeatureSpec, outputs: int, options: PooledOptions | None = None) -> nn.Module:
    from pocketzoo.plugins.head_modules import PooledClassifier

    return PooledClassifier(features, outputs, options)


def build_token(features: FeatureSpec, outputs: int, options: TokenOptions | None = None) -> nn.Module:
    from pocketzoo.plugins.head_modules import TokenClassifier

    return TokenClassifier(features, outputs, options)


def build_language_model(features: FeatureSpec, outputs: int) -> nn.Module:
    from pocketzoo.plugins.head_modules import LanguageModel

    return LanguageModel(features, outputs)


def build_embedding(features: FeatureSpec, outputs: int, options: EmbeddingOptions | None = None) -> nn.Module:
    from pocketzoo.plugins.head_modules import Embedding

    return Embedding(features, outputs, options)


@hookimpl
def pocketzoo_heads() -> list[HeadSpec]:
    return [
        HeadSpec(
            name="linear",
            summary="average pooling over a 2 x 2 grid and one linear layer",
            takes=ANY,
            returns="logits",
            build=build_linear,
            options=LinearOptions,
        ),
        HeadSpec(
            name="mlp",
            summary="average pooling over a 2 x 2 grid, 256 hidden units with ReLU and dropout, one linear layer",
            takes=ANY,
            returns="logits",
            build=build_mlp,
            options=MlpOptions,
        ),
        HeadSpec(
            name="pooled-classifier",
            summary="for texts: the first token, a dense layer with tanh as BERT's pooler, one linear layer",
            takes=("sequence",),
            returns="logits",
            build=build_pooled,
            options=PooledOptions,
        ),
        HeadSpec(
            name="token-classifier",
            summary="a linear layer on every token: (B, T, classes)",
            takes=("sequence",),
            returns="token-logits",
            build=build_token,
            metric="",
            options=TokenOptions,
        ),
        HeadSpec(
            name="language-model",
            summary="the next token after every token: (B, T, vocabulary)",
            takes=("sequence",),
            returns="next-token-logits",
            build=build_language_model,
            metric="",
        ),
        HeadSpec(
            name="embedding",
            summary="mean over places or tokens, made a vector of length 1",
            takes=ANY,
            returns="embedding",
            build=build_embedding,
            loss="",
            metric="",
            options=EmbeddingOptions,
        ),
        HeadSpec(
            name="regression",
            summary="average pooling over a 2 x 2 grid and one linear layer, to numbers",
            takes=ANY,
            returns="values",
            build=build_regression,
            loss="mse_loss",
            metric="r2",
            options=RegressionOptions,
        ),
        HeadSpec(
            name="q-values",
            summary="average pooling over a 2 x 2 grid, 512 hidden units with ReLU, a number an action",
            takes=ANY,
            returns="q-values",
            build=build_q_values,
            loss="smooth_l1_loss",
            metric="",
            options=QValuesOptions,
        ),
    ]
