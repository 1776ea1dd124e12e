"""A model repository for NVIDIA's Triton inference server.

::

    NAME/config.pbtxt, labels.txt, 1/model.onnx or 1/model.plan     the model
    NAME-images/config.pbtxt, 1/model.onnx                        resizes, cuts out and normalizes images
    NAME-from-images/config.pbtxt, labels.txt, 1/                 both, one after the other: an ensemble

Source: "Model Configuration" and "Ensemble Models" of Triton's user guide; fields are those of its model_config.proto.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, ValueInfoProto

from pocketzoo.core.errors import ExportError, UnsupportedModelError
from pocketzoo.core.files import replacing_folder, scratch_folder
from pocketzoo.core.names import RULE, is_name
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.zoo.backends.open_backend import backend_of, build
from pocketzoo.zoo.catalog.backend import BackendSpec, TritonModel
from pocketzoo.zoo.catalog.engine_options import EngineOptions
from pocketzoo.zoo.catalog.export_request import ExportRequest
from pocketzoo.zoo.catalog.registry import default_registry
from pocketzoo.zoo.catalog.signature import BATCH
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.graphs.files.load_graph import load_graph
from pocketzoo.zoo.graphs.files.weight_files import copy_graph
from pocketzoo.zoo.graphs.fresh_names import FreshNames
from pocketzoo.zoo.graphs.index import graph_inputs

TYPES: dict[int, str] = {
    TensorProto.FLOAT: "TYPE_FP32",
    TensorProto.FLOAT16: "TYPE_FP16",
    TensorProto.BFLOAT16: "TYPE_BF16",
    TensorProto.DOUBLE: "TYPE_FP64",
    TensorProto.INT8: "TYPE_INT8",
    TensorProto.INT16: "TYPE_INT16",
    TensorProto.INT32: "TYPE_INT32",
    TensorProto.INT64: "TYPE_INT64",
    TensorProto.UINT8: "TYPE_UINT8",
    TensorProto.UINT16: "TYPE_UINT16",
    TensorProto.UINT32: "TYPE_UINT32",
    TensorProto.UINT64: "TYPE_UINT64",
    TensorProto.BOOL: "TYPE_BOOL",
    TensorProto.STRING: "TYPE_STRING",
}
DELAY = 500  # microseconds that a request waits for others to share a batch with
LABELS = "labels.txt"
GRAPH = TritonModel(backend="onnxruntime", file="model.onnx")  # of a target without a back end: any runtime's
Config = Mapping[str, Any]


class Word(str):
    """An enumerator: written without quotes."""

    __slots__ = ()


def save_repository(
    graph: Path, out: Path, target: TargetSpec, request: ExportRequest, *, progress: Progress = SILENT
) -> None:
    """Write a model repository to the folder ``out``.

    The back end of the target says which of Triton's runs it and builds what that loads; a target without one gets the
    graph, for Triton's onnxruntime. Where the model's processor can be written as a graph, as that of images, there is
    a second model that prepares samples, and an ensemble of both; tokenizing is no graph.

    Raises:
        MissingDependencyError: the target's package is not installed.
        ExportError: Triton does not run what the target's back end builds, the graph's inputs have no common batch, or
            it cannot be built. Nothing is left.
    """
    owner = request.backend or backend_of(target, default_registry())[0]
    runs = triton_model(owner, target)
    model = load_graph(graph)
    config = model_config(request, target, graph_inputs(model), list(model.graph.output), runs)
    with replacing_folder(out) as folder:
        place = folder / request.name / "1"
        place.mkdir(parents=True)
        if owner is not None and owner.builds:
            build(owner, graph, place / runs.file, target, options=request.options, progress=progress)
        else:
            copy_graph(graph, place / runs.file)
        _finish(folder / request.name, config, request.labels)
        if config["max_batch_size"] and not request.states:
            _add_preprocessing(folder, config, request, progress)


def triton_model(owner: BackendSpec | None, target: TargetSpec) -> TritonModel:
    """How Triton runs what a back end builds for a target.

    Raises:
        ExportError: it does not.
    """
    if owner is None:
        return GRAPH
    if owner.triton is None:
        raise ExportError(f"Triton does not run what {owner.name} builds", "use --target cpu, or --target cuda")
    runs = owner.triton(target)
    if not is_name(runs.file):
        raise ExportError(f"{owner.name} calls its file in a repository {runs.file!r}", RULE)
    return runs


def model_config(
    request: ExportRequest,
    target: TargetSpec,
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    runs: TritonModel = GRAPH,
) -> Config:
    """The configuration of the model itself, with all its inputs and outputs.

    Triton batches along the first axis of every tensor. A model that has a tensor without samples, or with samples
    along another axis, takes one request at a time, whose shapes are the graph's own.

    Raises:
        ExportError: no input has a free axis of samples, or Triton has no such type.
    """
    if request.states:
        return sequence_config(request, target, inputs, outputs, runs)
    for value in (*inputs, *outputs):
        if value.type.tensor_type.elem_type not in TYPES:
            raise ExportError(f"Triton has no type for the tensor {value.name!r}", "export it with another type")
    if not any(isinstance(dim, str) for value in inputs for dim in _dims(value)):
        raise ExportError("the graph has no free batch axis, which Triton needs for batching", "export it with one")
    firsts = {_dims(value)[0] if _dims(value) else 1 for value in inputs}
    batch = firsts.pop() if len(firsts) == 1 else ""
    if not isinstance(batch, str) or not batch or any(_dims(v)[:1] != [batch] for v in outputs if _is_stated(v)):
        return _whole_config(request, target, inputs, outputs, runs)
    _, best, most = request.options.sizes(batch)
    most = max(most, 1)
    best = min(max(best, 1), most)
    labeled = {"label_filename": LABELS} if request.labels else {}
    sample = {value.name: {**_filled(value, request.options), "zero_data": True} for value in inputs}
    return {
        "name": request.name,
        "backend": runs.backend,
        "max_batch_size": most,
        "input": [{"name": value.name, **_tensor(value)} for value in inputs],
        "output": [{"name": v.name, **_tensor(v), **(labeled if i == 0 else {})} for i, v in enumerate(outputs)],
        "dynamic_batching": {
            "preferred_batch_size": sorted({best, most}),
            "max_queue_delay_microseconds": DELAY,
        },
        "instance_group": [{"count": 1, "kind": Word("KIND_GPU" if target.device == "gpu" else "KIND_CPU")}],
        "model_warmup": [
            {"name": f"zeros in a batch of {size}", "batch_size": size, "inputs": sample} for size in sorted({1, best})
        ],
        **_optimization(runs),
    }


def _whole_config(
    request: ExportRequest,
    target: TargetSpec,
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    runs: TritonModel,
) -> Config:
    """Of a model that Triton cannot batch: all axes are stated."""
    tensors = [[{"name": v.name, **_tensor(v, whole=True)} for v in side] for side in (inputs, outputs)]
    return {
        "name": request.name,
        "backend": runs.backend,
        "max_batch_size": 0,
        "input": tensors[0],
        "output": tensors[1],
        "instance_group": [{"count": 1, "kind": Word("KIND_GPU" if target.device == "gpu" else "KIND_CPU")}],
        **_optimization(runs),
    }


def sequence_config(
    request: ExportRequest,
    target: TargetSpec,
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    runs: TritonModel,
) -> Config:
    """Of a model with states, which Triton keeps for each sequence of requests, from zeros on.

    Sequences are batched where samples lie along the first axis of every tensor; else each runs alone.

    Raises:
        ExportError: a state has an axis of no known size besides the batch, or Triton has no type for a tensor.
    """
    for value in (*inputs, *outputs):
        if value.type.tensor_type.elem_type not in TYPES:
            raise ExportError(f"Triton has no type for the tensor {value.name!r}", "export it with another type")
    fed = {value.name: value for value in inputs}
    states = [(name, fed[given]) for name, given in request.states.items()]
    for _, value in states:
        if any(isinstance(dim, str) and dim != BATCH for dim in _dims(value)):
            shape = " x ".join(map(str, _dims(value)))
            raise ExportError(
                f"the state {value.name!r} is {shape}, and Triton starts with zeros of a known size",
                "export the graph with fixed axes besides the batch",
            )
    batched = all(_dims(value)[:1] == [BATCH] for value in (*inputs, *outputs))
    most = max(request.options.sizes(BATCH)[2], 1) if batched else 0
    given = [value for value in inputs if value.name not in request.states.values()]
    answers = [value for value in outputs if value.name not in request.states]
    return {
        "name": request.name,
        "backend": runs.backend,
        "max_batch_size": most,
        "input": [_of_a_sequence(value, whole=not batched) for value in given],
        "output": [_of_a_sequence(value, whole=not batched) for value in answers],
        "sequence_batching": {"state": [_state(name, value, whole=not batched) for name, value in states]},
        "instance_group": [{"count": 1, "kind": Word("KIND_GPU" if target.device == "gpu" else "KIND_CPU")}],
        **_optimization(runs),
    }


def _of_a_sequence(value: ValueInfoProto, *, whole: bool) -> Config:
    return (
        {"name": value.name, **_alone(value, _tensor(value, whole=whole))}
        if whole
        else {"name": value.name, **_tensor(value)}
    )


def _alone(value: ValueInfoProto, tensor: Config) -> Config:
    """A tensor of a model that Triton does not batch: of one sequence."""
    dims = [1 if name == BATCH else dim for name, dim in zip(_dims(value), tensor["dims"], strict=False)]
    return {**tensor, "dims": dims or tensor["dims"]}


def _state(output: str, value: ValueInfoProto, *, whole: bool) -> Config:
    tensor = _alone(value, _tensor(value, whole=True)) if whole else _tensor(value)
    facts = {key: tensor[key] for key in ("data_type", "dims")}
    return {
        "input_name": value.name,
        "output_name": output,
        **facts,
        "initial_state": [{**facts, "zero_data": True, "name": "zeros"}],
    }


def _is_stated(value: ValueInfoProto) -> bool:
    """Whether a graph says what the axes of an output are: one that does not may have any."""
    return value.type.tensor_type.HasField("shape") and "?" not in _dims(value)[:1]


def pbtxt(config: Config, indent: str = "") -> str:
    """A mapping in protobuf's text format; a mapping called "inputs", "input_map" or "output_map" is a map field."""
    lines = []
    for key, value in config.items():
        if key in ("inputs", "input_map", "output_map"):
            entries = [{"key": k, "value": v} for k, v in value.items()]
        else:
            entries = list(value) if isinstance(value, (list, tuple)) else [value]
        for entry in entries:
            if isinstance(entry, Mapping):
                lines += [f"{indent}{key} {{", pbtxt(entry, indent + "  "), f"{indent}}}"]
            else:
                lines.append(f"{indent}{key}: {_scalar(entry)}")
    return "\n".join(lines)


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and not isinstance(value, Word):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    return str(value)


