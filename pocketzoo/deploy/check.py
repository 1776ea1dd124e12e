"""What a target will refuse of a graph or run slowly, known before anything is built.

Rules read the graph alone; a parser or runtime that is installed here is then asked, and has the last word.

Sources: those of ``plugins/targets.py``; NVIDIA's "Deep Learning Performance" guides for alignment (tensor cores take
multiples of 8 values in 16 bits and of 16 in int8).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx
from onnx import NodeProto, TensorProto

from pocketzoo.deploy.export import graph_for
from pocketzoo.deploy.reading import Reading, attribute, load_graph, node_name
from pocketzoo.deploy.targets import lacks_fp8
from pocketzoo.deploy.tensorrt import check_engine, refusals
from pocketzoo.errors import ExportError, PocketzooError
from pocketzoo.progress import SILENT, Progress
from pocketzoo.zoo.gpu import find_gpu
from pocketzoo.zoo.pretrained import open_model
from pocketzoo.zoo.providers import available
from pocketzoo.zoo.registry import Registry, default_registry
from pocketzoo.zoo.specs import TargetSpec

Level = Literal["refused", "slow", "note"]
KINDS = {
    "fp16": (TensorProto.FLOAT16,),
    "bf16": (TensorProto.BFLOAT16,),
    "fp8": (TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2),
}
LACKS = "DLA has no "
TEXT = (TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.COMPLEX128)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something a target does not like, and the nodes it is about."""

    level: Level
    what: str
    todo: str
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """All that was found of a graph, what is refused first."""

    graph: str  # file name
    target: str
    nodes: int
    asked: str  # which parser or runtime looked as well, or why none did
    findings: tuple[Finding, ...]

    @property
    def refused(self) -> bool:
        """Whether the target cannot take it."""
        return any(finding.level == "refused" for finding in self.findings)


def check(
    model: str | Path,
    target: str,
    *,
    dla: bool = False,
    registry: Registry | None = None,
    progress: Progress = SILENT,
) -> CheckReport:
    """Hold a bundle's graph, a registered model's, or that of an ONNX file against a target; an engine is loaded.

    ``dla``: also say what the target's deep learning accelerator leaves to the GPU.

    Raises:
        UnknownNameError: an unknown model or target.
        MissingDependencyError: an engine's package is not installed.
        ExportError: the file is no ONNX graph; the target has no DLA; an engine is of another version or GPU.
    """
    registry = registry or default_registry()
    spec: TargetSpec = registry.get("target", target)
    if dla and spec.dla is None:
        raise ExportError(f"target {target!r} has no DLA", "leave out --dla, or take --target jetson-orin")
    path = Path(model)
    if path.suffix == ".engine":
        check_engine(path, spec)
        asked = f"loaded by {spec.engine} on {find_gpu()}"
        return CheckReport(graph=path.name, target=target, nodes=0, asked=asked, findings=())
    if path.suffix == ".onnx":
        return check_graph(path, spec, dla=dla)
    bundle = open_model(model, registry=registry, progress=progress)
    with tempfile.TemporaryDirectory() as folder:
        return check_graph(graph_for(bundle, spec, registry, Path(folder)), spec, dla=dla)


def check_graph(path: Path, target: TargetSpec, *, dla: bool = False) -> CheckReport:
    """The same of one ONNX file."""
    graph = Reading(load_graph(path))
    rules = [*RULES, *(DLA_RULES if dla else ())]
    found = [finding for rule in rules for finding in rule(graph, target)]
    asked, said = _ask(path, target)
    if said and not any(f.level == "refused" for f in found):
        found += said  # what a rule foresaw need not be said twice
    order = ("refused", "slow", "note")
    return CheckReport(
        graph=path.name,
        target=target.name,
        nodes=len(graph.nodes),
        asked=asked,
        findings=tuple(sorted(found, key=lambda f: order.index(f.level))),
    )


Rule = Callable[[Reading, TargetSpec], Iterator[Finding]]


def _opset(graph: Reading, target: TargetSpec) -> Iterator[Finding]:
    if target.newest_opset and graph.opset() > target.newest_opset:
        yield Finding(
            level="refused",
            what=f"the graph is in opset {graph.opset()}, {target.name} reads up to {target.newest_opset}",
            todo=f"export it with opset {target.opset}",
        )


def _operators(graph: Reading, target: TargetSpec) -> Iterator[Finding]:
    names: dict[tuple[str, str], list[str]] = {}
    for node in graph.nodes:
        domain = "" if node.domain == "ai.onnx" else node.domain
        names.setdefault((domain, node.op_type), []).append(node_name(node))
    for (domain, op), nodes in names.items():
        if domain not in target.domains:
            what = f"{target.name} does not know {domain}.{op}"
            todo = "write it in ONNX's own operators"
            yield Finding(level="refused", what=what, todo=todo, nodes=tuple(nodes))
        elif domain == "" and op in target.refuses:
            what = f"{target.name} has no {op}"
            yield Finding(level="refused", what=what, todo=target.refuses[op], nodes=tuple(nodes))
        elif domain == "" and op in target.slow:
            what = f"{target.name} runs {op} slowly"
            yield Finding(level="slow", what=what, todo=target.slow[op], nodes=tuple(nodes))


