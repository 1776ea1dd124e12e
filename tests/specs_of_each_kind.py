"""Of each kind a spec that has as little as can be declared, and a registry with a plugin that declares some."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import pocketzoo
from pocketzoo.compress.configs import PruneConfig
from pocketzoo.zoo.catalog.backend import BackendSpec
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.processor import ProcessorSpec
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.task import DecoderSpec, TaskSpec

BUILT_IN = Registry(create_manager(points=[]))


def made_up(kind: str, ships: str) -> Any:
    """A spec that ships, under another name."""
    return replace(BUILT_IN.get(kind, ships), name="acme-thing")


SPECS: dict[str, Any] = {
    "backbone": made_up("backbone", "tinynet"),
    "head": made_up("head", "linear"),
    "task": TaskSpec(name="acme-thing", summary="-", open=lambda: None, decoder="acme-thing"),  # type: ignore
    "decoder": DecoderSpec(name="acme-thing", summary="-", tasks=("acme-thing",), open=lambda c: None),  # type: ignore
    "processor": ProcessorSpec(
        name="acme-thing", summary="-", modality="sound", reads="sounds", config=PruneConfig, open=lambda c, f: None
    ),  # type: ignore
    "compressor": made_up("compressor", "prune"),
    "exporter": made_up("exporter", "onnx"),
    "target": made_up("target", "cpu"),
    "backend": BackendSpec(name="acme-thing", summary="-", open=lambda: None, package="acme", module="acme"),  # type: ignore
    "dataset": made_up("dataset", "digits"),
    "loader": made_up("loader", "timm"),
}


def declaring(kind: str, *specs: object) -> Registry:
    """The built-in plugins, and one called "acme" that declares these specs as of a kind."""
    plugin = ModuleType("acme")
    setattr(plugin, f"pocketzoo_{kind}s", pocketzoo.hookimpl(lambda: specs))
    return Registry(create_manager(points=[], extra=[plugin]))


def reason(registry: Registry) -> str:
    """Why the plugin "acme" is not in use, or not all of it."""
    (text,) = [p.reason for p in registry.plugins() if p.name == "acme"]
    return text
