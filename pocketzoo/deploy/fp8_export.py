"""Export an int8 bundle as an fp8 graph, checked against the float graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from functools import partial
from pathlib import Path

import onnx
from onnx import version_converter

from pocketzoo.compress.pipeline.compress_model import graph_plans
from pocketzoo.compress.quantization.fp8 import Fp8Layers
from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import ExportError, message_of
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.renamed import keywords_renamed
from pocketzoo.deploy.half_precision_export import check_ratio, compare, few, half, told
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.bundles.manifest import MODEL
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.data.processors.open_processor import processor_of
from pocketzoo.zoo.data.random_samples import random_samples
from pocketzoo.zoo.graphs.files.graph_files import changed, replace_graph
from pocketzoo.zoo.graphs.files.load_graph import load_graph
from pocketzoo.zoo.graphs.index import opset_of
from pocketzoo.zoo.graphs.rewriting.half_precision import QDQ_OPSET, check_precision
from pocketzoo.zoo.models.resolver import Resolver

# dB. Each layer loses 29 to 30 at three bits of mantissa on either side, and layers add up: EfficientNet-Lite0, with 31
# of them in a row, has 14 with weights rounded to nearest and 18 with samples, MiniLM 23. A graph that is written wrong
# has less than 5.
LEAST = 12.0


@keywords_renamed(registry="resolver")
def write_fp8(
    bundle: Bundle,
    out: Path,
    target: TargetSpec,
    resolver: Registry | Resolver,
    *,
    fitting: Batches | None = None,
    testing: Batches | None = None,
    progress: Progress = SILENT,
) -> Fp8Layers:
    """Write the bundle's graph with the layers of its int8 plan in fp8 and the rest in fp16; returns what was decided.

    ``fitting``: batches of (inputs, targets) that weights are rounded to suit, to nearest without any. ``testing``:
    those that show the range of what becomes fp16, and that answers are compared on; without any it is noise.

    Raises:
        ExportError: the target does not compute in it, no step found ranges, there are kernels for no layer, or the
            answers are not those of 32 bits; no file is left.
    """
    fit_on = [] if fitting is None else few(fitting)
    processor = processor_of(bundle, Resolver.of(resolver).registry)
    shown: list[Arrays] = [random_samples(processor, 1)] if testing is None else few(testing)
    return convert_fp8(bundle, MODEL, out, target, Resolver.of(resolver), fit_on, shown, progress=progress)[0]


def convert_fp8(
    bundle: Bundle,
    graph: str,
    out: Path,
    target: TargetSpec,
    resolver: Resolver,
    fit_on: list[Arrays],
    shown: list[Arrays],
    *,
    outputs: Collection[str] = (),
    progress: Progress = SILENT,
) -> tuple[Fp8Layers, float | None]:
    """``write_fp8`` of one graph, on what it reads; and the ratio of signal to error in dB, where it is known.

    The ratio is the least of ``outputs``; of all where none are named.
    """
    check_precision("fp8", target)
    assert target.fp8 is not None  # by that check
    floats = model = _with_float8(load_graph(bundle.graph("", graph)))
    layers: Fp8Layers | None = None
    for compressor, plan in graph_plans(bundle, resolver.compressors(bundle), graph):
        if compressor.fp8 is not None:
            model, layers = compressor.fp8(model, plan, target.fp8, fit_on)
        else:
            model = compressor.apply(model, plan, target)
    name = bundle.manifest.name if graph == MODEL else f"{bundle.manifest.name}'s {graph}"
    if layers is None:
        raise ExportError(
            f"{name} was not calibrated: fp8 needs the ranges of an int8 step",
            "compress first: pocketzoo compress MODEL --int8 --data D -o SMALL",
        )
    if not layers.layers:
        raise ExportError(f"{name} has no layer with kernels in fp8: {_counted(layers)}", "use --precision fp16")
    _, written = half(model, target, "fp16", shown)
    ratio = compare(floats, written, shown, outputs)
    left = f", {_counted(layers)}" if layers.left else ""
    progress.say(f"fp8: {len(layers.layers)} of {len(layers.layers) + len(layers.left)} layers ({told(ratio)}){left}")
    check_ratio(ratio, LEAST, "fp8")
    replace_graph(written, out)
    return layers, ratio


def _with_float8(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph in the opset that brought float8, or a later one.

    Raises:
        ExportError: onnx cannot convert it.
    """
    if opset_of(model) >= QDQ_OPSET:
        return model
    try:
        return changed(model, partial(version_converter.convert_version, target_version=QDQ_OPSET))
    except Exception as error:  # the converter's own
        raise ExportError(
            f"fp8 needs opset {QDQ_OPSET}, and the graph of opset {opset_of(model)} cannot be converted: "
            + message_of(error),
            f"export the graph with opset {QDQ_OPSET}, or use --precision fp16",
        ) from error


def _counted(layers: Fp8Layers) -> str:
    counts = Counter(layers.left.values()).most_common(3)
    return f"{len(layers.left)} stay in float: " + "; ".join(f"{reason} ({count})" for reason, count in counts)
