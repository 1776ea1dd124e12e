"""The tasks that ship with pocketzoo, and the decoders of their answers."""

from __future__ import annotations

from typing import Any

from pocketzoo.core.optional import lazily
from pocketzoo.zoo.catalog.hookspecs import hookimpl
from pocketzoo.zoo.catalog.task import DecoderSpec, TaskSpec
from pocketzoo.zoo.tasks.decoders.configs import (
    OutputConfig,
    PositionConfig,
    SigmoidConfig,
    TokenConfig,
    with_padding,
)

TASKS = "pocketzoo.zoo.tasks"
# Modality of what is classified -> the Hub's pipeline tag, where it has none of that name.
CLASSIFIED = {
    "image": "",
    "text": "",
    "tabular": "",
    "audio": "",
    "arrays": "tabular-classification",
    "multimodal": "tabular-classification",
}


def _sees_the_answer(backbone: Any) -> tuple[str, str]:
    """Why a backbone cannot learn what comes next, and what to do; "" where it reads a text from its beginning on."""
    if backbone.generation is not None and not backbone.generation.start:
        return "", ""
    return (
        f"{backbone.name} attends in both directions, so it would see the token it has to predict",
        "use a language model, such as GPT-2 or Llama",
    )


@hookimpl
def pocketzoo_tasks() -> list[TaskSpec]:
    return [
        *(
            TaskSpec(
                name=f"{modality}-classification",
                summary=f"one of several classes for each sample ({modality}): accuracy",
                open=lazily(f"{TASKS}.classification", "ClassificationTask"),
                decoder="class-scores",
                training=lazily(f"{TASKS}.training.classes", "ClassTraining"),
                settings=("loss", "balanced", "label_smoothing"),
                movable=True,
                former=("logits",),
                tags={modality: tag} if tag else {},
            )
            for modality, tag in CLASSIFIED.items()
        ),
        TaskSpec(
            name="multi-label-classification",
            summary="any number of labels for each sample: mean average precision, F1",
            open=lazily(f"{TASKS}.multi_label", "MultiLabelTask"),
            decoder="label-scores",
            training=lazily(f"{TASKS}.training.labels", "LabelTraining"),
            settings=("label_smoothing",),
            movable=True,
            targets="flags",
            tags={
                "image": "image-classification",
                "text": "text-classification",
                "audio": "audio-classification",
                "": "tabular-classification",
            },
        ),
        TaskSpec(
            name="token-classification",
            summary="a class for each token of a text: accuracy of tokens, F1 of entities",
            open=lazily(f"{TASKS}.token_classification", "TokenClassificationTask"),
            decoder="token-class-scores",
            training=lazily(f"{TASKS}.training.token_classes", "TokenClassTraining"),
            settings=("balanced", "label_smoothing"),
            targets="tags",
            reader=lazily("pocketzoo.zoo.data.tagged_words", "read_conll"),
            lenient_reader=lazily("pocketzoo.zoo.data.tagged_words", "read_conll_leniently"),
            align=lazily("pocketzoo.zoo.data.tagged_words", "on_tokens"),
            former=("token-logits",),
        ),
        TaskSpec(
            name="regression",
            summary="numbers for each sample: R2 and errors",
            open=lazily(f"{TASKS}.regression", "RegressionTask"),
            decoder="values",
            training=lazily(f"{TASKS}.training.values", "ValueTraining"),
            settings=("loss",),
            movable=True,
            targets="numbers",
            former=("values",),
            tags={"text": "text-classification", "image": "feature-extraction", "": "tabular-regression"},
        ),
        TaskSpec(
            name="feature-extraction",
            summary="a vector for each sample: nearest neighbors",
            open=lazily(f"{TASKS}.feature_extraction", "FeatureExtractionTask"),
            decoder="embedding",
            former=("embedding",),
        ),
        TaskSpec(
            name="text-generation",
            summary="the token that comes next: log likelihood and perplexity",
            open=lazily(f"{TASKS}.text_generation", "TextGenerationTask"),
            decoder="next-token",
            training=lazily(f"{TASKS}.training.tokens", "TokenTraining"),
            settings=("label_smoothing",),
            trained=True,
            examples=lazily(f"{TASKS}.text_generation", "as_examples"),
            refuses=_sees_the_answer,
            former=("next-token-logits",),
            facts={"generates": True},
        ),
        TaskSpec(
            name="text2text-generation",
            summary="a text for a text",
            open=lazily(f"{TASKS}.text_generation", "TextToTextTask"),
            decoder="first-token",
            former=("first-token-logits",),
            facts={"generates": True},
        ),
        TaskSpec(
            name="reinforcement-learning",
            summary="the best action in a state: mean return of episodes",
            open=lazily(f"{TASKS}.reinforcement_learning", "ReinforcementLearningTask"),
            decoder="action-values",
            settings=("loss",),  # ``fit-agent``'s
            former=("q-values",),
            facts={"acts": True},
        ),
    ]


@hookimpl
def pocketzoo_decoders() -> list[DecoderSpec]:
    return [
        DecoderSpec(
            name="class-scores",
            summary="a score for each class to the likeliest, with probabilities; or class numbers as they are",
            tasks=tuple(f"{modality}-classification" for modality in CLASSIFIED),
            open=lazily(f"{TASKS}.decoders.classes", "SoftmaxDecoder"),
            config=OutputConfig,
        ),
        DecoderSpec(
            name="label-scores",
            summary="a score for each label to a probability, and the labels above a threshold",
            tasks=("multi-label-classification",),
            open=lazily(f"{TASKS}.decoders.classes", "SigmoidDecoder"),
            config=SigmoidConfig,
        ),
        DecoderSpec(
            name="token-class-scores",
            summary="a score for each class of each token to the likeliest",
            tasks=("token-classification",),
            open=lazily(f"{TASKS}.decoders.classes", "TokenClassDecoder"),
            config=TokenConfig,
            complete=with_padding,
        ),
        DecoderSpec(
            name="position-class-scores",
            summary="a score for each class of each position, along any axis, to the likeliest",
            tasks=("token-classification",),
            open=lazily(f"{TASKS}.decoders.classes", "PositionClassDecoder"),
            config=PositionConfig,
        ),
        DecoderSpec(
            name="values",
            summary="numbers as they are",
            tasks=("regression",),
            open=lazily(f"{TASKS}.decoders.vectors", "ValuesDecoder"),
            config=OutputConfig,
        ),
        DecoderSpec(
            name="embedding",
            summary="a vector as it is",
            tasks=("feature-extraction",),
            open=lazily(f"{TASKS}.decoders.vectors", "EmbeddingDecoder"),
            config=OutputConfig,
        ),
        DecoderSpec(
            name="next-token",
            summary="a score for each token that may follow, after each token",
            tasks=("text-generation",),
            open=lazily(f"{TASKS}.decoders.vectors", "NextTokenDecoder"),
            config=TokenConfig,
            complete=with_padding,
        ),
        DecoderSpec(
            name="first-token",
            summary="a score for each token that an answer may begin with",
            tasks=("text2text-generation",),
            open=lazily(f"{TASKS}.decoders.vectors", "FirstTokenDecoder"),
            config=OutputConfig,
        ),
        DecoderSpec(
            name="action-values",
            summary="the action of the greatest value",
            tasks=("reinforcement-learning",),
            open=lazily(f"{TASKS}.decoders.classes", "ActionDecoder"),
            config=OutputConfig,
        ),
    ]
