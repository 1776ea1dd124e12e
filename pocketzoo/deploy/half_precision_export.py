"""Export a graph in fp16 or bf16, checked against the float32 graph on the same samples."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from pocketzoo.compress.quantization.calibration import one_by_one
from pocketzoo.core.arrays import Arrays, batch_size, rows
from pocketzoo.core.errors import ExportError
from pocketzoo.core.optional import require
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.deploy.half_rescue import fewest_nodes, noisy_nodes
from pocketzoo.deploy.known_types import with_types
from pocketzoo.deploy.reasons import by_reason, listed
from pocketzoo.deploy.value_ranges import seen_values
from pocketzoo.zoo.backends.onnxruntime.session import open_session
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.data.random_samples import random_samples
from pocketzoo.zoo.graphs.files.graph_files import replace_graph
from pocketzoo.zoo.graphs.files.load_graph import load_graph
from pocketzoo.zoo.graphs.foreign.raised_opset import raised
from pocketzoo.zoo.graphs.foreign.selections import compared_tensors, unseen_nodes, with_outputs
from pocketzoo.zoo.graphs.fresh_names import inner_graphs, nodes
from pocketzoo.zoo.graphs.index import GraphIndex, opset_of
from pocketzoo.zoo.graphs.rewriting.fewer_roundings import with_fewer_roundings
from pocketzoo.zoo.graphs.rewriting.flat_graph import FlatGraph, distinct, node_id
from pocketzoo.zoo.graphs.rewriting.half_limits import QDQ
from pocketzoo.zoo.graphs.rewriting.half_precision import HalfPlan, check_precision, modern, plan_half
from pocketzoo.zoo.graphs.rewriting.half_writer import simulated, to_half
from pocketzoo.zoo.graphs.rewriting.joined_norms import NORM_OPSET, has_norms, join_norms
from pocketzoo.zoo.graphs.rewriting.wide_biases import add_wide_biases_apart
from pocketzoo.zoo.tasks.agreement import decibels, noise_to_signal

SAMPLES = 64  # that show the range of values, at most,
VALUES = 1 << 23  # and as many as have so many numbers
LEAST = 20.0  # dB; what is further from the answers in float32 is refused
WANTED = {"fp16": 40.0, "bf16": 25.0}  # dB of each output, for which nodes stay in 32 bits
# dB from the graph as it was, of one in float32 that has fewer nodes: a variance that cancels has 66 in float32 itself.
EQUAL = 60.0
# Nodes in 32 bits, as a fraction of all and at the least, tried for those in turn; dB that they have to bring.
ROOM, GAIN = ((0.05, 0), (0.15, 4), (0.4, 16)), 0.3
SOUGHT = 8  # samples, of which the one that loses most says which nodes
WRITTEN = {
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.BFLOAT16: "bfloat16",
    onnx.TensorProto.DOUBLE: "float64",
}
LINES = 8  # reasons that are told
WIDER = {"fp16": "bf16 or fp32", "bf16": "fp16 or fp32", "fp8": "fp16"}


def write_half_precision(
    graph: Path,
    out: Path,
    target: TargetSpec,
    precision: str,
    reads: Any,
    samples: Batches | None = None,
    *,
    progress: Progress = SILENT,
) -> HalfPlan:
    """Write ``graph`` in ``precision`` ("fp16" or "bf16"), as far as it is safe; returns what was decided.

    ``reads`` is its processor, or the config of one. ``samples``: batches of (inputs, targets), which show the range of
    values and are what the answers are compared on; without any it is noise. onnxruntime's CPU kernels compute in
    float32 between what they round to 16.

    Raises:
        ExportError: the target does not compute in it, or the answers are not those of 32 bits; no file is left.
    """
    shown: list[Arrays] = [random_samples(reads, 1)] if samples is None else few(samples)
    return convert_half(graph, out, target, precision, shown, progress=progress)[0]


def convert_half(
    graph: Path,
    out: Path,
    target: TargetSpec,
    precision: str,
    shown: list[Arrays],
    *,
    outputs: Collection[str] = (),
    progress: Progress = SILENT,
) -> tuple[HalfPlan, float | None]:
    """``write_half_precision`` on what the graph reads, held to ``outputs`` (none: to all of them).

    And the least ratio of signal to error of those in dB, where it is known.
    """
    given = modern(load_graph(graph), precision, target)
    model = joined(given, shown)
    plan, converted = half(model, target, precision, shown, outputs=outputs)
    ratios = _ratios(given, model, plan, converted, shown)
    count, moved = len(plan.computing), len(plan.nodes_of_floats)
    every = count + len(plan.computing_in_float32)
    if every:
        progress.say(f"{precision}: {count} of {every} nodes that compute floats ({told_each(ratios)})")
    elif moved:
        progress.say(f"{precision}: {moved} nodes that move floats ({told_each(ratios)})")
    else:
        progress.say(f"{precision}: no node computes in float32{_other_floats(model)}; the graph stays as it is")
    for line in told_left(plan.in_float32):
        progress.say(line)
    ratio = least(ratios, outputs)
    check_ratio(ratio, LEAST, precision)
    note(converted, plan, ratios)
    replace_graph(converted, out)
    return plan, ratio


def _other_floats(model: onnx.ModelProto) -> str:
    """What a graph computes in that has no float32, in words."""
    own = set(FlatGraph(distinct(model)).types.values())
    kinds = [word for kind, word in WRITTEN.items() if kind in own]
    return f", but in {' and '.join(kinds)}" if kinds else ""


def half(
    model: onnx.ModelProto,
    target: TargetSpec,
    precision: str,
    shown: list[Arrays],
    *,
    outputs: Collection[str] = (),
) -> tuple[HalfPlan, onnx.ModelProto]:
    """Turn the floats of a graph into 16 bits, as far as they hold what samples show.

    Where an output (of ``outputs``, or any) keeps less than ``WANTED`` dB, the nodes that lose most stay in 32 bits.

    Raises:
        ExportError: the target does not compute in ``precision``.
    """
    check_precision(precision, target)
    model = with_types(model)
    seen = seen_values(model, shown, precision)
    kept = _unseen(model)  # whatever else is tried
    plan = plan_half(model, target, precision, seen=seen, float32=kept)
    if any(node.op_type in QDQ for node in model.graph.node):  # what rounds to 8 bits loses more than any other
        converted = to_half(model, plan)
        add_wide_biases_apart(converted)
        return plan, converted
    exact = _run(model, shown)

    def worst(plan: HalfPlan) -> float | None:
        return least(_ratios_of(model, exact, _run(simulated(model, plan), shown)), outputs)

    best = worst(plan)
    every = len(plan.nodes_of_floats) + len(plan.in_float32)
    float32, whys = dict[str, str](), set(kept.values())
    for fraction, fewest in ROOM:
        if best is None or best >= WANTED[precision]:
            break
        room = max(fewest, int(fraction * every) - sum(why not in whys for why in plan.in_float32.values()))
        more = noisy_nodes(model, plan, _loudest(model, plan, shown), 10 ** (-WANTED[precision] / 10), room, outputs)
        candidate = plan_half(model, target, precision, seen=seen, float32=float32 | more | kept)
        ratio = worst(candidate)
        if ratio is not None and ratio > best + GAIN:
            plan, best = candidate, ratio
            float32 |= more
    if float32 and best is not None and best >= WANTED[precision]:

        def enough(those: dict[str, str]) -> HalfPlan | None:
            trial = plan_half(model, target, precision, seen=seen, float32=those | kept)
            ratio = worst(trial)
            return trial if ratio is not None and ratio >= WANTED[precision] else None

        plan = fewest_nodes(float32, enough) or plan
    return plan, to_half(model, plan)


def _unseen(model: onnx.ModelProto) -> dict[str, str]:
    """The nodes, at any depth, by which nothing that is compared is computed -> why they stay in 32 bits."""
    model = distinct(model)
    found = unseen_nodes(GraphIndex(model))
    for node in model.graph.node if found else ():
        if (name := node_id(node)) in found:
            inside = (each for graph in inner_graphs(node) for each in nodes(graph.node))
            found |= dict.fromkeys(map(node_id, inside), found[name])
    return found


def _loudest(model: onnx.ModelProto, plan: HalfPlan, shown: list[Arrays]) -> Arrays:
    """The sample, of the first ones, that loses most."""
    samples = list(islice(one_by_one(model, shown), SOUGHT))
    graphs = (simulated(model, plan), model)
    compared = [compared_tensors(GraphIndex(each), [output.name for output in model.graph.output]) for each in graphs]
    names = [[name for tensors in each.values() for name in tensors] for each in compared]
    sessions = [
        open_session(with_outputs(each, own), optimization="none") for each, own in zip(graphs, names, strict=True)
    ]

    def noise(x: Arrays) -> float:
        runs = (session.run(own, dict(x)) for session, own in zip(sessions, names, strict=True))
        pairs = zip(*runs, strict=True)
        return max((noise_to_signal([a], [b]) for a, b in pairs), default=0.0)

    return max(samples, key=noise)


def joined(model: onnx.ModelProto, shown: list[Arrays]) -> onnx.ModelProto:
    """The graph in fewer nodes, where samples show that it computes the same; without Q/DQ nodes only.

    For norms in one node the opset is raised to what has them.
    """
    if any(node.op_type in QDQ for node in model.graph.node):
        return model
    made = model
    if has_norms(model):
        copied = onnx.ModelProto()
        copied.CopyFrom(model)
        new = copied if opset_of(model) >= NORM_OPSET else raised(copied, NORM_OPSET)
        made = new if new is not None and join_norms(new) else model
    made = with_fewer_roundings(made)
    if made is model:
        return model
    ratio = least(compare_outputs(model, made, shown))
    return made if ratio is not None and ratio >= EQUAL else model


def _ratios(
    given: onnx.ModelProto, model: onnx.ModelProto, plan: HalfPlan, converted: onnx.ModelProto, shown: list[Arrays]
) -> dict[str, float] | None:
    """The less of what the graph and its simulation lose, by output; of a graph with 8 bits, which run as they are.

    Both against the graph that was given, of which ``model`` was ``joined``.
    """
    ratios = compare_outputs(given, converted, shown)
    if any(node.op_type in QDQ for node in model.graph.node):
        return ratios
    others = compare_outputs(given, simulated(model, plan), shown)
    if ratios is None or others is None:
        return ratios or others
    return {name: min(ratio, others[name]) for name, ratio in ratios.items()}


def least(ratios: Mapping[str, float] | None, outputs: Collection[str] = ()) -> float | None:
    """The least ratio, of ``outputs`` where any are named; None where none are known."""
    if ratios is None:
        return None
    return min((ratio for name, ratio in ratios.items() if not outputs or name in outputs), default=np.inf)


def note(model: onnx.ModelProto, plan: HalfPlan, ratios: Mapping[str, float] | None) -> None:
    """Write into a graph what of it stays in 32 bits and why, and the SQNR of its outputs."""
    facts = {
        "in_float32": dict(plan.in_float32),
        "sqnr": {name: None if np.isinf(ratio) else round(ratio, 2) for name, ratio in (ratios or {}).items()},
    }
    helper.set_model_props(model, {p.key: p.value for p in model.metadata_props} | {
        f"pocketzoo.{plan.precision}": json.dumps(facts)
    })  # fmt: skip


def told_left(in_float32: Mapping[str, str]) -> list[str]:
    """What stays in 32 bits in lines, one for each reason, the most frequent first."""
    often = sorted(by_reason(in_float32).items(), key=lambda each: -len(each[1]))
    lines = [f"  in fp32: {listed(names)}: {reason}" for reason, names in often[:LINES]]
    if rest := sum(len(names) for _, names in often[LINES:]):
        lines.append(f"  in fp32: {rest} more; all are in the graph's metadata")
    return lines


def told_each(ratios: Mapping[str, float] | None) -> str:
    """The ratios of ``compare_outputs`` in words."""
    if ratios is not None and len(ratios) > 1 and not np.isfinite([*ratios.values()]).all():
        return ", ".join(f"{name} {told(ratio)}" for name, ratio in ratios.items())
    if ratios is None or len(ratios) < 2:
        return told(None if ratios is None else min(ratios.values(), default=np.inf))
    return ", ".join(f"{name} {ratio:.0f}" for name, ratio in ratios.items()) + " dB from fp32"


def told(ratio: float | None) -> str:
    """A ratio of ``compare`` in words."""
    if ratio is None:
        return "onnxruntime's CPU kernels do not run it"
    if np.isinf(ratio):
        return "equal to fp32" if ratio > 0 else "no number any more"
    return f"{ratio:.0f} dB from fp32"


def check_ratio(ratio: float | None, least: float, precision: str) -> None:
    """Raises:
    ExportError: the answers in ``precision`` are less than ``least`` dB from those in float32.
    """
    if ratio is not None and ratio < least:
        raise ExportError(
            f"in {precision} the outputs differ from float32 ({told(ratio)}, at least {least:.0f} dB required)",
            f"give samples of what it will read, where these are none: --data D; or use --precision {WIDER[precision]}",
        )


def few(samples: Batches) -> list[Arrays]:
    """The first inputs of some batches."""
    batches: list[Arrays] = []
    axes, count, most = samples.axes, 0, SAMPLES
    for x, _ in samples:
        values = sum(array.size for array in x.values()) // max(1, batch_size(x, axes))
        most = min(most, max(1, VALUES // max(1, values)))
        batches.append(rows(x, slice(most - count), axes))
        count += batch_size(batches[-1], axes)
        if count >= most:
            break
    return batches


def compare(
    model: onnx.ModelProto, converted: onnx.ModelProto, samples: list[Arrays], outputs: Collection[str] = ()
) -> float | None:
    """The least of ``compare_outputs``, of ``outputs`` where any are named; None where onnxruntime lacks kernels."""
    return least(compare_outputs(model, converted, samples), outputs)


def compare_outputs(
    model: onnx.ModelProto, converted: onnx.ModelProto, samples: list[Arrays]
) -> dict[str, float] | None:
    """The ratio of signal to error between the two in dB, by output; None where onnxruntime lacks kernels.

    Of outputs that are whole numbers or truth values every value counts 1, and 1 more that differs; in place of one
    whose length depends on the data the worst is taken of what it is selected from.
    """
    return _ratios_of(model, _run(model, samples), _run(converted, samples))


Runs = list[list[list[npt.NDArray[Any]]]]  # of each sample, what is compared of each output


def _run(model: onnx.ModelProto, samples: list[Arrays]) -> Runs | None:
    """What a graph makes of the first samples; None where onnxruntime lacks kernels."""
    require("onnxruntime", extra="compress")
    compared = compared_tensors(GraphIndex(model), [output.name for output in model.graph.output]).values()
    names = [name for tensors in compared for name in tensors]
    try:
        # Its rewriting takes the bounds of a Clip in fp16 before a QuantizeLinear for others: -8 dB on
        # EfficientNet-Lite0.
        session = open_session(with_outputs(model, names), optimization="none")
    except Exception as error:  # onnxruntime's own types
        if "NOT_IMPLEMENTED" in str(error) or "Could not find an implementation" in str(error):
            return None
        raise ExportError(f"the graph does not run in half precision: {error}", "report it with the model") from error
    runs = (iter(session.run(names, dict(x))) for x in islice(samples, 8))
    return [[[next(values) for _ in tensors] for tensors in compared] for values in runs]


def _ratios_of(model: onnx.ModelProto, exact: Runs | None, rounded: Runs | None) -> dict[str, float] | None:
    """The ratios of ``compare_outputs``: of each output over all samples, that of sums of squares."""
    if exact is None or rounded is None:
        return None
    names = [output.name for output in model.graph.output]
    ours, theirs = zip(*rounded, strict=True), zip(*exact, strict=True)
    return {name: _ratio(own, reference) for name, own, reference in zip(names, ours, theirs, strict=True)}


def _ratio(ours: Sequence[Sequence[npt.NDArray[Any]]], theirs: Sequence[Sequence[npt.NDArray[Any]]]) -> float:
    """Of the worst of the tensors that are compared of an output, of several samples."""
    pairs = zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True)
    return min((decibels(1.0, noise_to_signal(own, reference)) for own, reference in pairs), default=np.inf)
