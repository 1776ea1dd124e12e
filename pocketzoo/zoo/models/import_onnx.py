"""Import an ONNX file as a bundle: check and clean the graph, and describe its input."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

from pocketzoo.core.errors import BundleError, RecipeError, UnsafeFileError, UnsupportedModelError
from pocketzoo.core.files import home, sha256
from pocketzoo.core.optional import require
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.renamed import keywords_renamed
from pocketzoo.core.typed import to_plain
from pocketzoo.core.version import __version__
from pocketzoo.zoo.backends.onnxruntime.session import FATAL, open_session
from pocketzoo.zoo.bundles.bundle import Bundle, graph_name, read_bundle, source_file_name, writing
from pocketzoo.zoo.bundles.manifest import GRAPH_ONLY, Manifest, ModelRef
from pocketzoo.zoo.catalog.registry import default_registry
from pocketzoo.zoo.catalog.specs import Input, InputSpec, TextSpec
from pocketzoo.zoo.data.processors.open_processor import describe_config, needed_files
from pocketzoo.zoo.data.processors.text_encoder import TextEncoder
from pocketzoo.zoo.graphs.cost import layer_costs
from pocketzoo.zoo.graphs.fresh_names import STANDARD, FreshNames, nodes
from pocketzoo.zoo.graphs.index import GraphIndex, graph_inputs, opset_of
from pocketzoo.zoo.graphs.safety import check_graph

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

OPSET = 13  # QuantizeLinear by channel begins here; graphs below are converted to NEWER
NEWER = 17
QUANTIZED = (
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
    "MatMulInteger",
)  # fmt: skip
TOLERANCE = 1e-4  # of outputs against the file's own, relative to the largest
LONGEST = 512  # tokens, where neither graph nor tokenizer says


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxMetadata:
    """What an ONNX file does not record: the preprocessing of its input, and labels of its outputs."""

    mean: tuple[float, ...] = ()  # per channel, in units of value_range; () is not known
    std: tuple[float, ...] = ()
    value_range: tuple[float, float] = (0.0, 1.0)  # of pixels
    size: int | None = None  # pixels a side, for graphs that take any
    labels: tuple[str, ...] = ()
    tokenizer: Path | None = None  # None: a tokenizer.json alongside the graph, if there is one

    def __post_init__(self) -> None:
        if bool(self.mean) != bool(self.std) or any(s <= 0 for s in self.std):
            raise RecipeError("mean and std must be given together, with std above 0", "such as --mean 0.5 --std 0.5")
        if self.size is not None and self.size < 1:
            raise RecipeError(f"size cannot be {self.size}", "give pixels per side, 1 or more")


@keywords_renamed(reading="metadata")
def open_graph(path: Path, metadata: OnnxMetadata | None = None, progress: Progress = SILENT) -> Bundle:
    """Import an ONNX file as a bundle, written below ``home()`` on first use. It has a graph and no module.

    Constants and batch norm are folded, a fixed batch axis is made dynamic, and the result is checked against the file.
    The file is not changed.

    Raises:
        BundleError: it is not an ONNX graph, or onnxruntime does not run it.
        UnsafeFileError: weights in other files, or operators that foreign code brings.
        UnsupportedModelError: operators of one runtime, several inputs, or a batch that is fixed inside.
    """
    require("onnxruntime")  # before anything is read
    metadata = metadata or OnnxMetadata()
    try:
        model = onnx.load(path, load_external_data=False)
        names = [i.name for i in model.graph.input]
    except Exception as error:  # protobuf's errors share no base but Exception
        raise BundleError(f"{path} is not an ONNX graph", "give a .onnx file") from error
    if not names or not model.graph.node:
        raise BundleError(f"{path} is not an ONNX graph: it has no inputs or nodes", "give a .onnx file")
    _refuse(model, path)
    tokenizer = metadata.tokenizer or path.parent / "tokenizer.json"
    pins = [sha256(path), repr(replace(metadata, tokenizer=None)), sha256(tokenizer) if tokenizer.is_file() else ""]
    key = hashlib.sha256("\n".join([__version__, *pins]).encode()).hexdigest()[:16]
    place = home() / "models" / f"{path.stem}-{key}"
    if place.exists():
        try:
            return read_bundle(place)
        except (BundleError, UnsafeFileError):
            shutil.rmtree(place)  # damaged: it is ours to make again
    progress.say(f"reading {path.name} (once)")
    tidy = _tidied(model, path)
    spec = _input_spec(tidy, metadata, path, tokenizer if tokenizer.is_file() else None)
    outputs = tidy.graph.output[0].type.tensor_type.shape.dim
    count = outputs[-1].dim_value if outputs else 0
    if metadata.labels:
        _check_labels(tidy.graph.output[0], metadata.labels, path)
    with writing(place) as draft:
        graph = draft.mark(graph_name(), precision="float32")
        onnx.save(tidy, graph)
        if tokenizer.is_file():
            for name in needed_files(spec, default_registry()):
                shutil.copyfile(tokenizer, draft.folder / source_file_name(name))
        layers = layer_costs(graph)
        draft.manifest = Manifest(
            name=path.stem,
            model=ModelRef(backbone=f"{GRAPH_ONLY}{path.name}", head="", outputs=count),
            processor=describe_config(spec),
            labels=metadata.labels,
            license="unknown",
            parameters=sum(int(np.prod(t.dims)) for t in tidy.graph.initializer if t.data_type == TensorProto.FLOAT),
            macs=sum(layer.macs for layer in layers),
            provenance={"source": path.name, "sha256": pins[0], "opset": opset_of(model)},
            layers={"float": to_plain(layers)},
        )
    return read_bundle(place)


def _check_labels(output: ValueInfoProto, labels: Sequence[str], path: Path) -> None:
    """Raises:
    UnsupportedModelError: an output has no place for each label: it is a row of scores, or one label, for a sample.
    """
    kind, dims = output.type.tensor_type.elem_type, output.type.tensor_type.shape.dim
    is_label = len(dims) == 1 and kind in (TensorProto.INT64, TensorProto.INT32)
    if len(dims) != 2 and not is_label:
        shape = " x ".join(str(d.dim_value or d.dim_param or "?") for d in dims)
        raise UnsupportedModelError(
            f"the first output of {path}, {output.name!r}, is {shape}, not one row of class scores",
            "leave the labels out",
        )
    if not is_label and dims[1].dim_value != len(labels):
        raise UnsupportedModelError(
            f"{path} has {dims[1].dim_value} outputs, but there are {len(labels)} labels", "give one label per output"
        )


def _refuse(model: ModelProto, path: Path) -> None:
    """What cannot be read here, said before anything runs it."""
    check_graph(path)
    local = {(f.domain, f.name) for f in model.functions}
    inside = (node for function in model.functions for node in function.node)
    for node in nodes(model.graph.node, inside):
        if node.domain not in STANDARD and (node.domain, node.op_type) not in local:
            raise UnsupportedModelError(
                f"{path} needs the operator {node.domain}.{node.op_type}, which is not a standard operator",
                "export it without optimizations of one runtime",
            )
        if node.op_type in QUANTIZED:
            raise UnsupportedModelError(f"{path} is already quantized", "give the original float graph")


def _tidied(model: ModelProto, path: Path) -> ModelProto:
    """The graph with one input, free in its first axis, constants as initializers, batch norm folded."""
    from onnx import inliner, version_converter

    tidy = inliner.inline_local_functions(model) if model.functions else _copy(model)
    inputs = graph_inputs(tidy)
    if len(inputs) != 1:
        raise UnsupportedModelError(
            f"{path} has {len(inputs)} inputs: {', '.join(i.name for i in inputs)}",
            "export it with one; compute mask and positions from the token ids inside the graph",
        )
    graph_input = _copy(inputs[0])
    del tidy.graph.input[:]
    tidy.graph.input.append(graph_input)
    if opset_of(tidy) < OPSET:
        try:
            tidy = version_converter.convert_version(tidy, NEWER)
        except Exception as error:  # its C++ side raises RuntimeError and types of its own
            raise UnsupportedModelError(
                f"{path} has opset {opset_of(model)} and cannot be converted: {error}", f"export it with opset {NEWER}"
            ) from error
    tidy.ir_version = max(tidy.ir_version, 8)
    tidy = _folded(tidy, path)
    fixed = tidy.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    if fixed:
        _free_batch(tidy, fixed)
    _check(model, tidy, path, fixed)
    return tidy


def _folded(model: ModelProto, path: Path) -> ModelProto:
    """What onnxruntime makes of a graph with its basic rewrites, which stay within the standard's operators."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "folded.onnx"
        try:
            open_session(model, optimization="basic", severity=FATAL, optimized=place)
        except Exception as error:  # onnxruntime's own exceptions share no base but Exception
            raise BundleError(f"onnxruntime does not load {path}: {error}", "check it with onnx.checker") from error
        folded = onnx.load(place)
    if any(node.domain not in STANDARD for node in nodes(folded.graph.node)):
        folded = _copy(model)  # a rewrite that this version of onnxruntime has beyond the standard
    standard = [o for o in folded.opset_import if o.domain in STANDARD]
    del folded.opset_import[:]
    folded.opset_import.extend(standard)
    _make_constant_outputs(folded)
    return folded


