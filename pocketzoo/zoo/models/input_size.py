"""Backbones at another image size: feature shapes found by running them once."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from pocketzoo.core.errors import UnsupportedModelError, message_of
from pocketzoo.zoo.catalog.processor import Processor
from pocketzoo.zoo.catalog.registry import Registry, default_registry
from pocketzoo.zoo.catalog.specs import BackboneSpec, Cut, FeatureSpec
from pocketzoo.zoo.data.processors.open_processor import open_config, resized_config
from pocketzoo.zoo.models.layer_hooks import after


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
    except Exception as error:  # the model's own code says so in any type
        reason = next(iter(message_of(error).splitlines()), type(error).__name__)
        raise UnsupportedModelError(
            f"{spec.name} cannot read images of {size[0]} x {size[1]}: {reason}",
            f"its default size is {' x '.join(map(str, before.image.size[1:]))}" if before.image else "leave it out",
        ) from error
    features = FeatureSpec(spec.features.kind, ("batch", *whole))
    cuts = tuple(
        Cut(cut.layer, FeatureSpec(cut.features.kind, ("batch", *inside[cut.layer])))
        for cut in spec.cuts
        if cut.layer in inside
    )
    return replace(spec, input=config, features=features, cuts=cuts)


def _run(spec: BackboneSpec, processor: Processor) -> tuple[tuple[int, ...], dict[str, tuple[int, ...]]]:
    """Shapes without the batch: of the features, and after each layer that is a cut. Takes no memory for weights."""
    inside: dict[str, tuple[int, ...]] = {}

    def note(name: str, layer: nn.Module, inputs: object, out: object) -> None:
        if isinstance(out, Tensor):
            inside[name] = tuple(out.shape[1:])

    with torch.device("meta"), torch.no_grad():
        module = spec.build().eval()
        known = dict(module.named_modules())
        with after(module, [cut.layer for cut in spec.cuts if cut.layer in known], note):
            out: Tensor = module(*(torch.from_numpy(x).to("meta") for x in processor.random(2).values()))
    if out.ndim != len(spec.features.shape) or min(out.shape) < 1:
        raise ValueError(f"it outputs {' x '.join(map(str, out.shape[1:]))}")
    return tuple(out.shape[1:]), inside
