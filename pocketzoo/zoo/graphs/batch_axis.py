"""Give a graph the batch axis that it was found to have: free, and called "batch"; or say that it has none."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from onnx import ModelProto, TensorProto, ValueInfoProto, numpy_helper

from pocketzoo.zoo.catalog.signature import BATCH, ONE, SAMPLES
from pocketzoo.zoo.graphs.fresh_names import graphs, inner_graphs
from pocketzoo.zoo.graphs.index import GraphIndex, graph_inputs

KNOWN_BY_WEIGHTS = 32  # lengths that are tried of them


def free_batch(model: ModelProto, axes: Mapping[str, int | None], fixed: int) -> None:
    """Give axes of ``fixed`` length any, in place: of inputs, of outputs, and in the shapes given to Reshape.

    Inside branches and loops nobody knows which axis that is: there none of this length is said to have it.
    """
    for value in graph_inputs(model):
        if (axis := axes.get(value.name)) is not None:
            value.type.tensor_type.shape.dim[axis].dim_param = BATCH
    for value in model.graph.output:
        dims = value.type.tensor_type.shape.dim
        if dims and dims[0].dim_value == fixed:
            dims[0].dim_param = BATCH
    del model.graph.value_info[:]
    for inner in (each for node in model.graph.node for graph in inner_graphs(node) for each in graphs(graph)):
        del inner.value_info[:]
        for value in (*inner.input, *inner.output):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_value == fixed:
                    dim.Clear()
    index = GraphIndex(model)
    # Who reads such a constant for something else, also inside a branch, is to continue reading what it reads.
    given = {node.input[1] for node in index.nodes if node.op_type == "Reshape"} - index.outputs
    shapes = {name for name in given if all(node.op_type == "Reshape" for node in index.consumers[name])}
    for tensor in model.graph.initializer:
        if tensor.name in shapes:
            shape = numpy_helper.to_array(tensor).copy()
            if shape.ndim == 1 and len(shape) > 1 and shape[0] == fixed:
                shape[0] = 0 if -1 in shape[1:] else -1  # 0 copies the axis
                tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))


def name_batch(
    model: ModelProto, inputs: Mapping[str, int | None], outputs: Mapping[str, int | None], ranks: Mapping[str, int]
) -> None:
    """Call the axis of samples of each input and output ``BATCH``, and no other, in place.

    ``ranks`` are the numbers of axes of the outputs: a file need not state their shapes.
    """
    former = set()
    for value in graph_inputs(model):
        former |= _name(value, inputs.get(value.name), len(value.type.tensor_type.shape.dim))
        for i, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value") and not dim.dim_param:
                dim.dim_param = f"{value.name}_{i}"  # so that lengths can be given for it
    for value in model.graph.output:
        _name(value, outputs[value.name], ranks[value.name])
    for value in model.graph.value_info:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in former:
                dim.dim_param = BATCH


def fix_inner_axes(model: ModelProto, names: Collection[str]) -> None:
    """Make axes of these names 1 long where they are not the first, in place: a run takes one sample."""
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim[1:]:
            if dim.dim_param in names:
                dim.dim_value = 1


def lengths_of_weights(model: ModelProto) -> tuple[int, ...]:
    """How long the axes of its first weights are, each length once: some of them are those of what these multiply.

    A file may say of no axis how long it is, such as (time, features).
    """
    weights = [tensor.dims for tensor in model.graph.initializer if tensor.data_type != TensorProto.INT64]  # shapes
    return tuple(dict.fromkeys(dim for dims in weights for dim in dims if dim > 1))[:KNOWN_BY_WEIGHTS]


def mark_one_sample(model: ModelProto, ranks: Mapping[str, int]) -> None:
    """Say in a graph that a run takes one sample, in place. Its axes stay what they are, free ones get names.

    ``ranks`` are the numbers of axes of the outputs: a file need not state their shapes.
    """
    model.metadata_props.add(key=SAMPLES, value=ONE)
    for value in (*graph_inputs(model), *model.graph.output):
        shape = value.type.tensor_type.shape
        if len(shape.dim) != ranks.get(value.name, len(shape.dim)):
            del shape.dim[:]
            for _ in range(ranks[value.name]):
                shape.dim.add()
        for i, dim in enumerate(shape.dim):
            if not dim.HasField("dim_value") and not dim.dim_param:
                dim.dim_param = f"{value.name}_{i}"  # so that lengths can be given for it


def _name(value: ValueInfoProto, axis: int | None, rank: int) -> set[str]:
    """What the axis was called before, if it was."""
    shape, former = value.type.tensor_type.shape, set()
    if len(shape.dim) != rank:
        del shape.dim[:]
        for _ in range(rank):
            shape.dim.add()
    for i, dim in enumerate(shape.dim):
        if i == axis:
            former |= {dim.dim_param} - {""}
            dim.dim_param = BATCH
        elif dim.dim_param == BATCH or (axis is None and not dim.HasField("dim_value")):
            dim.dim_param = f"{value.name}_{i}"
    return former
