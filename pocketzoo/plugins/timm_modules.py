"""timm models split into a backbone that outputs features and their classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from pocketzoo.core.errors import UnsupportedModelError
from pocketzoo.plugins.timm_settings import image_settings, structure_of
from pocketzoo.zoo.catalog.specs import FeatureSpec
from pocketzoo.zoo.hub.weights import read_safetensors

KINDS: dict[int, Any] = {4: "map", 3: "sequence", 2: "vector"}


def backbone_of(config: Mapping[str, Any]) -> nn.Module:
    """The part of a timm model that finds features: (B, C, H, W) to a map or a sequence; not trained."""
    return _keep(_whole(config), "forward_features", _used(config)[0])


def head_of(config: Mapping[str, Any]) -> nn.Module:
    """The part that reads them, pooling and norms included: features to (B, classes); not trained."""
    model = _keep(_whole(config), "forward_head", _used(config)[1])
    model._parameters.clear()  # class tokens and positions are the backbone's
    return model


def trace(config: Mapping[str, Any], size: tuple[int, ...]) -> tuple[FeatureSpec, dict[str, FeatureSpec]]:
    """The features of a model on inputs of ``size`` (C, H, W), and those of every layer that gives a map."""
    maps: dict[str, FeatureSpec] = {}

    def note(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            maps[name] = FeatureSpec("map", ("batch", *output.shape[1:]))

    with torch.device("meta"):
        model = _whole(config)
        _watch(model, note)
        out = _run(model.forward_features, torch.empty(2, *size))
    if out.ndim == 4 and out.shape[1] != model.num_features:
        raise UnsupportedModelError("its features come with channels last", "choose a model with features (B, C, H, W)")
    return FeatureSpec(KINDS[out.ndim], ("batch", *out.shape[1:])), maps


def read_backbone(config: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The backbone's part of verified safetensors."""
    return _own(backbone_of, config, path)


def read_head(config: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The classifier's part of verified safetensors."""
    return _own(head_of, config, path)


def labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes of a repository without names of its own: ImageNet's, or numbers."""
    count = int(structure_of(config)[1]["num_classes"])
    if count == 1000:
        info = timm.data.ImageNetInfo("imagenet-1k")
        return tuple(info.index_to_description(i) for i in range(count))
    return tuple(map(str, range(count)))


def _whole(config: Mapping[str, Any]) -> Any:
    """timm's own model for a config, not trained: the one place where timm is given any of it.

    Raises:
        UnsupportedModelError: a setting must not be passed on.
        ValueError: timm knows no such architecture.
    """
    architecture, arguments = structure_of(config)
    if not timm.is_model(architecture):
        raise ValueError(f"it knows no {architecture}")
    return timm.create_model(architecture, pretrained=False, **arguments).eval()


def _used(config: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """The children that run when features are found, and those that run when they are read."""
    used: tuple[set[str], set[str]] = (set(), set())
    with torch.device("meta"):
        model = _whole(config)
        x = torch.empty(2, *image_settings(config)["input_size"])
        for names, method in zip(used, (model.forward_features, model.forward_head), strict=True):
            hooks = _watch(model, _collect(names))
            x = _run(method, x)
            for hook in hooks:
                hook.remove()
    return used


def _collect(names: set[str]) -> Callable[[str, Any], None]:
    return lambda name, output: names.add(name.split(".")[0])


def _keep(model: Any, method: str, children: set[str]) -> nn.Module:
    # A subclass, no wrapper: its layers keep the names that timm's users know, for cuts and recipes.
    model.__class__ = type(type(model).__name__, (type(model),), {"forward": getattr(type(model), method)})
    for name, _ in list(model.named_children()):
        if name not in children:
            delattr(model, name)
    module: nn.Module = model
    return module


def _watch(model: nn.Module, note: Callable[[str, Any], None]) -> list[Any]:
    def hook_for(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda layer, inputs, output: note(name, output)

    return [layer.register_forward_hook(hook_for(name)) for name, layer in model.named_modules() if name]


@torch.no_grad()
def _run(method: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return method(x)


def _own(part: Callable[[Mapping[str, Any]], nn.Module], config: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    with torch.device("meta"):
        keys = part(config).state_dict().keys()
    return {key: value for key, value in read_safetensors(path, path.name).items() if key in keys}
