"""The tasks that ship with pocketzoo, and the decoders of their answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pocketzoo.zoo.catalog.hookspecs import hookimpl
from pocketzoo.zoo.catalog.task import DecoderSpec, ModelFacts, TaskSpec
from pocketzoo.zoo.tasks.decoders.configs import OutputConfig, SigmoidConfig, TokenConfig, with_padding

if TYPE_CHECKING:
    from pocketzoo.zoo.catalog.dataset import Dataset
    from pocketzoo.zoo.catalog.task import Decoder, Task, TaskTraining

# What one class of several is told of -> the Hub's pipeline tag, where it has none of that name.
CLASSIFIED = {
    "image": "",
    "text": "",
    "tabular": "",
    "audio": "",
    "arrays": "tabular-classification",
    "multimodal": "tabular-classification",
}


def _classification() -> Task:
    from pocketzoo.zoo.tasks.classification import ClassificationTask

    return ClassificationTask()


def _train_classes() -> TaskTraining:
    from pocketzoo.zoo.tasks.training.classes import ClassTraining

    return ClassTraining()


def _multi_label() -> Task:
    from pocketzoo.zoo.tasks.multi_label import MultiLabelTask

    return MultiLabelTask()


def _train_labels() -> TaskTraining:
    from pocketzoo.zoo.tasks.training.labels import LabelTraining

    return LabelTraining()


def _token_classification() -> Task:
    from pocketzoo.zoo.tasks.token_classification import TokenClassificationTask

    return TokenClassificationTask()


def _regression() -> Task:
    from pocketzoo.zoo.tasks.regression import RegressionTask

    return RegressionTask()


def _train_values() -> TaskTraining:
    from pocketzoo.zoo.tasks.training.values import ValueTraining

    return ValueTraining()


def _feature_extraction() -> Task:
    from pocketzoo.zoo.tasks.feature_extraction import FeatureExtractionTask

    return FeatureExtractionTask()


def _text_generation() -> Task:
    from pocketzoo.zoo.tasks.text_generation import TextGenerationTask

    return TextGenerationTask()


def _text_to_text() -> Task:
    from pocketzoo.zoo.tasks.text_generation import TextToTextTask

    return TextToTextTask()


def _train_tokens() -> TaskTraining:
    from pocketzoo.zoo.tasks.training.tokens import TokenTraining

    return TokenTraining()


def _windows(dataset: Dataset, model: ModelFacts) -> Dataset:
    from pocketzoo.zoo.tasks.text_generation import as_examples

    return as_examples(dataset, model)


def _reads_backwards(backbone: Any) -> tuple[str, str]:
    """Whether it reads a text from its beginning on, and so can learn what comes next: others see the answer."""
    if backbone.generation is not None and not backbone.generation.start:
        return "", ""
    return (
        f"{backbone.name} attends in both directions, so it would see the token it has to predict",
        "use a language model, such as GPT-2 or Llama",
    )


def _reinforcement_learning() -> Task:
    from pocketzoo.zoo.tasks.reinforcement_learning import ReinforcementLearningTask

    return ReinforcementLearningTask()


@hookimpl
def pocketzoo_tasks() -> list[TaskSpec]:
    return [
        *(
            TaskSpec(
                name=f"{modality}-classification",
                summary=f"one of several classes for each sample ({modality}): accuracy",
                open=_classification,
                decoder="class-scores",
                training=_train_classes,
                settings=("balanced", "label_smoothing"),
                movable=True,
                former=("logits",),
                tags={modality: tag} if tag else {},
            )
            for modality, tag in CLASSIFIED.items()
        ),
        TaskSpec(
            name="multi-label-classification",
            summary="any number of labels for each sample: mean average precision, F1",
            open=_multi_label,
            decoder="label-scores",
            training=_train_labels,
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
            summary="a class for each token of a text: accuracy of tokens",
            open=_token_classification,
            decoder="token-class-scores",
            targets="arrays",
            former=("token-logits",),
        ),
        TaskSpec(
            name="regression",
            summary="numbers for each sample: R2 and errors",
            open=_regression,
            decoder="values",
            training=_train_values,
            movable=True,
            targets="numbers",
            former=("values",),
            tags={"text": "text-classification", "image": "feature-extraction", "": "tabular-regression"},
        ),
        TaskSpec(
            name="feature-extraction",
            summary="a vector for each sample: nearest neighbors",
            open=_feature_extraction,
            decoder="embedding",
            former=("embedding",),
        ),
        TaskSpec(
            name="text-generation",
            summary="the token that comes next: log likelihood and perplexity",
            open=_text_generation,
            decoder="next-token",
            training=_train_tokens,
            settings=("label_smoothing",),
            trained=True,
            examples=_windows,
            refuses=_reads_backwards,
            former=("next-token-logits",),
            facts={"generates": True},
        ),
        TaskSpec(
            name="text2text-generation",
            summary="a text for a text",
            open=_text_to_text,
            decoder="first-token",
            former=("first-token-logits",),
            facts={"generates": True},
        ),
        TaskSpec(
            name="reinforcement-learning",
            summary="the best action in a state: mean return of episodes",
            open=_reinforcement_learning,
            decoder="action-values",
            former=("q-values",),
            facts={"acts": True},
        ),
    ]


def _softmax(config: OutputConfig) -> Decoder:
    from pocketzoo.zoo.tasks.decoders.classes import SoftmaxDecoder

    return SoftmaxDecoder(config)


def _sigmoid(config: SigmoidConfig) -> Decoder:
    from pocketzoo.zoo.tasks.decoders.classes import SigmoidDecoder

    return SigmoidDecoder(config)


def _token_softmax(config: TokenConfig) -> Decoder:
    from pocketzoo.zoo.tasks.decoders.classes import TokenClassDecoder

    return TokenClassDecoder(config)


def _values(config: OutputConfig) -> Decoder:
    from pocketzoo.zoo.tasks.decoders.vectors import ValuesDecoder

    return ValuesDecoder(config)


def _embedding(config: OutputConfig) -> Decoder:
    from pocketzoo.zoo.tasks.decoders.vectors import EmbeddingDecoder

    return EmbeddingDecoder(config)


def _next_token(config: TokenConfig) -> Decoder:
    from pocketzoo.zoo.tasks.decoders.vectors import NextTokenDecoder

    return NextTokenDecoder(config)


def _first_token(config: OutputConfig) -> Decoder:
    from pocketzoo.zoo.tasks.decoders.vectors import FirstTokenDecoder

    return FirstTokenDecoder(config)


def _best_action(config: OutputConfig) -> Decoder:
    from pocketzoo.zoo.tasks.decoders.classes import ActionDecoder

    return ActionDecoder(config)


@hookimpl
def pocketzoo_decoders() -> list[DecoderSpec]:
    return [
        DecoderSpec(
            name="class-scores",
            summary="a score for each class to the likeliest, with probabilities; or class numbers as they are",
            tasks=tuple(f"{modality}-classification" for modality in CLASSIFIED),
            open=_softmax,
            config=OutputConfig,
        ),
        DecoderSpec(
            name="label-scores",
            summary="a score for each label to a probability, and the labels above a threshold",
            tasks=("multi-label-classification",),
            open=_sigmoid,
            config=SigmoidConfig,
        ),
        DecoderSpec(
            name="token-class-scores",
            summary="a score for each class of each token to the likeliest",
            tasks=("token-classification",),
            open=_token_softmax,
            config=TokenConfig,
            complete=with_padding,
        ),
        DecoderSpec(
            name="values",
            summary="numbers as they are",
            tasks=("regression",),
            open=_values,
            config=OutputConfig,
        ),
        DecoderSpec(
            name="embedding",
            summary="a vector as it is",
            tasks=("feature-extraction",),
            open=_embedding,
            config=OutputConfig,
        ),
        DecoderSpec(
            name="next-token",
            summary="a score for each token that may follow, after each token",
            tasks=("text-generation",),
            open=_next_token,
            config=TokenConfig,
            complete=with_padding,
        ),
        DecoderSpec(
            name="first-token",
            summary="a score for each token that an answer may begin with",
            tasks=("text2text-generation",),
            open=_first_token,
            config=OutputConfig,
        ),
        DecoderSpec(
            name="action-values",
            summary="the action of the greatest value",
            tasks=("reinforcement-learning",),
            open=_best_action,
            config=OutputConfig,
        ),
    ]
