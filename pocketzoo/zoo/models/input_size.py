"""Backbones at another image size: feature shapes found by running them once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pocketzoo.core.errors import UnsupportedModelError, message_of
from pocketzoo.zoo.catalog.processor import Processor
from pocketzoo.zoo.catalog.registry import Registry, default_registry
from pocketzoo.zoo.catalog.specs import FEATURES, BackboneSpec, Cut, FeatureSpec, FeatureSpecs
from pocketzoo.zoo.data.processors.open_processor import open_config, resized_config
from pocketzoo.zoo.models.layer_hooks import after
from pocketzoo.zoo.modules.features import FeatureChoice


def resized(spec: BackboneSpec, size: tuple[int, ...], registry: Registry | None = None) -> BackboneSpec:
    """The spec of a backbone that reads images of ``size`` (height, width) in pixels, features and cuts included.

    The weights stay as they are, so it must be able to read any size: convolutions can, and position embeddings only
    where the library itself interpolates them. Images are resized before they are cut out in the same proportion.

    Raises:
        UnsupportedModelError: it reads no images, or none of this size.
    """
    registry = registry or default_registry()
    config = resized_config(spec.input, size, registry)
    before, other = (open_config(each, spec.files, registry) for each in (spec.input, config))
    if before.inputs == other.inputs:
        return spec
    try:
        whole, inside = _run(spec, other)
    except (Exception, SystemExit) as error:  # the model's own code says so in any type
        reason = next(iter(message_of(error).splitlines()), type(error).__name__)
        raise UnsupportedModelError(
            f"{spec.name} cannot read images of {size[0]} x {size[1]}: {reason}",
            f"its default size is {' x '.join(map(str, before.image.size[1:]))}" if before.image else "leave it out",
        ) from error
    features: FeatureSpecs
    if isinstance(spec.features, Mapping):
        features = {name: _now(each, whole[name]) for name, each in spec.features.items()}
    else:
        features = _now(spec.features, whole[FEATURES])
    cuts = tuple(Cut(cut.layer, _now(cut.features, inside[cut.layer])) for cut in spec.cuts if cut.layer in inside)
    return replace(spec, input=config, features=features, cuts=cuts)


def _now(features: FeatureSpec, shape: tuple[int, ...]) -> FeatureSpec:
    """The features at the shape that they have now; an axis of free length stays one."""
    stated = features.shape[1:]
    if len(stated) != len(shape):  # of a cut, which is checked where it is used
        return FeatureSpec(features.kind, ("batch", *shape))
    sizes = tuple(axis if isinstance(axis, str) else size for axis, size in zip(stated, shape, strict=True))
    return FeatureSpec(features.kind, ("batch", *sizes))


def _run(spec: BackboneSpec, processor: Processor) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Shapes without the batch: of the features by name, and after each cut's layer. Takes no memory for weights."""
    inside: dict[str, tuple[int, ...]] = {}

    def note(name: str, layer: nn.Module, inputs: object, out: object) -> None:
        if isinstance(out, Tensor):
            inside[name] = tuple(out.shape[1:])

    with torch.device("meta"), torch.no_grad():
        module = spec.build().eval()
        known = dict(module.named_modules())
        with after(module, [cut.layer for cut in spec.cuts if cut.layer in known], note):
            out: Any = module(*(torch.from_numpy(x).to("meta") for x in processor.random(2).values()))
    several = isinstance(spec.features, Mapping)
    stated = spec.features if isinstance(spec.features, Mapping) else {FEATURES: spec.features}
    features: Mapping[str, Tensor] = FeatureChoice(stated, several).by_name(out)
    for name, each in features.items():
        if each.ndim != len(stated[name].shape) or min(each.shape) < 1:
            raise ValueError(f"it outputs {' x '.join(map(str, each.shape[1:]))}")
    return {name: tuple(each.shape[1:]) for name, each in features.items()}, inside
