"""Pretrained heads of transformers repositories. Declarations only; no torch.

Their modules are pocketzoo's own, because each is pooling and one or two linear layers; the tables say which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pocketzoo.core.errors import UnsupportedModelError
from pocketzoo.core.untrusted.limits import SIZES
from pocketzoo.plugins.head_options import PooledOptions, TokenOptions
from pocketzoo.plugins.transformers import sentences
from pocketzoo.plugins.transformers.repository_settings import read_json, refuse  # noqa: F401 - it was here before
from pocketzoo.zoo.catalog.specs import FeatureSpec, HeadSpec, Repository, Weights

if TYPE_CHECKING:
    from torch import Tensor, nn

PinWeights = Callable[[Callable[[dict[str, "Tensor"]], Mapping[str, "Tensor"]]], Weights | None]


@dataclass(frozen=True, slots=True)
class Reader:
    """How a family reads features: what is pooled, and under which names its layers lie."""

    linear: str
    pool: Literal["cls", "mean", "last", "cls+mean"] = "cls"
    dense: str = ""
    activation: Literal["tanh", "relu", "gelu"] = "tanh"
    norm: str = ""
    bias: bool = True


_ROBERTA = Reader("classifier.out_proj", dense="classifier.dense")
_LAST = Reader("score", pool="last", bias=False)
TEXTS = {
    "albert": Reader("classifier", dense="albert.pooler"),
    "bert": Reader("classifier", dense="bert.pooler.dense"),
    "camembert": _ROBERTA,
    "distilbert": Reader("classifier", dense="pre_classifier", activation="relu"),
    "electra": Reader("classifier.out_proj", dense="classifier.dense", activation="gelu"),
    "gpt2": _LAST,
    "llama": _LAST,
    "mpnet": _ROBERTA,
    "qwen2": _LAST,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}
IMAGES = {
    "convnext": Reader("classifier", pool="mean", norm="convnext.layernorm"),
    "convnextv2": Reader("classifier", pool="mean", norm="convnextv2.layernorm"),
    "deit": Reader("classifier"),
    "dinov2": Reader("classifier", pool="cls+mean"),
    "resnet": Reader("classifier.1", pool="mean"),
    "vit": Reader("classifier"),
}
SCORE = {"llama", "qwen2"}  # whose token classifiers call their layer so
EMBEDDINGS = ("transformer.wte", "model.embed_tokens", "wte", "embed_tokens")  # that a language model may share


def head_of(repository: Repository, weights: PinWeights) -> HeadSpec | None:
    """The head of a repository: by its architecture, or the pooling of sentence-transformers; None without one."""
    config = dict(repository.config)
    kind = str(config.get("model_type"))
    architectures = config.get("architectures")
    architecture = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    if architecture.endswith("ForSequenceClassification") and kind in TEXTS:
        return _classifier(repository, weights, TEXTS[kind], config)
    if architecture.endswith("ForImageClassification") and kind in IMAGES:
        return _classifier(repository, weights, IMAGES[kind], config)
    if architecture.endswith("ForTokenClassification") and kind in TEXTS:
        return _token_classifier(repository, weights, kind, config)
    if architecture.endswith(("ForCausalLM", "LMHeadModel")) and kind in ("gpt2", "llama", "qwen2"):
        return _language_model(repository, weights, config)
    if architecture.endswith("ForConditionalGeneration") and kind == "t5":
        return _answerer(repository, weights, config)
    if kind not in TEXTS or not sentences.is_one(repository):
        return None
    return sentences.head_of(repository, width_of(config))


def width_of(config: Mapping[str, Any]) -> int:
    """How many numbers the features of a text's token are."""
    return int(config.get("hidden_size") or config.get("dim") or config.get("d_model") or config["n_embd"])


def _classifier(repository: Repository, weights: PinWeights, reader: Reader, config: Mapping[str, Any]) -> HeadSpec:
    labels = _labels(config)
    kind = _problem(config, len(labels))
    numbers = kind == "regression"
    options = PooledOptions(pool=reader.pool, dense=bool(reader.dense), activation=reader.activation, dropout=0.0)
    norm = float(config.get("layer_norm_eps", 1e-12)) if reader.norm else None
    layers = {own: theirs for own in ("norm", "dense", "linear") if (theirs := getattr(reader, own))}
    return HeadSpec(
        name=f"{repository.name}#head",
        summary=f"its own {'regression head' if numbers else 'classifier'}, {len(labels)} outputs",
        takes=("map",) if reader.pool == "mean" else ("sequence",),
        task=kind,
        build=partial(_build_pooled, options, reader.bias, norm),
        loss=LOSSES.get(kind, "cross_entropy"),
        backbone=repository.name,
        weights=weights(partial(_take, layers)),
        labels=None if numbers else lambda: labels,
        outputs=len(labels),
    )


