"""Every graph of a bundle for a target, and the files that are exported of them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pocketzoo.core.errors import ExportError, nearest
from pocketzoo.core.files import replacing_folder
from pocketzoo.core.names import as_file_name
from pocketzoo.core.progress import Progress
from pocketzoo.zoo.artifacts.drivers import artifact_of, ends
from pocketzoo.zoo.bundles.bundle import Bundle, graph_name
from pocketzoo.zoo.bundles.manifest import MODEL
from pocketzoo.zoo.catalog.backend import BackendSpec
from pocketzoo.zoo.catalog.described import spec_of
from pocketzoo.zoo.catalog.engine_options import EngineOptions, Sizes
from pocketzoo.zoo.catalog.export_request import ExportRequest
from pocketzoo.zoo.catalog.registry import Registry, default_registry
from pocketzoo.zoo.catalog.specs import ExporterSpec, TargetSpec
from pocketzoo.zoo.data.processors.open_processor import processor_of, spec_and_config
from pocketzoo.zoo.graphs.signature import signature_of
from pocketzoo.zoo.models.resolver import Resolver

USUAL = 128  # of a free axis such as tokens: what an engine is tuned for
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

    An exporter that writes a folder is given the graphs that the model answers by alone, and needs no others.
    """
    if not bundle.graphs(""):  # packed for one target
        return bundle
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


def graph_requests(
    bundle: Bundle,
    graphs: Mapping[str, Path],
    options: EngineOptions,
    registry: Registry,
    backend: BackendSpec | None = None,
) -> dict[str, ExportRequest]:
    """What an exporter is told of each graph. Lengths of axes are given to the graphs that have such axes.

    Raises:
        ExportError: lengths were given for an axis that none of several graphs has.
    """
    if list(graphs) == [MODEL]:
        return {MODEL: replace(export_request(bundle, options, registry), backend=backend)}
    every = ends(replace(artifact_of(bundle), graphs=graphs))
    lengths = {name: next(end for end in every if name in end.graphs).lengths(name, LONGEST) for name in graphs}
    axes = {
        name: set() if lengths[name] else {axis for t in signature_of(path).inputs for axis in t.free.values()}
        for name, path in graphs.items()
    }
    known = sorted(set().union(*axes.values()))
    if unknown := [axis for axis in options.shapes if axis not in known]:
        raise ExportError(f"no graph has a dynamic axis {unknown[0]!r} to give lengths for", nearest(unknown[0], known))
    requests = {}
    for name in graphs:
        shapes = {axis: sizes for axis, sizes in options.shapes.items() if axis in axes[name]}
        own = replace(options, shapes=shapes, usual=dict(lengths[name]) or options.usual)
        requests[name] = replace(export_request(bundle, own, registry, name), backend=backend)
    return requests


def export_request(
    bundle: Bundle, options: EngineOptions, registry: Registry | None = None, graph: str = MODEL
) -> ExportRequest:
    """The processor and states of one graph of a model, the default batch sizes and lengths of its engine."""
    manifest, registry = bundle.manifest, registry or default_registry()
    spec, config = spec_of(manifest.processor, "processor", registry)
    processor, usual = processor_of(bundle, registry), dict[str, Sizes]()
    if processor.lengths is not None:
        least, most = processor.lengths
        free = {name for t in processor.inputs for axis, name in t.free.items() if axis != t.batch}
        usual = dict.fromkeys(sorted(free), (least, max(least, min(USUAL, most)), most))
    if graph != MODEL and spec.parts and graph in (parts := getattr(config, spec.parts)):
        spec, config = spec_and_config(parts[graph], registry)
    return ExportRequest(
        name=as_file_name(manifest.name if graph == MODEL else f"{manifest.name}-{graph}"),
        input=config,
        processor=spec.name,
        modality=spec.modality,
        graph=None if spec.graph is None else partial(spec.graph, config),
        labels=manifest.labels if graph == MODEL else (),
        returns=manifest.returns,
        states=artifact_of(bundle).states,
        options=replace(options, usual={**usual, **options.usual}),
    )


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
    encoded = next((e.precision for name, e in files if e.target and name.endswith(".onnx")), "float32")
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
        exported.append(ExportedGraph(name, file, "float32" if is_float else encoded, why))
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
    with tempfile.TemporaryDirectory() as temporary, replacing_folder(place) as whole:
        for name, graph in graphs.items():
            own = Path(temporary) / name
            exporter.export(graph, own, target, progress, *[requests[name]] * exporter.asks)
            for each in [*own.iterdir()] if exporter.merges else [own]:
                if (whole / each.name).exists():
                    raise ExportError(f"two models of {place} would be called {each.name}", "rename a graph")
                shutil.move(each, whole / each.name)
