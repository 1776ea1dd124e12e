"""Engines and other forms that are built to be measured: of the float graph, and of the graph for their target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pocketzoo.core.errors import UnknownNameError
from pocketzoo.core.files import sha256
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.deploy.export import export_request, graph_for
from pocketzoo.deploy.export_forms import files_of
from pocketzoo.measure.measure_graphs import Candidate, candidate
from pocketzoo.zoo.backends.built_files import built_files
from pocketzoo.zoo.backends.open_backend import build, find_runtime
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.catalog.engine_options import EngineOptions
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.data.processors.open_processor import processor_of
from pocketzoo.zoo.models.resolver import Resolver


def engine_candidates(
    bundles: Sequence[Bundle],
    runtime: str,
    largest: int,
    folder: Path,
    *,
    registry: Registry | Resolver | None = None,
    progress: Progress = SILENT,
) -> list[Candidate]:
    """Everything that a runtime's back end builds once, into ``folder``, for batches of 1 to ``largest``.

    Engines may come from the store. What a bundle has in other precisions than its graphs, and that is loaded here, is
    measured as it is.

    Raises:
        UnknownNameError: the runtime names no target to build for.
        ExportError: the back end refuses a graph, or this machine cannot build for it.
    """
    resolver = Resolver.of(registry)
    way = find_runtime(runtime, resolver.registry)
    if not (name := way.runtime.target or way.backend.target):
        raise UnknownNameError(f"the runtime {runtime!r} names no target to build for", "its plugin has to: target=")
    target: TargetSpec = resolver.registry.get("target", name)
    engines: dict[str, Candidate] = {}
    for bundle in bundles:
        manifest = bundle.manifest
        axes = {
            name for t in processor_of(bundle, resolver.registry).inputs for i, name in t.free.items() if i == t.batch
        }
        usual = dict.fromkeys(sorted(axes), (1, min(8, largest), largest))
        options = export_request(bundle, EngineOptions(usual=usual), resolver.registry).options
        graphs = {entry.precision: entry for name, entry in manifest.files.items() if name.endswith(".onnx")}
        for graph in (bundle.graph(""), graph_for(bundle, target, resolver, folder)):
            if (digest := sha256(graph)) in engines:  # no step of the compression changed it
                continue
            engine = folder / f"{digest}{way.backend.suffix}"
            build(way.backend, graph, engine, target, options=options, progress=progress)
            encoded = graph != bundle.graph("")
            entry = next(e for e in graphs.values() if bool(e.target) == encoded)
            row = candidate(manifest, engine, replace(entry, target=target.name if encoded else ""))
            others = tuple(files_of(engine)[1:])
            engines[digest] = replace(row, runtime=runtime, source=bundle.path, others=others, digest=digest)
        for built in built_files(bundle, resolver.registry):
            other = built.backend.name == way.backend.name and built.entry.target == target.name
            if other and built.entry.precision not in graphs:
                row = candidate(manifest, built.path, built.entry)
                row = replace(row, runtime=runtime, source=bundle.path, others=built.others)
                engines.setdefault(built.entry.sha256, row)
    return list(engines.values())