def _dims(value: ValueInfoProto) -> list[int | str]:
    shape = value.type.tensor_type.shape
    return [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in shape.dim]


def _tensor(value: ValueInfoProto, *, whole: bool = False) -> Config:
    """Type and dims, without the batch unless ``whole``; a free axis is -1.

    Triton takes no tensor without dims: one number for each sample is [1] to its clients, and reshaped for the model.
    """
    dims = [d if isinstance(d, int) else -1 for d in (_dims(value) if whole else _dims(value)[1:])]
    reshaped: Config = {} if dims else {"reshape": {"shape": []}}
    return {"data_type": Word(TYPES[value.type.tensor_type.elem_type]), "dims": dims or [1], **reshaped}


def _filled(value: ValueInfoProto, options: EngineOptions) -> Config:
    """Type and dims of what a model is warmed up with, without the batch: a free axis is as long as is best."""
    dims = [d if isinstance(d, int) else options.sizes(d)[1] for d in _dims(value)[1:]]
    return {"data_type": Word(TYPES[value.type.tensor_type.elem_type]), "dims": dims or [1]}


def _optimization(runs: TritonModel) -> Config:
    if not runs.accelerators:
        return {}
    accelerators = {"cpu_execution_accelerator": [{"name": name} for name in runs.accelerators]}
    return {"optimization": {"execution_accelerators": accelerators}}


