"""Export generation graphs (prefill, decode): one file each, next to the graph of the whole model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pocketzoo.core.names import as_file_name
from pocketzoo.core.progress import Progress
from pocketzoo.core.renamed import keywords_renamed
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.catalog.engine_options import EngineOptions, Sizes
from pocketzoo.zoo.catalog.export_request import ExportRequest
from pocketzoo.zoo.catalog.specs import ExporterSpec, TargetSpec
from pocketzoo.zoo.models.resolver import Resolver

LONGEST = 512  # tokens that an engine takes, where the model's positions do not end sooner


@dataclass(frozen=True, slots=True)
class ExportedPart:
    """A file for one part of a model."""

    part: str
    file: Path
    precision: str


@keywords_renamed(registry="resolver")
def export_parts(
    bundle: Bundle,
    exporter: ExporterSpec,
    target: TargetSpec,
    options: EngineOptions,
    folder: Path,
    resolver: Resolver,
    progress: Progress,
    *,
    into_bundle: bool,
) -> list[ExportedPart]:
    """Write a file for each part of a model that writes text into ``folder``; none of any other model.

    An exporter that writes a folder is given the whole model alone. Engines are built with ``options``, but for the
    lengths of their axes: those are the parts' own. The float graphs are made first where it has none yet, with
    ``into_bundle`` into the bundle itself.

    Raises:
        MissingDependencyError: the target's package is not installed.
        ExportError: the target refuses a graph.
    """
    if exporter.folder or not (bundle.parts() or resolver.lacks_graphs(bundle)):
        return []
    from pocketzoo.compress.pipeline.generation_graphs import encode_parts  # it needs onnx, and no other model does

    if not bundle.parts():
        from pocketzoo.zoo.models.generation_graphs import (
            with_generation_graphs,  # a bundle that has them needs no torch
        )

        bundle = with_generation_graphs(bundle, resolver, progress, None if into_bundle else folder / "with-parts")
    plain, settings = bundle.parts(), bundle.manifest.generation
    assert settings is not None
    longest = min(settings.positions or LONGEST, LONGEST)
    files = bundle.manifest.files.items()
    encoded = next((e.precision for name, e in files if e.target and name.endswith(".onnx")), "float32")
    exported = []
    for part, graph in encode_parts(bundle, target, resolver.compressors(bundle), folder).items():
        file = folder / f"{part}-made{exporter.suffix}"
        lengths = _lengths(part, longest, answers="encoder" in plain)
        own = replace(options, shapes={}, usual=lengths)
        request = ExportRequest(name=as_file_name(bundle.manifest.name), input=bundle.manifest.input, options=own)
        exporter.export(graph, file, target, progress, *[request] * exporter.asks)
        exported.append(ExportedPart(part, file, "float32" if graph == plain[part] else encoded))
    return exported


def _lengths(part: str, longest: int, *, answers: bool) -> dict[str, Sizes]:
    """What an engine of a part is built for: a text as a whole, whose past is empty, and each token after it."""
    text = (1, max(longest // 8, 1), longest)
    shapes: dict[str, Sizes] = {"batch": (1, 1, 8)}
    if part == "decoder":
        shapes |= {"sequence": (1, 1, longest), "past": (0, longest // 4, longest)}
    if answers:
        shapes["tokens"] = text
    return shapes
