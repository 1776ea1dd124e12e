"""fp8 (e4m3) on the ONNX graph: layers and ranges of an int8 plan as float8 Q/DQ nodes, where there are kernels.

e4m3 has 4 bits of exponent, 3 of mantissa and 448 as its largest number (Micikevicius et al. 2022, arXiv:2209.05433).
Its steps grow with the value, so what rounding loses hardly depends on the scale: one for a whole weight does as well
as one for each channel, a range may have room to spare, and scales are powers of two, which half precision can hold
exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import ml_dtypes
import numpy as np
from onnx import ModelProto, NodeProto

from pocketzoo.compress.plans import Int8Plan, Range
from pocketzoo.compress.quantization import smoothquant as smooth
from pocketzoo.compress.quantization.calibration import observe
from pocketzoo.compress.quantization.gptq import Floats, Grid, Numbers, largest_weights
from pocketzoo.compress.quantization.int8 import divisors, layer_inputs_of, prepare, with_needed_ranges
from pocketzoo.compress.quantization.int8_bodies import inner_layers
from pocketzoo.compress.quantization.qdq import QdqWriter
from pocketzoo.core.arrays import Arrays
from pocketzoo.zoo.catalog.specs import Fp8Encoding
from pocketzoo.zoo.graphs.files.graph_files import check_standard
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.node import attribute, layer_name
from pocketzoo.zoo.graphs.operands import plain_operands
from pocketzoo.zoo.graphs.operators import OPERATORS

LARGEST = 448.0
LEAST_SCALE, MOST_SCALE = 2.0**-14, 2.0**15  # what fp16 holds with all bits
# A plan for int8 cuts ranges, to a tenth of the largest value at the least, where that makes equal steps finer. Here
# what is cut would be lost for nothing, and this room takes 3 of 18 octaves.
ROOM = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fp8Layers:
    """Which layers of a plan compute in fp8, by the names of their weights; and which do not, with the reason."""

    layers: tuple[str, ...] = ()
    left: Mapping[str, str] = field(default_factory=dict)


def apply(
    model: ModelProto, plan: Int8Plan, encoding: Fp8Encoding, samples: Iterable[Arrays] = ()
) -> tuple[ModelProto, Fp8Layers]:
    """A new graph whose planned layers read Q/DQ nodes in float8 where there are kernels; the rest stays in floats.

    With ``samples`` each weight's rounding error is handed on to the weights that can make up for it, and biases are
    corrected by the mean of what is left; without any, weights are rounded to nearest.

    Raises:
        BundleError: the plan's tensors are missing, or those of another plan.
        DataError: an activation is not finite.
    """
    plan = with_needed_ranges(model, plan)
    encoded = smooth.apply(plain_operands(model, plan.layers), divisors(plan))
    index = GraphIndex(encoded)
    chosen = choose(index, plan, encoding)
    inside = dict.fromkeys(inner_layers(plan), "it is inside a node, whose body stays in floats")
    chosen = replace(chosen, left={**chosen.left, **inside})
    layers = [node for node in index.nodes if _is_layer(node, index, chosen.layers)]
    tensors = prepare(index, layers, {}, _moments(index, layers, samples), E4M3)
    tensors |= {name: one[0] for name, one in tensors.items() if name.endswith(".scale")}
    _Fp8Writer(encoded, plan.ranges, tensors, activation_parameters).run({node.output[0] for node in layers})
    check_standard(encoded)
    return encoded, chosen


def choose(index: GraphIndex, plan: Int8Plan, encoding: Fp8Encoding) -> Fp8Layers:
    """Which of the plan's layers there are kernels for. A weight that two nodes read is in fp8 for both or neither."""
    reasons: dict[str, str] = {}
    for node in index.nodes:
        if _is_layer(node, index, plan.layers):
            name = layer_name(node.input[1])
            reasons[name] = reasons.get(name) or _reason(node, index, plan, encoding)
    return Fp8Layers(
        layers=tuple(name for name, reason in reasons.items() if not reason),
        left={name: reason for name, reason in reasons.items() if reason},
    )


def scale_of(magnitude: float) -> float:
    """The least power of two between 2^-14 and 2^15 that brings ``magnitude`` to 448 or below."""
    if magnitude <= LARGEST * LEAST_SCALE:
        return LEAST_SCALE
    return min(2.0 ** math.ceil(math.log2(magnitude / LARGEST)), MOST_SCALE)


def activation_parameters(range_: Range) -> tuple[float, np.generic]:
    """Scale and zero point of a range that was found for int8: x ~ q * scale."""
    magnitude = max(range_.magnitude, -range_.low, range_.high)
    zero: np.generic = ml_dtypes.float8_e4m3fn(0)
    return scale_of(magnitude * ROOM), zero


def _widest_scale(weight: Floats) -> Floats:
    """One scale for a weight (G, O, I), as (G, O)."""
    return np.full(weight.shape[:2], scale_of(float(largest_weights(weight).max(initial=0.0))), np.float32)


def nearest(weight: Floats, scale: Floats) -> Numbers:
    """Weights (G, O, I) over scales (G, O), to the nearest number of e4m3; ties to even."""
    levels: Numbers = np.clip(weight / scale[..., None], -LARGEST, LARGEST).astype(ml_dtypes.float8_e4m3fn)
    return levels


E4M3 = Grid(_widest_scale, nearest)


def _is_layer(node: NodeProto, index: GraphIndex, names: Iterable[str]) -> bool:
    return index.is_layer(node) and layer_name(node.input[1]) in names


def _reason(node: NodeProto, index: GraphIndex, plan: Int8Plan, encoding: Fp8Encoding) -> str:
    """Why a planned layer stays in floats; "" where it need not."""
    dims = index.constants[node.input[1]].dims
    convolution = OPERATORS[node.op_type].kind == "convolution"
    least = encoding.conv_channels if convolution else encoding.matmul_channels
    if node.input[0] not in plan.ranges:
        return "its input has no calibrated range"
    if attribute(node, "group", 1) != 1:
        return "a grouped convolution"
    if convolution and math.prod(dims[2:]) > encoding.kernel:
        return f"a kernel of more than {encoding.kernel} values"
    if not convolution and len(dims) != 2:
        return "a weight of more than two axes"
    return f"fewer than {least} channels" if min(dims[:2]) < least else ""


def _moments(index: GraphIndex, layers: list[NodeProto], samples: Iterable[Arrays]) -> dict[str, Any]:
    """Moments of what each layer reads, by what it makes; none without samples."""
    samples = list(samples)
    if not samples:
        return {}
    inputs = layer_inputs_of(index, layers)
    seen = observe(index.model, [], samples, set(inputs.values()))
    return {out: seen.moments[im2col] for out, im2col in inputs.items() if im2col in seen.moments}


class _Fp8Writer(QdqWriter):
    """Puts Q/DQ nodes before each tensor that a chosen layer reads; whoever else reads it gets it as it was.

    So the other summand of a residual addition stays in half precision: it would be rounded anew at every addition.
    """

    def run(self, layers: set[str]) -> None:
        """``layers``: what the nodes make that change."""
        twins: dict[str, str] = {}
        for node in list(self.graph.node):
            if node.output[0] in layers:
                read = node.input[0]
                if read not in twins:
                    twins[read] = self.quantize_dequantize(read)
                node.input[0] = twins[read]
                self.layer(node)
            self.nodes.append(node)
        self.finish()
