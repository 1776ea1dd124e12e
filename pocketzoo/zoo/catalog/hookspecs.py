"""The hooks that plugins implement. A plugin is a module named by an entry point in the group "pocketzoo".

Hooks take no arguments and return frozen specs. None is called before its kind is first looked up, and none may import
a heavy package: builders and loaders do that in their own bodies.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from pocketzoo.zoo.catalog.compressor import Compressor
    from pocketzoo.zoo.catalog.specs import BackboneSpec, DatasetSpec, ExporterSpec, HeadSpec, LoaderSpec, TargetSpec

PROJECT = "pocketzoo"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def pocketzoo_backbones() -> Iterable[BackboneSpec]:  # type: ignore[empty-body]
    """Declare feature extractors."""


@hookspec
def pocketzoo_heads() -> Iterable[HeadSpec]:  # type: ignore[empty-body]
    """Declare task layers, pretrained classifiers among them."""


@hookspec
def pocketzoo_compressors() -> Iterable[Compressor]:  # type: ignore[empty-body]
    """Declare ways to make a model smaller."""


@hookspec
def pocketzoo_exporters() -> Iterable[ExporterSpec]:  # type: ignore[empty-body]
    """Declare file formats a graph can be turned into."""


@hookspec
def pocketzoo_targets() -> Iterable[TargetSpec]:  # type: ignore[empty-body]
    """Declare runtimes and devices."""


@hookspec
def pocketzoo_datasets() -> Iterable[DatasetSpec]:  # type: ignore[empty-body]
    """Declare data sets that have a name."""


@hookspec
def pocketzoo_loaders() -> Iterable[LoaderSpec]:  # type: ignore[empty-body]
    """Declare libraries whose repositories on the Hub can be loaded."""
