"""What an ONNX file must be to be loaded."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.core.errors import ExportError
from pocketzoo.zoo.graphs.load_graph import load_graph


def test_what_is_no_graph_is_refused(tmp_path, refused):
    info = helper.make_tensor_value_info
    x, y = info("x", TensorProto.FLOAT, ["batch", 6]), info("y", TensorProto.FLOAT, None)
    weight = numpy_helper.from_array(np.zeros((6, 400), np.float32), "w")
    made = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "whole.onnx")
    assert load_graph(tmp_path / "whole.onnx") == model
    onnx.save(model, tmp_path / "split.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "text.onnx").write_text("no graph")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name, message, hint in [
        ("none.onnx", "there is no file", "check the path"),
        ("text.onnx", "is not an ONNX graph", "an exporter wrote"),
        ("empty.onnx", "is not an ONNX graph, or an empty one", "an exporter wrote"),
        ("split.onnx", "keeps weights in other files, w for one", "one file"),
    ]:
        with refused(ExportError, name, message, hint=hint):
            load_graph(tmp_path / name)
