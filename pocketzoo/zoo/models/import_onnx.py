"""Import an ONNX file as a bundle: check and clean the graph, and describe its input."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto

from pocketzoo.core.content_digests import content_digest
from pocketzoo.core.errors import BundleError, DataError, RecipeError, UnsupportedModelError
from pocketzoo.core.keys import cache_key
from pocketzoo.core.optional import require
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.renamed import keywords_renamed
from pocketzoo.core.untrusted.exits import survives_exit
from pocketzoo.zoo.backends.onnxruntime.batch_axes import IMAGE_AXES, LENGTHS
from pocketzoo.zoo.backends.onnxruntime.batched_graph import BatchedGraph
from pocketzoo.zoo.backends.onnxruntime.tidied_graph import tidied_graph
from pocketzoo.zoo.bundles.bundle import Bundle, graph_name, read_bundle, source_file_name, writing
from pocketzoo.zoo.bundles.manifest import GRAPH_ONLY, SINGLE, STATEFUL, Manifest, ModelRef
from pocketzoo.zoo.bundles.plugin_source import plugin_sources
from pocketzoo.zoo.bundles.prepared import prepared
from pocketzoo.zoo.catalog.head_task import NO_ANSWERS, AnswerFacts, completed_decoder, facts_of
from pocketzoo.zoo.catalog.processor import ForeignInputs
from pocketzoo.zoo.catalog.processor_configs import ArraysSpec, MappingSpec
from pocketzoo.zoo.catalog.registry import Registry, default_registry
from pocketzoo.zoo.catalog.signature import ModelSignature, TensorSpec
from pocketzoo.zoo.data.processors.open_processor import (
    describe_config,
    feeding,
    needed_files,
    open_config,
    spec_and_config,
)
from pocketzoo.zoo.graphs.contents import stored_bytes
from pocketzoo.zoo.graphs.cost import parameters_of
from pocketzoo.zoo.graphs.files.external_data import external_files, load_external
from pocketzoo.zoo.graphs.files.graph_files import message_bytes, save_graph
from pocketzoo.zoo.graphs.float_precision import float_precision
from pocketzoo.zoo.graphs.foreign.class_axis import class_axis
from pocketzoo.zoo.graphs.foreign.fixed_inputs import fix_inputs
from pocketzoo.zoo.graphs.foreign.lengths import check_axes, clear_names, shown_sides, told_lengths
from pocketzoo.zoo.graphs.foreign.metadata import OnnxMetadata
from pocketzoo.zoo.graphs.foreign.one_sample import over_samples
from pocketzoo.zoo.graphs.foreign.quantized import quantizing_nodes
from pocketzoo.zoo.graphs.foreign.standard_form import not_numbers, put_in_standard_form, random_nodes
from pocketzoo.zoo.graphs.index import graph_inputs, opset_of
from pocketzoo.zoo.graphs.safety import check_graph, references
from pocketzoo.zoo.graphs.signature import signature_of
from pocketzoo.zoo.graphs.states import States, check_growing, sequences_of, with_states
from pocketzoo.zoo.models.model_costs import graph_costs, sizes_counted_at

POSITIONS = ("token-classification", "position-class-scores")  # task and decoder of classes at several positions
GROWN = 0.1  # of the bytes of a file, from which on it is said that what is stored is more


@survives_exit
@keywords_renamed(reading="metadata")
def open_graph(
    path: str | Path,
    metadata: OnnxMetadata | None = None,
    progress: Progress = SILENT,
    *,
    states: States | None = None,
) -> Bundle:
    """Import an ONNX file as a bundle, written below ``home()`` on first use. It has a graph and no module.

    It may have any inputs and outputs. Constants and batch norm are folded, the batch axis is found by running it and
    made dynamic where it is fixed, and the result is checked against the file. Where no axis counts samples, or a batch
    mixes them, each sample is run by itself. The file is not changed; weights in files alongside it are read.
    ``states``, output -> input of the next call, are added to those of ``metadata``; with them samples are sequences of
    calls.

    Raises:
        BundleError: it is not an ONNX graph, or onnxruntime does not run it; or a state cannot be one.
        UnknownNameError: the metadata names an input, axis, task, decoder or processor that there is not.
        UnsafeFileError: weights in files elsewhere, or operators that foreign code brings.
        TooLargeError: more nodes than the limit, larger tensors, or runs that take longer.
        UnsupportedModelError: inputs or outputs that are no arrays, or inputs of a type that nothing here makes.
    """
    require("onnxruntime")  # before anything is read
    path = Path(path)
    metadata = metadata or OnnxMetadata()
    metadata = replace(metadata, states={**metadata.states, **(states or {})})
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's errors share no base but Exception
        raise BundleError(f"{path} is not an ONNX graph", "give a .onnx file") from error
    if not model.graph.node:
        raise BundleError(f"{path} is not an ONNX graph: it has no nodes", "give a .onnx file")
    files = external_files(model, path)
    _refuse(model, path, files)
    metadata = _with_tokenizer(metadata, path)
    registry = default_registry()
    asked_of = registry.entries("processor").values()  # each says what it would make of such inputs
    sources = plugin_sources(registry, *asked_of)
    key = cache_key("graph", file=path, weights=tuple(files.values()), metadata=metadata, sources=sources)
    place, bundle = prepared(path.stem, key)
    if bundle is not None:
        return bundle
    progress.say(f"reading {path.name} (once)")
    load_external(model, files, path)
    put_in_standard_form(model, str(path))
    clear_names(model)
    if metadata.values:
        fix_inputs(model, metadata.values, str(path))
    told = _told(model, metadata)
    batched = _tidied(model, path, told, progress, whole=metadata.whole)
    if batched.alone:
        progress.say(f"{path.name} has no axis for samples, each is a run of its own: {batched.alone}")
    signature = with_states(batched.signature, metadata.states, progress)
    seen = over_samples(signature) if batched.alone else signature  # by what makes its inputs
    check_axes(seen, metadata, path)
    spec = _spec(seen, batched.length, told, metadata, path, registry, progress)
    tidy = batched.graph
    outputs = tidy.graph.output[0].type.tensor_type.shape.dim
    count = outputs[-1].dim_value if outputs else 0
    found = None if metadata.task else class_axis(seen, metadata, path, progress)
    if metadata.labels and not metadata.task and found is None:
        _check_labels(tidy.graph.output[0], metadata.labels, path)
    answers = _answers(metadata, spec, registry, found)
    quantized = quantizing_nodes(tidy)
    with writing(place) as draft:
        graph = draft.mark(graph_name(), precision="int8" if quantized else float_precision(tidy))
        save_graph(tidy, graph)
        if metadata.tokenizer is not None:
            for name in needed_files(spec, default_registry()):
                shutil.copyfile(metadata.tokenizer, draft.folder / source_file_name(name))
        processor = open_config(spec, registry=registry)
        layers = graph_costs([graph], processor, progress)
        draft.manifest = Manifest(
            name=path.stem,
            model=ModelRef(backbone=f"{GRAPH_ONLY}{path.name}", head="", outputs=count),
            processor=describe_config(spec),
            signature=signature,
            driver=STATEFUL if metadata.states else SINGLE,
            one_by_one=bool(batched.alone),
            labels=metadata.labels,
            task=answers.task,
            tag=answers.tag,
            task_provider=answers.provider,
            decoder=answers.decoder,
            license="unknown",
            parameters=parameters_of(tidy),
            macs=sum(layer.macs for layer in layers),
            counted_at=sizes_counted_at(processor),
            provenance={
                "source": path.name,
                "sha256": content_digest(path),
                "opset": opset_of(model),
                **({"quantized": list(quantized)} if quantized else {}),
            },
            layers={"float": tuple(layers)},
        )
    return read_bundle(place)


def stated_signature(path: Path) -> ModelSignature | None:
    """What an ONNX file says that it reads, before it is opened; None where that cannot be read, as opening says."""
    try:
        references(path)
        model = onnx.load(path, load_external_data=False)
        clear_names(model)
        return signature_of(model)
    except Exception:  # protobuf's errors share no base
        return None


def _told(model: onnx.ModelProto, metadata: OnnxMetadata) -> dict[str, int]:
    """``told_lengths`` of a graph, after its states are checked: no run says which of its lengths do not fit.

    Those whose shape the file does not state are checked when a run has told it.
    """
    signature = signature_of(model)
    unstated = {output.name for output in model.graph.output if not output.type.tensor_type.HasField("shape")}
    if states := {output: fed for output, fed in metadata.states.items() if output not in unstated}:
        check_growing(signature, states)
    return told_lengths(signature, metadata)


def _with_tokenizer(metadata: OnnxMetadata, path: Path) -> OnnxMetadata:
    """The metadata with the tokenizer that lies alongside the file, where there is one and none is named."""
    place = Path(metadata.tokenizer or path.parent / "tokenizer.json")
    if metadata.tokenizer is not None and not place.is_file():
        raise DataError(f"there is no tokenizer at {place}", "give its tokenizer.json")
    return replace(metadata, tokenizer=place if place.is_file() else None)


def _spec(
    signature: ModelSignature,
    length: int,
    told: Mapping[str, int],
    metadata: OnnxMetadata,
    path: Path,
    registry: Registry,
    progress: Progress,
) -> Any:
    """The config of what makes its inputs of samples."""
    asked = ForeignInputs(
        inputs=signature.inputs,
        source=str(path),
        mean=metadata.mean,
        std=metadata.std,
        value_range=metadata.value_range,
        size=metadata.size if isinstance(metadata.size, int) else None,
        sides=shown_sides(signature, metadata),
        tokenizer=metadata.tokenizer,
    )
    lengths = {} if length == LENGTHS[0] else _lengths(signature, length)
    lengths |= {
        name: told[name] for t in signature.inputs for axis, name in t.free.items() if axis != t.batch and name in told
    }
    if metadata.states:
        return sequences_of(signature, lengths)
    return _input_config(asked, lengths, metadata.processor, registry, progress)


def _answers(
    metadata: OnnxMetadata, spec: Any, registry: Registry, classes: tuple[TensorSpec, int] | None
) -> AnswerFacts:
    """What its outputs mean, as far as that is said.

    Raises:
        UnknownNameError: no plugin declares the task or decoder; the hint is the nearest.
        PluginError: the decoder is for another task.
    """
    if classes is not None:
        output, axis = classes
        task = registry.get("task", POSITIONS[0])
        known = registry.get("decoder", POSITIONS[1])
        config = known.config(output=output.name, axis=axis, samples=output.batch or 0)
        return facts_of(task, completed_decoder(known.name, config, task, spec, registry), spec, registry)
    if not metadata.task:
        return NO_ANSWERS
    task = registry.get("task", metadata.task)
    decoder = completed_decoder(metadata.decoder or task.decoder, None, task, spec, registry)
    return facts_of(task, decoder, spec, registry)


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
            "leave the labels out, or say what the output is for with --task",
        )
    if not is_label and dims[1].dim_value != len(labels):
        raise UnsupportedModelError(
            f"{path} has {dims[1].dim_value} outputs, but there are {len(labels)} labels", "give one label per output"
        )


def _tidied(model: ModelProto, path: Path, told: Mapping[str, int], progress: Progress, *, whole: bool) -> BatchedGraph:
    """``tidied_graph``, or what keeps it from being held against itself; weights that cannot be are said."""
    if broken := not_numbers(model):
        progress.say(f"{path.name} has values in {broken!r} that are no numbers (NaN)")
    try:
        batched = tidied_graph(model, path, told, progress, whole=whole)
    except UnsupportedModelError as error:
        if not (found := random_nodes(model)):
            raise
        node = f"{found[0].op_type} {found[0].name or found[0].output[0]!r}"
        raise UnsupportedModelError(
            f"{path} gives another answer each time: {node} makes random numbers",
            "export it for inference, or with the random numbers as an input",
        ) from error
    written, stored = map(stored_bytes, (model, batched.graph))
    if stored - written > GROWN * message_bytes(model):
        progress.say(
            f"{path.name} computes weights of constants, which are stored: {written:,} -> {stored:,} bytes of "
            "constants, and steps are measured against these"
        )
    return batched


def _refuse(model: ModelProto, path: Path, files: Collection[str]) -> None:
    """What cannot be read here, said before anything runs it."""
    if not graph_inputs(model):
        raise UnsupportedModelError(
            f"{path} has no inputs, so that it always gives the same", "export the model with its inputs"
        )
    check_graph(path, files=files)
    for side, values in (("reads", graph_inputs(model)), ("outputs", model.graph.output)):
        for value in values:
            kind = value.type.WhichOneof("value") or "tensor_type"
            if kind != "tensor_type":
                raise UnsupportedModelError(
                    f"{path} {side} {value.name!r}, which is not a tensor but of {kind}", "export it with tensors only"
                )


def _lengths(signature: ModelSignature, length: int) -> dict[str, int]:
    """Of the free axes of inputs that are not images, besides the batch."""
    flat = [tensor for tensor in signature.inputs if len(tensor.shape) != IMAGE_AXES]
    return {name: length for tensor in flat for axis, name in tensor.free.items() if axis != tensor.batch}


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
