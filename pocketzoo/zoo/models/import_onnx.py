"""Import an ONNX file as a bundle: check and clean the graph, and describe its input."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from pocketzoo.core.content_digests import content_digest
from pocketzoo.core.errors import BundleError, RecipeError, UnsupportedModelError
from pocketzoo.core.files import scratch_folder
from pocketzoo.core.keys import cache_key
from pocketzoo.core.optional import require
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.renamed import keywords_renamed
from pocketzoo.core.untrusted.exits import survives_exit
from pocketzoo.zoo.backends.onnxruntime.batch_axes import IMAGE_AXES, LENGTHS
from pocketzoo.zoo.backends.onnxruntime.batched_graph import batched_graph, load_foreign
from pocketzoo.zoo.backends.onnxruntime.bounded_session import BoundedSession, TimeLeft
from pocketzoo.zoo.bundles.bundle import Bundle, graph_name, read_bundle, source_file_name, writing
from pocketzoo.zoo.bundles.manifest import GRAPH_ONLY, SINGLE, STATEFUL, Manifest, ModelRef
from pocketzoo.zoo.bundles.plugin_source import plugin_sources
from pocketzoo.zoo.bundles.prepared import prepared
from pocketzoo.zoo.catalog.processor import ForeignInputs
from pocketzoo.zoo.catalog.processor_configs import ArraysSpec, MappingSpec
from pocketzoo.zoo.catalog.registry import Registry, default_registry
from pocketzoo.zoo.catalog.signature import ModelSignature
from pocketzoo.zoo.data.model_costs import graph_costs, sizes_counted_at
from pocketzoo.zoo.data.processors.open_processor import (
    describe_config,
    feeding,
    needed_files,
    open_config,
    spec_and_config,
)
from pocketzoo.zoo.graphs.fresh_names import STANDARD, FreshNames, assigns_once, nodes
from pocketzoo.zoo.graphs.index import GraphIndex, graph_inputs, opset_of
from pocketzoo.zoo.graphs.safety import check_graph
from pocketzoo.zoo.graphs.signature import signature_of
from pocketzoo.zoo.graphs.states import States, sequences_of, with_states
from pocketzoo.zoo.graphs.tensor_sizes import check_tensor_sizes

if TYPE_CHECKING:
    pass

OPSET = 13  # QuantizeLinear by channel begins here; graphs below are converted to NEWER
NEWER = 17
KEEPS_SHAPES = ("MatMulAddFusion",)  # onnxruntime's rewrites that write a batch of fixed size into the graph
QUANTIZED = (
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
    "MatMulInteger",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxMetadata:
    """What an ONNX file does not record: the preprocessing of its input, and labels of its outputs."""

    mean: tuple[float, ...] = ()  # per channel, in units of value_range; () is not known
    std: tuple[float, ...] = ()
    value_range: tuple[float, float] = (0.0, 1.0)  # of pixels
    size: int | None = None  # pixels a side, for graphs that take any
    labels: tuple[str, ...] = ()
    tokenizer: Path | None = None  # None: a tokenizer.json alongside the graph, if there is one
    processor: str = ""  # what makes its inputs of samples, by name; "": the one that can, or arrays as they are

    def __post_init__(self) -> None:
        if bool(self.mean) != bool(self.std) or any(s <= 0 for s in self.std):
            raise RecipeError("mean and std must be given together, with std above 0", "such as --mean 0.5 --std 0.5")
        if self.size is not None and self.size < 1:
            raise RecipeError(f"size cannot be {self.size}", "give pixels per side, 1 or more")


@survives_exit
@keywords_renamed(reading="metadata")
def open_graph(
    path: Path, metadata: OnnxMetadata | None = None, progress: Progress = SILENT, *, states: States | None = None
) -> Bundle:
    """Import an ONNX file as a bundle, written below ``home()`` on first use. It has a graph and no module.

    It may have any inputs and outputs. Constants and batch norm are folded, the batch axis is found by running it and
    made dynamic where it is fixed, and the result is checked against the file. The file is not changed.
    ``states``, output -> input of the next call, no graph says; with them samples are sequences of calls.

    Raises:
        BundleError: it is not an ONNX graph, or onnxruntime does not run it; or a state cannot be one.
        UnsafeFileError: weights in other files, or operators that foreign code brings.
        TooLargeError: more nodes than the limit, larger tensors, or runs that take longer.
        UnsupportedModelError: operators of one runtime, inputs of a type that nothing here makes, a batch that is fixed
            inside, or an output that mixes the samples of a batch.
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
    known = tokenizer if tokenizer.is_file() else None
    registry = default_registry()
    asked_of = registry.entries("processor").values()  # each says what it would make of such inputs
    sources = plugin_sources(registry, *asked_of)
    key = cache_key("graph", file=path, metadata=replace(metadata, tokenizer=known), states=states, sources=sources)
    place, bundle = prepared(path.stem, key)
    if bundle is not None:
        return bundle
    progress.say(f"reading {path.name} (once)")
    tidy, length = _tidied(model, path)
    signature = with_states(signature_of(tidy), states or {}, progress)
    asked = ForeignInputs(
        inputs=signature.inputs,
        source=str(path),
        mean=metadata.mean,
        std=metadata.std,
        value_range=metadata.value_range,
        size=metadata.size,
        tokenizer=known,
    )
    lengths = {} if length == LENGTHS[0] else _lengths(signature, length)
    spec = (
        sequences_of(signature, lengths)
        if states
        else _input_config(asked, lengths, metadata.processor, registry, progress)
    )
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
        processor = open_config(spec, registry=registry)
        layers = graph_costs([graph], processor)
        draft.manifest = Manifest(
            name=path.stem,
            model=ModelRef(backbone=f"{GRAPH_ONLY}{path.name}", head="", outputs=count),
            processor=describe_config(spec),
            signature=signature,
            driver=STATEFUL if states else SINGLE,
            labels=metadata.labels,
            license="unknown",
            parameters=sum(int(np.prod(t.dims)) for t in tidy.graph.initializer if t.data_type == TensorProto.FLOAT),
            macs=sum(layer.macs for layer in layers),
            counted_at=sizes_counted_at(processor),
            provenance={"source": path.name, "sha256": content_digest(path), "opset": opset_of(model)},
            layers={"float": tuple(layers)},
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


def _lengths(signature: ModelSignature, length: int) -> dict[str, int]:
    """Of the free axes of inputs that are not images, besides the batch."""
    flat = [tensor for tensor in signature.inputs if len(tensor.shape) != IMAGE_AXES]
    return {name: length for tensor in flat for axis, name in tensor.free.items() if axis != tensor.batch}


def _tidied(model: ModelProto, path: Path) -> tuple[ModelProto, int]:
    """The graph with a free batch axis, constants as initializers, batch norm folded."""
    from onnx import inliner, version_converter

    tidy = inliner.inline_local_functions(model) if model.functions else _copy(model)
    check_tensor_sizes(GraphIndex(tidy), str(path))
    inputs = [_copy(value) for value in graph_inputs(tidy)]
    as_written = not model.functions and len(inputs) == len(model.graph.input)
    del tidy.graph.input[:]
    tidy.graph.input.extend(inputs)
    tidy.ir_version = max(tidy.ir_version, 8)  # first: up to 3 a constant had to be an input as well
    if opset_of(tidy) < OPSET:
        as_written = False
        try:
            tidy = version_converter.convert_version(tidy, NEWER)
        except Exception as error:  # its C++ side raises RuntimeError and types of its own
            raise UnsupportedModelError(
                f"{path} has opset {opset_of(model)} and cannot be converted: {error}", f"export it with opset {NEWER}"
            ) from error
    time_left = TimeLeft(str(path))
    folded, session = _folded(tidy, path, time_left)
    # Loading is most of the time that a large graph takes: what is not changed is not loaded again.
    own = session if as_written else load_foreign(model, path, time_left)
    try:
        return batched_graph(own, folded, path, time_left)
    except UnsupportedModelError:
        folded, _ = _folded(tidy, path, time_left, without=KEEPS_SHAPES)
        return batched_graph(own, folded, path, time_left)


def _folded(
    model: ModelProto, path: Path, time_left: TimeLeft, without: Sequence[str] = ()
) -> tuple[ModelProto, BoundedSession]:
    """What onnxruntime makes of a graph with its basic rewrites, which stay within the standard's operators.

    And the session that made it.
    """
    with scratch_folder() as folder:
        place = folder / "folded.onnx"
        session = load_foreign(model, path, time_left, optimized=place, without=without)
        folded = onnx.load(place)
    if any(node.domain not in STANDARD for node in nodes(folded.graph.node)) or not assigns_once(folded.graph):
        folded = _copy(model)  # a rewrite that this version of onnxruntime has beyond the standard
    standard = [o for o in folded.opset_import if o.domain in STANDARD]
    del folded.opset_import[:]
    folded.opset_import.extend(standard)
    _make_constant_outputs(folded)
    return folded, session


def _make_constant_outputs(model: ModelProto) -> None:
    """Let a node make each output that is a constant, as the standard asks, in place."""
    outputs = {output.name for output in model.graph.output}
    stored = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name in outputs}
    if not stored:
        return
    fresh = FreshNames.of(model)
    made = []
    for name, tensor in stored.items():
        tensor.name = fresh(f"{name}_constant")
        made.append(helper.make_node("Identity", [tensor.name], [name]))
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*made, *rest])  # first, as others may read the output


