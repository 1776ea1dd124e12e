"""Export a graph in fp16 or bf16, checked against the float32 graph on the same samples."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from pocketzoo.compress.quantization.calibration import activations_in_parts
from pocketzoo.core.arrays import Arrays, batch_size, rows
from pocketzoo.core.errors import ExportError
from pocketzoo.core.files import replacing_file
from pocketzoo.core.optional import require
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.zoo.backends.onnxruntime.session import open_session
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.data.random_samples import random_samples
from pocketzoo.zoo.graphs.half_precision import HalfPlan, modern, plan_half, to_half
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.load_graph import load_graph
from pocketzoo.zoo.tasks.agreement import decibels, noise_to_signal

SAMPLES = 64  # that show the range of values
LEAST = 20.0  # dB; what is further from the answers in float32 is refused
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
    graph: Path, out: Path, target: TargetSpec, precision: str, shown: list[Arrays], *, progress: Progress = SILENT
) -> tuple[HalfPlan, float | None]:
    """``write_half_precision`` on what the graph reads; and the ratio of signal to error in dB, where it is known."""
    model = modern(load_graph(graph), precision, target)
    plan, converted = half(model, target, precision, shown)
    reasons = "; ".join(f"{reason} ({count})" for reason, count in Counter(plan.in_float32.values()).most_common(3))
    float_note = f", {len(plan.in_float32)} stay in fp32: {reasons}" if plan.in_float32 else ""
    ratio = compare(model, converted, shown)
    progress.say(f"{precision}: {len(plan.nodes)} of {len(model.graph.node)} nodes ({told(ratio)}){float_note}")
    check_ratio(ratio, LEAST, precision)
    with replacing_file(out) as temporary:
        onnx.save(converted, temporary)
    return plan, ratio


def half(
    model: onnx.ModelProto, target: TargetSpec, precision: str, shown: list[Arrays]
) -> tuple[HalfPlan, onnx.ModelProto]:
    """Turn the floats of a graph into 16 bits, as far as they hold what samples show.

    Raises:
        ExportError: the target does not compute in ``precision``.
    """
    plan = plan_half(model, target, precision, largest=_largest(model, shown))
    return plan, to_half(model, plan)


def told(ratio: float | None) -> str:
    """A ratio of ``compare`` in words."""
    return "onnxruntime's CPU kernels do not run it" if ratio is None else f"{ratio:.0f} dB from fp32"


def check_ratio(ratio: float | None, least: float, precision: str) -> None:
    """Raises:
    ExportError: the answers in ``precision`` are less than ``least`` dB from those in float32.
    """
    if ratio is not None and ratio < least:
        raise ExportError(
            f"in {precision} the outputs differ from float32 ({ratio:.0f} dB, at least {least:.0f} required)",
            f"give representative samples: --data D; or use --precision {WIDER[precision]}",
        )


def few(samples: Batches) -> list[Arrays]:
    """The first inputs of some batches."""
    batches: list[Arrays] = []
    axes, count = samples.axes, 0
    for x, _ in samples:
        batches.append(rows(x, slice(SAMPLES - count), axes))
        count += batch_size(batches[-1], axes)
        if count >= SAMPLES:
            break
    return batches


def _largest(model: onnx.ModelProto, samples: list[Arrays]) -> dict[str, float]:
    """The largest finite magnitude each float tensor reaches."""
    index = GraphIndex(model)
    floats = [name for name in index.producers if index.types.get(name) == onnx.TensorProto.FLOAT]
    largest: dict[str, float] = {}
    # Not rewritten: onnxruntime's rewriting knows no Q/DQ nodes in float8.
    for values in activations_in_parts(model, floats, samples, as_written=True):
        for name, value in values.items():
            finite = np.isfinite(value)
            largest[name] = max(largest.get(name, 0.0), float(np.abs(value).max(initial=0.0, where=finite)))
    return largest


def compare(model: onnx.ModelProto, converted: onnx.ModelProto, samples: list[Arrays]) -> float | None:
    """The ratio of signal to error between the two in dB, of the worst output; None where onnxruntime lacks kernels.

    Of outputs that are whole numbers or truth values every value counts 1, and 1 more that differs.
    """
    require("onnxruntime", extra="compress")
    outs = []
    for each in (model, converted):
        try:
            # Its rewriting takes the bounds of a Clip in fp16 before a QuantizeLinear for others: -8 dB on
            # EfficientNet-Lite0.
            session = open_session(each, optimization="none")
        except Exception as error:  # onnxruntime's own types
            if "NOT_IMPLEMENTED" in str(error) or "Could not find an implementation" in str(error):
                return None
            raise ExportError(
                f"the graph does not run in half precision: {error}", "report it with the model"
            ) from error
        outs.append([session.run(None, dict(x)) for x in islice(samples, 8)])
    # Each output over all samples; the ratio is that of sums of squares.
    noise = [
        noise_to_signal(ours, theirs)
        for ours, theirs in zip(zip(*outs[1], strict=True), zip(*outs[0], strict=True), strict=True)
    ]
    return min((decibels(1.0, each) for each in noise), default=np.inf)
