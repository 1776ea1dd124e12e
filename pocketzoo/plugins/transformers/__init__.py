"""Loader for transformers repositories of the Hub: backbones. Declarations only; torch code is in modules.py.

A model's class is chosen by the ``model_type`` of its config.json from a list that is kept here, its code is the
installed library's, which is given the settings of ``settings.py`` and no others, and its weights are safetensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from pocketzoo.core.errors import UnsupportedModelError, message_of
from pocketzoo.core.former_names import names_before
from pocketzoo.plugins.transformers import generation, heads, images, sentences, texts
from pocketzoo.plugins.transformers.settings import refusal, structure_of
from pocketzoo.zoo.catalog.hookspecs import hookimpl
from pocketzoo.zoo.catalog.specs import (
    BackboneSpec,
    FeatureSpec,
    GenerationSpec,
    HeadSpec,
    Input,
    InputSpec,
    LoaderSpec,
    Repository,
    TextSpec,
    Weights,
)
from pocketzoo.zoo.hub.shard_index import INDEX, read_index, shard_names

if TYPE_CHECKING:
    from torch import Tensor, nn

__getattr__ = names_before(__name__)

RESAMPLING = images.RESAMPLING  # it was here in the last release
ENCODERS = {"albert", "bert", "camembert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta"}
DECODERS = {"gpt2", "llama", "qwen2"}
ANSWERERS = {"t5"}  # encoder-decoders: the encoder is the backbone, the decoder its head
TEXTS = ENCODERS | DECODERS | ANSWERERS
MAPS = {"convnext", "convnextv2", "resnet"}  # vision models that give a map
TOKENS = {"deit", "dinov2", "vit"}  # vision models that give a sequence
WEIGHTS = "model.safetensors"
SMALL = (
    texts.TOKENIZER,
    texts.FILE,
    texts.SPECIAL,
    generation.FILE,
    images.FILE,
    *sentences.FILES,
)


def refuses(repository: Repository) -> str:
    """Why a repository cannot be loaded; "" where it can."""
    kind = repository.config.get("model_type")
    if repository.library == "timm" or not isinstance(kind, str):
        return "its config.json has no model_type"
    if "auto_map" in repository.config:
        return "its config.json requires custom code (auto_map)"
    if kind not in TEXTS | MAPS | TOKENS:
        return f"the model type {kind!r} is not supported"
    if WEIGHTS not in repository.sizes and not (INDEX in repository.sizes and shard_names(repository.sizes)):
        if any(path.endswith((".bin", ".pt", ".ckpt", ".h5")) for path in repository.sizes):
            return "its weights are not safetensors, and other formats can run code"
        return f"it has no {WEIGHTS}, and no shards with an index"
    if reason := refusal(repository.config):
        return reason
    required = "tokenizer.json" if kind in TEXTS else "preprocessor_config.json"
    return "" if required in repository.sizes else f"it has no {required}"


def wants(repository: Repository) -> tuple[str, ...]:
    """The files to fetch."""
    weights = (WEIGHTS,) if WEIGHTS in repository.sizes else (INDEX, *shard_names(repository.sizes))
    return (*weights, *(path for path in (*SMALL, sentences.DENSE_WEIGHTS) if path in repository.sizes))


def backbone(repository: Repository) -> BackboneSpec:
    """The spec of a repository's model without its head.

    Raises:
        UnsupportedModelError: its config lacks a size, or has a setting that the library must not be given.
    """
    config = dict(repository.config)
    structure_of(config)  # a bundle's own copy of a config comes here and was not asked ``refuses``
    kind = str(config["model_type"])
    input_spec: Input
    try:
        head = head_of(repository)
        if kind in TEXTS:
            input_spec, features, build = _text(repository, config)
        else:
            input_spec, features, build = _vision(repository, config)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UnsupportedModelError(
            f"the config of {repository.repo_id} is not one of a {kind}: {message_of(error)}",
            "choose another repository",
        ) from error
    return BackboneSpec(
        name=repository.name,
        summary=f"{kind}, {repository.task or 'features'}",
        license=repository.license or "unknown",
        input=input_spec,
        features=features,
        build=build,
        weights=_weights(repository, partial(_convert, config)),
        source=f"https://huggingface.co/{repository.repo_id}",
        head=head.name if head else "",
        generation=_generation(repository, config) if kind in DECODERS | ANSWERERS else None,
        files={
            path: file for path, file in repository.files.items() if path != INDEX and not path.endswith(".safetensors")
        },
    )


def head_of(repository: Repository) -> HeadSpec | None:
    """The head that a repository was trained with; None where it has none, or one that is not known here."""
    return heads.head_of(repository, partial(_weights, repository))


@hookimpl
def pocketzoo_loaders() -> list[LoaderSpec]:
    return [
        LoaderSpec(
            name="transformers",
            summary="text encoders, decoders as feature extractors, and vision encoders of transformers",
            refuses=refuses,
            wants=wants,
            backbone=backbone,
            head=head_of,
        )
    ]


def _text(repository: Repository, config: Mapping[str, Any]) -> tuple[TextSpec, FeatureSpec, Any]:
    spec = texts.text_spec(repository, config)
    if sentences.is_one(repository):
        spec = sentences.with_sentences(spec, repository, texts.positions(config))
    features = FeatureSpec("sequence", ("batch", "sequence", heads.width_of(config)))
    return spec, features, partial(_build_text, dict(config), spec.pad, spec.padding)


def _generation(repository: Repository, config: Mapping[str, Any]) -> GenerationSpec:
    kind = config["model_type"]
    return generation.generation_spec(repository, config, answers=kind in ANSWERERS, learned=kind == "gpt2")


def _vision(repository: Repository, config: Mapping[str, Any]) -> tuple[InputSpec, FeatureSpec, Any]:
    spec = images.image_spec(repository, config)
    height, width = spec.size[1:]
    if config["model_type"] in MAPS:
        features = FeatureSpec("map", ("batch", int(config["hidden_sizes"][-1]), height // 32, width // 32))
    else:
        patch = config["patch_size"]
        tall, wide = patch if isinstance(patch, list | tuple) else (patch, patch)
        tokens = (height // int(tall)) * (width // int(wide)) + 1 + (config["model_type"] == "deit")
        features = FeatureSpec("sequence", ("batch", tokens, int(config["hidden_size"])))
    return spec, features, partial(_build_vision, dict(config))


def _weights(repository: Repository, convert: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]) -> Weights | None:
    """The weights of a repository, in one piece or in shards."""
    if WEIGHTS in repository.digests or INDEX not in repository.digests:
        return repository.weights(WEIGHTS, convert=convert)
    shards = shard_names(repository.digests)
    read_index(repository.files[INDEX], shards)  # a wrong one is found before anything is built
    return repository.weights(INDEX, convert=convert, shards=shards)


def _build_text(config: Mapping[str, Any], pad: int, padding: str) -> nn.Module:
    from pocketzoo.plugins.transformers.modules import Text

    return Text(config, pad, padding)


def _build_vision(config: Mapping[str, Any]) -> nn.Module:
    from pocketzoo.plugins.transformers.modules import Vision

    return Vision(config)


def _convert(config: Mapping[str, Any], state: dict[str, Tensor]) -> Mapping[str, Tensor]:
    from pocketzoo.plugins.transformers.modules import convert_state

    return convert_state(config, state)
