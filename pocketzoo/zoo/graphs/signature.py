"""The signature of an ONNX graph."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from onnx import ValueInfoProto, helper

from pocketzoo.core.errors import UnsupportedModelError
from pocketzoo.zoo.catalog.signature import ONE, SAMPLES, Dim, ModelSignature, signature_of_axes, without_samples
from pocketzoo.zoo.graphs.index import graph_inputs

if TYPE_CHECKING:
    import numpy as np


def signature_of(graph: Path | onnx.ModelProto, states: dict[str, str] | None = None) -> ModelSignature:
    """What a graph reads and outputs: names, types and axes as it states them.

    Which axis counts samples is the one called "batch", or the first where it is free; none where the file says that a
    run takes one sample. ``states``, output -> the input that it is at the next call, cannot be read from a graph.

    Raises:
        UnknownNameError: a state is no output, or what it feeds no input, of the graph.
        UnsupportedModelError: numbers of a type that ONNX does not have.
    """
    model = onnx.load(graph, load_external_data=False) if isinstance(graph, Path) else graph
    signature = signature_of_axes(_axes(graph_inputs(model)), _axes(model.graph.output))
    if any(entry.key == SAMPLES and entry.value == ONE for entry in model.metadata_props):
        signature = without_samples(signature)
    for output, feeds in (states or {}).items():
        signature.output(output)
        signature.input(feeds)
    outputs = tuple(replace(output, feeds=(states or {}).get(output.name, "")) for output in signature.outputs)
    return replace(signature, outputs=outputs)


def _axes(values: Iterable[ValueInfoProto]) -> list[tuple[str, list[Dim | None], str]]:
    return [(value.name, _dims(value), _dtype(value)) for value in values]


def _dims(value: ValueInfoProto) -> list[Dim | None]:
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in dims]


def _dtype(value: ValueInfoProto) -> str:
    """numpy's name for the type; what is no tensor has that of its kind."""
    if not value.type.HasField("tensor_type"):
        return str(value.type.WhichOneof("value"))
    if value.type.tensor_type.elem_type == onnx.TensorProto.STRING:
        return "str"
    return numpy_type(value).name


def numpy_type(value: ValueInfoProto) -> np.dtype[Any]:
    """The type of a tensor's numbers.

    Raises:
        UnsupportedModelError: it has one that ONNX does not have.
    """
    kind = value.type.tensor_type.elem_type
    try:
        return helper.tensor_dtype_to_np_dtype(kind)
    except KeyError as error:
        raise UnsupportedModelError(
            f"{value.name!r} has numbers of type {kind}, which is none", "export it again"
        ) from error