def _types(graph: Reading, target: TargetSpec) -> Iterator[Finding]:
    if target.device != "gpu":
        return
    made = {name: node_name(node) for node in graph.nodes for name in node.output}
    odd = {n: t for n, t in graph.types.items() if t in TEXT}
    if odd:
        types = ", ".join(sorted({TensorProto.DataType.Name(t).lower() for t in odd.values()}))
        yield Finding(
            level="refused",
            what=f"{target.name} has no tensors of {types}",
            todo="do what needs them outside the graph",
            nodes=tuple(made.get(n, n) for n in odd),
        )
    double = [n for n, t in graph.types.items() if t == TensorProto.DOUBLE]
    if double:
        yield Finding(
            level="slow",
            what=f"{len(double)} tensors in 64 bits: GPUs of this kind have few such units, and NVIDIA's parser rounds",
            todo="export the model in float32",
            nodes=tuple(made.get(n, n) for n in double),
        )


def _precisions(graph: Reading, target: TargetSpec) -> Iterator[Finding]:
    """Types of 16 and 8 bits that the target does not compute in."""
    for name, types in KINDS.items():
        tensors = [n for n, t in graph.types.items() if t in types]
        if tensors and name not in target.precisions:
            yield Finding(
                level="slow" if name == "fp16" else "refused",
                what=f"{len(tensors)} tensors in {name}, and {target.name} computes in {', '.join(target.precisions)}",
                todo="export the model again with another --precision, or for another target",
            )
        elif tensors and name == "fp8" and (why := lacks_fp8(target, find_gpu())):
            yield Finding(level="refused", what=why, todo="export the model with --precision fp16")


def _encoding(graph: Reading, target: TargetSpec) -> Iterator[Finding]:
    """Whether the pairs of quantisation are written as the target reads them."""
    uneven, wide = [], []
    for node in graph.nodes:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        zero = graph.constants.get(node.input[2]) if len(node.input) > 2 else None
        if zero is not None and onnx.numpy_helper.to_array(zero).any():
            uneven.append(node_name(node))
        if node.op_type == "DequantizeLinear" and graph.types.get(node.input[0]) == TensorProto.INT32:
            wide.append(node_name(node))
    todo = f"compress the model for it: --target {target.name}"
    if target.int8.symmetric and uneven:
        what = f"zero points that are not 0: {target.name} takes symmetric int8 only"
        yield Finding(level="refused" if target.engine else "slow", what=what, todo=todo, nodes=tuple(uneven))
    if not target.int8.int32_bias and wide and target.engine:
        what = f"biases in int32: {target.name} has no such DequantizeLinear"
        yield Finding(level="refused", what=what, todo=todo, nodes=tuple(wide))


def _float_layers(graph: Reading, target: TargetSpec) -> Iterator[Finding]:
    """Layers of an int8 graph that were left in float. Beside fp8 they run in 16 bits, for want of kernels."""
    layers = list(graph.layers())
    kinds = {graph.quantised(node) for node, *_ in layers}
    left = [node_name(node) for node, *_ in layers if not graph.quantised(node)]
    if left and "int8" in kinds and "int8" in target.precisions:
        yield Finding(
            level="slow",
            what=f"{len(left)} of {len(layers)} layers are not in int8, and change to floats and back around them",
            todo="see the plan for why: pocketzoo info BUNDLE --json; or run them in 16 bits: --precision fp16",
            nodes=tuple(left),
        )


def _alignment(graph: Reading, target: TargetSpec) -> Iterator[Finding]:
    """Sizes that fall off tensor cores: they are filled up with zeros, which cost what numbers cost."""
    if target.device != "gpu":
        return
    odd, deep = [], []
    for node, inputs, outputs, groups in graph.layers():
        multiple = target.channel_multiple if graph.quantised(node) else target.half_multiple
        if groups > 1:
            if inputs // groups < target.half_multiple:
                deep.append(node_name(node))
        elif inputs % multiple or outputs % multiple:
            odd.append(f"{node_name(node)} ({inputs} to {outputs})")
    if odd:
        sizes = f"{target.half_multiple} (16 bits) or {target.channel_multiple} (8 bits)"
        what = f"channels that are no multiple of {sizes}"
        todo = "prune for this target, which keeps multiples; of a first or last layer leave it"
        yield Finding(level="slow", what=what, todo=todo, nodes=tuple(odd))
    if deep:
        what = "depthwise convolutions: tensor cores do not help, memory decides"
        todo = "measure with and without int8; a model with plain convolutions may be as fast"
        yield Finding(level="note", what=what, todo=todo, nodes=tuple(deep))


def _free_axes(graph: Reading, target: TargetSpec) -> Iterator[Finding]:
    """Axes of free length besides the batch: an engine is tuned for one length of each."""
    if not target.engine:
        return
    axes = sorted({d for name in graph.inputs for d in graph.shapes.get(name, [])[1:] if isinstance(d, str) and d})
    if axes:
        yield Finding(
            level="note",
            what=f"axes of free length besides the batch: {', '.join(axes)}",
            todo=f"say which lengths it is built for: export ... --shape {axes[0]}=MIN:OPT:MAX",
        )


