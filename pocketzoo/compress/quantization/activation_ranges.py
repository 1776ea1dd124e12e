"""The range of each activation: by a rule from its histogram, then by what the operators around it need."""

from __future__ import annotations

from collections.abc import Mapping

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.plans import Range
from pocketzoo.compress.quantization.elementwise import (
    BOUNDED,
    cut_below,
    gated,
    unit_range,
    with_equal_ends,
    without_unlike_joins,
)
from pocketzoo.compress.quantization.qdq import moves
from pocketzoo.compress.statistics.histogram import Histogram
from pocketzoo.zoo.graphs.index import GraphIndex

# Of what is zero in all samples, where any step is right. One of its size would have none: the int32 bias of a layer
# that reads it would saturate, or the layer's weights, which others may share, become as large as it takes.
UNSEEN = Range(low=0.0, high=1.0, magnitude=1.0)


def activation_ranges(index: GraphIndex, histograms: Mapping[str, Histogram], config: Int8Config) -> dict[str, Range]:
    """The range of each tensor that has one, by the config's rule."""
    ranges = {name: histogram.range(config) for name, histogram in histograms.items()}
    if config.ranges in ("auto", "mse"):
        ranges |= {x: cut_below(histograms[x], ranges[x], f) for x, f in gated(index).items() if x in ranges}
    for node in index.nodes:  # in graph order, so that a chain of moves carries its first range through
        if moves(node) and node.input[0] in ranges:
            ranges |= {name: ranges[node.input[0]] for name in node.output if name in ranges}
        elif node.op_type in BOUNDED and node.output[0] in ranges:
            ranges[node.output[0]] = unit_range()
    ranges = with_equal_ends(index, without_unlike_joins(index, ranges, moves))
    return {name: each if each.magnitude else UNSEEN for name, each in ranges.items()}
