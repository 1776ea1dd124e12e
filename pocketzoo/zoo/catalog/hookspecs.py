"""The hooks that plugins implement. A plugin is a module named by an entry point in the group "pocketzoo".

Hooks take no arguments and return frozen specs. None is called before its kind is first looked up, and none may import
a heavy package: builders and loaders do that in their own bodies.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from pocketzoo.zoo.catalog.backend import BackendSpec
    from pocketzoo.zoo.catalog.compressor import Compressor
    from pocketzoo.zoo.catalog.processor import ProcessorSpec
    from pocketzoo.zoo.catalog.specs import BackboneSpec, DatasetSpec, ExporterSpec, HeadSpec, LoaderSpec, TargetSpec
    from pocketzoo.zoo.catalog.task import DecoderSpec, TaskSpec

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


@hookspec
def pocketzoo_tasks() -> Iterable[TaskSpec]:  # type: ignore[empty-body]
    """Declare what models are for: how answers are scored, compared and drawn."""


@hookspec
def pocketzoo_decoders() -> Iterable[DecoderSpec]:  # type: ignore[empty-body]
    """Declare how outputs of models become answers to a task."""


@hookspec
def pocketzoo_processors() -> Iterable[ProcessorSpec]:  # type: ignore[empty-body]
    """Declare how what a person has becomes the inputs of a model."""


@hookspec
def pocketzoo_backends() -> Iterable[BackendSpec]:  # type: ignore[empty-body]
    """Declare runtimes that build, check, load and run models."""
