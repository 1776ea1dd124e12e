"""Every graph of a bundle for a target, and the files that are exported of them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pocketzoo.core.errors import ExportError
from pocketzoo.core.files import replacing_folder, scratch_folder
from pocketzoo.core.progress import Progress
from pocketzoo.zoo.artifacts.drivers import artifact_of, ends
from pocketzoo.zoo.bundles.bundle import Bundle, graph_name
from pocketzoo.zoo.bundles.manifest import MODEL
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
    bundle: Bundle,
    exporter: ExporterSpec,
    folder: Path,
    resolver: Resolver,
    progress: Progress,
    *,
    into_bundle: bool,
    force: bool,
) -> Bundle:
    """The bundle with all graphs that its model can have: made first, ``into_bundle`` itself or in a copy.

    An exporter that writes a folder is given the graphs that the model answers by alone, and needs no others.
    """
    if not bundle.graphs(""):  # packed for one target
        return bundle
    if exporter.folder or not resolver.lacks_graphs(bundle):
        return bundle
    from pocketzoo.zoo.models.generation_graphs import with_generation_graphs  # it needs torch

    place = None if into_bundle else folder / "with-all-graphs"
    return with_generation_graphs(bundle, resolver, progress, place, force=force)


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
    graphs: Mapping[str, Path],
    exporter: ExporterSpec,
    target: TargetSpec,
    requests: Mapping[str, ExportRequest],
    folder: Path,
    progress: Progress,
) -> list[ExportedGraph]:
    """Write a file for each graph but ``MODEL`` into ``folder``; none where the exporter writes a folder.

    Raises:
        MissingDependencyError: the target's package is not installed.
        ExportError: the target refuses a graph.
    """
    plain, files = bundle.graphs(""), bundle.manifest.files.items()
    encoded = next((e.precision for name, e in files if e.target and name.endswith(".onnx")), bundle.float_precision)
    every = ends(replace(artifact_of(bundle), graphs=graphs))
    exported = []
    for name, graph in graphs.items():
        if name == MODEL or exporter.folder:
            continue
        end = next(each for each in every if name in each.graphs)
        file = folder / f"{name}-made{exporter.suffix}"
        exporter.export(graph, file, target, progress, *[requests[name]] * exporter.asks)
        why = f", for {end.name}" if end.name else ""
        is_float = graph == plain.get(name)
        exported.append(ExportedGraph(name, file, bundle.float_precision if is_float else encoded, why))
    return exported


def export_folders(
    graphs: Mapping[str, Path],
    place: Path,
    exporter: ExporterSpec,
    target: TargetSpec,
    requests: Mapping[str, ExportRequest],
    progress: Progress,
) -> None:
    """Write one folder of several graphs: a sub-folder for each, or what the exporter wrote of all, put together.

    Raises:
        MissingDependencyError: the target's package is not installed.
        ExportError: the target refuses a graph, or two would be called the same. Nothing is left.
    """
    with scratch_folder() as temporary, replacing_folder(place) as whole:
        for name, graph in graphs.items():
            own = temporary / name
            exporter.export(graph, own, target, progress, *[requests[name]] * exporter.asks)
            for each in [*own.iterdir()] if exporter.merges else [own]:
                if (whole / each.name).exists():
                    raise ExportError(f"two models of {place} would be called {each.name}", "rename a graph")
                shutil.move(each, whole / each.name)