def _make_constant_outputs(model: ModelProto) -> None:
    """Let a node make each output that is a constant, as the standard asks, in place."""
    fresh = FreshNames.of(model)
    constants = GraphIndex(model).constants
    for output in model.graph.output:
        if output.name in constants:
            stored = TensorProto()
            stored.CopyFrom(constants[output.name])
            stored.name = fresh(f"{output.name}_constant")
            model.graph.initializer.append(stored)
            model.graph.initializer.remove(constants[output.name])
            # First, as others may read the output.
            model.graph.node.insert(0, helper.make_node("Identity", [stored.name], [output.name]))


def _free_batch(model: ModelProto, fixed: int) -> None:
    """Give the batch axis any length, in place: in the input, in the outputs, and in the shapes given to Reshape."""
    for value in (model.graph.input[0], *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims and dims[0].dim_value == fixed:
            dims[0].dim_param = "batch"
    del model.graph.value_info[:]
    index = GraphIndex(model)
    # Who reads such a constant for something else, also inside a branch, is to continue reading what it reads.
    shapes = {
        node.input[1]
        for node in index.nodes
        if node.op_type == "Reshape" and all(n.op_type == "Reshape" for n in index.consumers[node.input[1]])
    } - index.outputs
    for tensor in model.graph.initializer:
        if tensor.name in shapes:
            shape = numpy_helper.to_array(tensor).copy()
            if shape.ndim == 1 and len(shape) > 1 and shape[0] == fixed:
                shape[0] = 0 if -1 in shape[1:] else -1  # 0 copies the axis
                tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))


