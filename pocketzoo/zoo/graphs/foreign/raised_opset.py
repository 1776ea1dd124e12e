"""A graph from elsewhere in a newer opset, with what onnx's converter leaves of the older one put right."""

from __future__ import annotations

from functools import partial

from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pocketzoo.zoo.graphs.contents import held_tensor
from pocketzoo.zoo.graphs.files.graph_files import changed
from pocketzoo.zoo.graphs.fresh_names import FreshNames, nodes
from pocketzoo.zoo.graphs.index import GraphIndex, opset_of
from pocketzoo.zoo.graphs.node import attribute

CENTERED = 11  # from here on Resize begins half a pixel inside, unless it is told


def raised(model: ModelProto, opset: int) -> ModelProto | None:
    """The graph in a newer opset; None where the converter has no way to it. ``model`` computes the same afterwards."""
    from onnx import version_converter

    for node in nodes(model.graph.node):
        if node.op_type == "Pad" and attribute(node, "mode", b"constant") != b"constant":
            _drop(node, "value")  # it means nothing there, and the converter leaves it
    corners = opset_of(model) < CENTERED <= opset
    try:
        made = changed(model, partial(version_converter.convert_version, target_version=opset))
    except Exception:  # its C++ side raises RuntimeError and types of its own
        return None
    for node in nodes(made.graph.node):
        if node.op_type == "Resize" and corners and attribute(node, "coordinate_transformation_mode", b"") == b"":
            node.attribute.append(helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
            if attribute(node, "mode", b"nearest") == b"nearest":
                node.attribute.append(helper.make_attribute("nearest_mode", "floor"))
    _retype_limits(made)
    return made


def _drop(node: NodeProto, name: str) -> None:
    kept = [each for each in node.attribute if each.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)


def _retype_limits(model: ModelProto) -> None:
    """Give the limits of each Clip the type of what it clips, in place: the converter writes them in float32."""
    index, fresh = GraphIndex(model), FreshNames.of(model)
    held = {node.output[0]: tensor for node in index.nodes if (tensor := held_tensor(node)) is not None}
    limits = held | dict(index.constants)
    for node in model.graph.node:
        kind = index.types.get(node.input[0]) if node.op_type == "Clip" and not node.domain else None
        if kind not in (TensorProto.FLOAT16, TensorProto.DOUBLE):
            continue
        for place, name in enumerate(node.input):
            if place and name in limits and limits[name].data_type == TensorProto.FLOAT:
                limit = numpy_helper.to_array(limits[name]).astype(helper.tensor_dtype_to_np_dtype(kind))
                node.input[place] = fresh(name)
                model.graph.initializer.append(numpy_helper.from_array(limit, node.input[place]))
