"""Pretrained heads of transformers repositories. Declarations only; no torch.

Their modules are pocketzoo's own, because each is pooling and one or two linear layers; the tables say which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pocketzoo.core.errors import UnsupportedModelError
from pocketzoo.plugins.head_options import EmbeddingOptions, PooledOptions, TokenOptions
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
    return _pooling(repository) if kind in TEXTS else None


def _classifier(
    repository: Repository, weights: PinWeights, reader: Reader, config: Mapping[str, Any]
) -> HeadSpec | None:
    labels = _labels(config)
    numbers = len(labels) == 1 or config.get("problem_type") == "regression"
    options = PooledOptions(pool=reader.pool, dense=bool(reader.dense), activation=reader.activation, dropout=0.0)
    norm = float(config.get("layer_norm_eps", 1e-12)) if reader.norm else None
    layers = {own: theirs for own in ("norm", "dense", "linear") if (theirs := getattr(reader, own))}
    return HeadSpec(
        name=f"{repository.name}#head",
        summary=f"its own {'regression head' if numbers else 'classifier'}, {len(labels)} outputs",
        takes=("map",) if reader.pool == "mean" else ("sequence",),
        task="regression" if numbers else "*-classification",
        build=partial(_build_pooled, options, reader.bias, norm),
        loss="mse_loss" if numbers else "cross_entropy",
        backbone=repository.name,
        weights=weights(partial(_take, layers)),
        labels=None if numbers else lambda: labels,
        outputs=len(labels),
    )


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


def _pooling(repository: Repository) -> HeadSpec | None:
    """What a sentence-transformers repository does with its tokens: pooling, and mostly a normalization."""
    pooling = read_json(repository, "1_Pooling/config.json")
    if not pooling:
        return None
    flags = {"cls": "cls_token", "max": "max_tokens", "mean": "mean_tokens", "last": "lasttoken"}
    modes: list[Any] = [mode for mode, flag in flags.items() if pooling.get(f"pooling_mode_{flag}")]
    modules: Any = read_json(repository, "modules.json") or ()
    kinds = [str(module.get("type")).rpartition(".")[2] for module in modules]
    if len(modes) > 1 or not {"Transformer", "Pooling", "Normalize"}.issuperset(kinds):
        return None  # it does something else besides, and a part of that would be another model
    options = EmbeddingOptions(pool=modes[0] if modes else "mean", normalize="Normalize" in kinds)
    return HeadSpec(
        name=f"{repository.name}#head",
        summary=f"{options.pool} pooling of tokens{', normalized' if options.normalize else ''}",
        takes=("sequence",),
        task="feature-extraction",
        build=partial(_build_embedding, options),
        loss="",
        backbone=repository.name,
    )


def read_json(repository: Repository, path: str) -> Any:
    """A small file of a repository; None where it has none.

    Raises:
        UnsupportedModelError: it is not valid JSON.
    """
    if path not in repository.files:
        return None
    from pocketzoo.core.reading import documents

    try:
        return documents.read_json(repository.files[path])
    except documents.MalformedError as error:
        raise UnsupportedModelError(
            f"{path} of {repository.repo_id} is not valid JSON: {error}", "choose another"
        ) from error


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes by their numbers; numbers where names are missing or alike."""
    names = config.get("id2label")
    count = len(names) if isinstance(names, dict) else int(config.get("num_labels") or 2)  # the library's own default
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


def _build_embedding(options: EmbeddingOptions, features: FeatureSpec, outputs: int) -> nn.Module:
    from pocketzoo.plugins.head_modules import Embedding

    return Embedding(features, outputs, options)


def _build_answerer(config: Mapping[str, Any], features: FeatureSpec, outputs: int) -> nn.Module:
    from pocketzoo.plugins.transformers.modules import Answerer

    return Answerer(config)


def _take_answerer(config: Mapping[str, Any], state: dict[str, Tensor]) -> Mapping[str, Tensor]:
    from pocketzoo.plugins.transformers.modules import convert_answerer

    return convert_answerer(config, state)