def _finish(place: Path, config: Config, labels: Sequence[str]) -> None:
    (place / "config.pbtxt").write_text(pbtxt(config) + "\n", "utf8")
    if labels:
        lines = (" ".join(label.split()) for label in labels)
        (place / LABELS).write_text("\n".join(lines) + "\n", "utf8")


def _add_preprocessing(folder: Path, config: Config, request: ExportRequest, progress: Progress) -> None:
    """The model that prepares samples as the processor does, and the ensemble."""
    by = f"the processor {request.processor!r}" if request.processor else "its processor"
    if request.graph is None:
        progress.say(f"no ensemble, the client prepares the input: {by} has no graph")
        return
    if len(config["input"]) != 1:
        progress.say(f"no ensemble, the client prepares the inputs: {by} makes several")
        return
    what = request.processor or request.modality
    first, whole = f"{request.name}-{what}s", f"{request.name}-from-{what}s"
    with scratch_folder() as written:
        path = Path(written) / "model.onnx"
        try:
            request.graph(path)
        except UnsupportedModelError as error:
            progress.say(f"no ensemble, the client prepares the input: {by}: {error.message}")
            return
        graph = onnx.load(path).graph
        (folder / first / "1").mkdir(parents=True)
        (folder / whole / "1").mkdir(parents=True)
        shutil.copyfile(path, folder / first / "1" / "model.onnx")
    (source,), (result,) = graph.input, graph.output
    raw, prepared = ({"name": value.name, **_tensor(value)} for value in (source, result))
    (answer,) = config["output"][:1]
    outside = {key: value for key, value in answer.items() if key != "reshape"}  # which the model itself does
    fresh = FreshNames([source.name])  # the tensors of an ensemble share their names
    output_name, between = fresh(answer["name"]), fresh("prepared")
    preparation = {
        "name": first,
        "backend": "onnxruntime",
        "max_batch_size": config["max_batch_size"],
        "input": [raw],
        "output": [prepared],
        "instance_group": [{"count": 1, "kind": Word("KIND_CPU")}],
    }
    ensemble = {
        "name": whole,
        "platform": "ensemble",
        "max_batch_size": config["max_batch_size"],
        "input": [raw],
        "output": [{**outside, "name": output_name}],
        "ensemble_scheduling": {
            "step": [
                {
                    "model_name": first,
                    "model_version": -1,
                    "input_map": {source.name: source.name},
                    "output_map": {result.name: between},
                },
                {
                    "model_name": request.name,
                    "model_version": -1,
                    "input_map": {config["input"][0]["name"]: between},
                    "output_map": {answer["name"]: output_name},
                },
            ]
        },
    }
    _finish(folder / first, preparation, ())
    _finish(folder / whole, ensemble, request.labels)
