"""The heads that ship with pocketzoo, for any backbone whose features they take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pocketzoo.core.optional import lazily
from pocketzoo.plugins.head_options import (
    EmbeddingOptions,
    LinearOptions,
    MlpOptions,
    PooledOptions,
    QValuesOptions,
    RegressionOptions,
    TokenOptions,
)
from pocketzoo.zoo.catalog.hookspecs import hookimpl
from pocketzoo.zoo.catalog.specs import FeatureKind, FeatureSpec, HeadSpec

if TYPE_CHECKING:
    from torch import nn

MODULES = "pocketzoo.plugins.head_modules"
ANY: tuple[FeatureKind, ...] = ("map", "vector", "sequence")


def build_linear(features: FeatureSpec, outputs: int, options: LinearOptions | None = None) -> nn.Module:
    from pocketzoo.plugins.head_modules import Linear

    options = options or LinearOptions()
    return Linear(features, outputs, options.grid, options.pool)


def build_global(features: FeatureSpec, outputs: int) -> nn.Module:
    """Global average pooling and one linear layer: what most pretrained classifiers end in."""
    from pocketzoo.plugins.head_modules import Linear

    return Linear(features, outputs)


@hookimpl
def pocketzoo_heads() -> list[HeadSpec]:
    return [
        HeadSpec(
            name="linear",
            summary="average pooling over a 2 x 2 grid and one linear layer",
            takes=ANY,
            task="*-classification",
            build=build_linear,
            options=LinearOptions,
        ),
        HeadSpec(
            name="mlp",
            summary="average pooling over a 2 x 2 grid, 256 hidden units with ReLU and dropout, one linear layer",
            takes=ANY,
            task="*-classification",
            build=lazily(MODULES, "Mlp"),
            options=MlpOptions,
        ),
        HeadSpec(
            name="multi-label",
            summary="any number of labels for a sample: average pooling over a 2 x 2 grid and one linear layer",
            takes=ANY,
            task="multi-label-classification",
            build=build_linear,
            options=LinearOptions,
        ),
        HeadSpec(
            name="pooled-classifier",
            summary="for texts: the first token, a dense layer with tanh as BERT's pooler, one linear layer",
            takes=("sequence",),
            task="*-classification",
            build=lazily(MODULES, "PooledClassifier"),
            options=PooledOptions,
        ),
        HeadSpec(
            name="token-classifier",
            summary="token classification: a linear layer on every token, (B, T, classes)",
            takes=("sequence",),
            task="token-classification",
            build=lazily(MODULES, "TokenClassifier"),
            options=TokenOptions,
        ),
        HeadSpec(
            name="language-model",
            summary="next-token prediction: (B, T, vocabulary)",
            takes=("sequence",),
            task="text-generation",
            build=lazily(MODULES, "LanguageModel"),
            generates=True,
        ),
        HeadSpec(
            name="embedding",
            summary="mean over positions or tokens, normalized to unit length",
            takes=ANY,
            task="feature-extraction",
            build=lazily(MODULES, "Embedding"),
            loss="",
            options=EmbeddingOptions,
        ),
        HeadSpec(
            name="regression",
            summary="regression: average pooling over a 2 x 2 grid and one linear layer",
            takes=ANY,
            task="regression",
            build=lazily(MODULES, "Regression"),
            loss="mse_loss",
            options=RegressionOptions,
        ),
        HeadSpec(
            name="q-values",
            summary="average pooling over a 2 x 2 grid, 512 hidden units with ReLU, one value per action",
            takes=ANY,
            task="reinforcement-learning",
            build=lazily(MODULES, "QValues"),
            loss="smooth_l1_loss",
            options=QValuesOptions,
        ),
    ]
