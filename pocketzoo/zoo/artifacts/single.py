"""The driver ``single``: one graph that reads a sample and answers it."""

from __future__ import annotations

from collections.abc import Iterable

from pocketzoo.core.arrays import Arrays
from pocketzoo.zoo.artifacts.driver import Artifact, End, Start
from pocketzoo.zoo.bundles.manifest import MODEL
from pocketzoo.zoo.catalog.backend import Runner


class SingleEnd(End):
    """The one graph's own outputs."""

    @property
    def graphs(self) -> tuple[str, ...]:
        return (MODEL,)

    def open(self, start: Start) -> Runner:
        return start(self.artifact.graph(MODEL))

    def calls(self, graph: str, samples: Iterable[Arrays], start: Start) -> Iterable[Arrays]:
        return samples


def ends(artifact: Artifact) -> tuple[End, ...]:
    """Its one end."""
    return (SingleEnd(artifact),)