def _dla_shapes(graph: Reading, target: TargetSpec) -> Iterator[Finding]:
    axes = sorted({str(d) for name in graph.inputs for d in graph.shapes.get(name, []) if isinstance(d, str)})
    if axes:
        yield Finding(
            level="slow",
            what=f"free axes ({', '.join(axes)}): DLA runs one shape, and nothing of this graph with another",
            todo=" ".join(f"--shape {axis}={8 if axis == 'batch' else 128}" for axis in axes),
        )


def _dla_types(graph: Reading, target: TargetSpec) -> Iterator[Finding]:
    if TensorProto.FLOAT16 not in graph.types.values():
        yield Finding(
            level="slow",
            what="the graph computes in 32 bits, and DLA in 16: all of it would run on the GPU",
            todo="export it with --precision fp16",
        )


def _dla_layers(graph: Reading, target: TargetSpec) -> Iterator[Finding]:
    """What falls back to the GPU, by reason."""
    reasons: dict[str, list[str]] = {}
    for node in graph.nodes:
        if reason := off_dla(node, graph, target):
            lacks = reason.startswith(LACKS)
            reasons.setdefault(LACKS if lacks else reason, []).append(f"{node_name(node)} ({node.op_type})")
    for reason, nodes in reasons.items():
        yield Finding(
            level="slow",
            what=f"runs on the GPU, not on DLA: {reason.strip()}{' such operators' * (reason == LACKS)}",
            todo="each change between the two copies; keep what DLA takes in one piece, or build without --dla",
            nodes=tuple(nodes),
        )


def off_dla(node: NodeProto, graph: Reading, target: TargetSpec) -> str:
    """Why a node cannot run on the target's DLA; "" where it can."""
    limits = target.dla
    if limits is None:
        return "there is none"
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return "pairs of quantisation (DLA of TensorRT 10 takes int8 by scales beside the graph only)"
    if node.op_type not in limits.operators:
        return f"{LACKS}{node.op_type}"
    shape = graph.shapes.get(node.output[0], [])
    if any(isinstance(d, int) and d > limits.size for d in shape[1:]):
        return f"an axis is longer than {limits.size}"
    if node.op_type in ("Gemm", "MatMul") and graph.weight(node.input[1]) is None:
        return "a product of two activations"
    if node.op_type in ("Conv", "ConvTranspose", "AveragePool", "MaxPool"):
        kernel = list(attribute(node, "kernel_shape", []))
        weight = graph.weight(node.input[1]) if "Conv" in node.op_type else None
        kernel = kernel or (list(weight.dims[2:]) if weight is not None else [])
        if len(kernel) != 2:
            return "it is not 2-D"
        pools = "Pool" in node.op_type
        longest, widest = (limits.window, limits.window_stride) if pools else (limits.kernel, limits.stride)
        if max(kernel) > longest:
            return f"its window is larger than {longest}"
        if max(attribute(node, "strides", [1])) > widest:
            return f"its stride is larger than {widest}"
        if weight is not None and max(weight.dims[:2]) > limits.channels:
            return f"more than {limits.channels} channels"
        if node.op_type == "ConvTranspose" and attribute(node, "group", 1) > 1:
            return "a grouped deconvolution"
    return ""


RULES: tuple[Rule, ...] = (_opset, _operators, _types, _precisions, _encoding, _float_layers, _alignment, _free_axes)
DLA_RULES: tuple[Rule, ...] = (_dla_shapes, _dla_types, _dla_layers)


def _ask(path: Path, target: TargetSpec) -> tuple[str, list[Finding]]:
    """The parser or runtime itself, where it is installed; TensorRT-RTX stands in for its twin."""
    if target.engine:
        return _ask_parser(path, target)
    return _ask_runtime(path, target)


def _ask_parser(path: Path, target: TargetSpec) -> tuple[str, list[Finding]]:
    for module in dict.fromkeys((target.engine, "tensorrt_rtx")):
        try:
            reasons = refusals(path, module)
        except PocketzooError:  # it is not installed, or does not start
            continue
        twin = "" if module == target.engine else f" (the twin of {target.engine}, which is not installed)"
        todo = f"compress the model for it (--target {target.name}), or change these nodes"
        asked = f"asked the parser of {module}{twin}"
        return asked, [Finding(level="refused", what=f"{module}: {reason}", todo=todo) for reason in reasons]
    return f"{target.engine} is not installed, so no parser was asked", []


def _ask_runtime(path: Path, target: TargetSpec) -> tuple[str, list[Finding]]:
    from pocketzoo.optional import require

    runtime = require("onnxruntime", extra="compress")
    if target.provider not in available():
        return f"onnxruntime has no {target.provider} here, so it was not asked", []
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    try:
        runtime.InferenceSession(str(path), options, providers=[target.provider])
    except Exception as error:  # onnxruntime's own types
        reason = " ".join(str(error).split())
        return "asked onnxruntime", [Finding(level="refused", what=f"onnxruntime: {reason}", todo="see what it names")]
    return "asked onnxruntime", []
