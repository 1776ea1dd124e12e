"""The drivers by name, and an artifact opened with the one it names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pocketzoo.core.errors import BundleError, nearest
from pocketzoo.zoo.artifacts import dual, generate, single, stateful
from pocketzoo.zoo.artifacts.driver import Artifact, End, Graphs, Start, as_artifact
from pocketzoo.zoo.artifacts.one_by_one import OneByOneEnd
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.catalog.backend import Runner
from pocketzoo.zoo.graphs.files.weight_files import graph_bytes
from pocketzoo.zoo.graphs.foreign.one_sample import run_axes

# No hook: a bundle that a device opens is not to need a plugin for how its graphs hang together.
DRIVERS: dict[str, Callable[[Artifact], tuple[End, ...]]] = {
    "single": single.ends,
    "dual": dual.ends,
    "stateful": stateful.ends,
    "generate": generate.ends,
}


def ends(artifact: Artifact) -> tuple[End, ...]:
    """Where an artifact is measured; the first is what it gives when it predicts.

    Raises:
        BundleError: there is no such driver.
    """
    if artifact.driver not in DRIVERS:
        raise BundleError(f"there is no driver {artifact.driver!r}", nearest(artifact.driver, DRIVERS))
    own = DRIVERS[artifact.driver](artifact)
    return own if artifact.run_axes is None else tuple(OneByOneEnd(artifact, end) for end in own)


def end_of(artifact: Artifact, name: str) -> End | None:
    """The end of that name; None where the artifact has none."""
    return next((end for end in ends(artifact) if end.name == name), None)


def main_files(graphs: Graphs) -> list[Path]:
    """The graphs on the way to the first end."""
    artifact = as_artifact(graphs)
    return [artifact.graph(name) for name in ends(artifact)[0].graphs]


def size_of(graphs: Graphs) -> int:
    """Bytes of the graphs on the way to the first end."""
    return sum(map(graph_bytes, main_files(graphs)))


def open_artifact(artifact: Graphs, start: Start) -> Runner:
    """An artifact as one runner: from samples to what comes out at its first end.

    Raises:
        BundleError: as ``ends``, or a graph is missing, or they do not fit together.
    """
    return ends(as_artifact(artifact))[0].open(start)


def artifact_of(bundle: Bundle, target: str = "") -> Artifact:
    """What of a bundle runs on a target: the graphs encoded for it, else the float ones."""
    manifest = bundle.manifest
    states = {} if manifest.signature is None else manifest.signature.states
    axes = run_axes(manifest.signature) if manifest.one_by_one and manifest.signature is not None else None
    return Artifact(
        graphs=bundle.graphs(target),
        driver=manifest.driver,
        states=states,
        generation=manifest.generation,
        run_axes=axes,
    )
