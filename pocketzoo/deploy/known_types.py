"""Types of tensors that ONNX's own inference does not know, such as what operators of a runtime's own domain make."""

from __future__ import annotations

from onnx import ModelProto, TensorProto, helper

from pocketzoo.zoo.backends.onnxruntime.session import open_session
from pocketzoo.zoo.graphs.index import GraphIndex

# As onnxruntime writes them.
TYPES = {
    "tensor(float)": TensorProto.FLOAT, "tensor(float16)": TensorProto.FLOAT16, "tensor(double)": TensorProto.DOUBLE,
    "tensor(bfloat16)": TensorProto.BFLOAT16, "tensor(bool)": TensorProto.BOOL, "tensor(int8)": TensorProto.INT8,
    "tensor(uint8)": TensorProto.UINT8, "tensor(int32)": TensorProto.INT32, "tensor(int64)": TensorProto.INT64,
}  # fmt: skip


def with_types(model: ModelProto) -> ModelProto:
    """The graph with the types that onnxruntime knows and ONNX does not; itself where there are none.

    Of graphs inside nodes nothing more is known.
    """
    index = GraphIndex(model)
    unknown = [name for node in model.graph.node for name in node.output if name and not index.types.get(name)]
    if not unknown:
        return model
    asked, typed = ModelProto(), ModelProto()
    asked.CopyFrom(model)
    typed.CopyFrom(model)
    given = {value.name for value in model.graph.output}
    asked.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in unknown if name not in given)
    try:
        known = {
            value.name: value.type for value in open_session(asked, optimization="none", arena=False).get_outputs()
        }
    except Exception:  # onnxruntime's own types
        return model
    typed.graph.value_info.extend(
        helper.make_tensor_value_info(name, TYPES[known[name]], None)
        for name in unknown
        if name not in given and known.get(name) in TYPES
    )
    return typed
