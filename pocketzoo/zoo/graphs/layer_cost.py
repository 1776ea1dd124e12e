"""The record of what one layer of a graph costs, which manifests keep."""

from __future__ import annotations

from dataclasses import dataclass

from pocketzoo.core.renamed import ReadByKey


@dataclass(frozen=True, slots=True)
class LayerCost(ReadByKey):
    """One layer with weights."""

    layer: str  # the weight's name without ".weight"
    op: str  # Conv, Gemm, MatMul or MatMulInteger
    precision: str  # of its weight: "float32", "int8", "codebook", or what the compressor of its graph says
    parameters: int  # weight and bias
    nonzero: int
    bytes: int
    macs: int  # multiply-accumulates for one sample
