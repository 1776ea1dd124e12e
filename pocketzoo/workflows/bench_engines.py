"""Engines built to be measured: of the float graph, and of the graph for the engine's target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pocketzoo.core.files import sha256
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.deploy.export import export_request, graph_for
from pocketzoo.measure.measure_graphs import Candidate, candidate
from pocketzoo.zoo.backends.tensorrt.build_engine import save_engine
from pocketzoo.zoo.backends.tensorrt.engine_cache import EngineCache
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
    """Every engine once, built into ``folder`` for batches of 1 to ``largest``, or taken from the store.

    ``runtime`` is one of ``runtimes.ENGINES``, and the target of the same name. Engines that a bundle has in other
    precisions than its graphs, and that were built here, are measured as they are.

    Raises:
        ExportError: the target refuses a graph, or this machine cannot build for it.
    """
    resolver = Resolver.of(registry)
    target: TargetSpec = resolver.registry.get("target", runtime)
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
            engine = folder / f"{digest}.engine"
            save_engine(graph, engine, target, options=options, progress=progress)
            encoded = graph != bundle.graph("")
            entry = next(e for e in graphs.values() if bool(e.target) == encoded)
            row = candidate(manifest, engine, replace(entry, target=runtime if encoded else ""))
            engines[digest] = replace(row, runtime=runtime, source=bundle.path)
        for name, entry in manifest.files.items():
            other = name.endswith(".engine") and entry.target == runtime and entry.precision not in graphs
            if other and not entry.graph and EngineCache().built(entry.sha256):
                row = candidate(manifest, bundle.path / name, entry)
                engines.setdefault(entry.sha256, replace(row, runtime=runtime, source=bundle.path))
    return list(engines.values())