def _input_config(
    asked: ForeignInputs, lengths: Mapping[str, int], processor: str, registry: Registry, progress: Progress
) -> Any:
    """How samples become the inputs: as the one processor has it that makes them; else arrays by name.

    Raises:
        RecipeError: the ``processor`` that is asked for does not make them; or mean and std are for one of several.
    """
    arrays = ArraysSpec(inputs=asked.inputs, lengths=lengths)
    if processor:
        own, _ = spec_and_config(arrays, registry)
        config = arrays if processor == own.name else feeding(asked, registry, processor).get(processor)
        if config is None:
            raise RecipeError(
                f"the processor {processor!r} does not make the inputs of {asked.source}", f"use --processor {own.name}"
            )
        return config
    able = feeding(asked, registry)
    if len(able) > 1:
        progress.say(f"{' and '.join(able)} could make its inputs: read as arrays, unless --processor says which")
    if len(able) == 1:
        return next(iter(able.values()))
    if len(asked.inputs) == 1 or not asked.mean:
        return arrays
    # What is said of an image is of one input; the others are read each as what it is.
    fields: dict[str, Any] = {}
    images = 0
    for tensor in asked.inputs:
        each = list(feeding(replace(asked, inputs=(tensor,), tokenizer=None), registry).values())
        opened = open_config(each[0], registry=registry) if len(each) == 1 else None
        images += opened is not None and opened.image is not None
        # Whole numbers of any length may be tokens, or their mask: with nothing said of them they are arrays.
        free = {name: length for name, length in lengths.items() if name in tensor.free.values()}
        alone = ArraysSpec(inputs=(tensor,), lengths=free)
        fields[tensor.name] = each[0] if opened is not None and opened.text is None else alone
    if images != 1:
        raise RecipeError(
            f"{asked.source} has {images} inputs that are images, and mean and std are for one",
            "leave out --mean, --std",
        )
    return MappingSpec(fields=fields)


def _copy(message: ModelProto) -> ModelProto:
    copied = type(message)()
    copied.CopyFrom(message)
    return copied