def _check(model: ModelProto, tidy: ModelProto, path: Path, fixed: int) -> None:
    """Hold the tidied graph against the file, in the file's batch and one sample at a time."""
    own, new = _session(model, path), _session(tidy, path)
    entry = own.get_inputs()[0]
    if entry.type not in ("tensor(float)", "tensor(int64)"):
        raise UnsupportedModelError(f"{path} reads {entry.type}", "export it with float32 images or int64 token ids")
    rng = np.random.default_rng(0)
    shape = [fixed or 2, *(d if isinstance(d, int) else (224 if len(entry.shape) == 4 else 8) for d in entry.shape[1:])]
    x = rng.normal(size=shape).astype(np.float32) if entry.type == "tensor(float)" else rng.integers(1, 8, shape)
    outputs = [o.name for o in own.get_outputs()]
    try:
        reference_outputs = own.run(outputs, {entry.name: x})
    except Exception as error:  # onnxruntime's own exceptions share no base but Exception
        raise BundleError(f"onnxruntime does not run {path}: {error}", "check it with onnx.checker") from error
    try:
        whole = new.run(outputs, {entry.name: x})
        double = new.run(outputs, {entry.name: np.concatenate([x, x])})
    except Exception as error:  # onnxruntime's own exceptions share no base but Exception
        raise _frozen(path, fixed or len(x)) from error
    for name, once, twice, out in zip(outputs, whole, double, reference_outputs, strict=True):
        if not isinstance(out, np.ndarray):
            raise UnsupportedModelError(f"the output {name!r} of {path} is not a tensor", "export it with tensors only")
        if not _close(once, out):
            raise UnsupportedModelError(
                f"{path} changes its output {name!r} when constants are folded", "report this graph"
            )
        # Twice as many samples: twice as long along one axis; an output that no sample is in stays as it is.
        if not _close(twice, out) and not any(
            _close(twice, np.concatenate([out, out], axis)) for axis in range(out.ndim)
        ):
            if not fixed and name != outputs[0]:
                raise UnsupportedModelError(
                    f"the output {name!r} of {path} is not of one sample each: it depends on the others of a batch",
                    "export the model without this output",
                )
            raise _frozen(path, fixed or len(x))