LOSSES = {"regression": "mse_loss", "multi-label-classification": "binary_cross_entropy_with_logits"}
PROBLEMS = {
    "regression": "regression",
    "single_label_classification": "*-classification",
    "multi_label_classification": "multi-label-classification",
}


def _problem(config: Mapping[str, Any], outputs: int) -> str:
    """The task of a classifier: what its config says, else by the number of its outputs, as the library has it."""
    said = config.get("problem_type")
    if said is None:
        return "regression" if outputs == 1 else "*-classification"
    if said not in PROBLEMS:
        raise refuse("config.json", "problem_type", said, f"which is none of {', '.join(PROBLEMS)}")
    return PROBLEMS[said]


def _token_classifier(repository: Repository, weights: PinWeights, kind: str, config: Mapping[str, Any]) -> HeadSpec:
    labels = _labels(config)
    return HeadSpec(
        name=f"{repository.name}#head",
        summary=f"its own token classifier, {len(labels)} classes",
        takes=("sequence",),
        task="token-classification",
        build=_build_token,
        backbone=repository.name,
        weights=weights(partial(_take, {"linear": "score" if kind in SCORE else "classifier"})),
        labels=lambda: labels,
        outputs=len(labels),
    )


def _language_model(repository: Repository, weights: PinWeights, config: Mapping[str, Any]) -> HeadSpec:
    return HeadSpec(
        name=f"{repository.name}#head",
        summary=f"its own language model, {config['vocab_size']} tokens",
        takes=("sequence",),
        task="text-generation",
        build=_build_language_model,
        generates=True,
        backbone=repository.name,
        weights=weights(_take_language_model),
        outputs=int(config["vocab_size"]),
    )


def _answerer(repository: Repository, weights: PinWeights, config: Mapping[str, Any]) -> HeadSpec:
    return HeadSpec(
        name=f"{repository.name}#head",
        summary=f"its own decoder, {config['vocab_size']} tokens",
        takes=("sequence",),
        task="text2text-generation",
        build=partial(_build_answerer, config),
        generates=True,
        backbone=repository.name,
        weights=weights(partial(_take_answerer, config)),
        outputs=int(config["vocab_size"]),
    )


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes by their numbers; numbers where names are missing or alike."""
    names = config.get("id2label")
    count = len(names) if isinstance(names, dict) else int(config.get("num_labels") or 2)  # the library's own default
    SIZES.check(count, "its config.json", "labels")
    labels = tuple(str(names.get(str(i), "")).strip() for i in range(count)) if isinstance(names, dict) else ()
    return labels if all(labels) and len(set(labels)) == count else tuple(f"LABEL_{i}" for i in range(count))


def _take(layers: Mapping[str, str], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a head under pocketzoo's names.

    Raises:
        UnsupportedModelError: the weights lack one.
    """
    taken: dict[str, Tensor] = {}
    for own, theirs in layers.items():
        parts = [part for part in ("weight", "bias") if f"{theirs}.{part}" in state]
        if f"{theirs}.weight" not in state:
            raise UnsupportedModelError(f"the weights lack {theirs}.weight", "fit a head of your own: --head linear")
        taken |= {f"{own}.{part}": state[f"{theirs}.{part}"] for part in parts}
    return taken


def _take_language_model(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Its own layer, or the embedding that it shares with the backbone; a copy, which can be compressed by itself."""
    names = (name for name in ("lm_head", *EMBEDDINGS) if f"{name}.weight" in state)
    return _take({"linear": next(names, "lm_head")}, state)


def _build_pooled(
    options: PooledOptions, bias: bool, norm: float | None, features: FeatureSpec, outputs: int
) -> nn.Module:
    from pocketzoo.plugins.head_modules import PooledClassifier

    return PooledClassifier(features, outputs, options, bias=bias, norm=norm)


def _build_token(features: FeatureSpec, outputs: int) -> nn.Module:
    from pocketzoo.plugins.head_modules import TokenClassifier

    return TokenClassifier(features, outputs, TokenOptions(dropout=0.0))


def _build_language_model(features: FeatureSpec, outputs: int) -> nn.Module:
    from pocketzoo.plugins.head_modules import LanguageModel

    return LanguageModel(features, outputs)


def _build_answerer(config: Mapping[str, Any], features: FeatureSpec, outputs: int) -> nn.Module:
    from pocketzoo.plugins.transformers.modules import Answerer

    return Answerer(config)


def _take_answerer(config: Mapping[str, Any], state: dict[str, Tensor]) -> Mapping[str, Tensor]:
    from pocketzoo.plugins.transformers.modules import convert_answerer

    return convert_answerer(config, state)
