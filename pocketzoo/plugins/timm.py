"""Loader for timm repositories of the Hub: backbones, with their classifiers as heads.

Shapes are not guessed: the model is built without memory (on torch's meta device) and run once, which also finds every
layer it can be cut at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from pocketzoo.core.errors import PocketzooError, UnsupportedModelError, message_of
from pocketzoo.plugins.timm_settings import image_settings, labels_of, refusal, structure_of
from pocketzoo.zoo.catalog.hookspecs import hookimpl
from pocketzoo.zoo.catalog.specs import BackboneSpec, Cut, FeatureSpec, HeadSpec, InputSpec, LoaderSpec, Repository

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

WEIGHTS = "model.safetensors"


def refuses(repository: Repository) -> str:
    """Why a repository cannot be loaded; "" where it can."""
    if not isinstance(repository.config.get("architecture"), str) or "pretrained_cfg" not in repository.config:
        return "its config.json is not a timm config"
    if WEIGHTS not in repository.sizes:
        return f"it has no {WEIGHTS}, and other formats can run code"
    return refusal(repository.config)


def wants(repository: Repository) -> tuple[str, ...]:
    """The files to fetch."""
    return (WEIGHTS,)


def backbone(repository: Repository) -> BackboneSpec:
    """The spec of a repository's model without its classifier.

    Raises:
        MissingDependencyError: timm is not installed.
        UnsupportedModelError: the installed timm does not know the architecture, or must not be given a setting.
    """
    config = repository.config
    structure_of(config)  # a bundle's own copy of a config comes here and was not asked ``refuses``
    from pocketzoo.plugins.timm_modules import trace

    settings: Any = config["pretrained_cfg"]
    try:
        head = head_of(repository)
        input_spec = _input(config)
        features, cuts = trace(config, input_spec.size)
    except PocketzooError:
        raise
    except Exception as error:  # arguments that do not go together raise whatever torch and timm raise
        reason = " ".join(message_of(error).split())[:200]
        raise UnsupportedModelError(
            f"timm cannot build {repository.repo_id}: {reason}", "upgrade timm, or choose another repository"
        ) from error
    return BackboneSpec(
        name=repository.name,
        summary=f"{config['architecture']}, {repository.task or 'image classification'}",
        license=repository.license or str(settings.get("license") or "unknown"),
        input=input_spec,
        features=features,
        build=partial(_build, dict(config)),
        weights=repository.weights(WEIGHTS, partial(_read, dict(config))),
        source=f"https://huggingface.co/{repository.repo_id}",
        cuts=tuple(Cut(layer, shape) for layer, shape in cuts.items()),
        head=head.name if head else "",
        files={path: file for path, file in repository.files.items() if path != WEIGHTS},
    )


def head_of(repository: Repository) -> HeadSpec | None:
    """The classifier, with the pooling and norms before it."""
    config = dict(repository.config)
    _, arguments = structure_of(config)
    count = int(arguments["num_classes"])
    if not count:
        return None
    return HeadSpec(
        name=f"{repository.name}#head",
        summary=f"the classifier of {repository.repo_id}, {count} classes",
        takes=("map", "sequence", "vector"),
        task="*-classification",
        build=partial(_build_head, config),
        backbone=repository.name,
        weights=repository.weights(WEIGHTS, partial(_read_head, config)),
        labels=partial(_labels, config),
    )


@hookimpl
def pocketzoo_loaders() -> list[LoaderSpec]:
    return [
        LoaderSpec(
            name="timm",
            summary="every image model of timm, by its config.json",
            refuses=refuses,
            wants=wants,
            backbone=backbone,
            head=head_of,
        )
    ]


def _input(config: Mapping[str, Any]) -> InputSpec:
    """How images are read: as timm's own transform for evaluation does.

    Raises:
        UnsupportedModelError: a setting is not followed here; it is named.
    """
    said = image_settings(config)
    channels, height, width = said["input_size"]
    squash, scale = said["crop_mode"] == "squash", [math.floor(side / said["crop_pct"]) for side in (height, width)]
    return InputSpec(
        shape=("batch", channels, height, width),
        mean=tuple(map(float, said["mean"])),
        std=tuple(map(float, said["std"])),
        resize=min(height, width) if squash else min(scale),
        interpolation=said["interpolation"],
        stretch=squash,
        stretched=() if not squash or scale == [height, width] else (scale[0], scale[1]),
        longer="floor",
        center="even",
    )


def _build(config: Mapping[str, Any]) -> nn.Module:
    from pocketzoo.plugins.timm_modules import backbone_of

    return backbone_of(config)


def _build_head(config: Mapping[str, Any], features: FeatureSpec, outputs: int) -> nn.Module:
    from pocketzoo.plugins import timm_modules

    return timm_modules.head_of(config)


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    from pocketzoo.plugins.timm_modules import labels

    return labels_of(config) or labels(config)


def _read(config: Mapping[str, Any], path: Path) -> Mapping[str, Tensor]:
    from pocketzoo.plugins.timm_modules import read_backbone

    return read_backbone(config, path)


def _read_head(config: Mapping[str, Any], path: Path) -> Mapping[str, Tensor]:
    from pocketzoo.plugins.timm_modules import read_head

    return read_head(config, path)