def _frozen(path: Path, batch: int) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{path} has a fixed batch size of {batch} inside the graph", "export it with a dynamic batch axis"
    )


def _close(actual: npt.NDArray[np.generic], expected: npt.NDArray[np.generic]) -> bool:
    if np.asarray(expected).dtype.kind not in "fiub":  # texts
        return bool(np.array_equal(actual, expected))
    a, b = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    odd = ~np.isfinite(b)  # what is infinite or no number has to be so in both
    if a.shape == b.shape and odd.any():
        if not np.array_equal(a[odd], b[odd], equal_nan=True):
            return False
        a, b = a[~odd], b[~odd]
    return a.shape == b.shape and bool(np.abs(a - b).max(initial=0) <= TOLERANCE * max(np.abs(b).max(initial=0), 1e-6))


def _session(model: ModelProto, path: Path) -> InferenceSession:
    try:
        return open_session(model, severity=FATAL)
    except Exception as error:  # onnxruntime's own exceptions share no base but Exception
        raise BundleError(f"onnxruntime does not load {path}: {error}", "check it with onnx.checker") from error


def _input_spec(model: ModelProto, metadata: OnnxMetadata, path: Path, tokenizer: Path | None) -> Input:
    entry = model.graph.input[0]
    kind = entry.type.tensor_type.elem_type
    dims = [d.dim_value for d in entry.type.tensor_type.shape.dim]
    if kind == TensorProto.INT64 and len(dims) == 2:
        return _text_spec(entry.name, dims[1], path, tokenizer)
    if kind == TensorProto.FLOAT and len(dims) == 4 and dims[1] in (1, 3):
        height, width = (d or metadata.size or 0 for d in dims[2:])
        if not (height and width):
            raise UnsupportedModelError(f"{path} reads images of any size", "say which one with --size PIXELS")
        return InputSpec(
            shape=("batch", dims[1], height, width),
            mean=_per_channel(metadata.mean, dims[1], path),
            std=_per_channel(metadata.std, dims[1], path),
            value_range=metadata.value_range,
            resize=min(height, width),
            name=entry.name,
        )
    if kind == TensorProto.FLOAT and len(dims) > 1 and all(dims[1:]):
        return InputSpec(shape=("batch", *dims[1:]), mean=(), std=(), resize=0, name=entry.name, layout="N")
    shape = " x ".join(str(d or "?") for d in dims)
    raise UnsupportedModelError(
        f"{path} reads {helper.tensor_dtype_to_np_dtype(kind)} of shape {shape}",
        "export it with images as batch x 3 x height x width, or token ids as batch x length",
    )


def _per_channel(values: Sequence[float], channels: int, path: Path) -> tuple[float, ...]:
    if len(values) not in (0, 1, channels):
        raise RecipeError(f"{len(values)} values for the {channels} channels of {path}", "give one, or one per channel")
    return tuple(values) * channels if len(values) == 1 else tuple(values)


def _text_spec(name: str, length: int, path: Path, tokenizer: Path | None) -> TextSpec:
    if length:
        raise UnsupportedModelError(
            f"{path} has a fixed length of {length} tokens", "export it with a dynamic sequence axis"
        )
    if tokenizer is None:  # token ids from an .npz need none
        return TextSpec(vocabulary=0, pad=0, max_length=LONGEST, name=name)
    spec = TextSpec(vocabulary=0, pad=0, max_length=LONGEST, name=name)
    reader = TextEncoder(spec, {spec.tokenizer: tokenizer}).tokenizer
    settings = json.loads(tokenizer.read_text("utf8"))
    longest = (settings.get("truncation") or {}).get("max_length", LONGEST)
    pads = [(settings.get("padding") or {}).get("pad_id"), *(reader.token_to_id(t) for t in ("[PAD]", "<pad>"))]
    pad = next((p for p in pads if p is not None), 0)
    return replace(spec, vocabulary=reader.get_vocab_size(), pad=pad, max_length=longest)


def _copy(message: ModelProto) -> ModelProto:
    copied = type(message)()
    copied.CopyFrom(message)
    return copied
