"""What files have around a graph: names, shapes that were inferred, inputs nobody reads, outputs that are inputs."""

from __future__ import annotations

import random

import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper


def dressed(model: ModelProto, chance: random.Random, *, alone: bool) -> ModelProto:
    """The model as another exporter may have left it; it computes the same.

    ``alone``: it has one input and one output, and keeps them.
    """
    graph, opset = model.graph, model.opset_import[0].version
    if chance.random() < 0.4:
        for number, node in enumerate(graph.node):
            # as torch names them, as an output that another node makes, or not at all
            node.name = chance.choice((f"/{node.op_type}_{number}", f"{graph.node[0].output[0]}#{number}", ""))
    if not alone and chance.random() < 0.15:
        info = helper.make_tensor_value_info(
            "nobody_reads", chance.choice((TensorProto.FLOAT, TensorProto.INT64)), ["n", 3]
        )
        graph.input.insert(chance.randint(0, len(graph.input)), info)
    if not alone and chance.random() < 0.06:
        own = chance.choice([value for value in graph.input if value.name not in _stored(model)])
        name = f"{own.name}_again"
        graph.node.append(helper.make_node("Identity", [own.name], [name]))
        made = graph.output.add()
        made.CopyFrom(own)
        made.name = name
    if model.ir_version >= 4 and chance.random() < 0.1:  # those that a caller may replace
        for tensor in graph.initializer:
            if chance.random() < 0.4:
                graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    if chance.random() < 0.3:
        for tensor in graph.initializer:
            if tensor.data_type == TensorProto.FLOAT and tensor.raw_data:  # in a field of its own, not as bytes
                values = numpy_helper.to_array(tensor)
                tensor.CopyFrom(
                    helper.make_tensor(tensor.name, TensorProto.FLOAT, tensor.dims, values.ravel().tolist())
                )
    if chance.random() < 0.2:
        model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    if chance.random() < 0.2:
        model.metadata_props.add(key="author", value="a b: ä")
        model.producer_name, graph.doc_string = "pytorch", "of a model"
        graph.name = chance.choice(("torch-jit-export", "main graph", "0"))
    if chance.random() < 0.3 and opset >= 9:
        model = onnx.shape_inference.infer_shapes(model)
    return model


def _stored(model: ModelProto) -> set[str]:
    return {tensor.name for tensor in model.graph.initializer}
