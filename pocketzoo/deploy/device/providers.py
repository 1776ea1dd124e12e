"""The ways to run a bundle that a provider's name stands for: runtimes of back ends, and what they built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pocketzoo.core.errors import BundleError, DataError, nearest
from pocketzoo.zoo.artifacts.drivers import artifact_of, main_files, open_artifact
from pocketzoo.zoo.backends.built_files import BuiltFile, built_files
from pocketzoo.zoo.backends.open_backend import Way, backends, find_runtime, load, version_of
from pocketzoo.zoo.bundles.bundle import Bundle, graph_name
from pocketzoo.zoo.bundles.manifest import MODEL, FileEntry
from pocketzoo.zoo.catalog.backend import Runner
from pocketzoo.zoo.catalog.registry import Registry

ENGINE = "engine"  # as a provider: what a back end built of the bundle


def own_provider(target: str, registry: Registry) -> str | None:
    """The runtime that a target is, where that loads graphs as they are."""
    ways = backends(registry).ways.items()
    return next((n for n, way in ways if way.runtime.target == target and way.backend.loads_graphs), None)


@dataclass(frozen=True, slots=True)
class WayToRun:
    """A file of the bundle, and how it is loaded."""

    label: str
    file: Path
    start: Callable[[], Runner]
    digest: str = ""  # of what is loaded, and by which version


def check_providers(names: Sequence[str], registry: Registry) -> Sequence[str]:
    """Names of runtimes, or shorter ones.

    Raises:
        DataError: there is none, or one that nothing is called.
    """
    ways = backends(registry).ways.values()
    known = [name for way in ways for name in (*way.runtime.aliases[:1], way.runtime.name)]
    known = list(dict.fromkeys([*known, ENGINE]))
    if not names:
        raise DataError("no provider is given", f"name one of {', '.join(known)}, or leave provider out")
    known += [name for way in ways for name in way.runtime.aliases]
    left_out = backends(registry).left_out
    for name in names:
        if name in left_out:
            find_runtime(name, registry)
        if name not in known:
            raise DataError(f"there is no provider {name!r}", nearest(name, known))
    return names


def ways_of(
    bundle: Bundle, graph: Path, target: str | None, name: str, threads: int, registry: Registry
) -> list[WayToRun]:
    """The ways to run a bundle that a name stands for: the runtime that is called so comes before an alias.

    Raises:
        BundleError: it stands for what a back end builds, and nothing of it is in the bundle.
    """
    known = backends(registry).ways
    runtimes = [known[name]] if name in known else []
    runtimes += [way for way in known.values() if name in way.runtime.aliases]
    built = [each for each in built_files(bundle, registry) if target in (None, each.entry.target)]
    if name == ENGINE:
        if not built:
            raise _nothing_built(bundle, target, target or "tensorrt")
        return [way_of_built(each, threads, registry, bundle=bundle) for each in built]
    ways: list[WayToRun] = []
    for way in runtimes:
        own = [each for each in built if each.backend.name == way.backend.name]
        if target is None and way.runtime.target:  # what was built for the runtime itself comes first
            own.sort(key=lambda each: each.entry.target != way.runtime.target)
        ways += [way_of_built(each, threads, registry, way, bundle=bundle) for each in own[:1]]
        if way.backend.loads_graphs:
            own_target = target is None and way.runtime.target in bundle.targets()
            wanted = graph_of(bundle, way.runtime.target) if own_target else graph
            ways.append(way_of_graph(way, bundle, wanted, threads, name))
    if not ways:
        raise _nothing_built(bundle, target, target or runtimes[0].backend.name)
    return ways


def graph_of(bundle: Bundle, target: str) -> Path:
    """The graph that is run on a target, or the first of those that are.

    Raises:
        BundleError: there is none, for this target or float.
    """
    if not bundle.graphs(target):  # packed for another
        bundle.file(graph_name())
    return main_files(artifact_of(bundle, target))[0]


def way_of_graph(way: Way, bundle: Bundle, graph: Path, threads: int, label: str = "") -> WayToRun:
    """A graph as it is, with those that its driver runs with it."""
    artifact = artifact_of(bundle, bundle.manifest.files[graph.name].target)

    def start() -> Runner:
        return open_artifact(artifact, partial(load, way, threads=threads))

    return WayToRun(label or way.runtime.label, graph, start, version_of(way.backend))


def way_of_built(
    built: BuiltFile, threads: int, registry: Registry, way: Way | None = None, *, bundle: Bundle
) -> WayToRun:
    """What a back end built, by the runtime of its target or the given one."""
    runtimes = built.backend.ways
    own = next((each for each in runtimes if each.target == built.entry.target), runtimes[0])
    way = way or Way(built.backend, own)

    def start() -> Runner:
        target = registry.entries("target").get(built.entry.target)
        files = {e.graph or MODEL: bundle.path / name for name, e in bundle.built().items() if _alike(e, built.entry)}
        artifact = replace(artifact_of(bundle), graphs=files)
        return open_artifact(artifact, partial(load, way, target=target.spec if target else None, threads=threads))

    return WayToRun(f"{ENGINE} for {built.entry.target}", built.path, start, built.entry.sha256)


def _alike(one: FileEntry, other: FileEntry) -> bool:
    """Whether two files are of one export."""
    return (one.target, one.precision, one.backend) == (other.target, other.precision, other.backend)


def _nothing_built(bundle: Bundle, target: str | None, form: str) -> BundleError:
    return BundleError(
        f"{bundle.path} has no engine{f' for {target}' if target else ''} that was built on this machine",
        f"build one: pocketzoo export {bundle.path} --to {form}",
    )
