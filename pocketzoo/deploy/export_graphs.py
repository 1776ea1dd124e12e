"""Every graph of a bundle for a target, and the files that are exported of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pocketzoo.core.errors import ExportError
from pocketzoo.core.names import as_file_name
from pocketzoo.core.progress import Progress
from pocketzoo.zoo.artifacts.drivers import artifact_of, ends
from pocketzoo.zoo.bundles.bundle import Bundle, graph_name
from pocketzoo.zoo.bundles.manifest import MODEL
from pocketzoo.zoo.catalog.engine_options import EngineOptions, Sizes
from pocketzoo.zoo.catalog.export_request import ExportRequest
from pocketzoo.zoo.catalog.specs import ExporterSpec, TargetSpec
from pocketzoo.zoo.models.resolver import Resolver

LONGEST = 512  # tokens that an engine takes, where the model's positions do not end sooner


@dataclass(frozen=True, slots=True)
class ExportedGraph:
    """What was exported of one graph of a model."""

    graph: str
    file: Path
    precision: str
    why: str  # what it is for, to end a sentence with: ", for generation"; "" for what the model answers by


def with_all_graphs(
    bundle: Bundle, exporter: ExporterSpec, folder: Path, resolver: Resolver, progress: Progress, *, into_bundle: bool
) -> Bundle:
    """The bundle with all graphs that its model can have: made first, ``into_bundle`` itself or in a copy.

    An exporter that writes a folder is given the whole model alone, and needs no others.

    Raises:
        ExportError: it writes a folder, and the model answers by several graphs.
    """
    if not bundle.graphs(""):  # packed for one target
        return bundle
    first = ends(artifact_of(bundle))[0].graphs
    if exporter.folder and first != (MODEL,):
        raise ExportError(
            f"--to {exporter.name} exports one graph, and {bundle.manifest.name} answers by {', '.join(first)}",
            "--to onnx writes each",
        )
    if exporter.folder or not resolver.lacks_graphs(bundle):
        return bundle
    from pocketzoo.zoo.models.generation_graphs import with_generation_graphs  # it needs torch

    return with_generation_graphs(bundle, resolver, progress, None if into_bundle else folder / "with-all-graphs")


def graphs_for(bundle: Bundle, target: TargetSpec, resolver: Resolver, folder: Path) -> dict[str, Path]:
    """Every graph of a bundle for a target: stored, or else encoded from its plans into ``folder``, or float."""
    if bundle.targets() == ("",):  # no step made it target-specific
        return bundle.graphs("")
    if all(target.name in bundle.encodings(name) for name in bundle.graphs("")):
        return bundle.graphs(target.name) or {MODEL: bundle.file(graph_name())}  # of a packed one: there is none
    from pocketzoo.compress.pipeline.compress_model import encode_graphs  # it needs onnx

    return encode_graphs(bundle, target, lambda: resolver.compressors(bundle), folder)


def export_others(
    bundle: Bundle,
    graphs: dict[str, Path],
    exporter: ExporterSpec,
    target: TargetSpec,
    options: EngineOptions,
    folder: Path,
    progress: Progress,
) -> list[ExportedGraph]:
    """Write a file for each graph but ``MODEL`` into ``folder``; none where the exporter writes a folder.

    Engines are built with ``options``, but for the lengths of axes that their driver knows.

    Raises:
        MissingDependencyError: the target's package is not installed.
        ExportError: the target refuses a graph.
    """
    plain, files = bundle.graphs(""), bundle.manifest.files.items()
    encoded = next((e.precision for name, e in files if e.target and name.endswith(".onnx")), "float32")
    first, *further = ends(artifact_of(bundle))
    exported = []
    for name, graph in graphs.items():
        if name == MODEL or exporter.folder:
            continue
        end = next(each for each in (first, *further) if name in each.graphs)
        lengths: dict[str, Sizes] = dict(end.lengths(name, LONGEST))
        own = replace(options, shapes={} if lengths else options.shapes, usual=lengths or options.usual)
        file = folder / f"{name}-made{exporter.suffix}"
        request = ExportRequest(name=as_file_name(bundle.manifest.name), input=bundle.manifest.input, options=own)
        exporter.export(graph, file, target, progress, *[request] * exporter.asks)
        why = f", for {end.name}" if end.name else ""
        exported.append(ExportedGraph(name, file, "float32" if graph == plain.get(name) else encoded, why))
    return exported
