"""What a model costs at the sizes that it runs at: the one place that counts, for every command and record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pocketzoo.core.errors import PocketzooError
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.data.processors.open_processor import processor_of
from pocketzoo.zoo.data.random_samples import random_samples
from pocketzoo.zoo.graphs.layer_cost import LayerCost


def graph_costs(graphs: Sequence[Path], reads: Any, progress: Progress = SILENT) -> list[LayerCost]:
    """The costs of the layers of all graphs of a model, for one sample of its processor, or of the config of one.

    What of them is not known is said.
    """
    from pocketzoo.zoo.backends.onnxruntime.observed import observe
    from pocketzoo.zoo.graphs.cost import costs_of  # here, because onnx takes a while to load

    costs = costs_of(graphs, random_samples(reads, 1), observe)
    if unknown := [cost for cost in costs if cost.note]:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        progress.say(f"multiply-accumulates of {unknown[0].layer}{more}: {unknown[0].note}")
    return costs


def sizes_counted_at(reads: Any) -> dict[str, tuple[int, ...]]:
    """The dims of that sample, by input: MACs of graphs with free axes are those of these lengths."""
    return {name: tuple(x.shape) for name, x in random_samples(reads, 1).items()}


def macs_of(bundle: Bundle, registry: Registry | None = None) -> int:
    """The multiply-accumulates of a bundle, counted anew where it was written before all operators counted.

    So two bundles may be compared. It is what the manifest says where the graph cannot be counted here.
    """
    if bundle.manifest.counted_at or "" not in bundle.encodings():
        return bundle.manifest.macs
    try:
        return sum(cost.macs for cost in graph_costs([bundle.graph("")], processor_of(bundle, registry)))
    except (PocketzooError, ImportError):  # its processor is not installed, or onnx is not
        return bundle.manifest.macs
