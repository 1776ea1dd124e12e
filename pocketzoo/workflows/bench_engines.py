"""Engines and other forms that are built to be measured: of the float graph, and of the graph for their target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pocketzoo.core.errors import UnknownNameError
from pocketzoo.core.files import sha256
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.deploy.export import export_request
from pocketzoo.deploy.export_forms import files_of
from pocketzoo.deploy.export_graphs import graphs_for
from pocketzoo.measure.measure_graphs import Candidate, candidate
from pocketzoo.zoo.artifacts.drivers import artifact_of, ends
from pocketzoo.zoo.backends.built_files import built_files
from pocketzoo.zoo.backends.open_backend import build, find_runtime
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.bundles.measurement import digest_of
from pocketzoo.zoo.catalog.engine_options import EngineOptions
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.data.processors.open_processor import processor_of
from pocketzoo.zoo.models.model_costs import macs_of
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
        entries = {entry.precision: entry for name, entry in manifest.files.items() if name.endswith(".onnx")}
        for graphs in (bundle.graphs(""), graphs_for(bundle, target, resolver, folder)):
            artifact = replace(artifact_of(bundle), graphs=graphs)
            paths = {name: artifact.graph(name) for name in ends(artifact)[0].graphs}
            if (digest := digest_of(map(sha256, paths.values()))) in engines:  # no step of the compression changed it
                continue
            written = {name: folder / f"{sha256(path)}{way.backend.suffix}" for name, path in paths.items()}
            for name, engine in written.items():
                if not engine.exists():  # one of the graphs may be that of another row
                    build(way.backend, paths[name], engine, target, options=options, progress=progress)
            encoded = any(path != bundle.graph("", name) for name, path in paths.items())
            entry = next(e for e in entries.values() if bool(e.target) == encoded)
            first, *_ = written.values()
            row = candidate(manifest, first, replace(entry, target=target.name if encoded else ""))
            engines[digest] = replace(
                row,
                macs=macs_of(bundle, resolver.registry),
                artifact=replace(artifact, graphs=written) if len(written) > 1 or artifact.states else None,
                runtime=runtime,
                source=bundle.path,
                others=tuple(other for engine in written.values() for other in files_of(engine)[1:]),
                digest=digest,
            )
        for built in built_files(bundle, resolver.registry):
            other = built.backend.name == way.backend.name and built.entry.target == target.name
            if other and built.entry.precision not in entries:
                row = candidate(manifest, built.path, built.entry)
                row = replace(row, macs=macs_of(bundle), runtime=runtime, source=bundle.path, others=built.others)
                engines.setdefault(built.entry.sha256, row)
    return list(engines.values())
