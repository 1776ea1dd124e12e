"""The int8 step: one plan (ranges, layers, integer weights), encoded differently for each target.

Weights are symmetric, one scale per output channel; activations one scale per tensor (Krishnamoorthi 2018,
arXiv:1806.08342). One pass over the samples finds the ranges and what rounding the weights needs; bias correction takes
out the mean of what rounding changed (Nagel et al. 2019, arXiv:1906.04721).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, numpy_helper

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.plans import Int8Plan, Range
from pocketzoo.compress.quantization import dynamic_quantization as dynamic
from pocketzoo.compress.quantization import embedding_tables as embeddings
from pocketzoo.compress.quantization import smoothquant as smooth
from pocketzoo.compress.quantization.activation_ranges import activation_ranges
from pocketzoo.compress.quantization.calibration import activations_in_parts, observe
from pocketzoo.compress.quantization.elementwise import whole_gates
from pocketzoo.compress.quantization.gptq import INT8, Grid, round_weight
from pocketzoo.compress.quantization.int8_bodies import apply_bodies, plan_bodies, with_bodies, without_bodies
from pocketzoo.compress.quantization.layer_inputs import (
    ColumnMoments,
    Im2col,
    SummedMoments,
    as_matrix,
    from_matrix,
    im2col_of,
)
from pocketzoo.compress.quantization.left_out import WHOLE, beside_few, left_out
from pocketzoo.compress.quantization.plan_trial import Trial
from pocketzoo.compress.quantization.qdq import ACTIVATIONS, ARITHMETIC, PASSING, Int8Writer, Integers, moves
from pocketzoo.compress.quantization.sensitive_layers import sensitive_layers
from pocketzoo.core.arrays import Array, Arrays
from pocketzoo.core.errors import BundleError
from pocketzoo.core.name_patterns import matches
from pocketzoo.zoo.catalog.specs import Int8Encoding, TargetSpec
from pocketzoo.zoo.graphs.files.graph_files import check_standard
from pocketzoo.zoo.graphs.foreign.selections import unseen_layers, unseen_nodes
from pocketzoo.zoo.graphs.index import GraphIndex, layer_names, left_alone, quantizable, stored_names
from pocketzoo.zoo.graphs.node import attribute, layer_name
from pocketzoo.zoo.graphs.operands import plain_operands
from pocketzoo.zoo.graphs.operators import OPERATORS, operator_of

# What the two ways to quantize activations are compared in: onnxruntime is the one runtime that has both.
BOTH = Int8Encoding(
    activations="uint8",
    symmetric=False,
    int32_bias=True,
    fuses_add=False,
    dynamic=True,
    operators=tuple(sorted(ARITHMETIC | PASSING)),
)
TRIED_ON = TargetSpec(name="both", summary="what plans are tried on", int8=BOTH)
SMALLEST = 1e-25  # scale of a weight: times that of an activation it is still a number
SKIPPED = "the recipe skips it"
DIVISOR = ".divisor"  # the tensor that divides an activation's channels is called ACTIVATION.divisor


def plan(model: ModelProto, config: Int8Config, samples: Iterable[Arrays], *, refine: bool = True) -> Int8Plan:
    """Choose the layers that become int8, the range of every activation they touch, and the integers of their weights.

    Without ``refine`` weights are rounded to nearest and biases stay: as fast a graph, in a fraction of the time.
    Branches of If and bodies of Loop and Scan are planned each as a graph by itself, on what it reads when it runs.

    Raises:
        UnknownNameError: ``config.skip`` names no layer.
        DataError: there are no samples, or an activation is not finite.
    """
    further = None
    if refine:
        sketch = partial(_plan_graph, model, config, refine=True)
        samples, further = beside_few(model, samples, sketch, partial(apply, target=TRIED_ON))
    whole = replace(_plan_graph(model, config, samples, refine=refine), further=further)
    bodies, left = plan_bodies(model, config, samples, partial(plan, refine=refine))
    return with_bodies(replace(whole, left={**whole.left, **left}), bodies, digest)


def _plan_graph(model: ModelProto, config: Int8Config, samples: Iterable[Arrays], *, refine: bool) -> Int8Plan:
    """``plan``, without what is inside nodes."""
    index = GraphIndex(model)
    left = unseen_layers(index) | left_alone(index, inside=False)
    table_names = embeddings.tables(index) if config.embeddings else []
    layers = quantizable(index, config.skip, table_names, left)
    open_ = {layer_name(node.input[1]) for node in layers}
    left |= {name: SKIPPED for name in layer_names(index) if name not in open_ and name not in left}
    plain = whole_gates(plain_operands(model, open_))
    if plain is not model:
        model, index = plain, GraphIndex(plain)
        layers = quantizable(index, config.skip, table_names, left)
    tables = tuple(name for name in table_names if not matches(layer_name(name), config.skip))
    if tables:  # first: half of a language model's memory, and of that of every copy and session below
        model = _copy(model)
        embeddings.quantize(model, tables)
        index = GraphIndex(model)
    scales = _divisors(model, [node.input[1] for node in layers], samples) if config.smooth else {}
    if scales:
        model = smooth.apply(model, scales)
        index = GraphIndex(model)
    outputs = {node.output[0] for node in layers}
    layers = [node for node in model.graph.node if node.output[0] in outputs]  # as they read now
    names = tuple(layer_name(node.input[1]) for node in layers)
    inputs = layer_inputs_of(index, layers) if refine else {}
    needed = needed_tensors(index, set(names), ARITHMETIC | PASSING, unseen_nodes(index))
    seen = observe(model, needed, samples, set(inputs.values()))
    ranges_by_rule = partial(activation_ranges, index)
    ranges = ranges_by_rule(seen.histograms, config)
    whole = ranges_by_rule(seen.histograms, replace(config, ranges=WHOLE))
    unknown = left_out(model, samples, seen, config, ranges_by_rule) if refine else None
    count, moments = (
        seen.samples,
        {out: seen.moments[im2col] for out, im2col in inputs.items() if im2col in seen.moments},
    )
    tensors = prepare(index, layers, ranges, moments)
    del seen, moments  # the largest of what a plan needs, and the comparison below needs sessions
    tensors |= {f"{name}{DIVISOR}": divisor for name, divisor in scales.items()}
    static = Int8Plan(
        ranges=ranges,
        layers=names,
        samples=count,
        tables=tables,
        left=left,
        sha256=digest(tensors),
        tensors=tensors,
    )
    trial = Trial(model, samples, _encoded_for_both)
    if keeps_all := unknown is not None and unknown.prefers_whole(model, static, _encoded_for_both):
        static = replace(static, ranges=whole)
    suited = dynamic.suits(index, [node.input[1] for node in layers])
    chosen = static
    if suited and config.activations != "static":
        chosen = replace(static, dynamic=tuple(map(layer_name, suited)))
        if config.activations == "auto":
            chosen = min(static, chosen, key=lambda each: (
                sum(trial.noise(each).values()) if unknown is None
                else unknown.error(model, each, _encoded_for_both, whole=keeps_all)
            ))  # fmt: skip
    if not refine or config.min_sqnr is not None or config.max_drop is not None:  # these are searched for what they ask
        return chosen
    found = sensitive_layers(
        trial.costs(layers),
        lambda floats: trial.noise(exclude(chosen, floats)),
        (lambda floats: trial.noise(exclude(chosen, floats), hidden=True)) if trial.hides else None,
    )
    return _without(model, chosen, found) if found else chosen


def _without(model: ModelProto, plan: Int8Plan, reasons: Mapping[str, str]) -> Int8Plan:
    """The plan with layers left in float for these reasons, and without the ranges that only they need."""
    fewer = with_needed_ranges(model, exclude(plan, reasons))
    return replace(fewer, excluded=plan.excluded, left={**plan.left, **reasons})


def _encoded_for_both(smoothed: ModelProto, plan: Int8Plan) -> ModelProto:
    encoded = _copy(smoothed)
    _encode(encoded, with_needed_ranges(encoded, plan), plan.tensors, BOTH)
    return encoded


def _copy(model: ModelProto) -> ModelProto:
    copied = ModelProto()
    copied.CopyFrom(model)
    return copied


def _divisors(
    model: ModelProto, weights: Sequence[str], samples: Iterable[Arrays]
) -> dict[str, npt.NDArray[np.float32]]:
    """The divisors of channels that pay, by the tensor that has the channels."""
    tensors = [shared.tensor for shared in smooth.shared_inputs(GraphIndex(model), weights)]
    if not tensors:
        return {}
    seen = smooth.ChannelStatistics()
    for values in activations_in_parts(model, tensors, samples):
        for name, value in values.items():
            seen.add(name, value)
    return smooth.plan(model, weights, seen.channels())


def exclude(plan: Int8Plan, layers: Collection[str]) -> Int8Plan:
    """``plan`` with these layers left in float."""
    gone = tuple(layer for layer in plan.layers if layer in layers)
    return replace(
        plan,
        layers=tuple(layer for layer in plan.layers if layer not in layers),
        dynamic=tuple(layer for layer in plan.dynamic if layer not in layers),
        excluded=(*plan.excluded, *gone),
        bodies={place: exclude(body, layers) for place, body in plan.bodies.items()},
    )


def with_needed_ranges(model: ModelProto, plan: Int8Plan) -> Int8Plan:
    """``plan`` without the ranges that only excluded layers needed: a tensor that has one is quantized."""
    if not plan.excluded:
        return plan
    index = GraphIndex(whole_gates(plain_operands(model, plan.layers)))
    tensors = set(needed_tensors(index, set(plan.layers), ARITHMETIC | PASSING))
    return replace(plan, ranges={name: r for name, r in plan.ranges.items() if name in tensors})


def apply(model: ModelProto, plan: Int8Plan, target: TargetSpec) -> ModelProto:
    """A new graph with the planned layers in int8, encoded for ``target``.

    Raises:
        BundleError: the plan's tensors are missing, or those of another plan.
    """
    quantized = _write(model, exclude(plan, plan.faster.get(target.name, ())), target)
    check_standard(quantized)
    return quantized


def _write(model: ModelProto, plan: Int8Plan, target: TargetSpec) -> ModelProto:
    """``apply``, for a body as well, of whose inputs nobody knows the shapes."""
    _check_tensors(plan)
    model = apply_bodies(model, plan, partial(_write, target=target))
    plan = with_needed_ranges(model, without_bodies(plan))
    model = whole_gates(plain_operands(model, plan.layers))
    quantized = smooth.apply(model, divisors(plan))
    tensors = plan.tensors
    if not tensors:  # a plan of an earlier version
        index = GraphIndex(model)
        layers = [node for node in quantizable(index, ()) if layer_name(node.input[1]) in plan.layers]
        tensors = prepare(index, layers, plan.ranges, {})
        plan = replace(plan, layers=tuple(layer_name(node.input[1]) for node in layers))
    _encode(quantized, plan, tensors, target.int8)
    if target.int8.splits_norm:
        _split_norms(quantized)
    return quantized


def _check_tensors(plan: Int8Plan) -> None:
    if plan.sha256 and plan.sha256 != digest(plan.tensors):
        raise BundleError("the tensors do not match the int8 plan", "compress the model again")


def divisors(plan: Int8Plan) -> dict[str, npt.NDArray[np.float32]]:
    """The divisors of channels that a plan smooths with, by the tensor that has the channels.

    Raises:
        BundleError: the plan's tensors are missing, or those of another plan.
    """
    _check_tensors(plan)
    own = without_bodies(plan).tensors
    return {name.removesuffix(DIVISOR): own[name] for name in own if name.endswith(DIVISOR)}


def _split_norms(model: ModelProto) -> None:
    """Write an addition whose result only a layer norm reads as Sum, which onnxruntime fuses with nothing."""
    read = Counter(name for node in model.graph.node for name in node.input)
    normed = {node.input[0] for node in model.graph.node if node.op_type == "LayerNormalization"}
    for node in model.graph.node:
        if node.op_type == "Add" and node.output[0] in normed and read[node.output[0]] == 1:
            node.op_type = "Sum"


def _encode(
    smoothed: ModelProto, plan: Int8Plan, tensors: Mapping[str, npt.NDArray[Any]], encoding: Int8Encoding
) -> None:
    """Put a graph that is smoothed already in int8, in place."""
    layers, ranges = set(plan.layers), plan.ranges
    if encoding.dynamic:
        embeddings.quantize(smoothed, plan.tables)
        if plan.dynamic:
            dynamic.quantize(smoothed, plan.dynamic, tensors)
            layers -= set(plan.dynamic)
    tensors_of = needed_tensors(GraphIndex(smoothed), layers, encoding.operators)
    ranges = {name: ranges[name] for name in tensors_of if name in ranges}
    Int8Writer(smoothed, ranges, layers, tensors, encoding).run()


def layer_inputs_of(index: GraphIndex, layers: Iterable[NodeProto]) -> dict[str, Im2col]:
    """How each layer that multiplies by one matrix, or one a group, reads its input, by what it makes."""
    return {node.output[0]: im2col_of(node, _constant(index, node.input[1])) for node in layers if _plain(index, node)}


def prepare(
    index: GraphIndex,
    layers: Iterable[NodeProto],
    ranges: Mapping[str, Range],
    moments: Mapping[str, ColumnMoments],
    grid: Grid = INT8,
) -> dict[str, npt.NDArray[Any]]:
    """What the graph stores of each layer: ``WEIGHT.levels``, ``WEIGHT.scale`` and, of its node, ``OUTPUT.bias``.

    WEIGHT is what ``stored_names`` says. ``ranges`` of what layers read, where biases in int32 must not saturate.
    ``moments`` are those of what a node reads, by its output; without them weights are rounded to nearest.
    """
    tensors: dict[str, npt.NDArray[Any]] = {}
    stored, sharing = stored_names(index), dict[str, list[NodeProto]]()
    for node in layers:
        sharing.setdefault(stored[node.output[0]], []).append(node)
    for name, nodes in sharing.items():
        weight = _constant(index, nodes[0].input[1])
        im2col = im2col_of(nodes[0], weight)
        matrix = as_matrix(weight, nodes[0], im2col.groups)
        least = np.max([_least_scale(index, node, ranges, matrix.shape[:2]) for node in nodes], axis=0)
        known = [(moments[node.output[0]], node) for node in nodes if node.output[0] in moments]
        if known:
            hessian = SummedMoments(tuple((moment, _takes_bias(node)) for moment, node in known))
            quantized, scale = round_weight(matrix, hessian, least, grid)
        else:
            scale = np.maximum(grid.scales(matrix), least)
            quantized = grid.nearest(matrix, scale)
        # Of a channel that is zero any scale is right for the weights; the bias has to have steps.
        scale = np.where(matrix.any(-1) | (least == 0), scale, np.maximum(least, SMALLEST)).astype(scale.dtype)
        tensors[f"{name}.levels"] = from_matrix(quantized, weight, nodes[0])
        tensors[f"{name}.scale"] = scale.reshape(-1)
        error = matrix - quantized * scale[..., None]
        for node in nodes:
            bias = np.array(_bias(index, node), np.float32)
            if node.output[0] in moments and _takes_bias(node):
                mean = moments[node.output[0]].first
                lost = (error @ mean[..., None]).reshape(-1)
                bias = (bias if len(bias) else np.zeros(len(lost), np.float32)) + lost.astype(np.float32)
            if len(bias):
                tensors[f"{node.output[0]}.bias"] = bias.astype(np.float32)
    return tensors


def digest(tensors: Mapping[str, npt.NDArray[Any]]) -> str:
    """sha256 of named arrays, whatever their order."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        total.update(f"{name} {array.dtype} {array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest() if tensors else ""


def needed_tensors(
    index: GraphIndex, layers: set[str], operators: Collection[str], unseen: Collection[str] = ()
) -> list[str]:
    """Activations next to an operator that will be int8: its inputs, and its output once its activation ran.

    ``operators`` are those that there are kernels for besides layers; what makes ``unseen`` tensors is none of them.

    The output of a Gemm or MatMul is left alone: integer kernels give floats there, and in a transformer the next
    operator is a bias or a normalization, which wants them.
    """
    integers = Integers(index, layers, operators)
    names: dict[str, None] = {}
    for node in index.nodes:
        if node.output[0] in unseen or not integers(node):
            continue
        # A move reads what it moves; the shape or the axes alongside it are not activations.
        for name in node.input[:1] if moves(node) else node.input:
            if name and name not in index.constants and index.is_float(name):
                names.setdefault(name)
        operator = operator_of(node)
        for made in filter(None, node.output):
            out = made if moves(node) else index.after_activation(made, ACTIVATIONS)
            floats = out in index.outputs or integers.recurs(out) or not index.is_float(out)  # as indices of MaxPool
            if not floats and (operator is None or operator.quantizes_output):
                names.setdefault(out)
    return list(names)


def _constant(index: GraphIndex, name: str) -> Array:
    return np.asarray(numpy_helper.to_array(index.constants[name]), np.float32)


def _plain(index: GraphIndex, node: NodeProto) -> bool:
    """Whether a layer multiplies its input by one matrix, or one a group."""
    return OPERATORS[node.op_type].kind == "convolution" or len(index.constants[node.input[1]].dims) == 2


def _takes_bias(node: NodeProto) -> bool:
    """Whether a layer adds a bias as it is: MatMul adds none, and Gemm may scale its own."""
    scaled = any(attribute(node, name, 1.0) != 1.0 for name in ("alpha", "beta"))
    return OPERATORS[node.op_type].bias is not None and not scaled


def _bias(index: GraphIndex, node: NodeProto) -> Array:
    if len(node.input) < 3 or node.input[2] not in index.constants:
        return np.zeros(0, np.float32)
    return _constant(index, node.input[2])


def _least_scale(index: GraphIndex, node: NodeProto, ranges: Mapping[str, Range], shape: tuple[int, ...]) -> Array:
    """Scales (G, O) below which an int32 bias, in steps of scale(x) * scale(w), would saturate."""
    bias, range_ = _bias(index, node), ranges.get(node.input[0])
    if range_ is None or bias.size != np.prod(shape):
        return np.zeros(shape, np.float32)
    step = max(range_.high - range_.low, 1e-12) / 255.0
    return (np.abs(bias) / (step * 2.0**30)).reshape(shape).astype(np.float32)
