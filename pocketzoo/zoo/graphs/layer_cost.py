"""The record of what one layer of a graph costs, which manifests keep."""

from __future__ import annotations

from dataclasses import dataclass

from pocketzoo.core.renamed import ReadByKey

FLOAT = "float32"
FLOATS = (FLOAT, "float16", "bfloat16", "float64")  # precisions that no step made: what a file computes in


@dataclass(frozen=True, slots=True)
class LayerCost(ReadByKey):
    """One node that multiplies and sums: a layer with weights, or a product of two activations, which has none."""

    layer: str  # the weight's name without ".weight"; of a product of activations the node's
    op: str  # the operator
    precision: str  # of its weight: "float32", "float16", "int8", "codebook", or what the compressor of its graph says
    parameters: int  # weights and bias; of a weight that several nodes read, at the first of them
    nonzero: int
    bytes: int
    macs: int  # multiply-accumulates for one sample
    note: str = ""  # what of them is not known, or how they were counted
