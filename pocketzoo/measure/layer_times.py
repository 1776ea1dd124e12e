"""Time graphs on onnxruntime's own kernels for CPUs, and their layers: what decides by measured latency asks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import BundleError
from pocketzoo.measure.profile import profile_graph
from pocketzoo.zoo.backends.onnxruntime.facts import OnnxruntimeFacts
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.graphs.operators import runs_layer

SECONDS = 0.1  # that a graph is profiled for, at the least


class CpuTimer:
    """onnxruntime's own kernels on one thread, which is the one that calls."""

    def open(self, graph: Path) -> OnnxRunner:
        return OnnxRunner(graph, threads=1)

    def layers(self, graph: Path, original: Path, x: Arrays) -> Mapping[str, float]:
        try:
            nodes = profile_graph(graph, original, x, 1, SECONDS).nodes
        except BundleError:  # it runs other nodes each time: what layers take is not known
            return {}
        times = dict[str, float]()
        for node in nodes:
            if node.layer and runs_layer(node.op):
                times[node.layer] = times.get(node.layer, 0.0) + node.ms
        return times


def timer_of(target: TargetSpec) -> CpuTimer | None:
    """What times graphs for a target of onnxruntime's; None for its providers, whose kernels are others."""
    facts = target.facts or OnnxruntimeFacts()
    return CpuTimer() if facts.provider == OnnxruntimeFacts().provider else None
